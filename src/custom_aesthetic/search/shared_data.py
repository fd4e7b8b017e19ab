"""Sharing of the training data between the processes of one machine, which all map the same files of features."""

import contextlib
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.search.trials import Problem


@dataclass(frozen=True)
class _SharedTensor:
    """A tensor in a file that processes map into memory."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype

    def attach(self) -> Tensor:
        size = torch.Size(self.shape).numel()
        return torch.from_file(str(self.file), shared=True, size=size, dtype=self.dtype).view(self.shape)


@dataclass(frozen=True)
class SharedProblem:
    """The files from which other processes load a problem.

    It is small on purpose. Starting a process blocks until its arguments are written to a pipe, and arguments that do
    not fit into the pipe's buffer are read only after the process has imported everything, seconds later.
    """

    content: Path
    """The file with everything but the features."""
    features: tuple[_SharedTensor, ...]
    """Features of the problem's data, then of the data of each fold."""

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self.content.parent

    def attach(self) -> Problem:
        """Return the problem; its features are one copy in memory, shared by all processes."""
        return _with_features(pickle.loads(self.content.read_bytes()), [tensor.attach() for tensor in self.features])


def share(problem: Problem, folder: Path) -> SharedProblem:
    """Write the problem to files in `folder`, which must exist as long as any process has the problem attached.

    Mapped files serve as shared memory: no process holds another copy, and unlike /dev/shm, the folder has room for
    large features. Raises UserError if the disk is too full.
    """
    every = [problem.data, *(fold.data for fold in problem.folds)]
    shared = tuple(_share(data.features, folder / f"features_{index}") for index, data in enumerate(every))
    content = folder / "problem"
    with _room_for(content, sum(data.features.nbytes for data in every)):
        content.write_bytes(pickle.dumps(_with_features(problem, [torch.empty(0) for _ in every])))
    return SharedProblem(content, shared)


def _with_features(problem: Problem, features: list[Tensor]) -> Problem:
    """Return the problem with these features, without the inputs of linear models, which workers do not fit."""
    first, *others = features
    folds = zip(problem.folds, others, strict=True)
    return replace(
        problem,
        data=replace(problem.data, features=first),
        inputs=torch.empty(0),
        prior=None,
        answers=None,
        folds=tuple(replace(fold, data=replace(fold.data, features=other)) for fold, other in folds),
    )


def _share(features: Tensor, file: Path) -> _SharedTensor:
    with _room_for(file, features.nbytes), file.open("wb") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, features.nbytes)
        for rows in features.split(8192):
            stream.write(rows.contiguous().numpy().data)
    return _SharedTensor(file, tuple(features.shape), features.dtype)


@contextlib.contextmanager
def _room_for(file: Path, n_bytes: int) -> Iterator[None]:
    """Turn an OSError within the block into a UserError that says what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"the features shared by the workers ({n_bytes / 1e6:,.0f} MB) cannot be written to {file}: "
            f"{error.strerror}; free disk space, set TMPDIR to a folder on another disk, or use --workers=1"
        ) from None
