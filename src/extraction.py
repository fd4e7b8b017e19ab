"""Run an extractor over pictures: decoding in threads ahead of the model, at a batch size found by timing.

On a CPU an extractor whose `features` may run in several threads at once (its attribute `features_thread_safe` is
true) gets one lane a core with one torch thread each: small networks lose much of their time where threads wait for
each other. Every other extractor gets one lane with all torch threads. The batch size changes the features by no more
than the rounding of float32 sums.
"""

import itertools
import os
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

from src.errors import UserError
from src.extractors.protocol import FeatureExtractor
from src.images import BadImage, open_image

START_BATCH_SIZE = 4
MAX_BATCH_SIZE_CPU = 64
MAX_BATCH_SIZE_ACCELERATOR = 512
WORTHWHILE_GAIN = 1.03
"""Another batch size must be this much faster to be taken."""

TIMED_ROUNDS = 3
"""Batches a lane for each batch size tried; the first one warms up."""

Wanted = Mapping[str, Sequence[int]]
"""View -> the hidden states wanted of it."""

Features = dict[tuple[str, int], NDArray[np.float32]]
"""(view, hidden state) -> (n_pictures, width)."""


@dataclass(frozen=True)
class Decoded:
    """One picture, transformed for each view: (3, height, width) each; or the reason why there is none."""

    row: int
    pixels: dict[str, Tensor]
    reason: str | None = None


@dataclass(frozen=True)
class Lanes:
    """How many batches run at once, and with how many torch threads each."""

    n_lanes: int
    n_torch_threads: int
    max_batch_size: int


class Extraction:
    """One pass of an extractor over some pictures; `run` does it, `batch_size` is what it found best."""

    def __init__(
        self,
        directory: Path,
        extractor: FeatureExtractor,
        wanted: Wanted,
        *,
        on_batch: Callable[[list[int], Features], None],
        on_failure: Callable[[int, str], None],
    ) -> None:
        """`on_batch` gets the rows and features of each batch as soon as the model is through with it, `on_failure`
        the row of a picture that gives no features, and the reason. They are never called at the same time."""
        self._directory = directory
        self._extractor = extractor
        self._wanted = wanted
        self._on_batch = on_batch
        self._on_failure = on_failure
        self._reporting = Lock()
        self._seconds: list[float] = []
        self.lanes = lanes_for(extractor)
        self.batch_size = START_BATCH_SIZE

    def run(self, pictures: Sequence[tuple[int, str]]) -> None:
        """Go through the pictures, (row, relative path) each.

        If it is interrupted, the batches that the model has begun are finished and reported before it ends.
        """
        n_torch_threads = torch.get_num_threads()
        decoders = ThreadPoolExecutor(n_cores(), "decode")
        models = ThreadPoolExecutor(self.lanes.n_lanes, "model")
        try:
            decoded = self._good(decode_ahead(decoders, self._directory, pictures, self._extractor, list(self._wanted)))
            self._find_batch_size(models, decoded)
            self._run_batches(models, decoded, None)
        finally:
            models.shutdown(cancel_futures=True)
            decoders.shutdown(cancel_futures=True)
            torch.set_num_threads(n_torch_threads)

    def _good(self, decoded: Iterator[Decoded]) -> Iterator[Decoded]:
        for picture in decoded:
            if picture.reason is None:
                yield picture
            else:
                with self._reporting:
                    self._on_failure(picture.row, picture.reason)

    def _find_batch_size(self, models: ThreadPoolExecutor, decoded: Iterator[Decoded]) -> None:
        """Climb to the fastest batch size on the first pictures; their features count like any others."""
        best, best_rate = START_BATCH_SIZE, self._rate(models, decoded, START_BATCH_SIZE)
        for factor in (2.0, 0.5):
            while 1 <= (size := int(best * factor)) <= self.lanes.max_batch_size:
                rate = self._rate(models, decoded, size)
                if best_rate is None or rate is None or rate < best_rate * WORTHWHILE_GAIN:
                    break
                best, best_rate = size, rate
            if best > START_BATCH_SIZE or best_rate is None:
                break
        self.batch_size = best

    def _rate(self, models: ThreadPoolExecutor, decoded: Iterator[Decoded], batch_size: int) -> float | None:
        """Return the pictures a second that the model gets through; None if the pictures ran out."""
        self.batch_size, self._seconds = batch_size, []
        n_batches = TIMED_ROUNDS * self.lanes.n_lanes
        self._run_batches(models, decoded, n_batches)
        seconds = self._seconds[self.lanes.n_lanes :]
        if len(self._seconds) < n_batches:
            return None
        return self.lanes.n_lanes * batch_size / min(seconds)

    def _run_batches(self, models: ThreadPoolExecutor, decoded: Iterator[Decoded], n_batches: int | None) -> None:
        """Run so many batches, None for all, keeping one more in store than there are lanes."""
        running: set[Future[None]] = set()
        for _ in itertools.count() if n_batches is None else range(n_batches):
            batch = list(itertools.islice(decoded, self.batch_size))
            if not batch:
                break
            running.add(models.submit(self._run_batch, batch))
            if len(running) > self.lanes.n_lanes:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        for future in running:
            future.result()

    def _run_batch(self, batch: list[Decoded]) -> None:
        torch.set_num_threads(self.lanes.n_torch_threads)
        rows = [picture.row for picture in batch]
        started = time.perf_counter()
        features: Features = {}
        for view, hidden_states in self._wanted.items():
            pixels = torch.stack([picture.pixels[view] for picture in batch])
            for hidden_state, values in model_features(self._extractor, pixels, hidden_states).items():
                features[view, hidden_state] = values
        seconds = time.perf_counter() - started
        with self._reporting:
            self._seconds.append(seconds)
            self._on_batch(rows, features)


