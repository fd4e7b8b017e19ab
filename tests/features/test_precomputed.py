"""Tables of features: every form gives the same features, and what cannot be used is refused in one line."""

import io
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.features import npy_parts, parquet_parts
from custom_aesthetic.features.parquet_parts import write_features
from custom_aesthetic.features.precomputed import (
    PrecomputedTable,
    given_scores,
    open_table,
    read_table,
    without_extractor,
)
from custom_aesthetic.features.table_files import extractor_name, find_table
from custom_aesthetic.settings.training import FeatureSettings

PATHS = ["b/2.jpg", "a/1.jpg", "a/3.jpg", "4.jpg", "b/5.jpg"]
FEATURES = np.arange(15, dtype=np.float32).reshape(5, 3) / 7


def write_npz(folder: Path, save: Callable[..., None] = np.savez_compressed, **arrays: Any) -> Path:
    save(folder / "t.npz", **{"paths": np.array(PATHS), "features": FEATURES, **arrays})
    return folder / "t.npz"


def write_parquet(file: Path, **columns: Any) -> Path:
    given = {"relative_path": PATHS, "features": list(FEATURES), **columns}
    pq.write_table(pa.table({name: values for name, values in given.items() if values is not None}), file)
    return file


def write_clip_retrieval(folder: Path, paths: list[str], sizes: tuple[int, ...] = (2, 3)) -> Path:
    """As clip-retrieval writes it, in files that sort otherwise by name than by number."""
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    start = 0
    for number, size in zip((9, 10), sizes, strict=True):
        rows = slice(start, start + size)
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", FEATURES[rows])
        table = pa.table({"image_path": paths[rows], "caption": ["x"] * size})
        pq.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")
        start += size
    return folder


