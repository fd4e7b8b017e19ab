"""Large pictures: the same pixels as small ones, and a bound on the memory of all that are decoded at once."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from custom_aesthetic.base.errors import ImageError
from custom_aesthetic.pictures import decoding
from custom_aesthetic.pictures.arrays import loaded_image
from custom_aesthetic.pictures.decoding import BytesInFlight, decoding_bytes, memory_for_pictures, to_rgb
from custom_aesthetic.pictures.images import open_image, opened_image
from custom_aesthetic.settings.console import LARGE_BLOCKS
from tests.conftest import ROOT


def pictures() -> dict[str, Image.Image]:
    """One picture, 40 x 50, in each of the modes that are converted band by band, and some others."""
    noise = np.random.default_rng(0).integers(0, 256, (50, 40, 4), dtype=np.uint8)
    colours = Image.fromarray(noise)
    palette = colours.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    palette.info["transparency"] = 3
    deep = noise[:, :, 0].astype(np.int32) * 200
    return {
        "RGBA": colours,
        "LA": colours.convert("LA"),
        "P": palette,
        "I": Image.fromarray(deep),
        "I;16": Image.fromarray(deep.astype(np.uint16)),
        "F": Image.fromarray(noise[:, :, 0].astype(np.float32) / 100),
        "L": colours.convert("L"),
        "CMYK": colours.convert("RGB").convert("CMYK"),
    }


@pytest.mark.parametrize("mode", pictures())
@pytest.mark.parametrize("band", [1, 40, 999, 2001])
def test_bands_change_no_pixel(monkeypatch: pytest.MonkeyPatch, mode: str, band: int) -> None:
    picture = pictures()[mode]
    whole = to_rgb(picture)
    monkeypatch.setattr(decoding, "BAND_PIXELS", band)
    assert to_rgb(picture).tobytes() == whole.tobytes()
    assert whole.mode == "RGB" and len(set(whole.tobytes())) > 3


def test_a_picture_that_is_rgb_is_not_copied(tmp_path: Path) -> None:
    picture = pictures()["L"].convert("RGB")
    assert to_rgb(picture) is picture
    picture.save(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg").resize((4, 4)).size == (4, 4)  # with its file closed


def test_as_many_pictures_are_decoded_at_once_as_their_bytes_allow() -> None:
    room, entered, leave = BytesInFlight(100), threading.Semaphore(0), threading.Event()

    def take(n_bytes: int) -> None:
        with room.taking(n_bytes):
            entered.release()
            assert leave.wait(20)

    with ThreadPoolExecutor(4) as threads:
        first = [threads.submit(take, 40) for _ in range(2)]
        assert all(entered.acquire(timeout=20) for _ in first)
        later = threads.submit(take, 40)
        assert not entered.acquire(timeout=0.2)
        leave.set()
        for done in (*first, later):
            done.result(timeout=20)


def test_a_picture_larger_than_all_the_room_is_decoded_alone_and_an_error_gives_its_room_back() -> None:
    room = BytesInFlight(100)
    with pytest.raises(ZeroDivisionError), room.taking(1000):
        raise ZeroDivisionError
    with room.taking(1000):
        pass
    with room.taking(100):
        pass


@pytest.mark.parametrize("is_progressive", [False, True])
def test_a_progressive_jpeg_counts_what_libjpeg_holds_of_the_whole_also_where_it_is_shrunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_progressive: bool
) -> None:
    """At 6000 x 6000 and an eighth of it, that was 209 MB, not the 5 MB of the pixels."""
    room = BytesInFlight(10**9)
    monkeypatch.setattr("custom_aesthetic.pictures.images.IN_FLIGHT", room)
    pictures()["L"].convert("RGB").resize((800, 400)).save(tmp_path / "a.jpg", progressive=is_progressive)
    with opened_image(tmp_path / "a.jpg", shown_size=100) as image:
        assert image.size == (100, 50)
        assert room._taken == 9 * 100 * 50 + (2 * 3 * 800 * 400 if is_progressive else 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_does_not_wait_for_what_its_parent_decodes() -> None:
    code = """