def decode_ahead(
    decoders: ThreadPoolExecutor,
    directory: Path,
    pictures: Sequence[tuple[int, str]],
    extractor: FeatureExtractor,
    views: Sequence[str],
) -> Iterator[Decoded]:
    """Yield the pictures, (row, relative path) each, in their order; the threads are some way ahead."""
    n_ahead = 8 * n_cores() + 2 * (MAX_BATCH_SIZE_ACCELERATOR if torch.cuda.is_available() else MAX_BATCH_SIZE_CPU)
    waiting: deque[Future[Decoded]] = deque()
    for row, path in pictures:
        waiting.append(decoders.submit(decode, directory, row, path, extractor, views))
        if len(waiting) > n_ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def decode(directory: Path, row: int, path: str, extractor: FeatureExtractor, views: Sequence[str]) -> Decoded:
    """Return one picture as the network wants it, once for each view."""
    torch.set_num_threads(1)
    try:
        image = open_image(directory / path, extractor.target_size)
        return Decoded(row, {view: extractor.transform(image, view) for view in views})
    except BadImage as error:
        return Decoded(row, {}, error.reason)
    except MemoryError:
        return Decoded(row, {}, "not enough memory to decode it")


def model_features(
    extractor: FeatureExtractor, pixels: Tensor, hidden_states: Sequence[int]
) -> dict[int, NDArray[np.float32]]:
    """Return hidden state -> features (n_pictures, width) on the CPU; a batch too large for the device is halved."""
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


def lanes_for(extractor: FeatureExtractor) -> Lanes:
    """Return how to run this extractor on its device; OMP_NUM_THREADS and torch's own setting are respected."""
    n_threads = torch.get_num_threads()
    device = torch.device(getattr(extractor, "device", "cpu"))
    if device.type != "cpu":
        return Lanes(1, n_threads, MAX_BATCH_SIZE_ACCELERATOR)
    if getattr(extractor, "features_thread_safe", False):
        return Lanes(n_threads, 1, MAX_BATCH_SIZE_CPU)
    return Lanes(1, n_threads, MAX_BATCH_SIZE_CPU)


def n_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
