"""SigLIP 2 NaFlex: turn a picture of any shape into a sequence of patches in one (3, height, width) tensor.

The transform returns (3, P, P * (n_patches + 1)): the patches from left to right, P x P pixels each, with zeros for
unused ones, and at the right end one more patch that contains the number of rows of patches (channel 0) and of columns
(channel 1). This lets pictures of different shapes share a batch, as the model's processor does with a mask.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors.sizes import MOST, check_numbers
from custom_aesthetic.extractors.transforms import HALF_MEAN, HALF_STD, without_mirror


@dataclass(frozen=True)
class NaflexTransform:
    """Resize to at most `n_patches` patches, nearly keeping the shape, as Siglip2ImageProcessor does."""

    patch_size: int = 16
    n_patches: int = 256
    mean: tuple[float, ...] = HALF_MEAN
    std: tuple[float, ...] = HALF_STD
    scale: float = 1 / 255
    resample: int = Image.Resampling.BILINEAR

    @property
    def target_size(self) -> int:
        """Side of a square picture in pixels; other pictures have a longer side."""
        return math.isqrt(self.n_patches) * self.patch_size

    @property
    def key(self) -> str:
        return f"naflex {self}"

    def __call__(self, image: Image.Image, view: str = "centre") -> Tensor:
        """Return (3, patch_size, patch_size * (n_patches + 1)) float32 for an upright RGB picture.

        The view `whole` squeezes the picture to a square; a corner is 7/8 of each side.
        """
        kind, flip = without_mirror(view)
        if kind == "whole":
            image = image.resize((self.target_size, self.target_size), self.resample)
        elif kind.startswith("corner_"):
            image = corner_of(image, int(kind.removeprefix("corner_")))
        if flip:
            image = ImageOps.mirror(image)
        return self._strip(image)

    def _strip(self, image: Image.Image) -> Tensor:
        rows, columns = patch_grid(image.height, image.width, self.patch_size, self.n_patches)
        side = self.patch_size
        levels = np.asarray(image.resize((columns * side, rows * side), self.resample))
        scaled = (levels.astype(np.float64) * self.scale).astype(np.float32)
        normalised = (scaled - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        patches = normalised.reshape(rows, side, columns, side, 3).transpose(4, 1, 0, 2, 3)
        strip = torch.zeros(3, side, (self.n_patches + 1) * side)
        strip[:, :, : rows * columns * side] = torch.from_numpy(patches.reshape(3, side, -1).copy())
        strip[0, :, -side:], strip[1, :, -side:] = rows, columns
        return strip

    def patches(self, strips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the inputs of the model for a batch of strips.

        These are the pixels, (images, n_patches, P * P * 3), the mask of the patches in use, (images, n_patches), and
        the rows and columns, (images, 2).
        """
        side = self.patch_size
        shapes = strips[:, :2, 0, -1].round().long()
        patches = strips[..., :-side].unflatten(-1, (self.n_patches, side)).permute(0, 3, 2, 4, 1).flatten(2)
        mask = torch.arange(self.n_patches, device=strips.device) < shapes.prod(dim=1, keepdim=True)
        return patches, mask.int(), shapes


def corner_of(image: Image.Image, corner: int) -> Image.Image:
    """Return the part of the picture at a corner, 7/8 of each side."""
    width, height = math.ceil(image.width * 7 / 8), math.ceil(image.height * 7 / 8)
    left = image.width - width if corner % 2 else 0
    top = image.height - height if corner >= 2 else 0
    return image.crop((left, top, left + width, top + height))


def patch_grid(height: int, width: int, patch_size: int, n_patches: int) -> tuple[int, int]:
    """Return (rows, columns) of patches of the largest picture of this shape that has at most `n_patches`.

    Each side is rounded up to whole patches. The scale is found by bisection, with the limits and precision of
    transformers' Siglip2ImageProcessor, so that the rounding is the same.
    """
    precision = 1e-5
    low, high = precision / 10, 100.0

    def grid(scale: float) -> tuple[int, int]:
        rows, columns = (max(1, math.ceil(side * scale / patch_size)) for side in (height, width))
        return rows, columns

    while high - low >= precision:
        middle = (low + high) / 2
        rows, columns = grid(middle)
        if rows * columns <= n_patches:
            low = middle
        else:
            high = middle
    return grid(low)


def naflex_transform(config: dict[str, Any], name: str) -> NaflexTransform:
    """Return the transform for the settings of a Siglip2ImageProcessor; missing settings have its defaults.

    Raises UserError for settings that are invalid or not supported.
    """
    keys = {
        "patch_size": "patch_size",
        "max_num_patches": "n_patches",
        "rescale_factor": "scale",
        "resample": "resample",
    }
    values = {ours: config[theirs] for theirs, ours in keys.items() if theirs in config}
    for key, ours in (("image_mean", "mean"), ("image_std", "std")):
        if key in config:
            values[ours] = tuple(config[key])
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if config.get(step) is False:
            raise UserError(f"feature extractor {name}: its image processor has {step} off, which is not supported")
    check_numbers(config, name)
    for ours, most in (("patch_size", MOST["patch_size"]), ("n_patches", MOST["num_patches"])):
        if ours in values and not (isinstance(values[ours], int) and 0 < values[ours] <= most):
            raise UserError(f"feature extractor {name}: its image processor has {ours} {str(values[ours])[:40]}")
    return NaflexTransform(**values)
