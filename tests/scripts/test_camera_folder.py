"""A folder as it comes from cameras and telephones, scored whole by the script, and shown."""

import logging
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import aesthetic_scorer
from custom_aesthetic import Scorer
from custom_aesthetic.commands.spotlight import convert_pictures
from custom_aesthetic.scores.score_files import read_scores
from custom_aesthetic.settings.console import run_script
from tests.camera_files import dng_bytes, heic_bytes, jpeg_bytes
from tests.mean_colour import MeanColour
from tests.scripts.test_scorer import redness_model

NOISE = (".DS_Store", "DCIM/._IMG_1.JPG", "DCIM/Thumbs.db", "DCIM/IMG_2.AAE", "DCIM/IMG_1.xmp", "DCIM/.trashed.jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Red 250, 200, 150, 100, 50 in five formats; the RAW file beside the JPEG is blue."""
    pytest.importorskip("rawpy", reason="rawpy is not installed")
    folder = tmp_path / "card"
    (folder / "DCIM").mkdir(parents=True)
    reds = {
        name: Image.new("RGB", (60, 40), (red, 80, 80))
        for name, red in zip("abcde", (250, 200, 150, 100, 50), strict=True)
    }
    (folder / "DCIM" / "IMG_1.JPG").write_bytes(jpeg_bytes(reds["a"]))
    (folder / "DCIM" / "IMG_1.CR2").write_bytes(dng_bytes(Image.new("RGB", (60, 40), "blue")))
    (folder / "DCIM" / "IMG_2.HEIC").write_bytes(heic_bytes(reds["b"]))
    (folder / "DCIM" / "IMG_3.dng").write_bytes(dng_bytes(reds["c"]))
    reds["d"].save(folder / "edit.tif")
    reds["e"].save(folder / "old.gif")
    for name in NOISE:
        (folder / name).write_bytes(b"no picture")
    (folder / "clip.mov").write_bytes(b"no picture")
    return folder


def test_a_mixed_camera_folder_is_scored_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "custom_aesthetic.heads.prediction.build_extractors", lambda names, *_: [MeanColour(names, fingerprint="1")]
    )
    model = redness_model(tmp_path / "red.safetensors")
    options = [
        "-o",
        str(tmp_path / "out.csv"),
        "--top=3",
        f"--move_to={tmp_path / 'best'}",
        f"--sheet={tmp_path / 's.html'}",
    ]
    monkeypatch.setattr(sys, "argv", ["aesthetic_scorer.py", "-d", str(folder), "-m", str(model), *options])
    expected = Scorer.load(model).score([folder / "DCIM" / name for name in ("IMG_1.JPG", "IMG_2.HEIC", "IMG_3.dng")])

    assert run_script(aesthetic_scorer.run) == 0
    logging.getLogger("custom_aesthetic").handlers.clear()

    table = read_scores(tmp_path / "out.csv")
    assert table.paths == ("DCIM/IMG_1.JPG", "DCIM/IMG_2.HEIC", "DCIM/IMG_3.dng")
    assert table.scores == pytest.approx(expected, abs=1e-5)
    assert table.scores == pytest.approx([10 * red / 255 for red in (250, 200, 150)], abs=0.15)
    out = capsys.readouterr().out
    assert "5 pictures scored" in out and "1 .mov" in out
    assert not re.search(r"DS_Store|Thumbs|AAE|trashed|\._|cannot be", out)
    moved = sorted(file.name for file in (tmp_path / "best" / "DCIM").iterdir())
    assert moved == ["IMG_1.CR2", "IMG_1.JPG", "IMG_1.xmp", "IMG_2.HEIC", "IMG_3.dng"]
    assert (tmp_path / "s.html").read_text().count("data:image/jpeg") == 3


def test_spotlight_gets_jpeg_in_place_of_heic_and_raw(folder: Path, tmp_path: Path) -> None:
    paths = ["DCIM/IMG_1.JPG", "DCIM/IMG_2.HEIC", "DCIM/IMG_3.dng", "DCIM/gone.heic"]
    files = [str(folder / path) for path in paths]
    frame = pd.DataFrame({"image": files, "path": paths})

    convert_pictures(frame, tmp_path)

    shown = list(frame["image"])
    assert (shown[0], shown[3]) == (files[0], files[3])
    for file, red in zip(shown[1:3], (200, 150), strict=True):
        with Image.open(file) as image:
            assert image.format == "JPEG"
            assert abs(image.convert("RGB").getpixel((30, 20))[0] - red) < 12
