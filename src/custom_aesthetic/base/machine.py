"""The number of cores of this machine, and the device that networks run on."""

import contextlib
import os
from collections.abc import Iterator

import torch

from custom_aesthetic.base.errors import UserError


def choose_device(name: str) -> torch.device:
    """Return the device with this name; `auto` is cuda if available, else mps, else cpu.

    Raises UserError if the device is not available.
    """
    if name == "auto":
        return torch.device(_best())
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise UserError(f"--device={name} cannot be used: {reason}; use auto, cpu, cuda or mps") from None
    return device


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def n_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


FEW_IMAGES = 2000
"""Up to so many, matrices are so small that several threads only wait for each other."""


@contextlib.contextmanager
def threads_for(n_images: int) -> Iterator[None]:
    """Compute with matrices of so many images within the block: by one thread where they are few."""
    if n_images > FEW_IMAGES:
        yield
        return
    from threadpoolctl import threadpool_limits

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(n_threads)
