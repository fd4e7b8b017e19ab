"""Training data that many processes of one machine work on at once: the features lie in one file mapped by all."""

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
    """Where a tensor is mapped from."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype

    def attach(self) -> Tensor:
        size = torch.Size(self.shape).numel()
        return torch.from_file(str(self.file), shared=True, size=size, dtype=self.dtype).view(self.shape)


@dataclass(frozen=True)
class SharedProblem:
    """Where another process finds a problem.

    It holds little: to start a process takes until the process has read what it is given, and beyond what a pipe holds
    that is seconds later, when it has imported everything.
    """

    content: Path
    """The file of all but the features."""
    features: tuple[_SharedTensor, ...]
    """Of the problem's own data, then of each fold's."""

    @property
    def turns(self) -> Path:
        """Where the processes leave the file by which they take turns."""
        return self.content.with_name("turns")

    def attach(self) -> Problem:
        """Return the problem; its features are the one copy that all processes share."""
        return _with_features(pickle.loads(self.content.read_bytes()), [tensor.attach() for tensor in self.features])


def share(problem: Problem, folder: Path) -> SharedProblem:
    """Return the problem with its features in files of that folder, which must outlast all who attach.

    A file in the folder for temporary files is shared memory with a name: no process holds a copy of its own, and no
    small /dev/shm is in the way. UserError where the disk is too full for it.
    """
    every = [problem.data, *(fold.data for fold in problem.folds)]
    shared = tuple(_share(data.features, folder / f"features_{index}") for index, data in enumerate(every))
    content = folder / "problem"
    with _room_for(content, sum(data.features.nbytes for data in every)):
        content.write_bytes(pickle.dumps(_with_features(problem, [torch.empty(0) for _ in every])))
    return SharedProblem(content, shared)


def _with_features(problem: Problem, features: list[Tensor]) -> Problem:
    own, *others = features
    folds = zip(problem.folds, others, strict=True)
    return replace(
        problem,
        data=replace(problem.data, features=own),
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
    """Say what to do where the file cannot be written meanwhile."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{file} for the features that the workers share ({n_bytes / 1e6:,.0f} MB) cannot be written: "
            f"{error.strerror}; free space, point TMPDIR to another disk, or use --workers=1"
        ) from None
