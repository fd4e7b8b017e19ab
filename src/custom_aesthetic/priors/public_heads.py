"""Public linear heads on CLIP embeddings: `.pth` files of plain tensors, such as LAION's aesthetic predictors.

They take an embedding scaled to length 1. The first ones hold `weight` (1, n_features) and `bias` (1,); the improved
ones five layers `layers.0`, `.2`, `.4`, `.6`, `.7`, with nothing but dropout between them, whose product is linear too.
The same layers with activations between them are numbered otherwise, and are refused.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.heads.linear_members import LinearModel

SUFFIXES = (".pth", ".pt")

LINEAR_STACK = ("0", "2", "4", "6", "7")
"""The numbers of the layers of the improved predictors that have no activations."""

MOST_BYTES = 100 * 1024**2


class PublicHead(NamedTuple):
    """score = weight . features / |features| + bias"""

    weight: Array
    """(n_features,)"""
    bias: float

    def predict(self, features: Array) -> Array:
        """Return the scores (n_images,) of features (n_images, n_features)."""
        return _unit(features) @ self.weight + self.bias

    def scores_of(self, features: Array, *, name: str) -> Array:
        """Return what `predict` does; UserError, about the file `name`, for another number of features."""
        if features.shape[1] != len(self.weight):
            raise UserError(
                f"--prior_model={name} takes {len(self.weight)} features, but there are {features.shape[1]}; give the "
                "CLIP model that it was trained on"
            )
        return self.predict(features)


def is_public_head(name: str) -> bool:
    """Return whether a file of this name is a public head, and not a model file."""
    return Path(name).suffix.lower() in SUFFIXES


def read_public_head(file: Path) -> PublicHead:
    """Return the head in a file; UserError if it is not one."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError("it is too large")
        content = torch.load(file, map_location="cpu", weights_only=True)
        return _product(_plain(content))
    except Exception as error:  # what is raised depends on the damage
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"--prior_model={file} is not a linear head on embeddings ({reason}); download it again, or give a model "
            "file of this program"
        ) from None


def linear_in_raw_features(head: PublicHead, features: Array) -> LinearModel:
    """Return the linear model of features (n_images, n_features), of any length, that is nearest to the head.

    The head divides by the length of each embedding, which a plain network cannot. On embeddings of about equal length
    that is nearly a constant; the length that matters beyond it shows along the mean embedding. The two directions are
    fitted to the head's scores of these images, without anybody's scores. On embeddings of length 1 it is exact.
    """
    values = features.astype(np.float64)
    centre = _unit(values).mean(0)
    directions = np.stack([head.weight, centre], axis=1)
    columns = np.concatenate([values @ directions, np.ones((len(values), 1))], axis=1)
    scale = np.maximum(np.linalg.norm(columns, axis=0), np.finfo(float).tiny)
    found = np.linalg.lstsq(columns / scale, head.predict(values), rcond=1e-9)[0] / scale
    return LinearModel(directions @ found[:2], float(found[2]))


def _unit(features: Array) -> Array:
    values = features.astype(np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _plain(content: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise ValueError("it holds no dictionary of tensors")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or not tensor.is_floating_point() or tensor.numel() > MOST_BYTES:
            raise ValueError(f"{name} is not a plain tensor of numbers")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds numbers that are not finite")
    return tensors


def _product(tensors: Mapping[str, Tensor]) -> PublicHead:
    """Return the layers multiplied together; ValueError if they are not linear layers down to one score."""
    prefixes = [name.removesuffix("weight") for name in tensors if name == "weight" or name.endswith(".weight")]
    if not prefixes:
        raise ValueError("it has no weight")
    numbers = tuple(found[1] for found in map(re.compile(r".*?(\d+)\.$").match, prefixes) if found)
    if len(prefixes) > 1 and numbers != LINEAR_STACK:
        raise ValueError("it has several layers, with activations between them")
    slope, bias = None, torch.zeros(0, dtype=torch.float64)
    for prefix in prefixes:
        weight = tensors[f"{prefix}weight"].double()
        if weight.dim() != 2 or (slope is not None and weight.shape[1] != len(slope)):
            raise ValueError(f"{prefix}weight has the shape {list(weight.shape)[:8]}")
        shift = tensors.get(f"{prefix}bias", torch.zeros(len(weight))).double()
        if shift.shape != weight.shape[:1]:
            raise ValueError(f"{prefix}bias has the shape {list(shift.shape)[:8]}")
        bias = shift if slope is None else weight @ bias + shift
        slope = weight if slope is None else weight @ slope
    if slope is None or len(slope) != 1:
        raise ValueError("it does not give one score")
    return PublicHead(slope[0].numpy(), float(bias[0]))
