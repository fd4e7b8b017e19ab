"""Use the cores of this machine for a network on a CPU: several small batches side by side, one core each.

Threads that share one batch wait for each other after every operation. On a busy machine they all wait for the one
whose core is taken; batches side by side never wait.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

BATCH_SIZE = 8
"""Pictures of a batch on one core, unless the extractor has another `batch_size`: larger ones are hardly faster."""

Given = TypeVar("Given")
Found = TypeVar("Found")

_lock = threading.Lock()
_n_users = 0
_n_threads_before = 0


@contextmanager
def single_threads() -> Iterator[int]:
    """Compute with one torch thread in every thread that starts within the block; yields the number outside of it.

    Several threads may be within it at once.
    """
    global _n_users, _n_threads_before
    with _lock:
        if _n_users == 0:
            _n_threads_before = _of_a_new_thread()
        _n_users += 1
        n_threads = _n_threads_before
        torch.set_num_threads(1)
    try:
        yield n_threads
    finally:
        with _lock:
            _n_users -= 1
            torch.set_num_threads(n_threads)


def usual_threads() -> int:
    """Return torch's number of threads for this process, also while others are within `single_threads`."""
    with _lock:
        return _n_threads_before if _n_users else _of_a_new_thread()


def _of_a_new_thread() -> int:
    """Return torch's number of threads for the process: a thread that began within a block has kept a single one."""
    with ThreadPoolExecutor(1) as asked:
        return asked.submit(torch.get_num_threads).result()


def side_by_side(work: Callable[[Given], Found], batches: Sequence[Given]) -> list[Found]:
    """Return what `work` returns for each batch, computed one core each; a single batch gets all cores."""
    if len(batches) < 2:
        return [work(batch) for batch in batches]

    def alone(batch: Given) -> Found:
        torch.set_num_threads(1)
        return work(batch)

    with single_threads() as n_threads:
        if n_threads < 2:
            return [work(batch) for batch in batches]
        with ThreadPoolExecutor(min(n_threads, len(batches)), "model") as models:
            return list(models.map(alone, batches))
