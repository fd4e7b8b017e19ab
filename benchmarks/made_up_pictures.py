"""Folders of any number of tiny pictures, for benchmarks of what does not depend on their content."""

from pathlib import Path

from PIL import Image


def make_pictures(folder: Path, n_pictures: int) -> None:
    """Make pictures of 8 x 8 pixels, a thousand in each sub-directory, where all are links to the first."""
    for start in range(0, n_pictures, 1000):
        first = folder / f"{start // 1000:04}" / "000.png"
        first.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (start % 256, 0, 0)).save(first)
        for number in range(1, min(1000, n_pictures - start)):
            first.with_name(f"{number:03}.png").hardlink_to(first)
