"""Run an extractor over pictures, decoding in threads ahead of the model, with the fastest arrangement found.

On a CPU, an extractor whose `features` is thread-safe (its attribute `features_thread_safe` is true) can use the cores
in two ways: all of them for one batch, or one for each of several batches that run at once in "lanes". Both are timed,
then several batch sizes. Every other extractor has one lane with all threads. The arrangement changes the features by
no more than the rounding of float32 sums.
"""

import itertools
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
from custom_aesthetic.extractors.protocol import FeatureExtractor
from custom_aesthetic.pictures.images import BadImage, open_image

START_BATCH_SIZE = 4
MAX_BATCH_SIZE_CPU = 64
MAX_BATCH_SIZE_ACCELERATOR = 512
WORTHWHILE_GAIN = 1.03
"""A batch size must be this many times faster than the current one to replace it."""

N_PIXELS_AHEAD = 128
"""Transformed pictures, one for each view, that wait in memory for the model (0.6 MB each at 224 x 224)."""

MOST_REASON_LETTERS = 100

N_ROUNDS = 3
"""Batches per lane for each batch size tried; the first warms up, the fastest of the others counts."""

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
    max_batch_size: int


class Extraction:
    """One pass of an extractor over some pictures, made by `run`; `batch_size` is the fastest batch size found."""

    def __init__(
        self,
        directory: Path,
        extractor: FeatureExtractor,
        wanted: Wanted,
        *,
        on_batch: Callable[[list[int], Features], None],
        on_failure: Callable[[int, str], None],
    ) -> None:
        """`on_batch` gets the rows and features of each finished batch.

        `on_failure` gets the row of a picture without features, and the reason. The two are never called at the same
        time.
        """
        self._directory = directory
        self._extractor = extractor
        self._wanted = wanted
        self._on_batch = on_batch
        self._on_failure = on_failure
        self._reporting = Lock()
        self.lanes = arrangements(extractor)[0]
        self.batch_size = START_BATCH_SIZE

    def run(self, pictures: Sequence[tuple[int, str]]) -> None:
        """Extract the features of the pictures, (row, relative path) each.

        If interrupted, the batches that the model has begun are finished and reported first.
        """
        n_torch_threads = torch.get_num_threads()
        decoders = ThreadPoolExecutor(n_cores(), "decode")
        try:
            decoded = self._good(decode_ahead(decoders, self._directory, pictures, self._extractor, list(self._wanted)))
            self._find_arrangement(decoded)
            self._run_all(decoded)
        finally:
            decoders.shutdown(cancel_futures=True)
            torch.set_num_threads(n_torch_threads)

    def _good(self, decoded: Iterator[Decoded]) -> Iterator[Decoded]:
        for picture in decoded:
            if picture.reason is None:
                yield picture
            else:
                with self._reporting:
                    self._on_failure(picture.row, picture.reason)

    def _find_arrangement(self, decoded: Iterator[Decoded]) -> None:
        """Time the lanes and then batch sizes on the first pictures, whose features are reported as well."""
        best_rate, best_lanes = 0.0, self.lanes
        for lanes in arrangements(self._extractor):
            self.lanes = lanes
            rate = self._rate(decoded, START_BATCH_SIZE)
            if rate > best_rate:
                best_rate, best_lanes = rate, lanes
        self.lanes = best_lanes
        for factor in (2.0, 0.5):
            while best_rate and 1 <= (size := int(self.batch_size * factor)) <= self.lanes.max_batch_size:
                rate = self._rate(decoded, size)
                if rate < best_rate * WORTHWHILE_GAIN:
                    break
                self.batch_size, best_rate = size, rate
            if self.batch_size > START_BATCH_SIZE:
                break

    def _rate(self, decoded: Iterator[Decoded], batch_size: int) -> float:
        """Return the pictures per second with all lanes working; 0 if there are too few pictures left to tell."""
        n_lanes = self.lanes.n_lanes
        seconds = []
        with ThreadPoolExecutor(n_lanes, "model") as models:
            for _ in range(N_ROUNDS):
                batches = [list(itertools.islice(decoded, batch_size)) for _ in range(n_lanes)]
                started = time.perf_counter()
                for future in [models.submit(self._run_batch, batch) for batch in batches if batch]:
                    future.result()
                seconds.append(time.perf_counter() - started)
                if len(batches[-1]) < batch_size:
                    return 0.0
        return n_lanes * batch_size / min(seconds[1:])

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
            self._on_batch(rows, features)


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
        image = open_image(directory / path, extractor.target_size)
        return Decoded(row, {view: extractor.transform(image, view) for view in views})
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


def arrangements(extractor: FeatureExtractor) -> list[Lanes]:
    """Return the arrangements to try for this extractor on its device, within torch's number of threads."""
    n_threads = torch.get_num_threads()
    device = torch.device(getattr(extractor, "device", "cpu"))
    if device.type != "cpu":
        return [Lanes(1, n_threads, MAX_BATCH_SIZE_ACCELERATOR)]
    ways = [Lanes(1, n_threads, MAX_BATCH_SIZE_CPU)]
    if getattr(extractor, "features_thread_safe", False) and n_threads > 1:
        ways.append(Lanes(n_threads, 1, MAX_BATCH_SIZE_CPU))
    return ways
