"""Training data that many processes of one machine work on at once: the features lie in one file mapped by all."""

import os
import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from src.errors import UserError
from src.trials import Problem

FEATURES_FILE = "features"


@dataclass(frozen=True)
class SharedProblem:
    """A problem as it travels to another process: all but the features, and where those are mapped from."""

    content: bytes
    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype

    def attach(self) -> Problem:
        """Return the problem; its features are the one copy that all processes share."""
        problem: Problem = pickle.loads(self.content)
        return replace(problem, data=replace(problem.data, features=_map(self.file, self.shape, self.dtype)))


def share(problem: Problem, folder: Path) -> SharedProblem:
    """Return the problem with its features in a file of that folder, which must outlast all who attach.

    A file in the folder for temporary files is shared memory with a name: no process holds a copy of its own, and no
    small /dev/shm is in the way. UserError where the disk is too full for it.
    """
    features = problem.data.features
    file = folder / FEATURES_FILE
    try:
        with file.open("wb") as stream:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, features.nbytes)
            for rows in features.split(8192):
                stream.write(rows.contiguous().numpy().data)
    except OSError as error:
        raise UserError(
            f"{file} for the features that the workers share ({features.nbytes / 1e6:,.0f} MB) cannot be written: "
            f"{error.strerror}; free space, point TMPDIR to another disk, or use --workers=1"
        ) from None
    rest = replace(problem, data=replace(problem.data, features=torch.empty(0)))
    return SharedProblem(pickle.dumps(rest), file, tuple(features.shape), features.dtype)


def _map(file: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.from_file(str(file), shared=True, size=torch.Size(shape).numel(), dtype=dtype).view(shape)
