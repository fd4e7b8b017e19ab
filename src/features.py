"""Features of images: each picture through every extractor, the hidden states side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from src.extractors.protocol import FeatureExtractor


@dataclass(frozen=True)
class FeatureBlock:
    """Which columns hold one hidden state of one extractor, for one view: start ... stop - 1."""

    extractor: str
    hidden_state: int
    view: str
    start: int
    stop: int


@dataclass(frozen=True)
class FeatureTable:
    """Features of those images that could be read, in the order asked."""

    paths: tuple[str, ...]
    values: Tensor
    """(n_images, n_features) on the CPU, float32 or float16."""
    blocks: tuple[FeatureBlock, ...]
    failures: dict[str, str]
    """Path -> reason, for the images that could not be read."""


def load_features(
    directory: Path,
    paths: Sequence[str],
    extractors: Sequence[FeatureExtractor],
    *,
    hidden_states: Sequence[int] | None = None,
    views: Sequence[str] = ("centre",),
    fp16: bool = False,
    show_progress: bool = True,
) -> FeatureTable:
    """Return the features of these images; those that cannot be read are in `failures`."""
    rows, failures, kept = [], {}, []
    blocks: list[FeatureBlock] = []
    for path in tqdm(paths, unit="picture", disable=not show_progress):
        try:
            with Image.open(directory / path) as opened:
                image = ImageOps.exif_transpose(opened).convert("RGB")
        except OSError as error:
            failures[path] = str(error)
            continue
        parts = []
        for extractor in extractors:
            states = extractor.default_hidden_states if hidden_states is None else tuple(hidden_states)
            for view in views:
                found = extractor.features(extractor.transform(image, view)[None], states)
                parts += [(extractor.name, view, state, found[state][0].cpu()) for state in states]
        if not blocks:
            start = 0
            for name, view, state, part in parts:
                blocks.append(FeatureBlock(name, state, view, start, start + len(part)))
                start += len(part)
        rows.append(torch.cat([part for *_, part in parts]))
        kept.append(path)
    values = torch.stack(rows) if rows else torch.empty(0, 0)
    return FeatureTable(tuple(kept), values.half() if fp16 else values, tuple(blocks), failures)
