"""Evaluation of a model at the end of a training: the images it is judged by, its intervals, baselines and verdict."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import expit

from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.answers import find_taste
from custom_aesthetic.quality.baselines import fit_baselines
from custom_aesthetic.quality.closing import (
    Judged,
    baseline_lines,
    ceiling_line,
    closing_lines,
    find_ceiling,
    find_out,
    statistics_lines,
)
from custom_aesthetic.quality.verdict import verdict
from custom_aesthetic.scores.choice_log import Comparison, make_choice
from custom_aesthetic.scores.score_files import SIGMA, ScoreTable

N_IMAGES = 120


def judged(split: list[str], *, folded: bool = False, noise: float = 0.1, sigma: float | None = None) -> Judged:
    """Return a model that predicts the true scores with some noise; one of the features is the score."""
    generator = np.random.default_rng(0)
    scores = generator.normal(5, 2, N_IMAGES)
    features = np.stack([scores, *generator.normal(size=(4, N_IMAGES))], axis=1) + generator.normal(size=(N_IMAGES, 5))
    predictions = scores + generator.normal(0, noise, N_IMAGES)
    table = ScoreTable(tuple(f"{row}.png" for row in range(N_IMAGES)), {"score": scores.tolist(), "split": split})
    sigmas = None if sigma is None else np.full(N_IMAGES, sigma)
    return Judged(table, predictions, features.astype(np.float32), sigmas, folded)


def spearman_of(table: ScoreTable, choices: Sequence[Comparison] = ()) -> float:
    features = np.random.default_rng(2).normal(size=(len(table), 4))
    made = table.with_column(SIGMA, [1.0] * len(table))
    taste = find_taste(choices, made, features, features[:, 0]) if choices else None
    ceiling = find_ceiling(table, taste)
    assert ceiling is not None
    assert f"spearman {ceiling.spearman.value:.3f}" in ceiling_line(ceiling)
    return ceiling.spearman.value


def split_of(**shares: int) -> list[str]:
    return [name for name, count in shares.items() for _ in range(count)]


def folded(noise: float = 0.1) -> Judged:
    """Return a model that has memorised every score, and whose out-of-fold predictions have some noise."""
    known = judged(split_of(train=80, eval=40), folded=True, noise=0.0)
    rows = np.arange(N_IMAGES)
    folds = [(rows[rows % 4 != fold], rows[rows % 4 == fold]) for fold in range(4)]
    unseen = known.scores + np.random.default_rng(1).normal(0, noise, N_IMAGES)
    return replace(known, out_of_fold=unseen, folds=folds)


def test_the_test_set_takes_precedence_over_the_eval_set_unless_it_is_tiny() -> None:
    both = judged(split_of(train=60, eval=30, test=30)).believed
    assert both is not None
    assert both.name == "Test"
    assert both.rows.tolist() == list(range(90, 120))
    for split in (split_of(train=80, eval=40), split_of(train=70, eval=40, test=10)):
        only_eval = judged(split).believed
        assert only_eval is not None
        assert only_eval.name == "Eval"


def test_pictures_that_the_model_learnt_from_are_only_judged_out_of_fold() -> None:
    model = folded(noise=2.0)
    found = find_out(model)
    assert found.believed is not None and found.share is not None
    assert found.believed.name == "Out of fold"
    assert len(found.believed.rows) == N_IMAGES
    assert 0.6 < found.share.low < found.share.value < found.share.high < 0.9, "memorised scores would give 1"
    (line,) = statistics_lines(model)
    assert line.startswith("Out of fold :   120 images")
    assert not any("AB 100" in line for line in closing_lines(found))


def test_a_model_that_has_learnt_from_all_pictures_is_not_judged_without_out_of_fold_predictions() -> None:
    seen = judged(split_of(train=80, eval=40), folded=True)
    assert seen.believed is None
    assert seen.learnt.tolist() == list(range(120))
    (line,) = baseline_lines(find_out(seen))
    assert "learnt from every picture" in line
    assert "not enough pictures" in verdict(find_out(seen), richer="")


def test_baselines_are_judged_by_the_same_folds_as_the_model() -> None:
    model = folded()
    found = find_out(model)
    assert list(found.baselines) == ["ridge", "SVR", "kernel ridge"]
    learnt, left_out = model.folds[2]
    expected = fit_baselines(model.features, model.scores, learnt)["SVR"][left_out]
    level = model.scores[learnt].mean() - model.scores[np.concatenate([rows for _, rows in model.folds])].mean()
    np.testing.assert_allclose(found.baselines["SVR"][left_out], expected - level)


def test_a_model_is_compared_with_baselines_and_a_worse_one_gets_advice() -> None:
    good, bad = (
        list(baseline_lines(find_out(judged(split_of(train=60, eval=60), noise=noise)))) for noise in (0.1, 20.0)
    )
    assert [line.split(" :")[0] for line in good[:-1]] == [f"Eval, {name}" for name in ("ridge", "SVR", "kernel ridge")]
    assert "no simple method is clearly better" in good[-1]
    assert "is better than the model" in bad[-1]
    assert "--trials" in bad[-1]


def test_sigma_is_judged_out_of_fold_where_the_model_has_learnt_from_all() -> None:
    model = folded(noise=1.0)
    by_heart = replace(model, sigmas=np.full(N_IMAGES, 0.01))
    assert not any("sigma" in line for line in closing_lines(find_out(by_heart))), "of pictures learnt from"
    honest = replace(by_heart, out_of_fold_sigmas=np.full(N_IMAGES, 0.85))
    assert any(line.startswith("Out of fold sigma") and "honest" in line for line in closing_lines(find_out(honest)))
    small = replace(by_heart, out_of_fold_sigmas=np.full(N_IMAGES, 0.1))
    assert any("too small" in line for line in closing_lines(find_out(small)))


def test_where_the_eval_set_chose_the_model_the_verdict_says_so_and_what_measures_it() -> None:
    chosen = judged(split_of(train=60, eval=60), noise=2.0)
    words = verdict(find_out(chosen, flattery=0.01), richer="do more")
    assert "the same pictures also chose the model, so the true figure is lower" in words
    assert "--folds=4 or --fraction_for_test=0.2" in words
    assert len(re.findall(r"[.](?: |$)", words)) <= 3
    assert any("best epoch of each trial" in line for line in closing_lines(find_out(chosen, flattery=0.01)))
    with_test = judged(split_of(train=60, eval=30, test=30), noise=2.0)
    for unchosen in (replace(chosen, eval_chose=False), with_test, folded(noise=2.0)):
        found = find_out(unchosen, flattery=0.01)
        assert "chose the model" not in verdict(found, richer="do more")
        assert not any("best epoch" in line for line in closing_lines(found))


def test_the_interval_contains_the_figure_and_sigma_is_checked() -> None:
    lines = list(closing_lines(find_out(judged(split_of(train=60, eval=60), noise=1.0, sigma=0.1))))
    assert lines[0].startswith("Eval 95 % intervals: spearman 0.")
    low, high = (float(part) for part in lines[0].split("spearman ")[1].split(",")[0].split(" ... "))
    assert 0.5 < low < high < 1
    assert "within one sigma" in lines[1]
    assert "too small" in lines[1]
    assert not any("nan" in line for line in lines)


def test_too_few_pictures_for_an_interval_are_called_so() -> None:
    lines = list(closing_lines(find_out(judged(split_of(train=117, eval=3)))))
    assert lines[0] == "Eval 95 % intervals: unknown, as there are too few pictures with different scores"
    assert not any("nan" in line for line in lines)


def test_the_verdict_has_three_sentences_and_subtracts_the_flattery() -> None:
    model = folded(noise=2.0)
    words = verdict(find_out(model, flattery=0.02), richer="do more")
    share = metrics.ab(model.scores, folded(noise=2.0).out_of_fold)
    assert f"the model picks the one you would {100 * (share - 0.02):.0f} times in 100 (95 % interval " in words
    assert "a simple method on the same features (" in words.lower()
    assert len(re.findall(r"[.](?: |$)", words)) <= 3
    assert "Next, " in words


def test_the_flattery_is_not_subtracted_on_a_test_set() -> None:
    model = judged(split_of(train=60, eval=30, test=30), noise=2.0)
    assert find_out(model, flattery=0.1).share == find_out(model).share


def test_the_verdict_names_the_noise_ceiling_and_a_better_simple_method() -> None:
    noisy = folded(noise=0.1)
    sure = replace(noisy, table=noisy.table.with_column("score_sigma", [2.0] * N_IMAGES))
    words = verdict(find_out(sure), richer="")
    assert "a perfect model would reach" in words.lower()
    assert "compare the same pictures more often" in words
    assert "more --trials" in verdict(find_out(folded(noise=30.0)), richer="")


def test_the_ceiling_falls_with_the_noise_of_the_scores() -> None:
    table = judged(split_of(train=120)).table
    assert find_ceiling(table) is None
    few, many = (spearman_of(table.with_column("score_sigma", [sigma] * N_IMAGES)) for sigma in (2.0, 0.2))
    assert few < many <= 1
    ratings = table.with_column("score_sd", ["2.0"] * N_IMAGES).with_column("comparisons", [100] * N_IMAGES)
    assert spearman_of(ratings) < 1
    assert find_ceiling(table.with_column("comparisons", [20] * N_IMAGES)) is None, (
        "a count does not reveal the uncertainty"
    )


def test_the_ceiling_is_also_found_from_the_log_of_choices() -> None:
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
        return spearman_of(table, [*choices, *elsewhere])

    assert ceiling(300) < ceiling(6000) < 1
