"""One part of an item: the same scores as without parts, a row for every picture, written once and whole."""

from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from custom_aesthetic import Scorer
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.cluster import places, samples
from custom_aesthetic.cluster.items import Item
from custom_aesthetic.cluster.listing import list_items
from custom_aesthetic.cluster.parts import PartScorer, read_outcome
from custom_aesthetic.cluster.places import open_place
from custom_aesthetic.cluster.samples import samples_of, split_key
from custom_aesthetic.heads.model_file import Model
from tests.cluster.red import (
    files_of,
    make_parts,
    png,
    red_model,
    red_scorer,
    rows_of,
    tar_of,
    write_files,
    write_table,
)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return red_model(tmp_path / "red.safetensors")


def test_a_folder_has_the_scores_of_the_scorer_and_rows_for_broken_pictures(model: Model, tmp_path: Path) -> None:
    files = files_of(100, broken=(17,))
    write_files(tmp_path / "pictures", files)
    outcomes = make_parts(model, tmp_path / "pictures", tmp_path / "parts")
    assert sum(outcome.n_pictures for outcome in outcomes) == 100
    assert sum(outcome.n_errors for outcome in outcomes) == 1
    rows = rows_of(tmp_path / "parts")
    assert set(rows) == set(files)
    broken = rows.pop("2/0017.png")
    assert broken == {"score": None, "sigma": None, "domain_distance": None, "error": "not an image in a known format"}
    expected = red_scorer(model).rate([files[name] for name in rows])
    assert all(row["error"] is None for row in rows.values())
    for column, values in zip(("score", "sigma", "domain_distance"), expected, strict=True):
        np.testing.assert_allclose([row[column] for row in rows.values()], values, atol=1e-6)


def test_tar_files_and_tables_have_the_scores_of_their_files(model: Model, tmp_path: Path) -> None:
    files = files_of(30, broken=(4,))
    write_files(tmp_path, {"tars/0.tar": tar_of(files)})
    write_table(tmp_path / "tables" / "0.parquet", files)
    write_files(tmp_path / "pictures", files)
    for where in ("tars/*.tar", "tables", "pictures"):
        make_parts(model, tmp_path / where, tmp_path / f"parts-{where[:4]}")
    scores = {path: row["score"] for path, row in rows_of(tmp_path / "parts-pict").items()}
    of_tar, of_table = rows_of(tmp_path / "parts-tars", "key"), rows_of(tmp_path / "parts-tabl", "key")
    assert {path: of_table[path]["score"] for path in of_table} == scores
    assert {path: of_tar[path.replace("/", "_")[:-4]]["score"] for path in files} == scores
    assert of_tar["1_0004"]["error"] == of_table["1/0004.png"]["error"] == "not an image in a known format"


def test_a_table_may_have_pictures_as_hugging_face_writes_them_and_rows_without(model: Model, tmp_path: Path) -> None:
    images = [{"bytes": png(10), "path": "a.png"}, {"bytes": None, "path": "b.png"}, None]
    pq.write_table(pa.table({"relative_path": ["a", "b", "c"], "image": images}), tmp_path / "t.parquet")
    make_parts(model, tmp_path / "t.parquet", tmp_path / "parts")
    rows = rows_of(tmp_path / "parts")
    assert rows["a"]["error"] is None
    assert rows["b"]["error"] == rows["c"]["error"] == "it has no bytes"


def test_a_store_of_objects_is_read_and_written(model: Model, tmp_path: Path) -> None:
    files = files_of(30)
    store = fsspec.filesystem("memory")
    for path, content in files.items():
        store.pipe_file(f"/objects/in/{path}", content)
    outcomes = make_parts(model, "memory://objects/in", "memory://objects/out")
    assert store.find("/objects/out") == sorted(f"/objects/out/{outcome.part}" for outcome in outcomes)
    store.get("/objects/out", str(tmp_path / "parts"), recursive=True)
    write_files(tmp_path / "pictures", files)
    make_parts(model, tmp_path / "pictures", tmp_path / "expected")
    assert rows_of(tmp_path / "parts") == rows_of(tmp_path / "expected")


def test_what_is_whole_is_not_made_again(model: Model, tmp_path: Path) -> None:
    write_files(tmp_path / "pictures", files_of(60, broken=(3,)))
    first = make_parts(model, tmp_path / "pictures", tmp_path / "parts")
    assert all(outcome.is_new for outcome in first)
    made = sorted((tmp_path / "parts").iterdir())
    made[0].write_bytes(made[0].read_bytes()[:-9])  # cut short, as by a disk that was full
    second = make_parts(model, tmp_path / "pictures", tmp_path / "parts")
    assert [outcome.part for outcome in second if outcome.is_new] == [made[0].name]
    assert [outcome._replace(is_new=True) for outcome in second] == first


