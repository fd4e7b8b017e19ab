"""Batches side by side: the same features, one thread each, and the number of threads of the program as it was."""

import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from custom_aesthetic.engines.lanes import side_by_side, single_threads, usual_threads
from custom_aesthetic.features.extraction import few_features
from tests.mean_colour import MeanColour


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class Recording(MeanColour):
    """Keeps the number of torch threads of each call."""

    features_thread_safe = True

    def __init__(self) -> None:
        super().__init__()
        self.n_threads: list[int] = []

    def features(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        self.n_threads.append(torch.get_num_threads())
        return super().features(pixels, hidden_states)


@pytest.mark.parametrize("n_pictures", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("views", [("centre",), ("centre", "mirror")])
def test_a_few_pictures_are_shared_among_the_cores(n_pictures: int, views: tuple[str, ...]) -> None:
    pixels = torch.rand(n_pictures, len(views), 3, 4, 4)
    pictures = [dict(zip(views, picture, strict=True)) for picture in pixels]
    extractor, alone = Recording(), MeanColour()
    found, expected = (few_features(one, pictures, (2, 0)) for one in (extractor, alone))
    assert set(found) == {(view, k) for view in views for k in (2, 0)}
    for name, values in expected.items():
        torch.testing.assert_close(torch.from_numpy(found[name]), torch.from_numpy(values))
    assert max(n_together for _, n_together in extractor.calls) <= math.ceil(n_pictures * len(views) / 3)
    assert len(alone.calls) == len(views)
    assert set(extractor.n_threads) == ({3} if len(extractor.calls) == 1 else {1})
    assert torch.get_num_threads() == 3


def test_the_number_of_threads_is_as_before_after_an_error_and_after_blocks_that_overlap() -> None:
    def fail(batch: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        side_by_side(fail, [1, 2])
    assert torch.get_num_threads() == 3
    both = threading.Barrier(2, timeout=20)

    def overlap(first: bool) -> tuple[int, int, int]:
        before = torch.get_num_threads()
        if not first:
            both.wait()
        with single_threads() as outside:
            if first:
                both.wait()
            both.wait()
        return before, outside, torch.get_num_threads()

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(overlap, [True, False]))
    assert [(outside, after) for _, outside, after in found] == [(3, 3)] * 2
    assert torch.get_num_threads() == 3


def test_a_thread_that_began_while_another_computed_uses_all_cores_afterwards() -> None:
    """Torch gives it the single thread of that moment for good, and it would then restore that for all."""
    extractor, pictures = Recording(), [{"centre": pixels} for pixels in torch.rand(6, 3, 4, 4)]
    with ThreadPoolExecutor(1) as later:
        with single_threads():
            assert later.submit(lambda: float(torch.rand(3).sum()) and torch.get_num_threads()).result() == 1
            assert later.submit(usual_threads).result() == 3
        assert later.submit(usual_threads).result() == 3
        later.submit(few_features, extractor, pictures, (2,)).result()
    assert len(extractor.calls) == 3
    with ThreadPoolExecutor(1) as new:
        assert new.submit(torch.get_num_threads).result() == torch.get_num_threads() == 3


def test_nothing_to_do_is_done() -> None:
    assert side_by_side(str, []) == []