def as_fixed_lists(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def as_dictionary(folder: Path) -> Path:
    return write_parquet(folder / "t.parquet", relative_path=pa.array(PATHS).dictionary_encode())


def in_two_files(folder: Path) -> Path:
    for number, rows in enumerate((slice(0, 2), slice(2, 5))):
        write_parquet(folder / f"{number}.parquet", relative_path=PATHS[rows], features=list(FEATURES[rows]))
    return folder


FORMS: dict[str, Callable[[Path], Path]] = {
    "npz": write_npz,
    "npz not compressed": lambda folder: write_npz(folder, np.savez),
    "npz in Fortran's order": lambda folder: write_npz(folder, features=np.asfortranarray(FEATURES)),
    "npz of bytes and doubles": lambda folder: write_npz(
        folder, paths=np.array([path.encode() for path in PATHS]), features=FEATURES.astype(np.float64)
    ),
    "big-endian npz": lambda folder: write_npz(folder, features=FEATURES.astype(">f4")),
    "parquet": lambda folder: write_parquet(folder / "t.parquet"),
    "parquet of fixed lists": lambda folder: write_parquet(folder / "t.parquet", features=as_fixed_lists(FEATURES)),
    "parquet named embedding": lambda folder: write_parquet(
        folder / "t.PARQUET", features=None, embedding=list(FEATURES.astype(np.float64))
    ),
    "parquet with a dictionary": as_dictionary,
    "folder of parquet files": in_two_files,
    "clip-retrieval": lambda folder: write_clip_retrieval(folder / "out", PATHS),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("block_bytes", [2**24, 25])
def test_every_form_gives_the_features_of_the_pictures_asked_for_in_their_order(
    form: str, block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (npy_parts, parquet_parts):
        monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    table = read_table(FORMS[form](tmp_path), tmp_path)
    assert (list(table.paths), table.n_features) == (PATHS, 3)
    found = table.load(["4.jpg", "b/2.jpg", "a/1.jpg"])
    assert found.paths == ("4.jpg", "b/2.jpg", "a/1.jpg") and not found.failures
    torch.testing.assert_close(found.values, torch.from_numpy(FEATURES[[3, 0, 1]]), rtol=1e-7, atol=0)
    (block,) = found.blocks
    assert (block.extractor, block.hidden_state, block.start, block.stop) == (table.name, 0, 0, 3)
    blocks = list(table.blocks())
    np.testing.assert_allclose(np.concatenate([values for _, values in blocks]), FEATURES, rtol=1e-7)
    assert [start for start, _ in blocks] == np.cumsum([0, *(len(values) for _, values in blocks[:-1])]).tolist()


@pytest.mark.parametrize("form", ["npz", "parquet", "written here"])
def test_half_precision_stays_half_and_single_can_be_rounded_to_it(form: str, tmp_path: Path) -> None:
    half = FEATURES.astype(np.float16)
    if form == "npz":
        place = write_npz(tmp_path, features=half)
    elif form == "parquet":
        place = write_parquet(tmp_path / "t.parquet", features=list(half))
    else:
        place = tmp_path / "t.parquet"
        write_features(place, [(PATHS[:2], half[:2]), (PATHS[2:], half[2:])])
    values = read_table(place, tmp_path).load(PATHS).values
    assert values.dtype == torch.float16
    np.testing.assert_array_equal(values.numpy(), half)
    single = read_table(write_npz(tmp_path), tmp_path)
    assert single.load(PATHS, fp16=True).values.dtype == torch.float16
    assert {values.dtype for _, values in single.blocks(fp16=True)} == {np.dtype(np.float16)}


def test_what_is_written_reads_back_to_the_last_bit_in_row_groups(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "t.parquet"
    write_features(file, [(PATHS[:3], FEATURES[:3]), (PATHS[3:], FEATURES[3:])])
    assert pq.ParquetFile(file).metadata.num_row_groups == 2
    assert pq.read_schema(file).names == ["relative_path", "features"]
    table = read_table(file, tmp_path)
    np.testing.assert_array_equal(table.load(PATHS).values.numpy(), FEATURES)


def test_a_file_that_cannot_be_written_whole_is_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    file.write_bytes(b"what was there")

    def blocks() -> Any:
        yield PATHS[:3], FEATURES[:3]
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        write_features(file, blocks())
    assert file.read_bytes() == b"what was there"
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.parquet"]


@settings(max_examples=25)
@given(data=st.data())
def test_any_selection_comes_in_its_order_whatever_the_blocks(data: st.DataObject, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("t")
    n_rows = data.draw(st.integers(1, 40))
    values = np.random.default_rng(n_rows).standard_normal((n_rows, 4)).astype(np.float32)
    paths = [f"{row}.png" for row in range(n_rows)]
    size = data.draw(st.integers(1, 50))
    cuts = [slice(start, start + size) for start in range(0, n_rows, size)]
    write_features(folder / "t.parquet", [(paths[cut], values[cut]) for cut in cuts])
    rows = data.draw(st.permutations(range(n_rows)))[: data.draw(st.integers(1, n_rows))]
    found = read_table(folder / "t.parquet", folder).load([paths[row] for row in rows])
    np.testing.assert_array_equal(found.values.numpy(), values[list(rows)])


WRONG_PARQUET: dict[str, tuple[dict[str, Any], str]] = {
    "no paths": ({"relative_path": None, "name": PATHS}, "no column relative_path; its columns are features, name"),
    "no features": ({"features": None}, "no column features or embedding"),
    "lists of different lengths": (
        {"features": [[1.0, 2.0, 3.0], [1.0, 2.0], [1.0, 2.0, 3.0], [], None]},
        "3 rows have no 3 features, as the first row has: a/1.jpg, 4.jpg, b/5.jpg",
    ),
    "a missing number": (
        {"features": [[1.0, None, 3.0]] + [[1.0, 2.0, 3.0]] * 4},
        "1 rows have features without a value",
    ),
    "no first row": ({"features": [None] + [[1.0, 2.0, 3.0]] * 4}, "its first row has no features"),
    "not finite": (
        {"features": [[1.0, 2.0, 3.0], [np.nan, 0.0, 0.0], [0.0, np.inf, 0.0], [1.0, 2.0, 3.0], [0.0, 0.0, -np.inf]]},
        "not finite, or too large for their precision, for a/1.jpg, a/3.jpg, b/5.jpg; correct",
    ),
    "a double that single precision cannot hold": (
        {"features": pa.array([[1e300, 2.0, 3.0]] + [[1.0, 2.0, 3.0]] * 4)},
        "not finite, or too large .* for b/2.jpg",
    ),
    "texts": ({"features": [["a", "b"]] * 5}, "features is list<.*string>; a list of floats"),
    "numbers for lists": ({"features": [1.0] * 5}, "features is double; a list of floats"),
    "numbers for paths": ({"relative_path": [1, 2, 3, 4, 5]}, "relative_path is int64; texts"),
    "an empty path": ({"relative_path": [*PATHS[:4], None]}, "relative_path is empty in 1 rows, the first is row 5"),
    "twice the same": ({"relative_path": [*PATHS[:4], "a\\\\1.jpg".replace("\\\\", "/")]}, "has duplicates: a/1.jpg"),
    "outside": ({"relative_path": [*PATHS[:4], "../x.jpg"]}, "'../x.jpg' is not a path inside the image directory"),
    "absolute": ({"relative_path": [*PATHS[:4], "/etc/x.jpg"]}, "'/etc/x.jpg' is not a path inside"),
}


def load_all(table: PrecomputedTable) -> None:
    table.load(table.paths)


def stream_all(table: PrecomputedTable) -> None:
    for _ in table.blocks():
        pass


@pytest.mark.parametrize("use", [load_all, stream_all])
@pytest.mark.parametrize("case", WRONG_PARQUET)
def test_a_parquet_that_cannot_be_used_is_refused_in_one_line(case: str, use: Any, tmp_path: Path) -> None:
    columns, words = WRONG_PARQUET[case]
    file = write_parquet(tmp_path / "t.parquet", **columns)
    with pytest.raises(UserError, match=words) as error:
        use(read_table(file, tmp_path))
    assert str(file) in str(error.value) and "\n" not in str(error.value)


WRONG_NPZ: dict[str, tuple[dict[str, Any], str]] = {
    "objects for paths": ({"paths": np.array([{}] * 5)}, "never loaded"),
    "objects for features": ({"features": np.array([[{}] * 3] * 5)}, "never loaded"),
    "records": ({"features": np.zeros(5, "f4,f4")}, "never loaded"),
    "whole numbers": ({"features": np.zeros((5, 3), int)}, "features are int64 of shape \\(5, 3\\)"),
    "one axis": ({"features": np.zeros(5)}, "of shape \\(5,\\)"),
    "other lengths": ({"features": FEATURES[:4]}, "features have 4 rows, and paths has the shape \\(5,\\)"),
    "numbers for paths": ({"paths": np.arange(5)}, "paths holds int64"),
    "not finite": ({"features": np.where(np.arange(15).reshape(5, 3) == 4, np.nan, FEATURES)}, "for a/1.jpg; correct"),
    "no rows": ({"paths": np.array([], str), "features": np.zeros((0, 3))}, "of shape \\(0, 3\\)"),
    "score of another length": ({"score": np.arange(4.0)}, "score has the shape \\(4,\\)"),
}


@pytest.mark.parametrize("case", WRONG_NPZ)
def test_an_npz_that_cannot_be_used_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    arrays, words = WRONG_NPZ[case]
    file = write_npz(tmp_path, **arrays)
    with pytest.raises(UserError, match=words) as error:
        table = read_table(file, tmp_path)
        table.scores()
        load_all(table)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def npy_bytes(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def zipped(file: Path, features: bytes, paths: bytes | None = None) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("features.npy", features)
        archive.writestr("paths.npy", npy_bytes(np.array(PATHS)) if paths is None else paths)
    return file


def with_shape(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + FEATURES.tobytes()


HOSTILE = {
    "a header of 4 GB": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "header of an array has 4,294,967,295 bytes"),
    "a terabyte of rows": (with_shape("(100000000, 3000)"), "damaged: 60 bytes for float32"),
    "negative": (with_shape("(-5, 3)"), "damaged|invalid|shape"),
    "no header": (b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4'", "cannot be read"),
    "code in the header": (with_shape("().__class__"), "cannot be read"),
    "brackets without end": (b"\x93NUMPY\x01\x00\xe8\x03" + b"(" * 1000, "cannot be read"),
    "an unknown format": (b"\x93NUMPY\x09\x00\x10\x00" + b" " * 16, "format \\(9, 0\\) is not known"),
    "no array": (b"what else", "cannot be read"),
    "empty": (b"", "cannot be read"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_array_costs_nothing_and_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    content, words = HOSTILE[case]
    with pytest.raises(UserError, match=words) as error:
        read_table(zipped(tmp_path / "t.npz", content), tmp_path)
    assert "\n" not in str(error.value)


def test_a_pickle_in_an_npz_is_never_run(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": (5, 3)})
    file = zipped(tmp_path / "t.npz", stream.getvalue() + b"cos\nsystem\n(S'touch evil'\ntR.")
    with pytest.raises(UserError, match="never loaded"):
        read_table(file, tmp_path)


@pytest.mark.parametrize("form", ["npz", "parquet", "clip-retrieval"])
def test_a_file_cut_off_or_changed_anywhere_is_read_right_or_refused_in_one_line(form: str, tmp_path: Path) -> None:
    place = FORMS[form](tmp_path)
    files = [file for file in place.rglob("*") if file.is_file()] if place.is_dir() else [place]
    generator = np.random.default_rng(0)
    for file in files:
        whole = file.read_bytes()
        lengths = generator.integers(0, len(whole), 20)
        damaged = [whole[:length] for length in lengths]
        for _ in range(20):
            content = bytearray(whole)
            content[generator.integers(len(whole))] ^= 1 << generator.integers(8)
            damaged.append(bytes(content))
        for content in damaged:
            file.write_bytes(content)
            try:
                table = read_table(place, tmp_path)
                table.scores()
                load_all(table)
            except UserError as error:
                assert "\n" not in str(error)
        file.write_bytes(whole)


def test_the_same_name_is_looked_for_beside_the_pictures_and_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path)
    assert find_table(pictures, "t.npz") == Path("t.npz")
    write_npz(pictures)
    assert find_table(pictures, "t.npz") == pictures / "t.npz"
    for name, words in (
        ("none.npz", "does not exist: looked in .*pictures and "),
        ("pictures", "holds no table"),
        ("t.csv", "ends in .csv; a table is a .parquet or .npz"),
    ):
        (tmp_path / "t.csv").touch()
        (pictures / "t.npz").unlink(missing_ok=True)
        with pytest.raises(UserError, match=words):
            find_table(tmp_path / "pictures", name)


def test_a_missing_pyarrow_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r'pyarrow.*pip install "custom-aesthetic-training\[tables\]"'):
        find_table(tmp_path, "t.parquet")
    assert find_table(tmp_path, write_npz(tmp_path).name), "npz needs no pyarrow"


@pytest.mark.parametrize(
    ("file", "given", "name"),
    [
        ("clip.parquet", None, "features:clip"),
        ("a__b,c d!.npz", None, "features:a_b_c_d"),
        ("clip.parquet", "ViT-L/14", "features:ViT-L_14"),
        ("写真.npz", None, "features:写真"),
        ("___.npz", None, "features:table"),
        ("x" * 200 + ".npz", None, "features:" + "x" * 80),
    ],
)
def test_the_name_in_the_model_file_is_that_of_the_table_made_safe(file: str, given: str | None, name: str) -> None:
    assert extractor_name(Path(file), given) == name


@pytest.mark.parametrize(
    ("prefix", "directory"),
    [
        ("", "images"),
        ("images/", "images"),
        ("images\\", "images"),
        ("/data/elsewhere/", "images"),
        ("{cwd}/images/", "images"),
    ],
)
def test_paths_of_clip_retrieval_become_relative_to_the_directory(
    prefix: str, directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / directory).mkdir()
    start = prefix.format(cwd=tmp_path.as_posix())
    place = write_clip_retrieval(tmp_path / "out", [start + path for path in PATHS])
    assert list(read_table(place, Path(directory)).paths) == PATHS


def test_pictures_all_in_one_folder_keep_it_where_the_pictures_or_the_directory_tell(tmp_path: Path) -> None:
    paths = [f"/data/images/faces/{row}.jpg" for row in range(5)]
    place = write_clip_retrieval(tmp_path / "out", paths)
    assert read_table(place, tmp_path / "images").paths[0] == "faces/0.jpg", "by the name of the directory"
    other = tmp_path / "other"
    assert read_table(place, other).paths[0] == "0.jpg", "all that the paths have in common is cut off"
    (other / "faces").mkdir(parents=True)
    (other / "faces" / "0.jpg").touch()
    assert read_table(place, other).paths[0] == "faces/0.jpg", "by the pictures"


@pytest.mark.parametrize("odd", ["C:/x/1.jpg", "../1.jpg", "x/1.jpg"])
def test_absolute_paths_mixed_with_others_are_refused(odd: str, tmp_path: Path) -> None:
    place = write_clip_retrieval(tmp_path / "out", ["/data/0.jpg", odd, "/data/2.jpg", "/data/3.jpg", "/data/4.jpg"])
    with pytest.raises(UserError, match="is not a path inside the image directory"):
        read_table(place, tmp_path)


def test_files_of_clip_retrieval_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    place = write_clip_retrieval(tmp_path / "out", PATHS)
    pq.write_table(pa.table({"image_path": PATHS[:1]}), place / "metadata" / "metadata_9.parquet")
    with pytest.raises(UserError, match=r"img_emb_9.npy has 2 rows and .*metadata_9.parquet 1"):
        read_table(place, tmp_path)
    (place / "img_emb" / "img_emb_10.npy").unlink()
    with pytest.raises(UserError, match=r"1 and 2 files, not one for one .number 10 is alone"):
        read_table(place, tmp_path)


def test_files_of_other_widths_are_not_one_table(tmp_path: Path) -> None:
    in_two_files(tmp_path)
    write_parquet(tmp_path / "1.parquet", relative_path=["x.jpg"], features=[[1.0, 2.0]])
    with pytest.raises(UserError, match="files of 2 and 3 features"):
        read_table(tmp_path, tmp_path)


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_scores_are_those_of_the_score_file_else_of_the_table(form: str, tmp_path: Path) -> None:
    scores, splits = [1.0, 2.0, np.nan, 4.0, 5.0], ["train", "train", "", "eval", "test"]
    if form == "npz":
        place = write_npz(tmp_path, score=np.array(scores), split=np.array(splits))
    else:
        place = write_parquet(tmp_path / "t.parquet", score=[1.0, 2.0, None, 4.0, 5.0], split=splits)
    table = read_table(place, tmp_path)
    file, found = given_scores(tmp_path, None, table)
    assert (file, found.paths) == (place, ("b/2.jpg", "a/1.jpg", "4.jpg", "b/5.jpg"))
    assert list(found.scores) == [1, 2, 4, 5] and list(found.columns["split"]) == ["train", "train", "eval", "test"]

    (tmp_path / "scores.csv").write_text("relative_path,score\n4.jpg,8\nx.jpg,9\n")
    file, found = given_scores(tmp_path, None, table)
    assert file.name == "scores.csv" and list(found.scores) == [8, 9]
    assert list(found.columns["split"]) == ["eval", ""], "what the score file does not say comes from the table"


def test_without_any_scores_the_message_says_where_they_may_be(tmp_path: Path) -> None:
    table = read_table(write_npz(tmp_path), tmp_path)
    with pytest.raises(UserError, match=r"no score file in .* has no column score"):
        given_scores(tmp_path, None, table)
    with pytest.raises(UserError, match=r"score is not a finite number for 4.jpg"):
        given_scores(tmp_path, None, read_table(write_npz(tmp_path, score=np.array([1, 2, 3, np.inf, 4])), tmp_path))


def test_pictures_that_a_table_lacks_are_told_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    table = read_table(write_npz(tmp_path), tmp_path)
    assert table.missing(["4.jpg", "x.jpg"]) == ["x.jpg"]
    with pytest.raises(UserError, match=r"none of the 2 pictures, which are x.jpg, y.jpg; its paths are b/2.jpg"):
        table.missing(["x.jpg", "y.jpg"])


def test_options_of_an_extractor_are_named_as_unused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    asked = FeatureSettings(views=("centre", "whole"), feature_extractor_model="some/model", fp16_features=True)
    assert without_extractor(asked) == FeatureSettings(fp16_features=True)
    assert "--feature_extractor_model=some/model --views=centre,whole" in caplog.text
    assert open_table(Path(), FeatureSettings()) is None
