"""Views of a picture, averaged."""

import pytest
import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.features.table import FeatureBlock, FeatureTable
from custom_aesthetic.features.views import average_views, check_views


def test_the_views_of_each_hidden_state_are_averaged() -> None:
    blocks = [
        FeatureBlock("a", 0, "centre", 0, 2),
        FeatureBlock("a", 3, "centre", 2, 3),
        FeatureBlock("a", 0, "whole", 3, 5),
        FeatureBlock("a", 3, "whole", 5, 6),
        FeatureBlock("b", 0, "centre", 6, 7),
        FeatureBlock("b", 0, "whole", 7, 8),
    ]
    values = torch.tensor([[1.0, 2, 10, 3, 6, 30, 5, 7]])
    found = average_views(FeatureTable(("x.png",), values, tuple(blocks), {"bad.png": "empty"}))
    assert found.values.tolist() == [[2, 4, 20, 6]]
    assert found.blocks == (
        FeatureBlock("a", 0, "centre+whole", 0, 2),
        FeatureBlock("a", 3, "centre+whole", 2, 3),
        FeatureBlock("b", 0, "centre+whole", 3, 4),
    )
    assert (found.paths, found.failures) == (("x.png",), {"bad.png": "empty"})


def test_a_single_view_is_not_changed() -> None:
    table = FeatureTable(("x",), torch.ones(1, 2).half(), (FeatureBlock("a", 0, "whole", 0, 2),), {})
    assert average_views(table) is table


def test_half_precision_is_kept() -> None:
    blocks = (FeatureBlock("a", 0, "centre", 0, 1), FeatureBlock("a", 0, "mirror", 1, 2))
    assert average_views(FeatureTable(("x",), torch.ones(1, 2).half(), blocks, {})).values.dtype == torch.float16


@pytest.mark.parametrize(("views", "words"), [(["middle"], "middle is not a view"), (["whole", "whole"], "twice")])
def test_an_unknown_or_repeated_view_is_an_error(views: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_views(views)
