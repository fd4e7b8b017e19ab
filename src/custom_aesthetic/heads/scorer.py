"""`Scorer`: a trained model as a Python object that scores pictures, from files or from memory."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.errors import ImageError, UserError
from custom_aesthetic.base.machine import choose_device, n_cores
from custom_aesthetic.extractors.protocol import FeatureExtractor
from custom_aesthetic.features.extraction import model_features
from custom_aesthetic.features.table import FeatureBlock, FeatureTable
from custom_aesthetic.heads.learnt_pictures import KEY as LEARNT_PICTURES
from custom_aesthetic.heads.model_file import Model, load_model
from custom_aesthetic.heads.prediction import (
    PictureScores,
    Prediction,
    model_input,
    open_extractors,
    predict_features,
    score_pictures,
    states_of,
)
from custom_aesthetic.pictures.arrays import load_image, split_images

IMAGES_AT_ONCE = 16
"""Images that are decoded and go through the extractor together; so many are in memory at once."""

MODEL_SUFFIX = ".safetensors"
USUAL_NAME = "model.safetensors"
NOT_ON_CARDS = ("domain", LEARNT_PICTURES)
"""Metadata that are data for the program, and nothing to read."""


class Ratings(NamedTuple):
    """What a model says of images; each field is (n_images,) float64, or None where the model says nothing of it."""

    scores: Array
    """In the units of the score file."""
    sigmas: Array | None
    """The standard deviation of the score that the model expects, in the same units."""
    domain_distances: Array | None
    """Above 1: unlike everything that the model was trained on."""


class Scorer:
    """A trained model that scores pictures; it may be used from several threads at once.

    Images are given one, or a sequence of them, as paths, PIL images, numpy arrays or torch tensors. Arrays and
    tensors are (height, width, channels), a batch (n, height, width, channels), uint8 or float 0...1, with 1, 3 or 4
    channels.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str | torch.device = "auto",
        extractor_model: str | None = None,
        offline: bool = False,
    ) -> None:
        """`device` computes the features; `extractor_model` serves a model file that names no extractor.

        `offline` never asks a hub for an extractor.
        """
        self.model = model
        self.device = choose_device(str(device))
        self._extractor_model, self._offline = extractor_model, offline
        self._extractors: list[FeatureExtractor] | None = None
        self._lock = Lock()

    @classmethod
    def load(
        cls,
        where: str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        extractor_model: str | None = None,
        offline: bool = False,
    ) -> "Scorer":
        """Return the scorer of a model file, or of a folder that holds one; UserError where there is none.

        Nothing else is read before the first image is scored.
        """
        model = load_model(find_model_file(where))
        return cls(model, device=device, extractor_model=extractor_model, offline=offline)

    @property
    def card(self) -> dict[str, str]:
        """What the model file says of itself: extractor, hidden states, metrics, parameters."""
        return {key: value for key, value in self.model.metadata.items() if key not in NOT_ON_CARDS}

    def score(self, images: Any, *, on_error: str = "raise") -> Array:
        """Return the scores, (n_images,) float64, in the units of the score file; higher is better.

        An image that cannot be read raises ImageError, or gets nan with `on_error="nan"`.
        """
        return self.rate(images, on_error=on_error).scores

    def rate(self, images: Any, *, on_error: str = "raise") -> Ratings:
        """Return scores, sigmas and distances from what the model was trained on, (n_images,) each."""
        return self._rate(self.features(images, on_error=on_error))

    def best(self, images: Any, n: int, *, on_error: str = "raise") -> NDArray[np.int64]:
        """Return the indices of the n best images, (n,) int64, best first; equal scores keep their order.

        All of them where there are fewer than n. Images that cannot be read are never among them.
        """
        if n < 0:
            raise ValueError(f"n={n}: the number of images to return is 0 or more")
        scores = self.score(images, on_error=on_error)
        order = np.argsort(-scores, kind="stable")
        return order[np.isfinite(scores[order])][:n].astype(np.int64)

    def features(self, images: Any, *, on_error: str = "raise") -> NDArray[np.float32]:
        """Return what `score_features` takes: (n_images, n_features) float32.

        An image that cannot be read raises ImageError, or gets a row of nan with `on_error="nan"`.
        """
        if on_error not in ("raise", "nan"):
            raise ValueError(f"on_error={on_error!r}: choose raise or nan")
        given = split_images(images)
        values = np.full((len(given), self.model.n_features), np.nan, np.float32)
        extractors = self._opened()
        for rows, pixels in self._decoded(given, extractors, on_error):
            values[rows] = self._compute(pixels, extractors).float().numpy()
        return values

    def score_features(self, features: Any) -> Array:
        """Return the scores, (n_images,) float64, of features (n_images, n_features); no extractor is needed."""
        return self.rate_features(features).scores

    def rate_features(self, features: Any) -> Ratings:
        """Return what `rate` returns, of features (n_images, n_features)."""
        values = np.asarray(features.detach().cpu().float() if isinstance(features, Tensor) else features, np.float32)
        if values.ndim != 2 or values.shape[1] != self.model.n_features:
            raise ValueError(f"the features have the shape {values.shape}, not (n_images, {self.model.n_features})")
        return self._rate(values)

    def score_folder(self, directory: Path, paths: Sequence[str], *, fp16: bool = False) -> PictureScores:
        """Return the scores of the pictures `directory`/`paths`, by the folder's feature cache where it has them.

        Pictures that cannot be read are left out, and named in the log.
        """
        return score_pictures(
            self.model,
            directory,
            paths,
            device=self.device,
            extractor_model=self._extractor_model,
            fp16=fp16,
            offline=self._offline,
        )

    def _rate(self, values: NDArray[np.float32]) -> Ratings:
        known = np.isfinite(values).all(axis=1)
        found = predict_features(self.model, torch.from_numpy(values[known])) if known.any() else None
        if found is None:
            found = predict_features(self.model, torch.zeros(1, self.model.n_features))
            found = Prediction(*(None if part is None else part[:0] for part in found))  # type: ignore[arg-type]
        return Ratings(*(_spread(part, known) for part in found))  # type: ignore[arg-type]

    def _opened(self) -> list[FeatureExtractor]:
        with self._lock:
            if self._extractors is None:
                self._extractors = open_extractors(
                    self.model, self.device, extractor_model=self._extractor_model, offline=self._offline
                )
            return self._extractors

    def _decoded(
        self, given: Sequence[Any], extractors: Sequence[FeatureExtractor], on_error: str
    ) -> Iterator[tuple[list[int], list["Pixels"]]]:
        """Yield the rows of some images and their pixels, without those that cannot be read."""
        with ThreadPoolExecutor(n_cores(), "decode") as decoders:
            for start in range(0, len(given), IMAGES_AT_ONCE):
                rows = range(start, min(start + IMAGES_AT_ONCE, len(given)))
                waiting = [decoders.submit(self._pixels, given[row], f"image {row}", extractors) for row in rows]
                found = {}
                for row, future in zip(rows, waiting, strict=True):
                    try:
                        found[row] = future.result()
                    except ImageError:
                        if on_error == "raise":
                            raise
                if found:
                    yield list(found), list(found.values())

    def _pixels(self, image: Any, name: str, extractors: Sequence[FeatureExtractor]) -> "Pixels":
        return {
            (number, view): extractor.transform(opened, view)
            for number, extractor in enumerate(extractors)
            for opened in [load_image(image, name, extractor.target_size)]
            for view in self.model.views
        }

    def _compute(self, pixels: Sequence["Pixels"], extractors: Sequence[FeatureExtractor]) -> Tensor:
        """Return the model's input, (n_images, n_features), of decoded images."""
        parts: list[Tensor] = []
        blocks: list[FeatureBlock] = []
        start = 0
        for number, (extractor, states) in enumerate(zip(extractors, states_of(self.model, extractors), strict=True)):
            for view in self.model.views:
                batch = torch.stack([image[number, view] for image in pixels])
                alone = nullcontext() if getattr(extractor, "features_thread_safe", False) else self._lock
                with alone:
                    found = model_features(extractor, batch, states)
                for state in states:
                    parts.append(torch.from_numpy(found[state]))
                    blocks.append(FeatureBlock(extractor.name, state, view, start, start + parts[-1].shape[1]))
                    start = blocks[-1].stop
        values = torch.cat(parts, dim=1)
        names = tuple(map(str, range(len(pixels))))
        table = FeatureTable(names, values.half() if self.model.fp16 else values, tuple(blocks), {})
        return model_input(self.model, table)


Pixels = dict[tuple[int, str], Tensor]
"""(number of the extractor, view) -> (3, height, width): one image as the extractors want it."""


def find_model_file(where: str | os.PathLike[str]) -> Path:
    """Return the model file at a path: the file itself, or the one in a folder; UserError where there is none.

    The place to look for `user/repo` on a hub, once models are published there.
    """
    path = Path(where).expanduser()
    if not path.is_dir():
        return path
    found = sorted(path.glob(f"*{MODEL_SUFFIX}"))
    if path / USUAL_NAME in found:
        return path / USUAL_NAME
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:5]) or "none"
        raise UserError(f"folder {path} should hold one model file, *{MODEL_SUFFIX}, and holds {names}; name the file")
    return found[0]


def _spread(values: Array | None, known: NDArray[np.bool_]) -> Array | None:
    """Return the values of the known rows at their places, nan elsewhere."""
    if values is None:
        return None
    spread = np.full(len(known), np.nan)
    spread[known] = values
    return spread