import os, threading
from custom_aesthetic.pictures.decoding import IN_FLIGHT
held, leave = threading.Event(), threading.Event()
def hold():
    with IN_FLIGHT.taking(10**15):
        held.set()
        leave.wait(60)
thread = threading.Thread(target=hold)
thread.start()
held.wait(60)
child = os.fork()
if child == 0:
    with IN_FLIGHT.taking(1):
        os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
leave.set()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert done.stdout == "7\n"


@pytest.mark.parametrize("how", ["file", "bytes"])
def test_the_memory_counts_until_the_end_of_the_block_also_for_a_damaged_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    room = BytesInFlight(10**9)
    monkeypatch.setattr("custom_aesthetic.pictures.images.IN_FLIGHT", room)
    file = tmp_path / "a.png"
    pictures()["RGBA"].save(file)
    given = file if how == "file" else file.read_bytes()
    with loaded_image(given, "a.png") as image:
        assert room._taken == decoding_bytes(image, 40 * 50) == 9 * 40 * 50
    with pytest.raises(ZeroDivisionError), opened_image(file):
        raise ZeroDivisionError
    assert open_image(file).size == (40, 50)
    with pytest.raises(ImageError), loaded_image(file.read_bytes()[:-900], "a.png"):
        raise AssertionError("it is damaged")
    assert room._taken == 0


def test_a_container_s_limit_counts_and_a_gigabyte_is_allowed_in_any_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "CONTAINER_LIMIT", tmp_path / "memory.max")
    whole = memory_for_pictures()
    assert whole >= 2**30
    for text, expected in (("max\n", whole), (f"{2**20}\n", 2**30)):
        (tmp_path / "memory.max").write_text(text)
        assert memory_for_pictures() == expected
    monkeypatch.delattr("os.sysconf", raising=False)
    (tmp_path / "memory.max").write_text(f"{2**34}")
    assert memory_for_pictures() == 2**32


PEAK = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from custom_aesthetic.features.extraction import decode
from custom_aesthetic.pictures import images
from custom_aesthetic.pictures.decoding import BytesInFlight
from tests.mean_colour import MeanColour
images.IN_FLIGHT = BytesInFlight(int(sys.argv[2]))
folder, file = Path(sys.argv[1]).parent, Path(sys.argv[1]).name

def peak():
    status = Path("/proc/self/status").read_text()  # resource's figure begins with that of the process that started it
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

def shrunk(number):
    class Shrinking(MeanColour):
        def transform(self, image, view="centre"):
            return super().transform(image.resize((8, 8)), view)
    return decode(folder, number, file, Shrinking(), ["centre"]).reason

before = peak()
with ThreadPoolExecutor(4) as threads:
    print(list(threads.map(shrunk, range(4))))
print((peak() - before) / 1e6)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures the memory as Linux counts it")
def test_four_threads_decode_large_transparent_pictures_in_the_memory_of_one(tmp_path: Path) -> None:
    """Each is 144 MB as RGBA and once more as RGB, and with copies for its colours it took five times 144 MB."""
    file = tmp_path / "large.png"
    Image.new("RGBA", (6000, 6000), (10, 20, 30, 128)).save(file, compress_level=1)
    command = [sys.executable, "-c", PEAK, str(file)]
    environment = {**os.environ, LARGE_BLOCKS[0]: LARGE_BLOCKS[1]}
    room = str(9 * 6000**2)
    done = subprocess.run(
        [*command, room], env=environment, capture_output=True, text=True, timeout=200, check=True, cwd=ROOT
    )
    reasons, megabytes = done.stdout.splitlines()
    assert reasons == str([None] * 4)
    assert 144 < float(megabytes) < 3.4 * 144
