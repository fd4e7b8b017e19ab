"""Marks of the training pictures in a model file, 16 bytes each, by which their copies are recognised.

A model looks better than it is when it is judged on copies of its training pictures, and paths do not reveal copies in
other folders or under other names. A mark consists of 16 random projections of the features, each rounded to 8 bits,
so that a picture cannot be reconstructed from it. Two pictures count as copies if the distance of their marks is below
the radius in the model file. Distances measured with the packaged extractor on 240 photographs, as the root mean
square of the differences: 0 for exact copies, at most 6.8 for copies saved again as JPEG at quality 75, and 13.6 for
the most similar pair of different photographs.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.arrays import Array

KEY = "learnt_pictures"
"""The key in the model file's metadata."""

N_NUMBERS = 16
STEPS_PER_DEVIATION = 30
"""Steps of the 8-bit numbers per standard deviation of the training pictures."""

MOST_PICTURES = 100_000
"""Pictures marked in one model file, which takes 2.1 MB; of more training pictures a random sample is marked."""

RADIUS = 6.0
"""The largest radius, as the root mean square of the differences between two marks."""

SHARE_OF_GAP = 0.3
"""The radius is at most this share of the median distance from a training picture to its nearest neighbour."""

SMALLEST_RADIUS = 0.7
"""The smallest radius: a distance that rounding alone can cause."""

SAMPLED_PICTURES = 2000


@dataclass(frozen=True)
class LearntPictures:
    """The marks of a model's training pictures."""

    marks: NDArray[np.int8]
    """(n_pictures, N_NUMBERS)"""
    centre: Array
    """(N_NUMBERS,): mean of the projections."""
    scale: Array
    """(N_NUMBERS,): standard deviation of the projections."""
    radius: float
    """Two pictures are copies if the root mean square difference of their marks is below this."""
    is_complete: bool
    """False if only some of the training pictures are marked."""


def mark_pictures(features: Array, seed: int = 0) -> LearntPictures:
    """Return the marks of training pictures with these features (n_images, n_features)."""
    rows = np.random.default_rng(seed).permutation(len(features))[:MOST_PICTURES]
    projected = _project(features[np.sort(rows)])
    centre, scale = projected.mean(0), np.maximum(projected.std(0), 1e-9)
    marks = np.unique(_round(projected, centre, scale), axis=0)
    return LearntPictures(marks, centre, scale, _radius(marks), len(rows) == len(features))


def learnt_metadata(features: Array, splits: Sequence[str], *, folded: bool) -> dict[str, str]:
    """Return the metadata with the marks of the pictures that a model learnt from: train and, if `folded`, eval.

    `features` are (n_images, n_features), and `splits` the sets of the same images.
    """
    learnt = np.isin(np.asarray(splits), ("train", "eval") if folded else ("train",))
    return {KEY: to_text(mark_pictures(features[learnt]))}


def is_copy(features: Array, learnt: LearntPictures) -> NDArray[np.bool_]:
    """Return whether each picture is a copy of a training picture, (n_images,), by features (n_images, n_features)."""
    from scipy.spatial import KDTree

    marks = _round(_project(features), learnt.centre, learnt.scale).astype(np.float64)
    reach = learnt.radius * N_NUMBERS**0.5
    distances, _ = KDTree(learnt.marks.astype(np.float64)).query(marks, distance_upper_bound=reach)
    return np.isfinite(distances)


def to_text(learnt: LearntPictures) -> str:
    """Return the marks as text for a model file's metadata."""
    content = {
        "marks": base64.b64encode(learnt.marks.tobytes()).decode(),
        "centre": learnt.centre.tolist(),
        "scale": learnt.scale.tolist(),
        "radius": learnt.radius,
        "complete": learnt.is_complete,
    }
    return json.dumps(content)


def from_text(text: str) -> LearntPictures | None:
    """Return the marks that `to_text` wrote; None if the text is damaged."""
    try:
        content = json.loads(text)
        marks = np.frombuffer(base64.b64decode(content["marks"]), np.int8).reshape(-1, N_NUMBERS)
        centre, scale = (np.asarray(content[name], np.float64) for name in ("centre", "scale"))
        radius = float(content["radius"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    usable = centre.shape == scale.shape == (N_NUMBERS,) and bool(np.isfinite(centre).all() and (scale > 0).all())
    if not usable or not len(marks) or not 0 < radius < np.inf:
        return None
    return LearntPictures(marks, centre, scale, radius, bool(content.get("complete", False)))


def _project(features: Array) -> Array:
    """Return random projections of the features scaled to length 1, (n_images, N_NUMBERS); equal on all machines."""
    n_features = features.shape[1]
    digest = hashlib.shake_256(b"custom aesthetic: marks of pictures").digest(n_features * N_NUMBERS // 8)
    bits = np.unpackbits(np.frombuffer(digest, np.uint8)).reshape(n_features, N_NUMBERS)
    signs = bits.astype(np.float32) * 2 - 1
    parts = np.array_split(np.asarray(features), len(features) // 8192 + 1)
    return np.concatenate([_unit(part) @ signs for part in parts]).astype(np.float64)


def _unit(features: Array) -> NDArray[np.float32]:
    values = features.astype(np.float32, copy=False)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _round(projected: Array, centre: Array, scale: Array) -> NDArray[np.int8]:
    return np.clip(np.round((projected - centre) / scale * STEPS_PER_DEVIATION), -127, 127).astype(np.int8)


def _radius(marks: NDArray[np.int8]) -> float:
    """Return the radius for distinct marks: smaller if the training pictures lie close together."""
    from scipy.spatial import KDTree

    if len(marks) < 2:
        return RADIUS
    values = marks.astype(np.float64)
    distances, _ = KDTree(values).query(values[:: len(values) // SAMPLED_PICTURES + 1], k=2)
    gap = float(np.median(distances[:, 1])) / N_NUMBERS**0.5
    return float(np.clip(SHARE_OF_GAP * gap, SMALLEST_RADIUS, RADIUS))
