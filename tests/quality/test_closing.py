"""What a training says at its end beyond the statistics lines."""

import numpy as np
from scipy.special import expit

from custom_aesthetic.quality.closing import Judged, baseline_lines, ceiling_line, closing_lines
from custom_aesthetic.scores.choice_log import make_choice
from custom_aesthetic.scores.score_files import ScoreTable

N_IMAGES = 120


def judged(split: list[str], *, folded: bool = False, noise: float = 0.1, sigma: float | None = None) -> Judged:
    """A model whose scores are the true ones and some noise; the features hold the scores."""
    generator = np.random.default_rng(0)
    scores = generator.normal(5, 2, N_IMAGES)
    features = np.stack([scores, *generator.normal(size=(4, N_IMAGES))], axis=1) + generator.normal(size=(N_IMAGES, 5))
    predictions = scores + generator.normal(0, noise, N_IMAGES)
    table = ScoreTable(tuple(f"{row}.png" for row in range(N_IMAGES)), {"score": scores.tolist(), "split": split})
    sigmas = None if sigma is None else np.full(N_IMAGES, sigma)
    return Judged(table, predictions, features.astype(np.float32), sigmas, folded)


def split_of(**shares: int) -> list[str]:
    return [name for name, count in shares.items() for _ in range(count)]


def test_the_test_set_is_believed_before_the_eval_set() -> None:
    both = judged(split_of(train=60, eval=30, test=30))
    assert both.believed is not None
    assert both.believed[0] == "Test"
    assert both.believed[1].tolist() == list(range(90, 120))
    only_eval = judged(split_of(train=80, eval=40)).believed
    assert only_eval is not None
    assert only_eval[0] == "Eval"


def test_a_model_that_has_seen_the_eval_set_is_not_judged_by_it() -> None:
    seen = judged(split_of(train=80, eval=40), folded=True)
    assert seen.believed is None
    assert seen.learnt.tolist() == list(range(120))
    (line,) = baseline_lines(seen)
    assert "--fraction_for_test" in line


def test_a_good_model_earns_its_keep_and_a_bad_one_is_told_what_to_do() -> None:
    good, bad = (list(baseline_lines(judged(split_of(train=60, eval=60), noise=noise))) for noise in (0.1, 20.0))
    assert [line.split(" :")[0] for line in good[:-1]] == [
        f"Eval, {name}" for name in ("mean score", "ridge", "SVR", "kernel ridge")
    ]
    assert "no baseline is significantly better" in good[-1]
    assert "is better than the model" in bad[-1]
    assert "--trials" in bad[-1]


def test_intervals_hold_the_figure_and_sigma_is_checked() -> None:
    lines = list(closing_lines(judged(split_of(train=60, eval=60), noise=1.0, sigma=0.1)))
    assert lines[0].startswith("Eval 95 % intervals: spearman 0.")
    low, high = (float(part) for part in lines[0].split("spearman ")[1].split(",")[0].split(" ... "))
    assert 0.5 < low < high < 1
    assert "within one sigma" in lines[1]
    assert "too small" in lines[1]
    assert "held-out Spearman of ridge" in lines[-1]


def test_the_ceiling_falls_with_the_noise_of_the_scores() -> None:
    table = judged(split_of(train=120)).table
    assert ceiling_line(table) == ""
    few, many = (
        float(ceiling_line(table.with_column("score_sigma", [sigma] * N_IMAGES)).split("spearman ")[1].split(",")[0])
        for sigma in (2.0, 0.2)
    )
    assert few < many <= 1
    ratings = table.with_column("score_sd", ["2.0"] * N_IMAGES).with_column("comparisons", [100] * N_IMAGES)
    assert "perfect model" in ceiling_line(ratings)
    assert ceiling_line(table.with_column("comparisons", [20] * N_IMAGES)) == "", "the judge may be of any consistency"


def test_the_raw_log_of_choices_tells_the_ceiling_too() -> None:
    table = judged(split_of(train=120)).table
    generator = np.random.default_rng(1)

    def ceiling(n_choices: int) -> float:
        pairs = generator.permuted(np.tile(np.arange(N_IMAGES), (n_choices, 1)), axis=1)[:, :2]
        wins = generator.random(n_choices) < expit(np.diff(np.take(table.scores, pairs), axis=1)[:, 0])
        choices = [
            make_choice(f"{pair[int(won)]}.png", [f"{pair[1 - int(won)]}.png"], seconds=1, drawn="random")[0]
            for pair, won in zip(pairs, wins, strict=True)
        ]
        elsewhere = make_choice("gone.png", ["0.png"], seconds=1, drawn="random")
        return float(ceiling_line(table, [*choices, *elsewhere]).split("spearman ")[1].split(",")[0])

    assert ceiling(300) < ceiling(6000) < 1
    assert ceiling_line(table, make_choice("gone.png", ["0.png"], seconds=1, drawn="random")) == ""
