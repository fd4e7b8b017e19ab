"""A training beside a log of answers: the linear model is fitted to them, where the scores come from them."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

import aesthetic_predictor_training
from custom_aesthetic.scores.bradley_terry import fit_scores, flat_prior
from custom_aesthetic.scores.choice_log import ComparisonLog, make_choice

SMALL = [
    *("--features=t.npz", "--trials=2", "--model_seed=1", "--max_first_layer_size=12"),
    *("--max_second_layer_size=10", "--min_batch_size=8", "--max_train_epochs=6"),
]
PATHS = [f"{number}.jpg" for number in range(30)]


def write_log(paths: list[str], pairs: np.ndarray) -> None:
    """Write a new log in which the first picture of each pair is chosen."""
    Path("comparisons.csv").unlink(missing_ok=True)
    for number, (winner, loser) in enumerate(pairs):
        rows = make_choice(paths[winner], [paths[loser]], seconds=1, drawn="random", time=f"{number:03}")
        ComparisonLog(Path("comparisons.csv")).append(rows)


def train(*more: str) -> bytes:
    """Return the numbers of the model."""
    Path("model.safetensors").unlink(missing_ok=True)
    aesthetic_predictor_training.run([*SMALL, *more])
    return safetensors.torch.save(safetensors.torch.load_file("model.safetensors"))


def test_answers_teach_the_model_unless_the_scores_have_another_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(8)
    np.savez("t.npz", paths=PATHS, features=generator.normal(size=(30, 20)).astype(np.float32))
    pairs = np.concatenate([generator.permutation(30).reshape(-1, 2) for _ in range(2)])
    scores = fit_scores(*pairs.T, flat_prior(30))
    rows = [f"{path},{score},1" for path, score in zip(PATHS, scores, strict=True)]
    Path("scores.csv").write_text("\n".join(["relative_path,score,score_sigma", *rows]))
    by_scores = train("--database=", "--workers=1")
    write_log([f"elsewhere/{path}" for path in PATHS], pairs)
    assert train("--database=", "--workers=1") == by_scores, "a log of other pictures"
    write_log(PATHS, pairs[:, ::-1])
    assert train("--database=", "--workers=1") == by_scores, "scores that say something else"
    write_log(PATHS, pairs)
    by_answers = train("--database=", "--workers=1")
    assert by_answers != by_scores
    assert train("--database=sqlite:///study.sqlite", "--workers=2") == by_answers
    assert train("--database=sqlite:///study.sqlite", "--workers=2") == by_answers, "the study is complete"
