"""Near-duplicates, found by features: bursts, crops, variations of one seed. A split that divides them biases figures.

Likeness is the cosine of standardised features. Among 240 photographs with the packaged extractor, the most similar
pair of different pictures reaches 0.82 (two close-ups of grass). Of 280 mild variations (crops by up to 9 % on each
side, brightness, contrast, mirroring, JPEG at quality 40), 99 % have a likeness above 0.85 to their original; so have
70 % of crops by 18 % on each side, but only 10 % of pictures scaled to half their size.

Pictures that a camera took within seconds of each other (`shot_together`) need less likeness, because they usually have
the same subject. Measured on pairs of crops of the same photographs: a threshold of 0.5 finds 97 % of shots moved by
15 % of the frame, 97 % of zooms by 1.5, and all smaller moves, tilts and exposures within 1 EV, and also 0.1 % of pairs
of different pictures. A threshold of 0.7 finds 67 %, 67 %, 96 % and 0.01 %.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.arrays import Array

log = logging.getLogger(__name__)

Pairs = NDArray[np.int64]
"""(n_pairs, 2): row numbers, the lower first."""


class Rows(Protocol):
    """Features of images, (n_images, n_features): an array, or something that reads the rows asked for."""

    def __getitem__(self, rows: NDArray[np.int64], /) -> Array: ...


THRESHOLD = 0.85
BURST_THRESHOLD = 0.5
"""For pictures that were shot together."""

FEWEST_IMAGES = 8
ALL_PAIRS_UP_TO = 60_000
"""Up to this many images, all pairs are compared. With more, each image is compared with its NEIGHBOURS."""

NEIGHBOURS = 1000
"""With more than ALL_PAIRS_UP_TO images, each is compared with this many that follow it in path order."""

N_AXES = 64
N_ITERATIONS = 2
SAMPLED_ROWS = 4000
BLOCK = 2048


def group_duplicates(
    paths: Sequence[str], features: Rows, *, threshold: float = THRESHOLD, shot_together: Pairs | None = None
) -> dict[str, str]:
    """Return path -> first path of its group, for all images with a near-duplicate; other images are left out.

    `features` are (n_images, n_features). Two images are in one group if their likeness, in -1...1, is at least the
    threshold, or if a chain of such pairs links them; for the pairs of rows `shot_together`, (n_pairs, 2), the
    threshold is BURST_THRESHOLD. With fewer than FEWEST_IMAGES images, features cannot be standardised, so only
    identical features count.

    Takes memory proportional to n_images x N_AXES, however many images are alike, and time proportional to n_images
    squared up to ALL_PAIRS_UP_TO images. With more, only duplicates within NEIGHBOURS images in path order, and
    identical features, are found.
    """
    order = np.argsort(np.array(paths, dtype=object), kind="stable")
    groups = _Groups(_identical(features, order))
    different = np.unique(groups.lowest(np.arange(len(paths))))
    if len(paths) >= FEWEST_IMAGES:
        likeness = _Likeness(features, order[different])
        for candidates in _candidates(likeness, order[different], threshold):
            _join(groups, different[candidates], lambda pairs: likeness.of(order[pairs]) >= threshold)
        if shot_together is not None:
            shots = np.argsort(order)[shot_together]
            _join(groups, shots, lambda pairs: likeness.of(order[pairs]) >= BURST_THRESHOLD)
    leaders = groups.lowest(np.arange(len(paths)))
    sizes = np.bincount(leaders, minlength=len(paths))
    return {paths[order[row]]: paths[order[first]] for row, first in enumerate(leaders.tolist()) if sizes[first] > 1}


class _Groups:
    """Items 0 ... n - 1 in groups, each known by its lowest item."""

    def __init__(self, lower: Pairs) -> None:
        """`lower` is an item of the same group for each item, lower than it or itself; it is changed."""
        self._lower = lower

    def lowest(self, items: Pairs) -> Pairs:
        """Return the lowest item of the group of each item, in the shape of `items`."""
        found = self._lower[items]
        while not np.array_equal(found, further := self._lower[found]):
            found = further
        self._lower[items] = found
        return found

    def join(self, pairs: Pairs) -> None:
        """Make one group of the groups of both items of each pair, (n_pairs, 2)."""
        for first, second in pairs.tolist():
            ends = self._lowest_of(first), self._lowest_of(second)
            self._lower[max(ends)] = min(ends)

    def _lowest_of(self, item: int) -> int:
        while (lower := int(self._lower[item])) != item:
            self._lower[item] = self._lower[lower]
            item = lower
        return item


def _join(groups: _Groups, candidates: Pairs, are_alike: Callable[[Pairs], NDArray[np.bool_]]) -> None:
    """Join those of the candidates, (n_pairs, 2), that are alike, the nearest in path order first.

    Once two images are in one group they are not compared: among n images that are all alike, that is n comparisons
    instead of n squared.
    """
    candidates = candidates[np.argsort(np.abs(candidates[:, 1] - candidates[:, 0]), kind="stable")]
    while True:
        ends = groups.lowest(candidates)
        candidates = candidates[ends[:, 0] != ends[:, 1]]
        if not len(candidates):
            return
        compared, candidates = candidates[:BLOCK], candidates[BLOCK:]
        groups.join(compared[are_alike(compared)])


def describe_groups(groups: Mapping[str, str]) -> str:
    """Return a sentence with the number of images with near-duplicates, and of their groups."""
    return f"{len(groups)} images are near-duplicates of others, in {len(set(groups.values()))} groups"


def _identical(features: Rows, order: Pairs) -> Pairs:
    """Return for each image in this order the position of the first image with equal features, (n_images,)."""
    digests = np.empty((len(order), 2), np.uint64)
    for start in range(0, len(order), BLOCK):
        for place, row in enumerate(features[order[start : start + BLOCK]], start):
            digests[place] = np.frombuffer(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), np.uint64)
    if not len(order):
        return np.zeros(0, np.int64)
    _, first, inverse = np.unique(digests.view("V16")[:, 0], return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]


class _Likeness:
    """The likeness of images by their standardised features."""

    def __init__(self, features: Rows, rows: Pairs) -> None:
        """Standardise by the images in `rows`, or by a sample of them if there are many."""
        self._features = features
        sampled = np.sort(np.random.default_rng(0).permutation(rows)[:SAMPLED_ROWS])
        self.sample = np.asarray(features[sampled], dtype=np.float64)
        self._mean, self._scale = self.sample.mean(0), self.sample.std(0)
        self._scale[self._scale <= 1e-6 * self._scale.max(initial=0)] = np.inf
        self.sample = self._to_units(self.sample)

    def units(self, rows: Pairs) -> Array:
        """Return unit vectors, (n_rows, n_features), whose dot products are the likenesses."""
        return self._to_units(np.asarray(self._features[rows], dtype=np.float64)).astype(np.float32)

    def of(self, pairs: Pairs) -> Array:
        """Return the likeness of each pair of rows, (n_pairs,); each row is read once."""
        rows, places = np.unique(pairs, return_inverse=True)
        units = self.units(rows)
        places = places.reshape(pairs.shape)
        return np.einsum("pf,pf->p", units[places[:, 0]], units[places[:, 1]])

    def _to_units(self, values: Array) -> Array:
        standardised = (values - self._mean) / self._scale
        return standardised / np.maximum(np.linalg.norm(standardised, axis=1, keepdims=True), 1e-12)


def _candidates(likeness: _Likeness, rows: Pairs, threshold: float) -> Iterator[Pairs]:
    """Yield all pairs of positions in `rows` whose likeness is at least the threshold, and few others.

    On a few orthonormal axes two unit vectors are never farther apart than on all, so that the distance there leaves
    out most pairs and loses none.
    """
    axes = _main_axes(likeness.sample).astype(np.float32)
    short = np.empty((len(rows), axes.shape[1]), np.float32)
    for start in range(0, len(rows), BLOCK):
        short[start : start + BLOCK] = likeness.units(rows[start : start + BLOCK]) @ axes
    reach = len(rows) if len(rows) <= ALL_PAIRS_UP_TO else NEIGHBOURS
    if reach < len(rows):
        log.warning(
            "%d images: near-duplicates are looked for among the %d that follow each in path order", len(rows), reach
        )
    yield from _near(short, 2 - 2 * threshold + 1e-4, reach)


def _main_axes(values: Array) -> Array:
    """Return orthonormal axes (n_features, at most N_AXES) near to the principal ones, by power iteration.

    A full decomposition takes seconds on a busy machine, and cannot be interrupted.
    """
    n_axes = min(N_AXES, *values.shape)
    axes = np.random.default_rng(0).standard_normal((values.shape[1], n_axes))
    for _ in range(N_ITERATIONS):
        axes = np.linalg.qr(values.T @ (values @ axes))[0]
    return axes


def _near(short: NDArray[np.float32], squared_distance: float, reach: int) -> Iterator[Pairs]:
    """Yield the pairs, at most `reach` rows apart, that are within the squared distance, a block of rows at a time."""
    squares = np.square(short).sum(1)
    for start in range(0, len(short), BLOCK):
        stop = min(start + BLOCK, len(short))
        for other in range(start, min(stop + reach, len(short)), BLOCK):
            end = min(other + BLOCK, len(short))
            distances = squares[start:stop, None] + squares[other:end] - 2 * short[start:stop] @ short[other:end].T
            first, second = np.nonzero(distances <= squared_distance)
            pairs = np.stack([first + start, second + other], axis=1)
            apart = pairs[:, 1] - pairs[:, 0]
            yield pairs[(apart > 0) & (apart <= reach)]
