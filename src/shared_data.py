"""Training data that many processes of one machine work on at once: the features lie in one file mapped by all."""

import os
import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from src.errors import UserError
from src.trials import Problem


@dataclass(frozen=True)
class _SharedTensor:
    """Where a tensor is mapped from."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype

    def attach(self) -> Tensor:
        size = torch.Size(self.shape).numel()
        return torch.from_file(str(self.file), shared=True, size=size, dtype=self.dtype).view(self.shape)


@dataclass(frozen=True)
class SharedProblem:
    """A problem as it travels to another process: all but the features, and where those are mapped from."""

    content: bytes
    features: tuple[_SharedTensor, ...]
    """Of the problem's own data, then of each fold's."""

    def attach(self) -> Problem:
        """Return the problem; its features are the one copy that all processes share."""
        return _with_features(pickle.loads(self.content), [tensor.attach() for tensor in self.features])


def share(problem: Problem, folder: Path) -> SharedProblem:
    """Return the problem with its features in files of that folder, which must outlast all who attach.

    A file in the folder for temporary files is shared memory with a name: no process holds a copy of its own, and no
    small /dev/shm is in the way. UserError where the disk is too full for it.
    """
    every = [problem.data, *(fold.data for fold in problem.folds)]
    shared = tuple(_share(data.features, folder / f"features_{index}") for index, data in enumerate(every))
    rest = _with_features(problem, [torch.empty(0) for _ in every])
    return SharedProblem(pickle.dumps(rest), shared)


def _with_features(problem: Problem, features: list[Tensor]) -> Problem:
    own, *others = features
    folds = zip(problem.folds, others, strict=True)
    return replace(
        problem,
        data=replace(problem.data, features=own),
        folds=tuple(replace(fold, data=replace(fold.data, features=other)) for fold, other in folds),
    )


def _share(features: Tensor, file: Path) -> _SharedTensor:
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
    return _SharedTensor(file, tuple(features.shape), features.dtype)
