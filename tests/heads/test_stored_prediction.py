"""Scores of many pictures from the feature cache: read a few at a time, and equal to those with all in memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import custom_aesthetic.features.picture_groups as grouping
import custom_aesthetic.features.table as tables
from custom_aesthetic import Scorer, UserError
from custom_aesthetic.base.machine import choose_device
from custom_aesthetic.features.npy_parts import NpzPart
from custom_aesthetic.features.picture_keys import Pictures
from custom_aesthetic.features.precomputed import PrecomputedTable
from custom_aesthetic.features.table import FeatureTable, StoredFeatures
from custom_aesthetic.heads.domain import find_domain, to_text
from custom_aesthetic.heads.model_file import save_model
from custom_aesthetic.heads.prediction import PictureScores, predict_stored, score_pictures
from custom_aesthetic.heads.predictor import Predictor
from tests.mean_colour import MeanColour, make_pictures

N_PICTURES = 70
KNOWN = {
    "feature_extractor_model": "mean-colour",
    "hidden_states_used": "0,2,3",
    "hidden_states_mode": "join",
    "views": "centre,mirror",
}


class Counted(MeanColour):
    n_in_all = 0

    def features(self, pixels, hidden_states):  # type: ignore[no-untyped-def]
        Counted.n_in_all += len(pixels)
        return super().features(pixels, hidden_states)


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features are read seven pictures at a time: 2 views of 3 states of 3 numbers of 4 bytes each."""
    monkeypatch.setattr(tables, "BLOCK_BYTES", 7 * 72)
    monkeypatch.setattr("custom_aesthetic.heads.prediction.build_extractors", lambda *_: [Counted()])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "pictures", N_PICTURES)
    (tmp_path / "pictures" / "folder_1" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "pictures"


@pytest.fixture
def scorer(tmp_path: Path) -> Scorer:
    domain = find_domain(np.random.default_rng(0).normal(100, 50, (40, 9)).astype(np.float32))
    assert domain is not None
    predictor = Predictor(9, (6, 4), 2, generator=torch.Generator().manual_seed(1))
    save_model(tmp_path / "m.safetensors", predictor, {**KNOWN, "domain": to_text(domain)})
    return Scorer.load(tmp_path / "m.safetensors", device="cpu")


def paths_of(folder: Path) -> list[str]:
    """All paths, in an order that is not that of the cache."""
    paths = sorted(str(file.relative_to(folder).as_posix()) for file in folder.rglob("*.png"))
    return [paths[row] for row in np.random.default_rng(2).permutation(len(paths))]


def all_at_once(scorer: Scorer, folder: Path, paths: list[str]) -> PictureScores:
    return score_pictures(scorer.model, folder, paths, device=choose_device("cpu"))


def test_scores_sigmas_and_distances_equal_those_with_all_features_in_memory(scorer: Scorer, folder: Path) -> None:
    paths = paths_of(folder)
    expected = all_at_once(scorer, folder, sorted(paths))
    row_of = {path: row for row, path in enumerate(expected.paths)}

    found_paths, found = predict_stored(scorer.model, scorer.open_features(folder, paths))

    assert found_paths == tuple(path for path in paths if "broken" not in path)
    rows = [row_of[path] for path in found_paths]
    for name in ("scores", "sigmas", "domain_distances"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name)[rows], rtol=1e-6, atol=1e-6)
    assert np.ptp(found.scores) > 1


def test_no_more_features_than_a_block_are_read_at_once(
    scorer: Scorer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    read = StoredFeatures.read

    def noted(self: StoredFeatures, rows: np.ndarray) -> FeatureTable:
        sizes.append(len(rows))
        return read(self, rows)

    monkeypatch.setattr(StoredFeatures, "read", noted)
    predict_stored(scorer.model, scorer.open_features(folder, paths_of(folder)))
    assert sizes == [7] * 10


def between_blocks(stored: StoredFeatures, monkeypatch: pytest.MonkeyPatch, do: object) -> None:
    """Call `do` after the third block has been read."""
    whole = StoredFeatures.tables

    def disturbed(self: StoredFeatures, most_rows: int = 8192) -> Iterator[FeatureTable]:
        for number, table in enumerate(whole(self, most_rows)):
            yield table
            if number == 2:
                do()  # type: ignore[operator]

    monkeypatch.setattr(StoredFeatures, "tables", disturbed)


def test_a_cache_that_another_process_compacts_meanwhile_is_read_on(
    scorer: Scorer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = paths_of(folder)
    expected = all_at_once(scorer, folder, paths)
    stored = scorer.open_features(folder, paths)
    Counted.n_in_all = 0
    other = scorer.open_features(folder, paths)

    def compact() -> None:
        monkeypatch.setattr("custom_aesthetic.features.cache.SMALL_SHARDS_TO_COMPACT", 1)
        for feature_set in other._jobs[0].sets.values():
            feature_set.compact(Pictures(folder, paths))

    between_blocks(stored, monkeypatch, compact)
    found_paths, found = predict_stored(scorer.model, stored)
    assert found_paths == expected.paths and Counted.n_in_all == 0
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)


def test_a_cache_that_is_deleted_meanwhile_is_computed_again_and_a_lost_picture_left_out(
    scorer: Scorer, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paths = paths_of(folder)
    expected = all_at_once(scorer, folder, paths)
    stored = scorer.open_features(folder, paths)
    lost = [path for path in paths if "broken" not in path][-1]

    def delete() -> None:
        for shard in (folder / ".aesthetic_features").rglob("*.safetensors"):
            shard.unlink()
        (folder / lost).unlink()

    between_blocks(stored, monkeypatch, delete)
    found_paths, found = predict_stored(scorer.model, stored)
    assert found_paths == tuple(path for path in expected.paths if path != lost)
    np.testing.assert_allclose(found.scores, expected.scores[:-1], rtol=1e-6)
    assert lost in stored.failures


def test_groups_are_the_same_whether_features_are_in_memory_or_read_as_needed(
    scorer: Scorer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [path for path in paths_of(folder) if "broken" not in path]
    stored = scorer.open_features(folder, paths)

    def groups() -> list[str]:
        with grouping.rows_of(stored, paths) as features:
            return grouping.picture_groups(folder, paths, features)

    in_memory = groups()
    monkeypatch.setattr(grouping, "BYTES_IN_MEMORY", 0)
    assert groups() == in_memory
    assert 1 < len(set(in_memory)) < len(paths)


def a_table(folder: Path) -> PrecomputedTable:
    features = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    features[20:30] = features[:10] * 1.001
    names = [f"{row:02}.jpg" for row in np.random.default_rng(1).permutation(40)]
    np.savez(folder / "t.npz", paths=names, features=features)
    return PrecomputedTable(folder / "t.npz", "features:t", tuple(names), (NpzPart(folder / "t.npz"),))


def test_groups_of_a_large_table_are_found_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = a_table(tmp_path)
    found = []
    for n_bytes in (2**20, 0):
        monkeypatch.setattr(grouping, "BYTES_IN_MEMORY", n_bytes)
        with grouping.rows_of(table, table.paths) as features:
            found.append(grouping.picture_groups(tmp_path, table.paths, features))
    assert found[0] == found[1] and len(set(found[0])) <= 30


def test_no_room_for_the_features_of_a_table_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = a_table(tmp_path)
    monkeypatch.setattr(grouping, "BYTES_IN_MEMORY", 0)

    def full(array: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "ascontiguousarray", full)
    words = r"features of 40 pictures could not be written to .*No space left on device"
    with pytest.raises(UserError, match=words), grouping.rows_of(table, table.paths):
        pass
