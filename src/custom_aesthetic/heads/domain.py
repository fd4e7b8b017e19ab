"""The domain of a model: a small summary of its training features, and how far other pictures are from it.

The distance is one minus the cosine to the nearest of a few centres of the training pictures (spherical k-means). On
real photographs this separated other kinds of pictures better than distances between standardised features or
principal components.
"""

import base64
import json
import warnings
from dataclasses import dataclass

import numpy as np

N_CENTRES = 24
N_ROUNDS = 20
MOST_PICTURES = 5000
MOST_NUMBERS = 2**17
"""The most centres times features. Wide features get fewer centres, so that the summary stays below 180 KB."""

KNOWN_SHARE = 0.99
"""Share of unseen pictures of the same kind as the training pictures that lie within the threshold."""


@dataclass(frozen=True)
class Domain:
    """Centres (n_centres, n_features) of length 1, and the distance beyond which a picture is flagged."""

    centres: np.ndarray
    threshold: float


def find_domain(features: np.ndarray, seed: int = 0) -> Domain | None:
    """Return the domain of training features (n_images, n_features); None for fewer than 8 pictures.

    The threshold is measured on pictures that the centres have not seen: each half of the pictures by the centres of
    the other half.
    """
    if len(features) < 8:
        return None
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(features))[:MOST_PICTURES]
    unit = _unit(features[rows])
    half = len(unit) // 2
    distances = [
        _distances(unit[:half], _centres(unit[half:], generator)),
        _distances(unit[half:], _centres(unit[:half], generator)),
    ]
    return Domain(_centres(unit, generator), float(np.quantile(np.concatenate(distances), KNOWN_SHARE)))


def distances(features: np.ndarray, domain: Domain) -> np.ndarray:
    """Return the distances (n_images,) of features (n_images, n_features) from a domain; above 1 is outside."""
    return _distances(_unit(features), domain.centres) / max(domain.threshold, 1e-6)


def to_text(domain: Domain) -> str:
    """Return the domain as text for a model file's metadata; centres are rounded to 8 bits."""
    scale = float(np.abs(domain.centres).max()) / 127 or 1.0
    numbers = np.round(domain.centres / scale).astype(np.int8)
    return json.dumps(
        {
            "threshold": domain.threshold,
            "scale": scale,
            "n_centres": len(numbers),
            "centres": base64.b64encode(numbers.tobytes()).decode(),
        }
    )


def from_text(text: str, n_features: int) -> Domain | None:
    """Return the domain that `to_text` wrote; None if the text is damaged or for another number of features."""
    try:
        content = json.loads(text)
        numbers = np.frombuffer(base64.b64decode(content["centres"]), dtype=np.int8)
        scale, threshold = float(content["scale"]), float(content["threshold"])
        centres = numbers.reshape(int(content["n_centres"]), n_features) * scale
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    # Centres have length 1 and distances are at most 2, so larger numbers mean that the text is damaged.
    usable = centres.size and 0 < scale <= 1 and abs(threshold) < 3
    return Domain(_unit(centres), threshold) if usable else None


def _unit(rows: np.ndarray) -> np.ndarray:
    values = rows.astype(np.float32, copy=False)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _distances(unit: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [1 - (part @ centres.T.astype(np.float32)).max(axis=1) for part in np.array_split(unit, len(unit) // 8192 + 1)]
    )


def _centres(unit: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return k-means centres of rows of length 1, scaled to length 1; uses one core, which makes them reproducible."""
    from sklearn.cluster import KMeans  # only training finds domains; scoring needs no scikit-learn
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    n_centres = max(1, min(N_CENTRES, MOST_NUMBERS // unit.shape[1], len(unit) // 4))
    model = KMeans(n_centres, n_init=1, max_iter=N_ROUNDS, random_state=int(generator.integers(2**31)))
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct pictures than centres
        return _unit(model.fit(unit).cluster_centers_)
