"""A labelling session: it draws what to show, logs each answer, and keeps the scores up to date."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from custom_aesthetic.labelling.drawing import Drawing
from custom_aesthetic.labelling.figures import FEWEST_CHOICES
from custom_aesthetic.labelling.plan import BadRequest, PairPlan
from custom_aesthetic.labelling.score_files import ScoreFiles
from custom_aesthetic.labelling.scorekeeper import Scorekeeper, rounded
from custom_aesthetic.scores.choice_log import (
    PICTURE_KINDS,
    STARS,
    Comparison,
    ComparisonLog,
    make_choice,
    make_mark,
    make_pick,
    make_stars,
    make_tie,
    now,
    undo_rows,
)
from custom_aesthetic.scores.evidence import consistency
from custom_aesthetic.scores.pairing import Standing

MOST_IN_A_GROUP = 4
MOST_IN_A_GRID = 100


class Session:
    """State of one run of the A/B scorer; every method may be called from any thread."""

    def __init__(
        self, plan: PairPlan, files: ScoreFiles, comparisons: ComparisonLog, *, seed: int | None = None
    ) -> None:
        self.plan = plan
        self.files = files
        self.scores = Scorekeeper(plan, files, comparisons)
        self.learned: Callable[[], str | None] = lambda: None
        """Returns a sentence on the model learned so far, for the line of progress; None if there is none yet."""
        self.model_standing: Callable[[np.ndarray], Standing | None] = lambda shown: None
        """Returns what a model says of all rows, given how often each was shown; None if there is no model yet."""
        self._log = comparisons
        self._lock = self.scores.lock
        self._drawing = Drawing(plan, seed)
        self._seconds: dict[str, float] = {}
        self._n_at_start = comparisons.n_answers

    # --- what to show ------------------------------------------------------------------------------------------

    def group(self) -> dict[str, Any]:
        """Return the pictures to show next, `{"pictures": [path, ...], "drawn": ...}`."""
        with self._lock:
            standing = self.scores.standing
            model = self.model_standing(standing.shown)
            pictures, drawn = self._drawing.next_group(standing, self._log.answers, model)
        return {"pictures": pictures, "drawn": drawn}

    def skip(self, pictures: Sequence[str]) -> None:
        """Do not ask these pictures again soon; nothing is logged."""
        with self._lock:
            self._drawing.skip(self._checked(pictures, least=1))

    def leave_out(self, path: str, reason: str) -> None:
        """Stop showing a picture that cannot be read."""
        with self._lock:
            self._drawing.leave_out(path, reason)

    def withdraw(self, paths: Iterable[str]) -> None:
        """Stop showing pictures that were moved away."""
        with self._lock:
            self._drawing.withdraw(paths)

    def restore(self, paths: Iterable[str]) -> None:
        """Show pictures that were moved away and are back."""
        with self._lock:
            self._drawing.restore(paths)

    def holds(self, path: str) -> bool:
        """Return whether this is one of the pictures on the disk."""
        return self.scores.row_of.get(path, self.plan.n_here) < self.plan.n_here

    # --- answers -----------------------------------------------------------------------------------------------
    # Each returns the time of the answer, which identifies it, when it is on the disk. An answer sent twice (same
    # time) counts once. BadRequest for anything that is not an answer about pictures of the session.

    def choose(self, pictures: Sequence[str], winner: str, *, seconds: float, drawn: str, time: str | None) -> str:
        """Log that `winner` was chosen among 2 to 4 pictures, given in the order in which they were shown."""
        self._checked(pictures)
        if winner not in pictures:
            raise BadRequest("the chosen picture must be one of those shown")
        losers = [path for path in pictures if path != winner]
        return self._answer(pictures, make_choice(winner, losers, seconds=seconds, drawn=drawn, time=time))

    def tie(self, pictures: Sequence[str], *, seconds: float, drawn: str, time: str | None) -> str:
        """Log that 2 to 4 pictures are equally good."""
        self._checked(pictures)
        return self._answer(pictures, make_tie(pictures, seconds=seconds, drawn=drawn, time=time))

    def pick(
        self, pictures: Sequence[str], picked: Sequence[str], *, seconds: float, drawn: str, time: str | None
    ) -> str:
        """Log which pictures of a grid were picked; of none and of all, there is nothing to log."""
        self._checked(pictures, most=MOST_IN_A_GRID)
        if not set(picked) <= set(pictures):
            raise BadRequest("the picked pictures must be among those shown")
        chosen = [path for path in pictures if path in set(picked)]
        others = [path for path in pictures if path not in set(picked)]
        rows = make_pick(chosen, others, seconds=seconds, drawn=drawn, time=time)
        if not rows:
            self.skip(pictures)
            return now() if time is None else time
        return self._answer(pictures, rows)

    def rate(self, picture: str, stars: int, *, seconds: float, drawn: str, time: str | None) -> str:
        """Log the stars of a picture, 1...5."""
        self._checked([picture], least=1)
        if isinstance(stars, bool) or stars not in STARS:
            raise BadRequest("stars are 1 to 5")
        return self._answer([picture], make_stars(picture, stars, seconds=seconds, drawn=drawn, time=time))

    def mark(self, picture: str, *, keep: bool, time: str | None = None) -> str:
        """Log that a picture of the gallery is to be kept, or rejected."""
        self._checked([picture], least=1)
        return self._answer([picture], make_mark(picture, keep=keep, time=time))

    def undo(self, time: str | None) -> dict[str, Any] | None:
        """Undo the answer given at `time`, or the last one of any kind.

        Returns what was shown, `{"pictures", "drawn", "kind"}`, or None if there is no such answer.
        """
        with self._lock:
            self._log.refresh()
            answer = self._log.last_answer() if time is None else self._log.answer_of(time)
            if not answer:
                return None
            self._log.append(undo_rows(answer))
            self._seconds.pop(answer[0].time, None)
        self.scores.wake()
        pictures = list(dict.fromkeys(name for row in answer for name in (row.winner, row.loser) if name))
        return {"pictures": pictures, "drawn": answer[0].drawn, "kind": answer[0].kind}

    def answers(self) -> list[Comparison]:
        """Return the rows of all answers, in order of time, with those that other windows and processes logged."""
        with self._lock:
            self._log.refresh()
            return self._log.answers()

    def _answer(self, pictures: Sequence[str], rows: list[Comparison]) -> str:
        with self._lock:
            self._log.refresh()
            if not self._log.answer_of(rows[0].time):
                self._log.append(rows)
                if rows[0].kind not in PICTURE_KINDS[-2:]:
                    self._seconds[rows[0].time] = rows[0].seconds
                self._drawing.saw(pictures)
                self.scores.take(rows)
        return rows[0].time

    def _checked(self, pictures: Sequence[str], *, least: int = 2, most: int = MOST_IN_A_GROUP) -> Sequence[str]:
        """Return these pictures; BadRequest unless they are so many different pictures of the session."""
        known = all(path in self.scores.row_of for path in pictures)
        if not known or not least <= len(set(pictures)) == len(pictures) <= most:
            raise BadRequest(f"an answer must be about {least} to {most} different pictures of this directory")
        return pictures

    # --- figures -----------------------------------------------------------------------------------------------

    def progress(self) -> dict[str, Any]:
        """Return the figures that the top of the page shows.

        `pace` is the median time of the last answers in seconds. `order_right` and `predicted` are the quality of the
        last update's scores on random pairs (see `RandomPairs`), `[value, low, high]`; they are None until there are
        `FEWEST_CHOICES` answers. `choices_to_go` is the number still missing. `learned` is the sentence on the model.
        """
        learned = self.learned()
        with self._lock:
            paces = list(self._seconds.values())[-20:]
            shown = self.scores.standing.shown[: self.plan.n_here]
            n_answers = self._log.n_answers
            to_go = max(FEWEST_CHOICES - n_answers, 0)
            found = None if to_go else self.scores.random_pairs
            return {
                "choices": n_answers,
                "choices_this_time": max(n_answers - self._n_at_start, 0),
                "choices_to_go": to_go,
                "pictures": self.plan.n_here,
                "seen": int((shown > 0).sum()),
                "pace": round(statistics.median(paces), 2) if paces else None,
                "order_right": None if found is None else rounded(found.right),
                "predicted": None if found is None else rounded(found.predicted),
                "unusable": len(self._drawing.unusable),
                "learned": learned,
            }

    def summary(self) -> dict[str, Any]:
        """Write the scores, then return what the last page shows: progress, best and worst pictures, and file names.

        `consistency` is how often pairs that were asked again were answered the same; None if none were.
        """
        self.scores.update()
        found = consistency(self.answers())
        with self._lock:
            standing = self.scores.standing
            here = [row for row in range(self.plan.n_here) if standing.shown[row] > 0]
            order = sorted(here, key=lambda row: -standing.scores[row])
            ranked = [self.plan.paths[row] for row in order]
            n_ends = min(5, len(ranked) // 2)
            files = [self.files.json.name, self.files.csv.name, self._log.file.name] if ranked else []
            worst = ranked[len(ranked) - n_ends :]
            return {
                **self.progress(),
                "consistency": None if found is None else found._asdict(),
                "best": ranked[:n_ends],
                "worst": worst,
                "files": files,
            }
