"""How many choices a taste needs: from a real rater's answers on the A/B page to a model of pictures never shown.

    python -m benchmarks.bench_circle              # 12 raters, 2 draws
    python -m benchmarks.bench_circle --quick      # 4 raters, 1 draw, up to 100 choices
    python -m benchmarks.bench_circle --program 100    # the shortest call in place of linear models, after 100 choices

A rater and draw take about 15 seconds of processor time up to 250 choices.

A judge with a rater's ratings (1 to 10, noise and ties as they are) answers pairs of 200 pictures through the A/B
page's own session, without a browser: it draws the pair, writes the log, and fits the scores again after every tenth
choice. At equal ratings the judge takes either, or with `ties` says that both are equally good. After 50, 100, 200, 250
and 400 choices a model learns from the score file, or from the log, and is judged by Spearman's correlation with the
ratings of the rater's pictures that were never shown.

The models are the model file's linear members with equal weights, in place of the whole search, which takes 20 times as
long and on single raters gives them most of the weight (bench_raters); `--program` takes the search itself. Pairs:

    random        the session with --strategy=random
    adaptive      the session's default
    features      adaptive, with the features of the pictures in the scores' prior
    ties          adaptive, with ties said
    model         the session's default where the page has features: drawn by the quick model, fitted every tenth choice
    model, ties   the same, with ties said
    information   the pair with the largest expected information gain of 5,000 drawn pairs, as ASAP
    TrueSkill     the most uncertain picture and the partner with the best match quality

From choices to a taste:

    scores        the session's scores, then linear models of them (for `information`: Bradley-Terry scores; for
                  `TrueSkill` its own)
    choices       a linear model fitted to the choices themselves, by the Bradley-Terry likelihood
    heads         networks fitted to the choices themselves, by the Bradley-Terry likelihood
    Elo           Elo scores, then linear models of them
    prior         the session's scores, then the difference from a prior model: ridge on the mean of the other raters
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr, t

from benchmarks.bench_raters import Task, picture_name, quieten, shortest_call
from benchmarks.choice_methods import (
    Answers,
    Ask,
    answers_by_information,
    answers_by_trueskill,
    difference_from_scores,
    elo,
    heads_from_choices,
    linear_from_choices,
    linear_from_scores,
)
from benchmarks.rater_data import RATERS, prior_of_others, read_ratings
from custom_aesthetic.base.arrays import Array
from custom_aesthetic.gallery.model_work import fit, standing_of
from custom_aesthetic.heads.model_file import load_model
from custom_aesthetic.heads.predictor import predict
from custom_aesthetic.labelling.plan import PairPlan
from custom_aesthetic.labelling.score_files import open_score_files
from custom_aesthetic.labelling.session import Session
from custom_aesthetic.scores.bradley_terry import fit_scores, flat_prior
from custom_aesthetic.scores.choice_log import LOG_NAME, Comparison, ComparisonLog
from custom_aesthetic.scores.evidence import evidence
from custom_aesthetic.scores.prior import feature_prior
from custom_aesthetic.scores.score_files import read_scores

CHECKPOINTS = (50, 100, 200, 250, 400)
N_SHOWN = 200
REFIT_AFTER = 10
SESSIONS = ("random", "adaptive", "features", "ties", "model", "model, ties")
"""Ways to choose pairs that are the session's own."""


class Person(NamedTuple):
    """One rater and one draw: pictures to show, and pictures that judge."""

    name: str
    features: Array
    """(n_shown, n_features)"""
    ratings: Array
    """(n_shown,)"""
    new_features: Array
    new_ratings: Array
    prior: Array
    """(n_shown,): scores of a model of the other raters' mean, trained on neither the shown nor the new pictures."""
    new_prior: Array
    seed: int
    checkpoints: tuple[int, ...]


class Score(NamedTuple):
    """Spearman's correlation on pictures never shown, after so many choices."""

    person: str
    pairs: str
    learning: str
    n_choices: int
    spearman: float


class Moment(NamedTuple):
    """What the session has written at a checkpoint."""

    n_choices: int
    scores: Array
    """(n_shown,)"""
    shown: np.ndarray
    """Rows of the pictures that were in a choice."""
    answers: Answers
    """The choices so far, without ties."""
    log: list[Comparison]
    """The rows of the log."""


