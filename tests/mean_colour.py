"""A feature extractor small enough to check by eye, for tests of everything that is not an extractor."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from custom_aesthetic.pictures.folders import find_images
from custom_aesthetic.pictures.images import open_image


class MeanColour:
    """Hidden state k is (k + 1) times the mean colour, red, green, blue; the view `mirror` takes the right half only.

    `calls` holds the hidden states and the number of pictures of each call of `features`; `log_file` gets the number
    of pictures as soon as a call begins, a line each, so that a killed process leaves it behind.
    """

    n_hidden_states = 4
    default_hidden_states: tuple[int, ...] = (0,)
    default_mode = "join"
    target_size = 8

    def __init__(
        self,
        name: str = "mean-colour",
        *,
        fingerprint: str = "mean colour 1",
        seconds: Callable[[int], float] | None = None,
        log_file: Path | None = None,
    ) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.calls: list[tuple[tuple[int, ...], int]] = []
        self._seconds = seconds
        self._log_file = log_file

    def transform(self, image: Image.Image, view: str = "centre") -> Tensor:
        half = image.crop((image.width // 2, 0, image.width, image.height)) if view == "mirror" else image
        means = np.asarray(half, np.float32).mean(axis=(0, 1))
        return torch.from_numpy(means)[:, None, None].expand(3, 4, 4)

    def features(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        if self._log_file is not None:
            with self._log_file.open("a") as file:
                file.write(f"{len(pixels)}\n")
        if self._seconds is not None:
            time.sleep(self._seconds(len(pixels)))
        self.calls.append((tuple(hidden_states), len(pixels)))
        return {k: pixels.mean(dim=(2, 3)) * (k + 1) for k in hidden_states}

    @property
    def n_computed(self) -> int:
        """Pictures that have gone through the network."""
        return sum(n_pictures for _, n_pictures in self.calls)


def expected(directory: Path, paths: Sequence[str], hidden_state: int = 0, view: str = "centre") -> Tensor:
    """Return the expected features of MeanColour, (n_pictures, 3), computed one by one."""
    extractor = MeanColour()
    rows = [extractor.transform(open_image(directory / path), view)[:, 0, 0] * (hidden_state + 1) for path in paths]
    return torch.stack(rows)


def make_pictures(directory: Path, n_pictures: int) -> list[str]:
    """Write `n` small pictures of different colours and return their paths."""
    for i in range(n_pictures):
        file = directory / f"folder_{i % 3}" / f"{i:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (6, 4), (i % 256, i // 256, 200 - i % 200))
        image.paste((i % 251, 7, 9), (3, 0, 6, 4))
        image.save(file)
    return find_images(directory)
