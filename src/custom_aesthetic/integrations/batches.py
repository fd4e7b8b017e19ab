"""Rates images that arrive one by one in batches: what arrives while a batch runs makes up the next one."""

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from custom_aesthetic.base.errors import ImageError
from custom_aesthetic.base.machine import n_cores
from custom_aesthetic.heads.scorer import IMAGES_AT_ONCE, Prepared, Scorer

MOST_AHEAD = 2 * IMAGES_AT_ONCE
"""Decoded images that wait in memory for the model; decoding waits while there are more."""


class ImageRating(NamedTuple):
    """What the model says of one image."""

    score: float
    sigma: float | None
    domain_distance: float | None


class Batches:
    """Decodes images in threads and gives them to the scorer in batches.

    The threads never keep the program from ending, whatever they are doing.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.n_calls = 0
        """How many batches have gone through the model."""
        self._scorer = scorer
        self._sent: queue.SimpleQueue[tuple[Any, str, Future[ImageRating]]] = queue.SimpleQueue()
        self._decoded: queue.Queue[tuple[Prepared, Future[ImageRating]]] = queue.Queue(MOST_AHEAD)
        for _ in range(n_cores()):
            _start(self._decode_one)
        _start(self._rate_some)

    def submit(self, image: Any, name: str) -> Future[ImageRating]:
        """Return the future rating of an image; it raises ImageError if the image cannot be used.

        A future that is cancelled before the image is decoded costs nothing.
        """
        future: Future[ImageRating] = Future()
        self._sent.put((image, name, future))
        return future

    def _decode_one(self) -> None:
        image, name, future = self._sent.get()
        if not future.set_running_or_notify_cancel():
            return
        try:
            self._decoded.put((self._scorer.prepare(image, name), future))
        except ImageError as error:
            future.set_exception(error)
        except Exception as error:  # an extractor's transform may raise anything on an unusual picture
            reason = f"cannot be prepared for the model ({type(error).__name__}: {error})"
            future.set_exception(ImageError(f"{name}: {reason}", reason))

    def _rate_some(self) -> None:
        waiting = [self._decoded.get()]
        with contextlib.suppress(queue.Empty):
            while len(waiting) < IMAGES_AT_ONCE:
                waiting.append(self._decoded.get_nowait())
        self.n_calls += 1
        try:
            found = self._scorer.rate_prepared([prepared for prepared, _ in waiting])
        except Exception as error:  # it belongs to those who wait, and the next batch may fare better
            for _, future in waiting:
                future.set_exception(error)
            return
        for row, (_, future) in enumerate(waiting):
            values = (None if part is None else float(part[row]) for part in found)
            future.set_result(ImageRating(*values))  # type: ignore[arg-type]


def _start(step: Callable[[], None]) -> None:
    """Repeat the step for ever, in a thread that ends with the program."""

    def repeat() -> None:
        while True:
            step()

    threading.Thread(target=repeat, name=step.__name__.strip("_"), daemon=True).start()