def test_a_part_that_fails_leaves_nothing(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / "pictures", files_of(30))

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Scorer, "rate_features", fail)
    with pytest.raises(KeyboardInterrupt):
        make_parts(model, tmp_path / "pictures", tmp_path / "parts")
    assert not list((tmp_path / "parts").iterdir())


def test_features_are_those_that_the_model_takes(model: Model, tmp_path: Path) -> None:
    files = files_of(9, broken=(2,))
    write_files(tmp_path / "pictures", files)
    make_parts(model, tmp_path / "pictures", tmp_path / "parts", with_features=True)
    for path, row in rows_of(tmp_path / "parts").items():
        if path == "2/0002.png":
            assert row["features"] is None
        else:
            np.testing.assert_allclose(row["features"], red_scorer(model).features(files[path])[0])


def test_pictures_that_nobody_can_reach_stop_the_run_unless_they_are_few(model: Model, tmp_path: Path) -> None:
    maker = PartScorer(
        red_scorer(model),
        open_place(str(tmp_path / "gone")),
        open_place(str(tmp_path / "parts")),
        n_threads=1,
        batch_size=4,
        with_features=False,
    )
    few = maker.make(Item("pictures", ("a.png", "b.png"), "0"))
    assert (few.n_errors, few.mistake) == (2, None)
    many = maker.make(Item("pictures", tuple(f"{i}.png" for i in range(20)), "1"))
    assert many.mistake is not None and "none of the 20 pictures" in many.mistake
    assert read_outcome(open_place(str(tmp_path / "parts")), "part-1.parquet") is None


