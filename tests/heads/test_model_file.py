"""Model files: plain tensors that any program can read, and compatibility with files of the predecessor."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors import build_extractors
from custom_aesthetic.features.table import load_features
from custom_aesthetic.heads.model_file import load_model, model_bytes, save_model
from custom_aesthetic.heads.predictor import Predictor, predict


def made(n_outputs: int = 1) -> Predictor:
    return Predictor(6, (5, 4), n_outputs, generator=torch.Generator().manual_seed(0))


def features(n_columns: int = 6) -> torch.Tensor:
    return torch.randn(10, n_columns, generator=torch.Generator().manual_seed(1))


METADATA = {"feature_extractor_model": "a/b__c", "hidden_states_used": "0,2", "hidden_states_mode": "average"}


def test_a_model_round_trips_with_its_metadata(tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", made(), METADATA)
    model = load_model(tmp_path / "m.safetensors")
    assert torch.equal(predict(model.predictor, features()), predict(made(), features()))
    assert model.extractors == ("a/b", "c")
    assert model.hidden_states == ((0, 2),)
    assert (model.modes, model.n_features) == (("average",), 6)
    assert model.metadata["layers"] == "[5, 4]"
    assert model.metadata["number_of_features"] == "6"
    assert model.metadata["output_channels"] == "1"


def test_a_plain_stack_built_from_the_file_alone_gives_the_same_scores(tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", made(2), METADATA)
    with safetensors.safe_open(tmp_path / "m.safetensors", "pt") as opened:
        metadata = opened.metadata()
    first, second = json.loads(metadata["layers"])
    stack = nn.Sequential()
    stack.main_process = nn.Sequential(
        nn.Dropout(),
        nn.Linear(int(metadata["number_of_features"]), first),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(second, int(metadata["output_channels"])),
    )
    stack.load_state_dict(safetensors.torch.load_file(tmp_path / "m.safetensors"))
    assert torch.equal(stack.eval()(features()), predict(made(2), features()))


def test_tensor_names_of_the_predecessor_and_missing_biases_are_read(tmp_path: Path) -> None:
    state = made().state_dict()
    older = {name.replace("main_process", "parallel_blocks.0"): tensor for name, tensor in state.items()}
    del older["parallel_blocks.0.4.bias"]
    safetensors.torch.save_file(older, tmp_path / "m.safetensors")
    expected = made()
    nn.init.zeros_(expected.linears()[1].bias)
    model = load_model(tmp_path / "m.safetensors")
    assert torch.equal(predict(model.predictor, features()), predict(expected, features()))
    assert (model.extractors, model.hidden_states, model.modes) == ((), None, None)


@pytest.mark.parametrize("text", ["[0, 1]", "0_1", "0,1"])
def test_hidden_states_are_read_in_every_spelling(tmp_path: Path, text: str) -> None:
    save_model(tmp_path / "m.safetensors", made(), {**METADATA, "hidden_states_used": text})
    assert load_model(tmp_path / "m.safetensors").hidden_states == ((0, 1),)


@pytest.mark.parametrize("prefix", ["weight.0", "preprocess.0"])
@pytest.mark.parametrize("mark", [{"hidden_states_mode": "weight"}, {"stack_hidden_states": "True"}])
def test_the_weight_mode_of_the_predecessor_is_a_weighted_sum_and_a_relu(
    tmp_path: Path, prefix: str, mark: dict
) -> None:
    weights, bias = torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([0.1])
    tensors = {**made().state_dict(), f"{prefix}.weight": weights, f"{prefix}.bias": bias}
    safetensors.torch.save_file(tensors, tmp_path / "m.safetensors", {"hidden_states_used": "[0, 1, 2]", **mark})
    model = load_model(tmp_path / "m.safetensors")
    joined = features(18)
    first, second, third = joined.split(6, dim=1)
    expected = predict(made(), torch.relu(0.5 * first - second + 2 * third + 0.1))
    torch.testing.assert_close(predict(model.predictor, joined), expected)
    assert (model.modes, model.n_features) == (("join",), 18)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_file_that_is_not_a_model_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"m\.safetensors"):
        load_model(tmp_path / "m.safetensors")


def test_a_missing_model_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_model(tmp_path / "m.safetensors")


def test_a_truncated_model_file_is_an_error(tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", made(), METADATA)
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(whole[:-40])
    with pytest.raises(UserError, match="cannot be read"):
        load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize("name", ["older", "newer"])
def test_models_of_the_predecessor_give_the_scores_recorded_with_them(
    data_folder: Path, tmp_path: Path, name: str
) -> None:
    model = load_model(data_folder / "older-models" / f"{name}.safetensors")
    expected = json.loads((data_folder / "older-models" / "expected_scores.json").read_text())[name]
    some = list(expected)[:12]
    for path in some:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes((data_folder / "photos" / path).read_bytes())
    extractors = build_extractors(",".join(model.extractors), torch.device("cpu"))
    found = load_features(tmp_path, some, extractors, hidden_states=model.hidden_states, show_progress=False)
    scores = predict(model.predictor, found.values)[:, 0].tolist()
    assert scores == pytest.approx([expected[path] for path in some], abs=1e-4)


def test_the_same_model_gives_the_same_bytes() -> None:
    predictor = Predictor(3, (2, 2))
    metadata = {name: name * 2 for name in ("study", "trial", "loss_model", "ä", "layers", "best")}
    contents = {model_bytes(predictor, dict(items)) for items in (metadata.items(), reversed(metadata.items()))}
    contents |= {model_bytes(predictor, metadata) for _ in range(5)}
    assert len(contents) == 1


def test_the_number_of_folds_shows_whether_a_model_has_learnt_from_the_eval_images(tmp_path: Path) -> None:
    for folds, folded in ((None, False), ("1", False), ("4", True)):
        save_model(tmp_path / "m.safetensors", made(), METADATA | ({} if folds is None else {"folds": folds}))
        assert load_model(tmp_path / "m.safetensors").folded is folded
