"""How many comparisons a good order of pictures needs: simulated judges, and four ways to use their answers.

    python benchmarks/bench_ab.py                      # 200 photographs and 1,000 drawn pictures, a few minutes
    python benchmarks/bench_ab.py --only 200 --seeds 2 # quicker

The judge has a true score for each picture and prefers a to b with probability 1 / (1 + exp(-scale (a - b))). The
scale is set so that, over all pairs of these pictures, the share of answers in the true order is the judge's
consistency (65, 80, 95 %): for nearly equal pictures the answer is nearly random, for very different ones nearly
certain. With `--judge constant` every answer is right with that probability, for all pairs.

True scores and features are those of real pictures: ratings of photographs (200 drawn from the folder), and 1,000
drawings of the demo with its known taste. Features come from the packaged extractor.

    elo      Elo as in the predecessor's AB scorer, K = 0.7, expectation 1 / (1 + exp(b - a)), random pairs
    bt       Bradley-Terry (scores/bradley_terry.py) on the same answers
    adaptive Bradley-Terry, pairs drawn by scores/pairing.py, fitted after every tenth of a comparison per picture
    features like adaptive, with the ridge prior from the pictures' features

It prints the Spearman correlation of the scores with the true scores, as a mean over seeds, by the number of
comparisons per picture (a comparison shows two pictures and counts for both).
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit
from scipy.stats import spearmanr

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from custom_aesthetic.scores.bradley_terry import Prior, fit_scores, flat_prior, standard_errors  # noqa: E402
from custom_aesthetic.scores.pairing import Standing, after_choice, draw_group  # noqa: E402
from custom_aesthetic.scores.prior import feature_prior  # noqa: E402

CHECKPOINTS = (1, 2, 4, 6, 8, 10, 15, 20)
CONSISTENCIES = (0.65, 0.80, 0.95)
ELO_K = 0.7

Judge = Callable[[int, int], bool]


@dataclass(frozen=True)
class Pictures:
    """True scores (n_pictures,), standardised, and features (n_pictures, n_features)."""

    truth: np.ndarray
    features: np.ndarray


def make_judge(truth: np.ndarray, consistency: float, generator: np.random.Generator, *, constant: bool) -> Judge:
    """Return a judge whose answers are in the true order for this share of all pairs."""
    distances = np.abs(truth[:, None] - truth[None, :])[np.triu_indices(len(truth), 1)]
    low, high = 1e-3, 1e3
    while high / low > 1.0001 and not constant:
        scale = (low * high) ** 0.5
        low, high = (scale, high) if expit(scale * distances).mean() < consistency else (low, scale)

    def prefers_first(first: int, second: int) -> bool:
        lead = truth[first] - truth[second]
        chance = (consistency if lead > 0 else 1 - consistency) if constant else expit(low * lead)
        return bool(generator.uniform() < chance)

    return prefers_first


def random_answers(n_pictures: int, judge: Judge, generator: np.random.Generator) -> np.ndarray:
    """Return answers on random pairs, (n_comparisons, 2) of winner and loser; each picture once per round."""
    rounds = [generator.permutation(n_pictures)[: n_pictures // 2 * 2].reshape(-1, 2) for _ in range(max(CHECKPOINTS))]
    pairs = np.concatenate(rounds)
    return np.array([(a, b) if judge(a, b) else (b, a) for a, b in pairs.tolist()])


def elo_curve(pictures: Pictures, answers: np.ndarray) -> list[float]:
    scores, curve = np.zeros(len(pictures.truth)), []
    for done, (winner, loser) in enumerate(answers, start=1):
        change = ELO_K * expit(scores[loser] - scores[winner])
        scores[winner] += change
        scores[loser] -= change
        if done in _checkpoints(len(scores)):
            curve.append(float(spearmanr(scores, pictures.truth).statistic))
    return curve


def bradley_terry_curve(pictures: Pictures, answers: np.ndarray) -> list[float]:
    prior = flat_prior(len(pictures.truth))
    fits = [fit_scores(answers[:done, 0], answers[:done, 1], prior) for done in _checkpoints(len(pictures.truth))]
    return [float(spearmanr(scores, pictures.truth).statistic) for scores in fits]


def adaptive_curve(pictures: Pictures, judge: Judge, prior: Prior, generator: np.random.Generator) -> list[float]:
    n_pictures = len(pictures.truth)
    none = np.array([], dtype=int)
    standing = Standing(prior.mean.copy(), standard_errors(prior.mean, none, none, prior), np.zeros(n_pictures))
    answers: list[tuple[int, int]] = []
    curve, last = [], frozenset[int]()
    while len(answers) < _checkpoints(n_pictures)[-1]:
        (first, second), _ = draw_group(standing, generator, avoid=[last])
        last = frozenset((first, second))
        answers.append((first, second) if judge(first, second) else (second, first))
        standing = after_choice(standing, answers[-1][0], answers[-1][1:])
        checkpoint = len(answers) in _checkpoints(n_pictures)
        if checkpoint or len(answers) % max(1, n_pictures // 20) == 0:
            winners, losers = np.array(answers).T
            scores = fit_scores(winners, losers, prior, start=standing.scores, tolerance=1e-4)
            standing = Standing(scores, standard_errors(scores, winners, losers, prior), standing.shown)
        if checkpoint:
            curve.append(float(spearmanr(standing.scores, pictures.truth).statistic))
    return curve


def _checkpoints(n_pictures: int) -> list[int]:
    return [n_pictures // 2 * comparisons for comparisons in CHECKPOINTS]


def run(pictures: Pictures, consistency: float, seed: int, *, constant: bool) -> dict[str, list[float]]:
    """Return method -> Spearman at each checkpoint, for one judge and one seed."""
    generator = np.random.default_rng([seed, round(100 * consistency)])
    judge = make_judge(pictures.truth, consistency, generator, constant=constant)
    answers = random_answers(len(pictures.truth), judge, generator)
    n_pictures = len(pictures.truth)
    return {
        "elo": elo_curve(pictures, answers),
        "bt": bradley_terry_curve(pictures, answers),
        "adaptive": adaptive_curve(pictures, judge, flat_prior(n_pictures), generator),
        "features": adaptive_curve(pictures, judge, feature_prior(pictures.features), generator),
    }


def comparisons_needed(curve: np.ndarray, wanted: float) -> float:
    """Return the comparisons per picture at which a curve reaches a Spearman, by linear interpolation; inf if never."""
    for i, value in enumerate(curve):
        if value >= wanted:
            if i == 0:
                return float(CHECKPOINTS[0])
            share = (wanted - curve[i - 1]) / (value - curve[i - 1])
            return float(CHECKPOINTS[i - 1] + share * (CHECKPOINTS[i] - CHECKPOINTS[i - 1]))
    return float("inf")


def report(name: str, pictures_of: Callable[[int], Pictures], n_seeds: int, *, constant: bool) -> None:
    """Print one table for each judge."""
    for consistency in CONSISTENCIES:
        begin = time.perf_counter()
        runs = [run(pictures_of(seed), consistency, seed, constant=constant) for seed in range(n_seeds)]
        curves = {method: np.mean([curves_of[method] for curves_of in runs], axis=0) for method in runs[0]}
        taken = time.perf_counter() - begin
        print(f"\n{name}, judge {consistency:.0%} consistent, {n_seeds} seeds ({taken:.0f} s)")
        print(
            "comparisons/picture   " + "".join(f"{count:>7}" for count in CHECKPOINTS) + "   Elo's Spearman at 20 with"
        )
        wanted = curves["elo"][-1]
        for method, curve in curves.items():
            values = "".join(f"{value:7.3f}" for value in curve)
            print(f"{method:<22}{values}   {comparisons_needed(curve, wanted):.1f}", flush=True)


def photographs(folder: Path, cache: Path) -> Callable[[int], Pictures]:
    """Return a function that draws, for each seed, 200 photographs with people's mean ratings."""
    copy = cache / "photographs"  # a copy, because features are cached beside the pictures
    if not copy.is_dir():
        shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    scores, features = scored_pictures(copy, "scores.csv")

    def draw(seed: int) -> Pictures:
        chosen = np.random.default_rng([seed, 5]).permutation(len(scores))[:200]
        return standardised(scores[chosen], features[chosen])

    return draw


