"""The summary of what a model knows, and how far other pictures are from it."""

import numpy as np

from custom_aesthetic.heads.domain import distances, find_domain, from_text, to_text


def kind(seed: int, n_images: int = 200, n_features: int = 30) -> np.ndarray:
    """Features of one kind of picture: a few clusters, not negative, as after a ReLU."""
    generator = np.random.default_rng(seed)
    centres = generator.gamma(1.0, size=(5, n_features))
    return np.abs(centres[generator.integers(5, size=n_images)] + generator.normal(size=(n_images, n_features)) * 0.2)


def test_pictures_of_the_same_kind_are_known_and_of_another_flagged():
    known = kind(0, 400)
    domain = find_domain(known[:300])
    assert np.mean(distances(known[300:], domain) > 1) < 0.05
    assert np.mean(distances(kind(1), domain) > 1) > 0.95


def test_brightness_of_features_does_not_matter_but_their_direction_does():
    known = kind(0)
    domain = find_domain(known)
    np.testing.assert_allclose(distances(known * 3, domain), distances(known, domain), rtol=1e-3)


def test_it_survives_the_metadata_and_is_small():
    known = kind(0, n_features=1280)
    domain = find_domain(known)
    text = to_text(domain)
    assert len(text) < 60_000
    again = from_text(text, 1280)
    np.testing.assert_allclose(distances(known, again), distances(known, domain), atol=0.05)


def test_wide_features_get_fewer_centres():
    text = to_text(find_domain(kind(0, n_features=20_000)))
    assert len(text) < 200_000


def test_a_model_file_without_one_or_with_another_width_says_nothing():
    text = to_text(find_domain(kind(0)))
    for damaged in ("", "{}", "nonsense", "[]", text[:-20]):
        assert from_text(damaged, 30) is None
    assert from_text(text, 31) is None


def test_few_or_equal_pictures_do_no_harm():
    assert find_domain(kind(0, n_images=7)) is None
    same = np.ones((20, 4))
    assert (distances(same, find_domain(same)) <= 1).all()


def test_the_same_features_give_the_same_summary_and_the_global_generator_is_left_alone():
    state = np.random.get_state()[1].copy()
    assert to_text(find_domain(kind(0))) == to_text(find_domain(kind(0)))
    assert (np.random.get_state()[1] == state).all()
