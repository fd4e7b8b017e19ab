"""How long the A/B page takes from a key to the painted next pictures, in Chromium on this machine.

    python -m benchmarks.bench_ab_page                  # 240 and 5,000 small pictures, and cold 12-MP pictures
    python -m benchmarks.bench_ab_page --only 240

Each answer is a key press, sent as an event to the page; the time ends when the next pictures are decoded and a frame
with them has been painted (two animation frames). There are 600 ms between answers, so that the next pair is loaded,
as it is for a person.

Cold pictures have not been read by the server before. The first pair is always cold; its time begins when the page asks
for its pictures. For the 12-MP pictures there is a second series without a pause: each key is pressed at the frame in
which its pair is painted, so that nothing is loaded ahead and each pair is cold.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
N_ANSWERS = 30
PAUSE_MS = 600
N_LOADED_AHEAD = 3
N_COLD = 16
NOISE = 6
"""Standard deviation of the noise of large pictures, of 255: it makes their files as large as those of a camera."""
MEASURE = """async ([n, pause]) => {
    const pictures = () => [...document.querySelectorAll('.choice .frame > img')];
    const painted = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    const taken = [];
    for (let i = 0; i < n; i++) {
        if (pause) await new Promise((done) => setTimeout(done, pause));
        const before = pictures().map((image) => image.dataset.path).join();
        const begin = performance.now();
        document.dispatchEvent(new KeyboardEvent('keydown', { key: String(1 + i % 2), code: `Digit${1 + i % 2}` }));
        for (;;) {
            const images = pictures();
            const shown = images.map((image) => image.dataset.path).join();
            if (images.length === 2 && shown !== before) {
                await Promise.all(images.map((image) => image.decode()));
                break;
            }
            await new Promise((done) => setTimeout(done, 2));
        }
        await painted();
        taken.push(performance.now() - begin);
    }
    return taken;
}"""
FIRST = """async () => {
    const shown = () => document.querySelectorAll('.choice .frame > img').length === 2;
    while (!shown()) await new Promise((done) => setTimeout(done, 2));
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    const asked = performance.getEntriesByType('resource').filter((one) => one.name.includes('/picture'));
    return performance.now() - Math.min(...asked.map((one) => one.startTime));
}"""


def draw_pictures(folder: Path, number: int, size: tuple[int, int]) -> None:
    """Write different noisy JPEG pictures of this size."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 255, (size[1] // 40 + 1, size[0] // 40 + 1, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    noisy = smooth + generator.normal(0, NOISE, (size[1], size[0], 1))
    picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    first = folder / "00000.jpg"
    picture.save(first, quality=90)
    for place in range(1, number):
        if size[0] < 1000:
            Image.new("RGB", size, tuple(int(value) for value in generator.integers(0, 255, 3))).save(
                folder / f"{place:05}.jpg"
            )
        else:
            shutil.copyfile(first, folder / f"{place:05}.jpg")


def served(folder: Path) -> tuple["subprocess.Popen[str]", str]:
    """Start the script on a folder; return it and the address of its page."""
    command = [
        sys.executable,
        "-u",
        str(ROOT / "aesthetic_ab_scorer.py"),
        "-d",
        str(folder),
        "--no_browser",
        "--port=0",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    assert process.stdout is not None
    for line in process.stdout:
        if "open http://" in line:
            return process, line.split()[1]
    raise RuntimeError("the script ended")


def say(name: str, what: str, taken: list[float], first: float | None = None) -> None:
    """Print the median, the upper end and the slowest of the times, in milliseconds."""
    ordered = sorted(taken)
    begun = "" if first is None else f"first pair {first:.0f} ms after it was asked for; "
    print(
        f"{name}: {begun}{what}: median {statistics.median(ordered):.0f} ms, 90 % below "
        f"{ordered[int(0.9 * len(ordered))]:.0f} ms, slowest {ordered[-1]:.0f} ms",
        flush=True,
    )


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("240", "5000", "12MP"), help="only this folder")
    only = parser.parse_args().only
    n_large = 2 * (1 + N_ANSWERS + 2 * N_LOADED_AHEAD + N_COLD)
    folders = {"240": (240, (640, 480)), "5000": (5000, (640, 480)), "12MP": (n_large, (4000, 3000))}
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (number, size) in folders.items():
            if only not in (None, name):
                continue
            folder = Path(temporary) / name
            draw_pictures(folder, number, size)
            process, address = served(folder)
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(address)
            first = page.evaluate(FIRST)
            say(name, "key to painted", page.evaluate(MEASURE, [N_ANSWERS, PAUSE_MS]), first)
            if name == "12MP":
                cold = page.evaluate(MEASURE, [N_LOADED_AHEAD + N_COLD, 0])[N_LOADED_AHEAD:]
                say(name, "key to painted, nothing loaded ahead", cold)
            page.close()
            process.kill()
            process.wait()
        browser.close()


if __name__ == "__main__":
    main()
