"""Rotation of features to the principal axes of the training images."""

import pytest
import torch

from custom_aesthetic.heads import training_data as module
from custom_aesthetic.heads.training_data import principal_axes, project


def spread(n_images: int, n_columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(n_images, n_columns, generator=generator) @ torch.randn(
        n_columns, n_columns, generator=generator
    )
    return values - values.mean(0)


@pytest.mark.parametrize(("n_images", "n_columns"), [(50, 8), (8, 50)])
def test_features_along_the_axes_are_uncorrelated_widest_first_and_of_mean_square_one(
    n_images: int, n_columns: int
) -> None:
    features = spread(n_images, n_columns)
    axes = principal_axes(features, torch.arange(n_images))
    assert axes is not None
    along = project(features, axes)
    products = along.T @ along
    variances = products.diag()
    torch.testing.assert_close(products, variances.diag(), atol=1e-2, rtol=1e-3)
    assert variances.tolist() == sorted(variances.tolist(), reverse=True)
    assert float(along.square().mean()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("n_images", "n_columns"), [(50, 8), (8, 50)])
def test_distances_between_images_keep_their_ratios(n_images: int, n_columns: int) -> None:
    features = spread(n_images, n_columns)
    axes = principal_axes(features, torch.arange(n_images))
    assert axes is not None
    torch.testing.assert_close(
        torch.cdist(project(features, axes), project(features, axes))[0, 1:] / torch.cdist(features, features)[0, 1:],
        torch.full((n_images - 1,), float(axes.norm(dim=0)[0])),
        atol=1e-3,
        rtol=1e-3,
    )


def test_the_axes_depend_only_on_the_given_rows() -> None:
    features = spread(40, 6)
    rows = torch.arange(20)
    other = features.clone()
    other[20:] *= -7
    first, second = principal_axes(features, rows), principal_axes(other, rows)
    assert first is not None
    assert second is not None
    assert torch.equal(first, second)


def test_constant_or_too_many_features_have_no_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert principal_axes(torch.zeros(5, 3), torch.arange(5)) is None
    monkeypatch.setattr(module, "MOST_AXES", 4)
    assert principal_axes(spread(9, 5), torch.arange(9)) is None
    assert principal_axes(spread(9, 4), torch.arange(9)) is not None
