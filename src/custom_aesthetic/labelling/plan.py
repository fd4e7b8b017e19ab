"""What a labelling session works with: its pictures, the prior of their scores, and how they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.scores.bradley_terry import Prior
from custom_aesthetic.scores.prior import extended


class BadRequest(UserError):
    """The request is invalid; repeating it does not help."""


@dataclass(frozen=True)
class PairPlan:
    """The pictures and settings of a session; rows of all arrays are in the order of `paths`."""

    paths: tuple[str, ...]
    """Pictures on the disk first, then pictures known only from the log or the starting scores."""
    n_here: int
    """Number of pictures on the disk; only these are shown."""
    prior: Prior
    scale: float
    """Scores are written as scale x logits + shift."""
    shift: float
    number_to_compare: int = 2
    strategy: str = "adaptive"
    mode: str = "pair"
    question: str = "Which do you like more?"


def with_names(plan: PairPlan, names: Sequence[str]) -> PairPlan:
    """Return the plan extended by pictures that are only in the log: their answers inform the other scores."""
    known = set(plan.paths)
    new = [name for name in dict.fromkeys(names) if name and name not in known]
    if not new:
        return plan
    prior = extended(plan.prior, len(new), float(plan.prior.variance.max()))
    return replace(plan, paths=(*plan.paths, *new), prior=prior)
