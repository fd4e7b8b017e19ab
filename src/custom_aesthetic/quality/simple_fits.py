"""The fits of simple methods that a training is compared with, kept as text: on many images they take minutes."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality.confidence import Interval
from custom_aesthetic.quality.learning_curve import LearningCurve

KEY = "simple fits"
VERSION = 2
"""To be raised where the methods change, so that fits of an earlier version are not taken for theirs."""

MOST_CHARACTERS = 4_000_000
"""A longer text is not kept: a database is no place for it."""


class SimpleFits(NamedTuple):
    """What the simple methods say of the images that a model is judged by."""

    curve: LearningCurve
    baselines: Mapping[str, Array]
    """Name -> predictions (n_rows,)."""


def kept_fits(kept: MutableMapping[str, str], content: Sequence[NDArray], make: Callable[[], SimpleFits]) -> SimpleFits:
    """Return the fits kept under KEY if they are of this content, else those that `make` returns, and keep them."""
    digest = _digest(content)
    found = _from_text(kept.get(KEY, ""), digest)
    if found is None:
        found = make()
        text = _to_text(found, digest)
        if len(text) <= MOST_CHARACTERS:
            kept[KEY] = text
    return found


def _digest(content: Sequence[NDArray]) -> str:
    digest = hashlib.sha256(f"{VERSION}".encode())
    for values in content:
        digest.update(f" {values.dtype} {values.shape} ".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _to_text(fits: SimpleFits, digest: str) -> str:
    baselines = {name: base64.b64encode(own.astype("<f8").tobytes()).decode() for name, own in fits.baselines.items()}
    curve = fits.curve
    gains = [[extra, gain] for extra, gain in curve.gains.items()]
    return json.dumps([digest, baselines, curve.sizes, curve.spearmans, gains])


def _from_text(text: str, digest: str) -> SimpleFits | None:
    """Return the fits; None if the text is none of `_to_text`, or of other content."""
    try:
        found, baselines, sizes, spearmans, gains = json.loads(text)
        if found != digest:
            return None
        curve = LearningCurve(
            tuple(sizes), tuple(spearmans), {extra: None if gain is None else Interval(*gain) for extra, gain in gains}
        )
        return SimpleFits(
            curve, {name: np.frombuffer(base64.b64decode(own), "<f8").copy() for name, own in baselines.items()}
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