def test_a_damaged_tar_gives_its_good_pictures_and_says_so(model: Model, tmp_path: Path) -> None:
    whole = tar_of(files_of(20))
    write_files(tmp_path, {"cut.tar": whole[: len(whole) // 2 + 700], "no.tar": b"x" * 5000})
    make_parts(model, tmp_path / "cut.tar", tmp_path / "cut")
    rows = rows_of(tmp_path / "cut", "key")
    assert 8 <= sum(row["error"] is None for row in rows.values()) <= 14
    assert any("the tar file" in str(row["error"]) for row in rows.values())
    make_parts(model, tmp_path / "no.tar", tmp_path / "no")
    ((name, row),) = rows_of(tmp_path / "no", "key").items()
    assert name == "no.tar" and "the tar file cannot be read to its end" in str(row["error"])


def test_what_could_not_be_read_is_read_by_the_next_run(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, {"in/0.tar": tar_of(files_of(9))} | {f"pictures/{i}.png": png(i) for i in range(9)})
    write_table(tmp_path / "tables" / "0.parquet", files_of(9))

    def fail(*_: object, **__: object) -> None:
        raise OSError("the network is down")

    for where in ("in/*.tar", "pictures", "tables"):
        parts = tmp_path / f"parts-{where[:2]}"
        with monkeypatch.context() as broken:
            for name in ("read_all", "open_to_read"):
                broken.setattr(samples, name, fail)
            (first,) = make_parts(model, tmp_path / where, parts)
        assert first.n_errors == first.n_pictures > 0
        (second,) = make_parts(model, tmp_path / where, parts)
        assert (second.n_pictures, second.n_errors, second.is_new) == (9, 0, True)
        (third,) = make_parts(model, tmp_path / where, parts)
        assert third == second._replace(is_new=False)


def test_a_damaged_table_gives_its_good_rows_and_says_so(model: Model, tmp_path: Path) -> None:
    write_table(tmp_path / "in" / "t.parquet", files_of(20))
    content = bytearray((tmp_path / "in" / "t.parquet").read_bytes())
    place = pq.read_metadata(tmp_path / "in" / "t.parquet").row_group(1).column(1).data_page_offset
    content[place : place + 10] = b"x" * 10
    (tmp_path / "in" / "t.parquet").write_bytes(content)
    (outcome,) = make_parts(model, tmp_path / "in" / "t.parquet", tmp_path / "parts")
    assert outcome.mistake is None and outcome.n_errors == 1
    rows = rows_of(tmp_path / "parts", "key")
    assert "the table cannot be read to its end" in str(rows.pop("t.parquet")["error"])
    assert all(row["error"] is None for row in rows.values())


def test_keys_of_bytes_that_are_not_utf_8_are_written_as_names_of_files_are(model: Model, tmp_path: Path) -> None:
    table = pa.table({"key": [b"\xff1", "ä\n".encode(), None], "bytes": [png(i) for i in range(3)]})
    pq.write_table(table, tmp_path / "t.parquet")
    make_parts(model, tmp_path / "t.parquet", tmp_path / "parts")
    rows = rows_of(tmp_path / "parts", "key")
    assert list(rows) == ["\\udcff1", "ä\n", ""] and all(row["error"] is None for row in rows.values())


def test_an_extractor_that_cannot_be_opened_stops_the_run(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "pictures", files_of(3))

    def fail(_: Scorer) -> None:
        raise UserError("the feature extractor is not there; download it")

    monkeypatch.setattr(Scorer, "_opened", fail)
    (outcome,) = make_parts(model, tmp_path / "pictures", tmp_path / "parts")
    assert outcome.mistake == "the feature extractor is not there; download it"
    assert not list((tmp_path / "parts").iterdir())


def test_a_file_that_is_written_elsewhere_is_no_part_until_it_is_whole() -> None:
    seen: list[list[str]] = []

    class Slow(MemoryFileSystem):
        protocol = "slow"

        def mv(self, path1: str, path2: str, **options: object) -> None:
            seen.append([Path(name).name for name in self.find("/slow")])
            super().mv(path1, path2, **options)

    files = pafs.PyFileSystem(pafs.FSSpecHandler(Slow()))
    places.write_once(places.FilePlace("slow", files, "/slow/part-1.parquet"), lambda stream: None)
    assert seen and seen[0][0].startswith("_part-1.parquet.")
    assert [Path(name).name for name in Slow().find("/slow")] == ["part-1.parquet"]


def test_a_link_to_itself_and_a_file_that_goes_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a").touch()
    folder = open_place(str(tmp_path))
    assert [file.name for file in places.contents(folder)[1]] == ["a"]
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    assert places.file_info(folder.below("gone")) is None


@pytest.mark.parametrize(
    ("name", "key", "suffix"),
    [
        ("000.jpg", "000", "jpg"),
        ("a.b/000.seg.png", "a.b/000", "seg.png"),
        ("./a/x.JPG", "a/x", "jpg"),
        ("a/none", "a/none", ""),
    ],
)
def test_keys_are_those_of_webdataset(name: str, key: str, suffix: str) -> None:
    assert split_key(name) == (key, suffix)


def test_a_sample_with_two_pictures_is_one_row(model: Model, tmp_path: Path) -> None:
    write_files(tmp_path, {"a.tar": tar_of({"0.png": png(1), "0.gif": png(2), "0.seg.png": png(3), "1.png": png(4)})})
    make_parts(model, tmp_path / "a.tar", tmp_path / "parts")
    assert list(rows_of(tmp_path / "parts", "key")) == ["0", "1"]


def test_names_that_are_not_utf_8_are_written_as_the_scorer_writes_them(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    write_files(folder, {"b.png": png(3)})
    odd = folder / "a\udcff.png"
    try:
        odd.write_bytes(png(2))
    except (OSError, UnicodeError):
        pytest.skip("this system has no such names")
    make_parts(model, folder, tmp_path / "parts")
    rows = rows_of(tmp_path / "parts")
    assert set(rows) == {"a\\udcff.png", "b.png"}
    assert all(row["error"] is None for row in rows.values())


def test_few_pictures_are_in_memory_at_a_time(tmp_path: Path) -> None:
    """A thousand pictures are read as they are taken, not before."""
    write_files(tmp_path, {f"{i:04}.png": b"x" for i in range(1000)})
    root = open_place(str(tmp_path))
    (item,) = (item for item in list_items(str(tmp_path), 10_000) if item.kind == "pictures")
    read = samples_of(item, root)
    next(read)
    for i in range(50, 1000):
        (tmp_path / f"{i:04}.png").unlink()
    assert sum(sample.content is not None for sample in read) < 50


def test_a_read_from_afar_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PAUSES", (0.0, 0.0))
    tried: list[int] = []

    def read() -> int:
        tried.append(1)
        if len(tried) < 3:
            raise OSError("the network is down")
        return 7

    assert places.patiently(open_place("memory://x"), read) == 7
    assert len(tried) == 3


def test_odd_pictures_are_read_as_the_scorer_reads_them(model: Model, tmp_path: Path) -> None:
    Image.new("RGBA", (5, 3), (200, 1, 1, 100)).save(tmp_path / "a.png")
    Image.new("L", (5, 3), 80).save(tmp_path / "b.webp")
    make_parts(model, tmp_path, tmp_path / "parts")
    for path, row in rows_of(tmp_path / "parts").items():
        assert row["score"] == pytest.approx(red_scorer(model).score(tmp_path / path)[0], abs=1e-6)
