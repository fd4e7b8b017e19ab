"""Near-duplicates, compared with a search over all pairs, and on real photographs with variations."""

import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from custom_aesthetic.scores import duplicates
from custom_aesthetic.scores.duplicates import describe_groups, group_duplicates


def pictures(n_different: int, n_copies: int, noise: float, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Return paths and features (n_different + n_copies, 100): different ones, then noisy copies of the first ones."""
    generator = np.random.default_rng(seed)
    different = generator.normal(size=(n_different, 100)) * np.logspace(-2, 2, 100) + 5
    copies = different[:n_copies] + noise * generator.normal(size=(n_copies, 100)) * np.logspace(-2, 2, 100)
    paths = [f"{number:04}.png" for number in range(n_different)] + [f"{number:04} b.png" for number in range(n_copies)]
    return paths, np.concatenate([different, copies])


def slow_groups(paths: list[str], features: np.ndarray, threshold: float) -> set[frozenset[str]]:
    """Return the groups of two or more, found by comparing every pair and merging groups until nothing changes."""
    standardised = (features - features.mean(0)) / features.std(0)
    likeness = np.corrcoef(standardised) * 0 + standardised @ standardised.T
    lengths = np.linalg.norm(standardised, axis=1)
    likeness = likeness / lengths / lengths[:, None]
    groups = [{path} for path in paths]
    for i in range(len(paths)):
        for j in range(i):
            first = next(group for group in groups if paths[i] in group)
            second = next(group for group in groups if paths[j] in group)
            if likeness[i, j] >= threshold and first is not second:
                groups.remove(second)
                first |= second
    return {frozenset(group) for group in groups if len(group) > 1}


def as_sets(groups: dict[str, str]) -> set[frozenset[str]]:
    return {frozenset(path for path in groups if groups[path] == name) for name in set(groups.values())}


@pytest.mark.parametrize(("noise", "threshold"), [(0.2, 0.85), (0.6, 0.85), (1.0, 0.3), (1.0, 0.2)])
def test_groups_equal_those_of_a_search_over_all_pairs(
    noise: float, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", 16)
    monkeypatch.setattr(duplicates, "N_AXES", 10)
    paths, features = pictures(70, 25, noise)
    found = group_duplicates(paths, features, threshold=threshold)
    expected = slow_groups(paths, features, threshold)
    assert as_sets(found) == expected
    assert expected
    assert all(leader == min(path for path in found if found[path] == leader) for leader in found.values())


def test_the_order_of_the_images_does_not_matter() -> None:
    paths, features = pictures(60, 20, 0.2)
    order = list(range(80))
    random.Random(0).shuffle(order)
    shuffled = group_duplicates([paths[row] for row in order], features[order])
    assert shuffled == group_duplicates(paths, features)
    assert describe_groups(shuffled) == "40 images are near-duplicates of others, in 20 groups"


def test_different_images_are_not_grouped() -> None:
    assert group_duplicates(*pictures(200, 0, 0)) == {}


def test_many_images_are_only_compared_with_their_neighbours_in_path_order(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(duplicates, "ALL_PAIRS_UP_TO", 100)
    monkeypatch.setattr(duplicates, "NEIGHBOURS", 3)
    monkeypatch.setattr(duplicates, "BLOCK", 16)
    paths, features = pictures(300, 5, 0.2)
    paths[301], paths[302] = "zz far away.png", "zz identical.png"
    features[302] = features[2]
    with caplog.at_level(logging.WARNING):
        found = group_duplicates(paths, features)
    assert {"0000.png", "0000 b.png", "0002.png", "zz identical.png", "0004 b.png"} <= set(found)
    assert "zz far away.png" not in found
    assert "path order" in caplog.text


def test_of_images_that_are_all_alike_few_pairs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among the frames of a film all pairs are alike: keeping or comparing them all would fill the memory."""
    monkeypatch.setattr(duplicates, "BLOCK", 16)
    compared: list[int] = []
    likeness_of = duplicates._Likeness.of
    monkeypatch.setattr(
        duplicates._Likeness, "of", lambda self, pairs: compared.append(len(pairs)) or likeness_of(self, pairs)
    )
    generator = np.random.default_rng(0)
    scenes = np.repeat(generator.normal(size=(4, 50)), 60, axis=0)
    paths = [f"{number:03}.png" for number in range(240)]
    found = group_duplicates(paths, scenes + 0.05 * generator.normal(size=scenes.shape))
    assert found == {path: paths[number - number % 60] for number, path in enumerate(paths)}
    assert 236 <= sum(compared) < 1000  # of 7,080 pairs that are alike


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_the_connected_components_of_their_pairs(seed: int) -> None:
    generator = np.random.default_rng(seed)
    pairs = generator.integers(0, 40, (generator.integers(1, 60), 2))
    groups = duplicates._Groups(np.arange(40))
    for part in np.array_split(pairs, 3):
        groups.join(part)
        groups.lowest(generator.integers(0, 40, 10))
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(40, 40))
    labels = connected_components(graph, directed=False)[1]
    assert groups.lowest(np.arange(40)).tolist() == [int(np.flatnonzero(labels == label)[0]) for label in labels]


def test_few_images_are_only_grouped_if_identical() -> None:
    features = np.array([[1.0, 2], [1, 2], [1, 2.01], [5, 6]])
    assert group_duplicates(["a", "b", "c", "d"], features) == {"a": "a", "b": "a"}
    assert group_duplicates([], np.zeros((0, 2))) == {}


def test_identical_images_are_one_group() -> None:
    paths = [f"{number:02}" for number in range(20)]
    assert group_duplicates(paths, np.ones((20, 5))) == dict.fromkeys(paths, "00")


def test_variations_of_photographs_are_grouped_and_similar_subjects_are_not(data_folder: Path, tmp_path: Path) -> None:
    """The originals include the most similar pairs of the collection: close-ups of grass and rocks, and two tigers."""
    from custom_aesthetic.extractors import build_extractors
    from custom_aesthetic.features.table import load_features

    alike = [
        "scenery/grass_3",
        "scenery/grass_5",
        "object/rocks_1",
        "object/rocks_5",
        "animal/tiger_1",
        "animal/tiger_2",
    ]
    others = sorted(str(file.relative_to(data_folder / "photos")) for file in (data_folder / "photos").rglob("*.jpg"))
    names = list(dict.fromkeys([f"{name}.jpg" for name in alike] + others[::12]))
    for number, name in enumerate(names):
        picture = Image.open(data_folder / "photos" / name).convert("RGB")
        width, height = picture.size
        variation = [
            picture.crop((width // 30, height // 30, width, height)),
            ImageEnhance.Brightness(picture).enhance(1.2),
            picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        ][number % 3]
        picture.save(tmp_path / f"{number:02}.jpg", quality=92)
        if number < 9:
            variation.save(tmp_path / f"{number:02} b.jpg", quality=92)
    paths = sorted(file.name for file in tmp_path.glob("*.jpg"))
    extractors = build_extractors("efficientnet-lite0", torch.device("cpu"))
    table = load_features(tmp_path, paths, extractors, hidden_states=[(0,)])
    found = group_duplicates(table.paths, table.values.float().numpy())
    assert found == {f"{number:02}{end}.jpg": f"{number:02} b.jpg" for number in range(9) for end in ("", " b")}
