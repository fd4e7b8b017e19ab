"""The domain of a model: a summary of its training features, and the distance of other pictures from it."""

import json

import numpy as np
import pytest

from custom_aesthetic.heads.domain import distances, find_domain, from_text, to_text


def kind(seed: int, n_images: int = 200, n_features: int = 30) -> np.ndarray:
    """Return features of one kind of picture: a few clusters, not negative, as after a ReLU."""
    generator = np.random.default_rng(seed)
    centres = generator.gamma(1.0, size=(5, n_features))
    return np.abs(centres[generator.integers(5, size=n_images)] + generator.normal(size=(n_images, n_features)) * 0.2)


def test_pictures_of_the_same_kind_are_inside_the_domain_and_others_outside():
    known = kind(0, 400)
    domain = find_domain(known[:300])
    assert np.mean(distances(known[300:], domain) > 1) < 0.05
    assert np.mean(distances(kind(1), domain) > 1) > 0.95


def spherical_k_means(unit: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the centres after twenty rounds of the plain algorithm, started from random pictures."""
    centres = unit[generator.choice(len(unit), 24, replace=False)]
    for _ in range(20):
        nearest = (unit @ centres.T).argmax(axis=1)
        sums = [unit[nearest == index].sum(axis=0) for index in range(24)]
        centres = np.stack([total / max(np.linalg.norm(total), 1e-12) for total in sums])
    return centres


@pytest.mark.parametrize("seed", range(5))
def test_the_centres_are_as_close_to_unseen_pictures_as_those_of_spherical_k_means(seed: int) -> None:
    pictures = kind(seed, 600)
    unit = (pictures / np.linalg.norm(pictures, axis=1, keepdims=True)).astype(np.float32)
    domain = find_domain(pictures[:400])
    assert domain is not None
    np.testing.assert_allclose(np.linalg.norm(domain.centres, axis=1), 1, rtol=1e-5)
    plain = spherical_k_means(unit[:400], np.random.default_rng(seed))
    found, expected = (np.mean(1 - (unit[400:] @ centres.T).max(axis=1)) for centres in (domain.centres, plain))
    assert found < 1.03 * expected


def test_only_the_direction_of_the_features_matters_not_their_length():
    known = kind(0)
    domain = find_domain(known)
    np.testing.assert_allclose(distances(known * 3, domain), distances(known, domain), rtol=1e-3, atol=1e-4)


def test_the_text_is_short_and_restores_the_domain():
    known = kind(0, n_features=1280)
    domain = find_domain(known)
    text = to_text(domain)
    assert len(text) < 60_000
    again = from_text(text, 1280)
    np.testing.assert_allclose(distances(known, again), distances(known, domain), atol=0.05)


def test_wide_features_get_fewer_centres():
    text = to_text(find_domain(kind(0, n_features=20_000)))
    assert len(text) < 200_000


def test_a_damaged_text_or_one_for_another_number_of_features_gives_no_domain():
    text = to_text(find_domain(kind(0)))
    for damaged in ("", "{}", "nonsense", "[]", text[:-20]):
        assert from_text(damaged, 30) is None
    assert from_text(text, 31) is None


@pytest.mark.parametrize(
    ("name", "value"), [("threshold", 9e131), ("threshold", "nan"), ("scale", 1e200), ("scale", 0)]
)
def test_impossible_numbers_are_refused(name: str, value: object) -> None:
    known = json.loads(to_text(find_domain(kind(0))))
    assert from_text(json.dumps(known), 30) is not None
    assert from_text(json.dumps(known | {name: value}), 30) is None


def test_few_or_equal_pictures_are_handled():
    assert find_domain(kind(0, n_images=7)) is None
    for same in (np.ones((20, 4)), np.zeros((20, 4))):
        again = from_text(to_text(find_domain(same)), 4)
        assert again is not None
        assert np.isfinite(distances(same, again)).all()
    assert (distances(np.ones((20, 4)), find_domain(np.ones((20, 4)))) <= 1).all()


def test_the_domain_is_reproducible_and_leaves_the_global_generator_alone():
    state = np.random.get_state()[1].copy()
    assert to_text(find_domain(kind(0))) == to_text(find_domain(kind(0)))
    assert (np.random.get_state()[1] == state).all()
