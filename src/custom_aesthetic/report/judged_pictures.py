"""Pictures with the scores given to them and a model's scores: the data of the analysis, the report and the viewer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.features.table import FeatureTable
from custom_aesthetic.quality.answers import Taste, find_taste
from custom_aesthetic.scores.choice_log import Comparison
from custom_aesthetic.scores.score_files import ScoreTable

Flags = NDArray[np.bool_]

JUDGED_BY = {
    "test": "unseen (test)",
    "eval": "unseen",
    "out_of_fold": "out of fold",
    "learnt_from": "learnt from",
}
"""Kind of a picture -> its name in files and in the viewer."""


@dataclass(frozen=True)
class JudgedPictures:
    """Pictures with a model score, and the data to judge the model by. Arrays are (n_images,), in the order of `paths`.

    A model's score of a picture that it has learnt from makes the model look better than it is. Such a picture is
    judged by its out-of-fold score, from heads that never saw it; without this score it is not judged.
    """

    directory: Path
    table: ScoreTable
    """The scores given; nan for pictures without a score."""
    model_scores: Array
    """Scores by the model file."""
    splits: tuple[str, ...]
    """`train`, `eval` or `test`; pictures whose split is unknown count as `eval`."""
    learnt: Flags
    """Whether the model has learnt from the picture."""
    out_of_fold: Array
    """Scores by heads that never saw the picture; nan if unknown or if the model has not learnt from the picture."""
    sigmas: Array | None = None
    """Standard deviations that go with `judged_scores`, nan where that is in-sample; None if the model gives none."""
    features: FeatureTable | None = None
    """The features that the model scored; None if no model was run."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Facts on the model and the origin of its scores, name -> value."""
    chose: Flags | None = None
    """Whether the picture was used to choose the best trials; None if unknown."""
    ab_flattery: float = 0.0
    """How much this choice adds to AB on the pictures used for it, 0...1."""
    eval_chose: bool = False
    """Whether the best epoch was chosen by these pictures too, which adds more."""
    answers: Sequence[Comparison] = ()
    """The answers in the log beside the scores."""

    @property
    def paths(self) -> tuple[str, ...]:
        return self.table.paths

    @cached_property
    def scores(self) -> Array:
        return np.asarray(self.table.scores, dtype=np.float64)

    @cached_property
    def taste(self) -> Taste | None:
        """What the answers tell of the true scores; None unless the scores come from them. It takes seconds."""
        features = None if self.features is None else self.features.values.float().numpy()
        return find_taste(self.answers, self.table, features, np.where(self.is_judged, self.judged_scores, np.nan))

    @property
    def is_chosen(self) -> bool:
        """Whether the figures rest on pictures that also chose the best epoch."""
        return self.eval_chose and self.chose is not None and bool((self.chose & self.is_judged).any())

    @property
    def flattery(self) -> float:
        """How much the choice of the best trials adds to AB on the judged pictures, 0...1; 0 if answers judge."""
        judged = self.is_judged
        if self.chose is None or not judged.any() or self.taste is not None:
            return 0.0
        return self.ab_flattery * float(self.chose[judged].mean())

    @property
    def kinds(self) -> tuple[str, ...]:
        """How each picture can be judged: see `kinds_of`."""
        return kinds_of(self.splits, self.learnt, self.out_of_fold)

    @property
    def judged_scores(self) -> Array:
        """The out-of-fold score if there is one, else the model score, even for pictures learnt from."""
        return np.where(self.learnt & np.isfinite(self.out_of_fold), self.out_of_fold, self.model_scores)

    @property
    def errors(self) -> Array:
        """Score minus judged score; nan for pictures without a score."""
        return self.scores - self.judged_scores

    @property
    def is_judged(self) -> Flags:
        """Whether the model is judged by the picture: it has a score, and a model score that is not in-sample."""
        return np.isfinite(self.scores) & (~self.learnt | np.isfinite(self.out_of_fold))

    def rows(self, *, include_train_split: bool) -> list[int]:
        """Return the rows of the judged pictures; with `include_train_split`, of all pictures that have a score."""
        wanted = np.isfinite(self.scores) if include_train_split else self.is_judged
        return np.flatnonzero(wanted).tolist()


def kinds_of(splits: Sequence[str], learnt: Flags, out_of_fold: Array) -> tuple[str, ...]:
    """Return `test`, `eval`, `out_of_fold` or `learnt_from` for each picture; no model is judged by the last kind."""
    known = np.isfinite(out_of_fold)
    return tuple(
        ("out_of_fold" if known[row] else "learnt_from") if learnt[row] else "test" if split == "test" else "eval"
        for row, split in enumerate(splits)
    )


def standing_lines(found: JudgedPictures) -> Iterator[str]:
    """Yield lines on the number of pictures that the model has learnt from, and how they are judged."""
    scored = np.isfinite(found.scores)
    learnt = int((scored & found.learnt).sum())
    by_folds = int((scored & found.learnt & np.isfinite(found.out_of_fold)).sum())
    if by_folds:
        yield (
            f"{by_folds} of {scored.sum()} pictures trained the model: they are judged by their out-of-fold scores, "
            "from heads that never saw them"
        )
    if learnt > by_folds:
        yield (
            f"{learnt - by_folds} of {scored.sum()} pictures trained the model and have no out-of-fold score: they are "
            "marked as learnt from, and do not show how good the model is"
        )
