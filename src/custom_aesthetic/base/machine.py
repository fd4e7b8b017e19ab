"""The number of cores of this machine, and the device that networks run on."""

import os

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
