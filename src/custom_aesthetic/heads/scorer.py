"""`Scorer`: the Python interface to a trained model, which scores pictures from files or from memory."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.errors import ImageError, UserError
from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.base.machine import choose_device, n_cores
from custom_aesthetic.base.processes import folder_prefix
from custom_aesthetic.extractors.protocol import FeatureExtractor, all_views, runs_side_by_side
from custom_aesthetic.features.extraction import few_features
from custom_aesthetic.features.table import FeatureBlock, FeatureTable, StoredFeatures
from custom_aesthetic.heads.learnt_pictures import KEY as LEARNT_PICTURES
from custom_aesthetic.heads.model_file import Model, load_model, public_bytes
from custom_aesthetic.heads.prediction import (
    PictureScores,
    Prediction,
    model_input,
    open_extractors,
    predict_features,
    score_pictures,
    states_of,
    store_features,
)
from custom_aesthetic.hub.card import FILE as USUAL_NAME
from custom_aesthetic.hub.card import model_card
from custom_aesthetic.hub.repositories import fetch_model, is_repository_name, publish_folder
from custom_aesthetic.pictures.arrays import loaded_image, split_images

IMAGES_AT_ONCE = 16
"""Images that are decoded and go through the extractor together; at most this many are in memory at once."""

MODEL_SUFFIX = ".safetensors"
NOT_ON_CARDS = ("domain", LEARNT_PICTURES)
"""Metadata keys left out of `Scorer.card`: data for the program, not for readers."""


class Ratings(NamedTuple):
    """Predictions for images; each field is (n_images,) float64, or None if the model does not predict it."""

    scores: Array
    """Predicted scores in the units of the score file; higher is better."""
    sigmas: Array | None
    """Predicted standard deviations of the scores, in the same units."""
    domain_distances: Array | None
    """Distances from the training pictures, from 0; above 1, an image is unlike all of them."""


class Scorer:
    """A trained model that scores pictures. Thread-safe.

    Methods take one image or a sequence of images: paths, bytes of files, PIL images, numpy arrays or torch tensors.
    Arrays and tensors are (height, width, channels), or a batch (n, height, width, channels), of type uint8 or of
    floats 0...1, with 1, 3 or 4 channels.

    PyTorch's threads spin while they wait for each other, which slows a busy machine down. The scripts turn this off; a
    program does by setting the environment variables OMP_WAIT_POLICY=PASSIVE and KMP_BLOCKTIME=0 before it imports
    torch, or by `torch.set_num_threads(1)`.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str | torch.device = "auto",
        extractor_model: str | None = None,
        offline: bool = False,
    ) -> None:
        """Set up a scorer; the extractors are opened when the first image is scored.

        `device` is the device that computes the features. `extractor_model` is the feature extractor for a model file
        that does not name one. With `offline`, extractors are never downloaded.
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
        """Return the scorer for a model file, for a folder that holds one, or for a hub's `user/repo[@revision]`.

        A file or folder of that name comes first. Reads the model file alone; the extractors are opened when the first
        image is scored. The options are those of `__init__`; `offline` holds for the model file too. UserError if there
        is no such model.
        """
        model = load_model(find_model_file(where, offline=offline))
        return cls(model, device=device, extractor_model=extractor_model, offline=offline)

    @property
    def card(self) -> dict[str, str]:
        """The metadata of the model file: extractor, hidden states, metrics, parameters."""
        return {key: value for key, value in self.model.metadata.items() if key not in NOT_ON_CARDS}

    def score(self, images: Any, *, on_error: str = "raise") -> Array:
        """Return the scores, (n_images,) float64, in the units of the score file; higher is better.

        An unreadable image raises ImageError, or scores nan with `on_error="nan"`.
        """
        return self.rate(images, on_error=on_error).scores

    def rate(self, images: Any, *, on_error: str = "raise") -> Ratings:
        """Return scores, sigmas and distances from the training pictures, (n_images,) each.

        An unreadable image raises ImageError, or gets nan everywhere with `on_error="nan"`.
        """
        return self._rate(self.features(images, on_error=on_error))

    def best(self, images: Any, n: int, *, on_error: str = "raise") -> NDArray[np.int64]:
        """Return the indices of the n best images, (n,) int64, best first; equal scores keep their order.

        Returns fewer if there are fewer readable images. An unreadable image raises ImageError, or is left out with
        `on_error="nan"`.
        """
        if n < 0:
            raise ValueError(f"n={n}: the number of images to return must be at least 0")
        scores = self.score(images, on_error=on_error)
        order = np.argsort(-scores, kind="stable")
        return order[np.isfinite(scores[order])][:n].astype(np.int64)

    def features(self, images: Any, *, on_error: str = "raise") -> NDArray[np.float32]:
        """Return the features of images, (n_images, n_features) float32, as `score_features` takes them.

        An unreadable image raises ImageError, or gets a row of nan with `on_error="nan"`.
        """
        if on_error not in ("raise", "nan"):
            raise ValueError(f"on_error={on_error!r}: choose raise or nan")
        given = split_images(images)
        values = np.full((len(given), self.model.n_features), np.nan, np.float32)
        for rows, prepared in self._decoded(given, on_error):
            values[rows] = self._compute(prepared).float().numpy()
        return values

    def score_features(self, features: Any) -> Array:
        """Return the scores, (n_images,) float64, for features (n_images, n_features), without an extractor.

        Rows with values that are not finite score nan. Raises ValueError for features of another shape.
        """
        return self.rate_features(features).scores

    def rate_features(self, features: Any) -> Ratings:
        """Return the ratings, as `rate` does, for features (n_images, n_features); see `score_features`."""
        values = np.asarray(features.detach().cpu().float() if isinstance(features, Tensor) else features, np.float32)
        if values.ndim != 2 or values.shape[1] != self.model.n_features:
            raise ValueError(f"the features have the shape {values.shape}, not (n_images, {self.model.n_features})")
        return self._rate(values)

    def prepare(self, image: Any, name: str = "image") -> "Prepared":
        """Return one image as `rate_prepared` takes it, so that programs decode by threads of theirs.

        `name` is that of an image without a path. Raises ImageError if it cannot be used.
        """
        prepared: Prepared = {}
        for number, extractor in enumerate(self._opened()):
            with loaded_image(image, name, extractor.target_size) as opened:
                views = all_views(extractor, opened, self.model.views)
            prepared.update({(number, view): pixels for view, pixels in views.items()})
        return prepared

    def rate_prepared(self, images: Sequence["Prepared"]) -> Ratings:
        """Return what `rate` returns, of images from `prepare`, which go through the extractor together."""
        return self._rate(self.features_prepared(images))

    def features_prepared(self, images: Sequence["Prepared"]) -> NDArray[np.float32]:
        """Return what `features` returns, of images from `prepare`, which go through the extractor together."""
        return self._compute(images).float().numpy()

    def score_folder(self, directory: Path, paths: Sequence[str], *, fp16: bool = False) -> PictureScores:
        """Return the scores of the pictures `directory`/`paths`, with features from the folder's cache if it has them.

        Unreadable pictures are left out and named in the log. `fp16` rounds features to half precision.
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

    def open_features(self, directory: Path, paths: Sequence[str]) -> StoredFeatures:
        """Return the features of the pictures `directory`/`paths`, in the folder's cache, to be read some at a time.

        Those that the cache lacks are computed first. Unreadable pictures are left out and named in the log.
        """
        return store_features(self.model, directory, paths, self._opened())

    def save_folder(self, folder: str | os.PathLike[str], *, license: str | None = None) -> Path:
        """Write the model and its card, `README.md`, to a new or empty folder; return the folder.

        `license` is the hub's name of a licence, such as `mit`; by default the card names none. The folder contains no
        picture, path or score of the training set.
        """
        path = Path(folder).expanduser()
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise UserError(f"{path} is not a new or empty folder, and nothing is overwritten; name another folder")
        self._write_folder(path, None, license)
        return path

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        license: str | None = None,
    ) -> str:
        """Publish the files of `save_folder` as `user/repo` on the hub, and return the address of the repository.

        A missing repository is created, private or not as asked (None: the hub's default, which is public). In an
        existing one, the older version stays in the history. `token` is by default that of `hf auth login`. Raises
        UserError if the hub is out of reach or refuses.
        """
        with tempfile.TemporaryDirectory(prefix=folder_prefix()) as folder:
            self._write_folder(Path(folder), repository, license)
            return publish_folder(Path(folder), repository, private=private, token=token)

    def _write_folder(self, folder: Path, repository: str | None, licence: str | None) -> None:
        write_atomically(folder / USUAL_NAME, public_bytes(self.model))
        metadata = load_model(folder / USUAL_NAME).metadata
        card = model_card(metadata, repository=repository, licence=licence)
        write_atomically(folder / "README.md", card.encode())

    def networks(self) -> list[nn.Module]:
        """Return the networks of the extractors, loaded: for programs that manage a device's memory.

        They may be moved to another device between two calls; the next image brings them back.
        """
        return [extractor.network() for extractor in self._opened() if hasattr(extractor, "network")]

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

    def _decoded(self, given: Sequence[Any], on_error: str) -> Iterator[tuple[list[int], list["Prepared"]]]:
        """Yield batches of images as row numbers and prepared images, without unreadable images."""
        with ThreadPoolExecutor(n_cores(), "decode") as decoders:
            for start in range(0, len(given), IMAGES_AT_ONCE):
                rows = range(start, min(start + IMAGES_AT_ONCE, len(given)))
                waiting = [decoders.submit(self.prepare, given[row], f"image {row}") for row in rows]
                found = {}
                for row, future in zip(rows, waiting, strict=True):
                    try:
                        found[row] = future.result()
                    except ImageError:
                        if on_error == "raise":
                            raise
                if found:
                    yield list(found), list(found.values())

    def _compute(self, images: Sequence["Prepared"]) -> Tensor:
        """Return the model's input, (n_images, n_features), for prepared images."""
        extractors = self._opened()
        parts: list[Tensor] = []
        blocks: list[FeatureBlock] = []
        start = 0
        for number, (extractor, states) in enumerate(zip(extractors, states_of(self.model, extractors), strict=True)):
            prepared = [{view: image[number, view] for view in self.model.views} for image in images]
            alone = nullcontext() if runs_side_by_side(extractor) else self._lock
            with alone:
                found = few_features(extractor, prepared, states)
            for view in self.model.views:
                for state in states:
                    parts.append(torch.from_numpy(found[view, state]))
                    blocks.append(FeatureBlock(extractor.name, state, view, start, start + parts[-1].shape[1]))
                    start = blocks[-1].stop
        values = torch.cat(parts, dim=1)
        names = tuple(map(str, range(len(images))))
        table = FeatureTable(names, values.half() if self.model.fp16 else values, tuple(blocks), {})
        return model_input(self.model, table)


Prepared = dict[tuple[int, str], Tensor]
"""(index of the extractor, view) -> (3, height, width): one image, prepared for the extractors."""


def find_model_file(where: str | os.PathLike[str], *, offline: bool = False) -> Path:
    """Return the model file at a path: the file itself, or the model file in a folder.

    In a folder it is `model.safetensors`, or else the only file with that suffix; UserError if there is none or more
    than one. Text that is no path here but has the form `user/repo[@revision]` is looked up on the hub.
    """
    path = Path(where).expanduser()
    if isinstance(where, str) and is_repository_name(where) and not path.exists():
        path = fetch_model(where, offline=offline)
    if not path.is_dir():
        return path
    found = sorted(path.glob(f"*{MODEL_SUFFIX}"))
    if path / USUAL_NAME in found:
        return path / USUAL_NAME
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:5]) or "none"
        raise UserError(
            f"folder {path} should hold one model file (*{MODEL_SUFFIX}) but holds {names}; give the path of the file"
        )
    return found[0]


def _spread(values: Array | None, known: NDArray[np.bool_]) -> Array | None:
    """Return an array with the values in the known rows and nan elsewhere."""
    if values is None:
        return None
    spread = np.full(len(known), np.nan)
    spread[known] = values
    return spread
