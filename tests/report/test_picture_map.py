"""The map of pictures: neighbours look alike, and the same features give the same places."""

import numpy as np
import pytest

from custom_aesthetic.report.picture_map import MOST_PICTURES, place_pictures


def test_pictures_that_look_alike_are_neighbours() -> None:
    generator = np.random.default_rng(0)
    kinds = np.arange(60) % 3
    features = (10 * np.eye(3)[kinds] @ generator.normal(size=(3, 20)) + generator.normal(size=(60, 20))).astype("f4")
    places = place_pictures(features)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (kinds[distances.argmin(axis=1)] == kinds).all()


@pytest.mark.parametrize(("n_images", "n_features"), [(1, 3), (2, 3), (4, 1), (5, 3), (7, 100)])
def test_few_pictures_have_places_which_are_the_same_each_time(n_images: int, n_features: int) -> None:
    features = np.random.default_rng(1).normal(size=(n_images, n_features)).astype(np.float32)
    places = place_pictures(features)
    assert places.shape == (n_images, 2) and np.isfinite(places).all()
    np.testing.assert_array_equal(place_pictures(features), places)


def test_equal_pictures_and_features_that_are_not_finite_have_places() -> None:
    assert np.isfinite(place_pictures(np.ones((6, 3), np.float32))).all()
    assert np.isfinite(place_pictures(np.array([[np.nan, 1], [2, np.inf], [3, 4], [1, 2], [5, 1]], np.float32))).all()


def test_many_pictures_have_their_principal_components_as_places() -> None:
    features = np.random.default_rng(0).normal(size=(MOST_PICTURES + 1, 3)).astype(np.float32) * [1, 9, 4]
    places = place_pictures(features)
    assert abs(np.corrcoef(places[:, 0], features[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(places[:, 1], features[:, 2])[0, 1]) > 0.99
