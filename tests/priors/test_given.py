"""The prior model that a training starts from: which features it takes, and which scores of it are honest."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.features.hidden_states import spell_modes
from custom_aesthetic.heads.learnt_pictures import learnt_metadata
from custom_aesthetic.heads.linear_members import PRIOR, Blend, LinearModel
from custom_aesthetic.heads.model_file import input_metadata, save_model
from custom_aesthetic.heads.predictor import Predictor, predict
from custom_aesthetic.priors.difference import Difference
from custom_aesthetic.priors.given import (
    PriorScores,
    as_predictor,
    check_features,
    describe_prior,
    first_output,
    prior_scores,
    read_prior,
)
from custom_aesthetic.priors.joining import JudgedDifference, add_all
from custom_aesthetic.scores.out_of_fold import FINGERPRINT, write_out_of_fold

RANDOM = np.random.default_rng(4)
VALUES = torch.from_numpy(RANDOM.normal(size=(30, 6)).astype(np.float32))
PATHS = [f"{number}.jpg" for number in range(30)]


def prior_file(folder: Path, *, n_features: int = 6, states: tuple[int, ...] = (0, 2), **more: str) -> Path:
    metadata = input_metadata(["a/net"], [states], ["join"], ["centre", "mirror"], fp16=False)
    predictor = Predictor(n_features, (5, 4), 2, generator=torch.Generator().manual_seed(1))
    save_model(folder / "prior.safetensors", predictor, {**metadata, **more})
    return folder / "prior.safetensors"


def test_the_same_features_fit_wherever_the_extractor_lies(tmp_path: Path) -> None:
    planned = "a/net 0 centre+mirror; a/net 2 centre+mirror; join"
    prior_file(tmp_path)
    prior = read_prior(tmp_path, "prior.safetensors")
    check_features(prior, planned)
    check_features(prior, planned.replace("a/net", "/home/me/net"))
    check_features(prior, planned.replace("join", "weight"))


def test_extractors_of_which_some_share_a_mode_fit_themselves(tmp_path: Path) -> None:
    modes = ["join", "average", "join"]
    metadata = input_metadata(["a", "b", "c"], [(0, 2)] * 3, modes, ["centre"], fp16=False)
    save_model(tmp_path / "prior.safetensors", Predictor(6, (5, 4), 1), metadata)
    blocks = [f"{name} {state} centre" for name in "abc" for state in (0, 2)]
    check_features(read_prior(tmp_path, "prior.safetensors"), "; ".join([*blocks, spell_modes(modes)]))
    with pytest.raises(UserError, match=r"takes the features .*; join__average__join, but"):
        check_features(read_prior(tmp_path, "prior.safetensors"), "; ".join([*blocks, "join__average__average"]))


@pytest.mark.parametrize(
    "planned",
    [
        "b/other 0 centre+mirror; b/other 2 centre+mirror; join",
        "a/net 0 centre+mirror; join",
        "a/net 0 centre; a/net 2 centre; join",
        "a/net 0 centre+mirror; a/net 2 centre+mirror; average",
    ],
)
def test_other_features_are_refused_and_both_are_named(planned: str, tmp_path: Path) -> None:
    prior_file(tmp_path)
    with pytest.raises(UserError, match="give the prior's extractor, hidden states and views") as error:
        check_features(read_prior(tmp_path, "prior.safetensors"), planned)
    assert planned in str(error.value) and "a/net 0 centre+mirror; a/net 2 centre+mirror; join" in str(error.value)


def test_another_number_of_features_is_refused(tmp_path: Path) -> None:
    prior_file(tmp_path, n_features=7)
    with pytest.raises(UserError, match="takes 7 features, but this training has 6"):
        prior_scores(read_prior(tmp_path, "prior.safetensors"), VALUES, VALUES.numpy(), PATHS)


def test_a_public_head_takes_one_embedding(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    torch.save({"weight": torch.randn(1, 6), "bias": torch.zeros(1)}, tmp_path / "head.pth")
    prior = read_prior(tmp_path, "head.pth")
    check_features(prior, "clip 0 centre; join")
    for planned in ("clip 1 centre; join", "clip 0 centre; clip 1 centre; join"):
        with pytest.raises(UserError, match="hidden state 0"):
            check_features(prior, planned)
    found = prior_scores(prior, VALUES, VALUES.numpy(), PATHS)
    np.testing.assert_allclose(predict(found.predictor, VALUES)[:, 0], found.scores, atol=1e-5)
    assert "divides by the length" in caplog.text


def test_the_older_kind_with_weighted_states_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(prior_file(tmp_path))
    mixing = {"weight.0.weight": torch.ones(1, 2), "weight.0.bias": torch.zeros(1)}
    save_file({**tensors, **mixing}, tmp_path / "older.safetensors", {"hidden_states_mode": "weight"})
    with pytest.raises(UserError, match="sums hidden states with weights"):
        read_prior(tmp_path, "older.safetensors")


def test_pictures_that_the_prior_has_learnt_from_count_with_its_out_of_fold_scores(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    marks = learnt_metadata(VALUES[:20].numpy(), ["train"] * 20, folded=True)
    honest = np.arange(20.0)
    file = tmp_path / "prior.safetensors"
    mark = write_out_of_fold(file, PATHS[:20], honest, honest + 100)
    prior_file(tmp_path, **marks, **{FINGERPRINT: mark})
    found = prior_scores(read_prior(tmp_path, file.name), VALUES, VALUES.numpy(), PATHS)
    np.testing.assert_allclose(found.scores[:20], honest + 100)
    np.testing.assert_allclose(found.scores[20:], predict(found.predictor, VALUES)[20:, 0], rtol=1e-6)
    assert found.n_flattered == 0 and "learnt from 20 of these" in caplog.text
    elsewhere = prior_scores(read_prior(tmp_path, file.name), VALUES, VALUES.numpy(), [f"x/{path}" for path in PATHS])
    assert elsewhere.n_flattered == 20
    assert "believed too much" in caplog.text
    assert "learnt from 20" in describe_prior(elsewhere, RANDOM.normal(size=30), np.arange(30))


def test_an_older_prior_that_does_not_name_its_pictures_is_pointed_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="custom_aesthetic")
    prior_file(tmp_path)
    prior_scores(read_prior(tmp_path, "prior.safetensors"), VALUES, VALUES.numpy(), PATHS)
    assert "does not say which pictures it has learnt from" in caplog.text


def test_one_plain_network_holds_heads_linear_models_and_the_prior() -> None:
    generator = torch.Generator().manual_seed(3)
    heads, prior = Predictor(6, (8, 4), 1, generator=generator), Predictor(6, (5, 3), 2, generator=generator)
    rest = LinearModel(RANDOM.normal(size=6), 0.7)
    models = {"ridge": LinearModel(RANDOM.normal(size=6), -1.0), PRIOR: rest}
    blend = Blend({"heads": 0.5, "ridge": 0.25, PRIOR: 0.3}, 2.0)
    alone = first_output(prior)
    scores = predict(alone, VALUES)[:, 0].double().numpy()
    difference = Difference(-1.5, rest)
    joined = add_all(heads, blend, models, PriorScores(alone, scores), JudgedDifference(difference, scores))
    values = VALUES.double().numpy()
    expected = blend.of(
        {
            "heads": predict(heads, VALUES)[:, 0].double().numpy(),
            "ridge": models["ridge"].predict(values),
            PRIOR: difference.predict(values, scores),
        }
    )
    np.testing.assert_allclose(predict(joined, VALUES)[:, 0], expected, atol=1e-5)
    assert joined.n_outputs == 1
    np.testing.assert_allclose(predict(as_predictor(rest), VALUES)[:, 0], rest.predict(values), atol=1e-5)