def moments_of_session(person: Person, pairs: str, folder: Path) -> list[Moment]:
    """Return what a session wrote at each checkpoint, answered by the person."""
    names = tuple(picture_name(row) for row in range(len(person.ratings)))
    row_of = {name: row for row, name in enumerate(names)}
    prior = feature_prior(person.features) if pairs == "features" else flat_prior(len(names))
    strategy = "random" if pairs == "random" else "adaptive"
    plan = PairPlan(names, len(names), prior, 1.0, 0.0, strategy=strategy)
    files = open_score_files(folder, None)
    session = Session(plan, files, ComparisonLog(files.log), seed=person.seed)
    judge = np.random.default_rng([person.seed, 1])
    known = feature_prior(person.features) if pairs.startswith("model") else None
    found = []
    for number in range(1, person.checkpoints[-1] + 1):
        if known is not None and number % REFIT_AFTER == 1:
            learnt = fit(known, evidence(session.answers(), row_of))
            session.model_standing = partial(standing_of, learnt)
        _answer(session, person.ratings, row_of, judge, says_ties=pairs.endswith("ties"))
        if number % REFIT_AFTER == 0:
            session.scores.update(with_figures=False)
        if number in person.checkpoints:
            table = read_scores(files.json)
            rows = np.array([row_of[path] for path in table.paths])
            scores = np.zeros(len(names))
            scores[rows] = table.scores
            shown = rows[np.asarray(table.columns["comparisons"], dtype=float) > 0]
            found.append(Moment(number, scores, shown, _answers(session, row_of), session.answers()))
    return found


def _answer(
    session: Session, ratings: Array, row_of: dict[str, int], judge: np.random.Generator, *, says_ties: bool
) -> None:
    group = session.group()
    shown, how = group["pictures"], {"seconds": 1.0, "drawn": group["drawn"], "time": None}
    first, second = (ratings[row_of[name]] for name in shown)
    if first == second and says_ties:
        session.tie(shown, **how)
        return
    wins = judge.uniform() < 0.5 if first == second else first > second
    session.choose(shown, shown[0] if wins else shown[1], **how)


def _answers(session: Session, row_of: dict[str, int]) -> Answers:
    rows = [row for row in session.answers() if row.kind == "choice"]
    return Answers(np.array([row_of[row.winner] for row in rows]), np.array([row_of[row.loser] for row in rows]))


def run_person(person: Person) -> list[Score]:
    """Return the scores of every method for one person."""
    found: list[Score] = []

    def judge(pairs: str, learning: str, n_choices: int, predictions: Array) -> None:
        found.append(_judged(person, pairs, learning, n_choices, predictions))

    for pairs in SESSIONS:
        with tempfile.TemporaryDirectory() as folder:
            for moment in moments_of_session(person, pairs, Path(folder)):
                for learning, predictions in _learn(person, pairs, moment).items():
                    judge(pairs, learning, moment.n_choices, predictions)
    every = answers_by_information(len(person.ratings), person.checkpoints[-1], _asker(person))
    for n_choices in person.checkpoints:
        answers = every.first(n_choices)
        scores = fit_scores(*answers, flat_prior(len(person.ratings)))
        predictions = linear_from_scores(person.features, scores, answers.seen, person.new_features)
        judge("information", "scores", n_choices, predictions)
    for n_choices, (scores, answers) in answers_by_trueskill(
        len(person.ratings), person.checkpoints, _asker(person)
    ).items():
        predictions = linear_from_scores(person.features, scores, answers.seen, person.new_features)
        judge("TrueSkill", "scores", n_choices, predictions)
    return found


def run_program(person: Person) -> list[Score]:
    """Return the scores of the shortest call, trained on what the session wrote, for one person."""
    found = []
    for pairs in ("random", "model", "model, ties"):
        with tempfile.TemporaryDirectory() as name:
            for moment in moments_of_session(person, pairs, Path(name)):
                rows = np.sort(moment.shown)
                given = person.features.astype(np.float32)
                task = Task("raters", person.name, person.seed, given, moment.scores, rows, rows[:0])
                with tempfile.TemporaryDirectory() as folder:
                    ComparisonLog(Path(folder) / LOG_NAME).append(moment.log)
                    model = load_model(shortest_call(task, Path(folder)))
                new = torch.from_numpy(person.new_features.astype(np.float32))
                predictions = predict(model.predictor, new)[:, 0].double().numpy()
                found.append(_judged(person, pairs, "program", moment.n_choices, predictions))
    return found


def _judged(person: Person, pairs: str, learning: str, n_choices: int, predictions: Array) -> Score:
    right = float(spearmanr(predictions, person.new_ratings).statistic) if np.ptp(predictions) > 0 else 0.0
    return Score(person.name, pairs, learning, n_choices, right)


