"""The process that fits the quick model: it waits for answers as lines of JSON and prints a line for each result.

It is a process, and not a thread of the page, so that the page never waits for it.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from custom_aesthetic.gallery.minded import stay_behind
from custom_aesthetic.gallery.quick_model import Worth, error_axes, out_of_fold, worth
from custom_aesthetic.scores.bradley_terry import Prior, fit_scores, standard_errors
from custom_aesthetic.scores.evidence import Evidence
from custom_aesthetic.scores.pairing import Standing

PRIOR_FILE = "prior.npz"
ANSWERS_FILE = "answers.npz"
RESULT_FILE = "result.npz"


class Learnt(NamedTuple):
    """What the quick model says; arrays are (n_rows,), logits."""

    scores: np.ndarray
    sigmas: np.ndarray
    left_out: np.ndarray
    """Scores that know no answer about the picture itself."""
    axes: np.ndarray
    """`Standing.axes`, float32."""


def main() -> int:
    """Fit the model in the folder named by the first argument for each line of standard input; return 0 at its end."""
    stay_behind()
    folder = Path(sys.argv[1])
    with np.load(folder / PRIOR_FILE) as parts:
        prior = Prior(parts["mean"], parts["variance"], parts["basis"].astype(np.float64))
    start: np.ndarray | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        with np.load(folder / ANSWERS_FILE) as columns:
            found = Evidence(*(columns[name] for name in Evidence._fields))
        learnt = fit(prior, found, start)
        start = learnt.scores
        with (folder / RESULT_FILE).open("wb") as stream:
            np.savez(stream, **learnt._asdict())
        tell({"fitted": asked["number"]})
        told = worth(prior, found)
        tell({"judged": asked["number"], "worth": None if told is None else as_json(told)})
    return 0


def fit(prior: Prior, found: Evidence, start: np.ndarray | None = None) -> Learnt:
    """Return the scores of all rows given the answers, which is what the page shows and draws pairs by."""
    scores = fit_scores(found.winners, found.losers, prior, start=start, weights=found.weights)
    sigmas = standard_errors(scores, found.winners, found.losers, prior, weights=found.weights)
    return Learnt(scores, sigmas, out_of_fold(prior, found), error_axes(prior, found).astype(np.float32))


def standing_of(learnt: Learnt, shown: np.ndarray) -> Standing:
    """Return the standing by which pairs are drawn; `shown` says how often each row was shown."""
    return Standing(learnt.scores, learnt.sigmas, shown, learnt.axes)


def as_json(told: Worth) -> dict[str, object]:
    """Return the figures as a JSON object."""
    return {"right": list(told.right), "more": told.more, "forecast": told.forecast and list(told.forecast)}


def tell(message: object) -> None:
    """Print a line of JSON."""
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
