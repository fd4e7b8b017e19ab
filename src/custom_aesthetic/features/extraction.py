"""Run an extractor over pictures, decoding in threads ahead of the model.

On a CPU, an extractor whose `features` is thread-safe (its attribute `features_thread_safe` is true) computes small
batches side by side in "lanes", one core each: see `engines.lanes`. Every other extractor has one lane with all
threads. On an accelerator, several batch sizes are timed. The arrangement changes the features by no more than the
rounding of float32 sums.
"""

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.machine import n_cores
from custom_aesthetic.engines.lanes import side_by_side, single_threads, usual_threads
from custom_aesthetic.extractors.protocol import FeatureExtractor, all_views, batch_size_of, runs_side_by_side
from custom_aesthetic.pictures.images import BadImage, opened_image

MAX_BATCH_SIZE = 512
WORTHWHILE_GAIN = 1.03
"""A batch size must be this many times faster than the one half as large to replace it."""

SECONDS_BETWEEN_REPORTS = 1.0
"""Finished batches are reported together so often, because storing many small ones takes longer than computing them."""

REPORTING_FRACTION = 0.05
"""Reports wait longer where one takes more than this part of the time between them, as with many hidden states."""

LONGEST_BETWEEN_REPORTS = 10.0

N_PIXELS_AHEAD = 128
"""Transformed pictures, one for each view, that wait in memory for the model (0.6 MB each at 224 x 224)."""

MOST_REASON_LETTERS = 100

N_ROUNDS = 3
"""Batches of each size tried; the first warms up, the fastest of the others counts."""

Wanted = Mapping[str, Sequence[int]]
"""View -> the hidden states to compute for it."""

Features = dict[tuple[str, int], NDArray[np.float32]]
"""(view, hidden state) -> (n_pictures, width)."""


@dataclass(frozen=True)
class Decoded:
    """One picture, transformed for each view to (3, height, width), or the reason why it cannot be used."""

    row: int
    pixels: dict[str, Tensor]
    reason: str | None = None


@dataclass(frozen=True)
class Lanes:
    """How many batches run at once, and the number of torch threads for each."""

    n_lanes: int
    n_torch_threads: int


class Extraction:
    """One pass of an extractor over some pictures, made by `run`."""

    def __init__(
        self,
        directory: Path,
        extractor: FeatureExtractor,
        wanted: Wanted,
        *,
        on_batch: Callable[[list[int], Features], None],
        on_failure: Callable[[int, str], None],
    ) -> None:
        """`on_batch` gets the rows and features of finished batches, several at once where they are fast.

        `on_failure` gets the row of a picture without features, and the reason. The two are never called at the same
        time.
        """
        self._directory = directory
        self._extractor = extractor
        self._wanted = wanted
        self._on_batch = on_batch
        self._on_failure = on_failure
        self._reporting = Lock()
        self._finished: list[tuple[list[int], Features]] = []
        self._reported_at = float("-inf")
        self._pause = SECONDS_BETWEEN_REPORTS
        self.batch_size = batch_size_of(extractor)
        """Pictures of a batch; the fastest number found, on an accelerator."""

    def run(self, pictures: Sequence[tuple[int, str]]) -> None:
        """Extract the features of the pictures, (row, relative path) each.

        If interrupted, the batches that the model has begun are finished and reported first.
        """
        decoders = ThreadPoolExecutor(n_cores(), "decode")
        with single_threads() as n_threads:
            self.lanes = arrangement(self._extractor, n_threads, len(pictures))
            self.batch_size = min(self.batch_size, math.ceil(len(pictures) / self.lanes.n_lanes) or 1)
            try:
                decoded = self._good(
                    decode_ahead(decoders, self._directory, pictures, self._extractor, list(self._wanted))
                )
                if not _is_on_cpu(self._extractor):
                    self._find_batch_size(decoded)
                self._run_all(decoded)
            finally:
                decoders.shutdown(cancel_futures=True)
                with self._reporting:
                    self._report()

    def _good(self, decoded: Iterator[Decoded]) -> Iterator[Decoded]:
        for picture in decoded:
            if picture.reason is None:
                yield picture
            else:
                with self._reporting:
                    self._on_failure(picture.row, picture.reason)

    def _find_batch_size(self, decoded: Iterator[Decoded]) -> None:
        """Time larger and larger batches on the first pictures, whose features are reported as well."""
        best_rate = self._rate(decoded, self.batch_size)
        while best_rate and (size := 2 * self.batch_size) <= MAX_BATCH_SIZE:
            rate = self._rate(decoded, size)
            if rate < best_rate * WORTHWHILE_GAIN:
                break
            self.batch_size, best_rate = size, rate

    def _rate(self, decoded: Iterator[Decoded], batch_size: int) -> float:
        """Return the pictures per second; 0 if there are too few pictures left to tell."""
        seconds = []
        for _ in range(N_ROUNDS):
            batch = list(itertools.islice(decoded, batch_size))
            started = time.perf_counter()
            if batch:
                self._run_batch(batch)
            seconds.append(time.perf_counter() - started)
            if len(batch) < batch_size:
                return 0.0
        return batch_size / min(seconds[1:])

    def _run_all(self, decoded: Iterator[Decoded]) -> None:
        """Run all remaining pictures; one batch more than there are lanes is submitted ahead."""
        running: set[Future[None]] = set()
        models = ThreadPoolExecutor(self.lanes.n_lanes, "model")
        try:
            while batch := list(itertools.islice(decoded, self.batch_size)):
                running.add(models.submit(self._run_batch, batch))
                if len(running) > self.lanes.n_lanes:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            for future in running:
                future.result()
        finally:
            models.shutdown(cancel_futures=True)

    def _run_batch(self, batch: list[Decoded]) -> None:
        torch.set_num_threads(self.lanes.n_torch_threads)
        rows = [picture.row for picture in batch]
        features: Features = {}
        for view, hidden_states in self._wanted.items():
            pixels = torch.stack([picture.pixels[view] for picture in batch])
            for hidden_state, values in model_features(self._extractor, pixels, hidden_states).items():
                features[view, hidden_state] = values
        with self._reporting:
            self._finished.append((rows, features))
            if time.monotonic() - self._reported_at >= self._pause:
                self._report()

    def _report(self) -> None:
        """Report the finished batches as one; the caller holds the lock."""
        if not self._finished:
            return
        started = time.monotonic()
        finished, self._finished = self._finished, []
        rows = [row for batch_rows, _ in finished for row in batch_rows]
        self._on_batch(rows, {name: np.concatenate([found[name] for _, found in finished]) for name in finished[0][1]})
        self._reported_at = time.monotonic()
        took = self._reported_at - started
        self._pause = max(SECONDS_BETWEEN_REPORTS, min(took / REPORTING_FRACTION, LONGEST_BETWEEN_REPORTS))


