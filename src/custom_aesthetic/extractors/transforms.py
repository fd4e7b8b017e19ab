"""Turn an upright RGB picture into the input of a network: resize, crop and scale with Pillow, for every view."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from custom_aesthetic.extractors.protocol import VIEWS

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF_MEAN = HALF_STD = (0.5, 0.5, 0.5)

MOST_RESIZED = 16
"""A resized picture larger than this many crops is not made as a whole, only the part that is cropped: a picture of 1 x
20,000 pixels would fill the memory.
"""


@dataclass(frozen=True)
class Transform:
    """Resize, crop, scale and normalise, as the checkpoint's image processor does."""

    crop: tuple[int, int]
    """(height, width) in pixels of the network's input."""

    resize: int | tuple[int, int]
    """Shorter side in pixels after a resize that keeps the shape, or (height, width) to squeeze into."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255
    """Factor for the values 0 ... 255, applied before mean and standard deviation."""

    resample: int = Image.Resampling.BICUBIC
    float_resize: bool = False
    """Scale first and then resize as floats, bilinear with antialiasing (DINOv3), which avoids rounding to 8 bits."""

    @property
    def target_size(self) -> int:
        """Shorter side in pixels after the resize."""
        return self.resize if isinstance(self.resize, int) else min(self.resize)

    @property
    def key(self) -> str:
        """Text that differs for any two transforms that give different pixels."""
        return ",".join(f"{name}={value}" for name, value in asdict(self).items())

    def __call__(self, image: Image.Image, view: str = "centre") -> Tensor:
        """Return (3, height, width) float32 for an upright RGB picture; `view` is one of VIEWS."""
        return self.views(image, (view,))[view]

    def views(self, image: Image.Image, views: Sequence[str]) -> dict[str, Tensor]:
        """Return view -> (3, height, width) float32 for an upright RGB picture.

        The picture is resized once for all the views that need the same size, and a mirrored view is its flipped crop.
        """
        resized: dict[tuple[int, int], Any] = {}
        crops: dict[str, Tensor] = {}
        found = {}
        for view in views:
            kind, flip = without_mirror(view)
            if kind not in crops:
                crops[kind] = self._crop(image, kind, resized)
            found[view] = crops[kind].flip(-1) if flip else crops[kind]
        return found

    def _crop(self, image: Image.Image, kind: str, resized: dict[tuple[int, int], Any]) -> Tensor:
        """Return one crop; `resized` keeps the whole picture in the sizes that were needed so far."""
        if kind == "whole":
            size, place = self.crop, (0, 0)
        elif kind == "centre":
            size = self._resize_to(image)
            place = centre_place(size, self.crop)
        else:
            size = self._corner_resize_to(image)
            place = corner_place(size, self.crop, int(kind.removeprefix("corner_")))
        return self._cut(image, size, place, resized).contiguous()

    def _resize_to(self, image: Image.Image) -> tuple[int, int]:
        """Return (height, width) after the resize."""
        if not isinstance(self.resize, int):
            return self.resize
        return shorter_side_to(image, self.resize)

    def _corner_resize_to(self, image: Image.Image) -> tuple[int, int]:
        """Return (height, width) of the resized picture from which corners are cropped.

        If the resize squeezes the picture to the size of the crop, 8/7 of that size is used, so that corners differ.
        """
        height, width = self._resize_to(image)
        if (height, width) == self.crop and not isinstance(self.resize, int):
            return math.ceil(height * 8 / 7), math.ceil(width * 8 / 7)
        return height, width

    def _cut(
        self, image: Image.Image, size: tuple[int, int], place: tuple[int, int], resized: dict[tuple[int, int], Any]
    ) -> Tensor:
        """Return the picture resized to `size`, cropped at (top, left) and normalised: (3, height, width) float32."""
        (height, width), (top, left), (crop_height, crop_width) = size, place, self.crop
        if self.float_resize:
            if size not in resized:
                resized[size] = self._resized_floats(image, size)
            return resized[size][:, top : top + crop_height, left : left + crop_width]
        if height * width > MOST_RESIZED * crop_height * crop_width:
            across, down = image.width / width, image.height / height
            box = (left * across, top * down, (left + crop_width) * across, (top + crop_height) * down)
            return self._normalised(image.resize((crop_width, crop_height), self.resample, box=box))
        if size not in resized:
            resized[size] = image.resize((width, height), self.resample)
        return self._normalised(resized[size].crop((left, top, left + crop_width, top + crop_height)))

    def _normalised(self, picture: Image.Image) -> Tensor:
        """Return an RGB picture as (3, height, width) float32, scaled and normalised as the image processors do it."""
        levels = np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))
        if self.scale == 1:
            pixels = levels.astype(np.float32)
        else:
            pixels = np.multiply(levels, self.scale, dtype=np.float64).astype(np.float32)
        pixels -= np.array(self.mean, np.float32)[:, None, None]
        pixels /= np.array(self.std, np.float32)[:, None, None]
        return torch.from_numpy(pixels)

    def _resized_floats(self, image: Image.Image, size: tuple[int, int]) -> Tensor:
        """Return the whole picture, scaled, resized and normalised; one channel at a time, to save memory."""
        resized = torch.empty(3, *size)
        for i in range(3):
            scaled = torch.from_numpy(np.array(image.getchannel(i))).to(torch.float32).mul_(self.scale)
            resized[i] = torch.nn.functional.interpolate(
                scaled[None, None], size=size, mode="bilinear", align_corners=False, antialias=True
            )[0, 0]
        return (resized - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]


def without_mirror(view: str) -> tuple[str, bool]:
    """Return the crop of a view (`centre`, `whole`, `corner_0` ...) and whether it is then flipped."""
    if view not in VIEWS:
        raise ValueError(f"view {view!r} is none of {', '.join(VIEWS)}")
    return {"mirror": ("centre", True), "mirror_whole": ("whole", True)}.get(view, (view, False))


def shorter_side_to(image: Image.Image, size: int) -> tuple[int, int]:
    """Return (height, width) with the shorter side `size` and the same shape; the longer side is rounded down."""
    width, height = image.size
    return (int(size * height / width), size) if width <= height else (size, int(size * width / height))


def centre_place(size: tuple[int, int], crop: tuple[int, int]) -> tuple[int, int]:
    """Return (top, left) of a centre crop; an odd difference leaves the extra row or column at the end."""
    return (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2


def corner_place(size: tuple[int, int], crop: tuple[int, int], corner: int) -> tuple[int, int]:
    """Return (top, left) of the crop at a corner: 0 top left, 1 top right, 2 bottom left, 3 bottom right."""
    return (size[0] - crop[0] if corner >= 2 else 0), (size[1] - crop[1] if corner % 2 else 0)