def _learn(person: Person, pairs: str, moment: Moment) -> dict[str, Array]:
    given, new = person.features, person.new_features
    found = {"scores": linear_from_scores(given, moment.scores, moment.shown, new)}
    if pairs in ("adaptive", "random", "model"):
        found["prior"] = difference_from_scores(given, moment.scores, moment.shown, new, person.prior, person.new_prior)
        found["choices"] = linear_from_choices(given, moment.answers, new)
    if pairs in ("random", "model"):
        found["heads"] = heads_from_choices(given, moment.answers, new, seed=person.seed)
    if pairs == "random":
        scores = elo(len(given), moment.answers)
        found["Elo"] = linear_from_scores(given, scores, moment.answers.seen, new)
    return found


def _asker(person: Person) -> Ask:
    judge = np.random.default_rng([person.seed, 2])

    def ask(first: int, second: int) -> tuple[int, int]:
        lead = person.ratings[first] - person.ratings[second]
        wins = judge.uniform() < 0.5 if lead == 0 else lead > 0
        return (first, second) if wins else (second, first)

    return ask


def make_people(folder: Path, *, n_raters: int, n_draws: int, checkpoints: Sequence[int]) -> list[Person]:
    """Return the raters and draws; the mean rating of the others teaches the prior, on pictures of neither set."""
    _, features, ratings = read_ratings(folder)
    features = features.astype(np.float64)
    people = []
    for rater in range(n_raters):
        rated = np.flatnonzero(np.isfinite(ratings[:, rater]))
        prior = prior_of_others(features, ratings, rater)
        for draw in range(n_draws):
            rows = np.random.default_rng([rater, draw]).permutation(rated)
            shown, new = rows[:N_SHOWN], rows[N_SHOWN:]
            people.append(
                Person(
                    f"rater {rater}",
                    *(features[shown], ratings[shown, rater], features[new], ratings[new, rater]),
                    *(prior.predict(features[shown]), prior.predict(features[new])),
                    *(10 * rater + draw, tuple(checkpoints)),
                )
            )
    return people


def lines_of(scores: Sequence[Score], checkpoints: Sequence[int], base: str = "scores") -> list[str]:
    """Return the table of mean Spearman, and its difference from random pairs and `base` with a 95 % interval.

    The interval is that of Student's t over the raters.
    """
    people = sorted({score.person for score in scores})
    means: dict[tuple[str, str, int], dict[str, list[float]]] = {}
    for score in scores:
        means.setdefault((score.pairs, score.learning, score.n_choices), {}).setdefault(score.person, []).append(
            score.spearman
        )
    of_people = {key: np.array([np.mean(values[name]) for name in people]) for key, values in means.items()}
    lines = ["pairs        learning   " + "".join(f"{n:>16}" for n in checkpoints)]
    for pairs, learning in dict.fromkeys(key[:2] for key in of_people):
        cells = [_cell(of_people, (pairs, learning, n), ("random", base, n)) for n in checkpoints]
        lines.append(f"{pairs:<12} {learning:<10} " + "".join(f"{cell:>16}" for cell in cells))
    return lines


def _cell(values: dict[tuple[str, str, int], Array], key: tuple[str, str, int], base: tuple[str, str, int]) -> str:
    gains = values[key] - values[base]
    if key == base or len(gains) < 2:
        return f"{values[key].mean():.3f}"
    reach = t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5
    return f"{values[key].mean():.3f} {gains.mean():+.3f}±{reach:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 raters, 1 draw, up to 100 choices")
    parser.add_argument("--raters", type=Path, default=RATERS, help="folder of features.npz and ratings.csv")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--program", type=int, nargs="+", help="the shortest call alone, after so many choices")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if not arguments.raters.is_dir():
        parser.exit(1, f"no ratings in {arguments.raters}; give a folder by --raters\n")
    checkpoints = tuple(arguments.program or (CHECKPOINTS[:2] if arguments.quick else CHECKPOINTS))
    run = run_person if arguments.program is None else run_program
    begin = time.perf_counter()
    people = make_people(
        arguments.raters,
        n_raters=4 if arguments.quick else 12,
        n_draws=1 if arguments.quick else arguments.draws,
        checkpoints=checkpoints,
    )
    scores: list[Score] = []
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn"), initializer=quieten) as pool:
        for number, found in enumerate(pool.map(run, people), start=1):
            scores += found
            print(f"{number} of {len(people)} after {time.perf_counter() - begin:.0f} s", flush=True)
    print("\n".join(lines_of(scores, checkpoints, "scores" if arguments.program is None else "program")))


if __name__ == "__main__":
    main()