def decode_ahead(
    decoders: ThreadPoolExecutor,
    directory: Path,
    pictures: Sequence[tuple[int, str]],
    extractor: FeatureExtractor,
    views: Sequence[str],
) -> Iterator[Decoded]:
    """Yield the pictures, (row, relative path) each, in their order, while threads decode the next ones."""
    n_ahead = N_PIXELS_AHEAD // len(views)
    waiting: deque[Future[Decoded]] = deque()
    for row, path in pictures:
        waiting.append(decoders.submit(decode, directory, row, path, extractor, views))
        if len(waiting) > n_ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def decode(directory: Path, row: int, path: str, extractor: FeatureExtractor, views: Sequence[str]) -> Decoded:
    """Return one picture transformed for each view, or the reason why it cannot be used."""
    torch.set_num_threads(1)
    try:
        with opened_image(directory / path, extractor.target_size) as image:
            return Decoded(row, all_views(extractor, image, views))
    except BadImage as error:
        return Decoded(row, {}, error.reason)
    except MemoryError:
        return Decoded(row, {}, "not enough memory to decode it")
    except Exception as error:  # an extractor's transform may raise anything on an unusual picture
        return Decoded(row, {}, f"{extractor.name} cannot transform it ({_in_a_few_words(error)})")


def _in_a_few_words(error: Exception) -> str:
    words = " ".join(str(error).split())[:MOST_REASON_LETTERS]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def model_features(
    extractor: FeatureExtractor, pixels: Tensor, hidden_states: Sequence[int]
) -> dict[int, NDArray[np.float32]]:
    """Return hidden state -> features (n_pictures, width) on the CPU; a batch too large for the device is halved.

    Raises UserError if even one picture does not fit the device's memory.
    """
    try:
        found = extractor.features(pixels, hidden_states)
        return {hidden_state: values.detach().float().cpu().numpy() for hidden_state, values in found.items()}
    except torch.OutOfMemoryError as error:
        n_pictures = len(pixels)
        if n_pictures == 1:
            raise UserError(
                f"{extractor.name} does not fit the device's memory even with one picture at a time; "
                "choose a smaller one, or --device=cpu"
            ) from error
    halves = [model_features(extractor, half, hidden_states) for half in pixels.split((n_pictures + 1) // 2)]
    return {hidden_state: np.concatenate([half[hidden_state] for half in halves]) for hidden_state in halves[0]}


def few_features(
    extractor: FeatureExtractor, pictures: Sequence[Mapping[str, Tensor]], hidden_states: Sequence[int]
) -> Features:
    """Return the features of a few pictures, given as view -> (3, height, width), on all cores where that works."""
    views = list(pictures[0])
    share = len(pictures)
    if runs_side_by_side(extractor):
        share = min(batch_size_of(extractor), math.ceil(len(pictures) * len(views) / usual_threads()))
    batches = [(view, pictures[i : i + share]) for view in views for i in range(0, len(pictures), share)]

    def compute(batch: tuple[str, Sequence[Mapping[str, Tensor]]]) -> dict[int, NDArray[np.float32]]:
        view, some = batch
        return model_features(extractor, torch.stack([picture[view] for picture in some]), hidden_states)

    found = side_by_side(compute, batches) if runs_side_by_side(extractor) else list(map(compute, batches))
    parts: dict[tuple[str, int], list[NDArray[np.float32]]] = {}
    for (view, _), states in zip(batches, found, strict=True):
        for k, values in states.items():
            parts.setdefault((view, k), []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def arrangement(extractor: FeatureExtractor, n_threads: int, n_pictures: int) -> Lanes:
    """Return the lanes for so many pictures with this extractor on its device, which use `n_threads` cores."""
    n_lanes = max(1, min(n_threads, n_pictures)) if runs_side_by_side(extractor) else 1
    return Lanes(n_lanes, n_threads // n_lanes)


def _is_on_cpu(extractor: FeatureExtractor) -> bool:
    return torch.device(getattr(extractor, "device", "cpu")).type == "cpu"
