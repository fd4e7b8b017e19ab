"""Run a network by ONNX Runtime on a CPU, where that is installed.

A run computes in the thread that calls it and starts no other, so that several batches can run side by side, one on
each core, and none of them ever waits for another.
"""

import importlib.util
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

AGREEMENT = 1e-4
"""Largest difference from PyTorch that is only rounding, as a fraction of the largest value of an output."""

Run = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]
"""Input of the network (n_images, ...) -> its outputs, (n_images, width) each."""


def is_installed() -> bool:
    """Return whether there is a package ONNX Runtime, which may still fail when it is loaded."""
    return importlib.util.find_spec("onnxruntime") is not None


def open_session(content: bytes) -> Run:
    """Return a function that runs an ONNX file; it can be called from several threads at once.

    Raises what ONNX Runtime raises if it cannot be loaded or does not know the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors, which are raised anyway; warnings are about its own choices
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def run(pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return session.run(None, {given.name: pixels})

    return run


def session_or_none(
    name: str, write: Callable[[], bytes], example: NDArray[np.float32], expected: Sequence[NDArray[np.float32]]
) -> Run | None:
    """Return a session for the ONNX file that `write` returns, or None where ONNX Runtime does not give `expected`.

    `expected` are the outputs for the input `example`, computed by PyTorch. Why a session cannot be used is logged with
    `name`, that of the network.
    """
    try:
        run = open_session(write())
        found = run(example)
    except Exception as error:  # it has no public exceptions, and may be too old or built for another processor
        words: Any = " ".join(str(error).split())[:200] or type(error).__name__
        logger.warning("ONNX Runtime cannot run %s (%s): PyTorch is used instead, which is slower", name, words)
        return None
    far = np.max([_difference(one, other) for one, other in zip(found, expected, strict=True)])  # nan where one is
    if not far <= AGREEMENT:
        logger.warning("ONNX Runtime computes %s wrongly here (by %.1g): PyTorch is used, which is slower", name, far)
        return None
    return run


def _difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest difference as a fraction of the largest value expected."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny))