def drawings(cache: Path) -> Callable[[int], Pictures]:
    """Return a function that gives 1,000 pictures drawn by the demo's script; the truth is its taste."""
    from demo import make_demo

    make_demo.PICTURES_A_FOLDER = 250
    folder = cache / "drawings"
    if not (folder / "scores.json").exists():
        make_demo.write_demo(folder, make_demo.SEED)
    pictures = make_demo.plan_pictures(make_demo.SEED)
    _, features = scored_pictures(folder, "scores.json")
    truth = np.array([make_demo.taste(picture) for picture in pictures])
    return lambda seed: standardised(truth, features)


def standardised(scores: np.ndarray, features: np.ndarray) -> Pictures:
    return Pictures((scores - scores.mean()) / scores.std(), features)


def scored_pictures(folder: Path, score_file: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores (n_pictures,) and features (n_pictures, n_features) in the order of the score file."""
    import torch

    from custom_aesthetic.extractors import build_extractors
    from custom_aesthetic.features.table import load_features
    from custom_aesthetic.scores.score_files import read_scores

    table = read_scores(folder / score_file)
    extractors = build_extractors("efficientnet-lite0", torch.device("cpu"))
    features = load_features(folder, table.paths, extractors, show_progress=False)
    assert not features.failures
    return np.array(table.scores), features.values.double().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("AESTHETIC_TEST_DATA", ROOT.parent / "shared" / "data")) / "photos"
    parser.add_argument("--photos", type=Path, default=default, help="folder of photographs with scores.csv")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "bench_ab", help="folder of pictures and features"
    )
    parser.add_argument("--only", type=int, choices=(200, 1000), help="only this many pictures")
    parser.add_argument("--seeds", type=int, help="seeds to average over (default: 10 for 200 pictures, 3 for 1,000)")
    parser.add_argument(
        "--judge", choices=("distance", "constant"), default="distance", help="kind of errors of the judge"
    )
    arguments = parser.parse_args()
    constant = arguments.judge == "constant"
    if arguments.only != 1000:
        if not arguments.photos.is_dir():
            sys.exit(f"no photographs in {arguments.photos}; give a folder by --photos, or use --only=1000")
        report(
            "200 photographs", photographs(arguments.photos, arguments.cache), arguments.seeds or 10, constant=constant
        )
    if arguments.only != 200:
        report("1,000 drawn pictures", drawings(arguments.cache), arguments.seeds or 3, constant=constant)


if __name__ == "__main__":
    main()
