"""The worked example in docs/model-file.md, recomputed with numpy alone and by the program."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

import custom_aesthetic
from custom_aesthetic.extractors.protocol import VIEWS
from custom_aesthetic.features.table import FeatureBlock, FeatureTable
from custom_aesthetic.heads.model_file import load_model
from custom_aesthetic.heads.prediction import model_input, predict_features
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "model-file.md").read_text(encoding="utf-8")
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def example() -> dict:
    [block] = re.findall(r"```json\n(.*?)```", TEXT, flags=re.DOTALL)
    return json.loads(block)


def by_hand(example: dict) -> np.ndarray:
    """Return the inputs of the first layer, (n_images, n_features), computed as the document describes."""
    metadata, parts = example["metadata"], []
    names = metadata["feature_extractor_model"].split("__")
    lists, modes = metadata["hidden_states_used"].split("__"), metadata["hidden_states_mode"].split("__")
    for name, states, mode in zip(names, lists, modes, strict=True):
        by_view = [example["features_by_view_and_state"][name][view] for view in metadata["views"].split(",")]
        means = [np.mean([view[state] for view in by_view], axis=0) for state in states.split(",")]
        parts += [np.mean(means, axis=0)] if mode == "average" else means
    return np.concatenate(parts, axis=1)


def test_numpy_alone_gives_the_numbers_in_the_document(example: dict) -> None:
    tensors = {name: np.array(values) for name, values in example["tensors"].items()}
    inputs = values = by_hand(example)
    for index in (1, 4, 7):
        values = values @ tensors[f"main_process.{index}.weight"].T + tensors[f"main_process.{index}.bias"]
        values = np.maximum(values, 0) if index < 7 else values
    np.testing.assert_allclose(inputs, example["inputs"], atol=TOLERANCE)
    np.testing.assert_allclose(values[:, 0], example["scores"], atol=TOLERANCE)
    np.testing.assert_allclose(np.abs(values[:, 1]), example["sigmas"], atol=TOLERANCE)
    domain = json.loads(example["metadata"]["domain"])
    numbers = np.frombuffer(base64.b64decode(domain["centres"]), np.int8).reshape(domain["n_centres"], -1)
    centres = numbers / np.linalg.norm(numbers, axis=1, keepdims=True)
    unit = inputs / np.linalg.norm(inputs, axis=1, keepdims=True)
    distances = (1 - (unit @ centres.T).max(axis=1)) / max(domain["threshold"], 1e-6)
    np.testing.assert_allclose(distances, example["domain_distances"], atol=TOLERANCE)


def test_the_program_gives_the_numbers_in_the_document(example: dict, tmp_path: Path) -> None:
    tensors = {name: np.array(values, np.float32) for name, values in example["tensors"].items()}
    safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors", example["metadata"])
    model = load_model(tmp_path / "m.safetensors")
    blocks, parts, start = [], [], 0
    assert model.hidden_states is not None
    for name, states in zip(model.extractors, model.hidden_states, strict=True):
        for view in model.views:
            for state in states:
                parts.append(np.array(example["features_by_view_and_state"][name][view][str(state)], np.float32))
                blocks.append(FeatureBlock(name, state, view, start, start + parts[-1].shape[1]))
                start = blocks[-1].stop
    table = FeatureTable(("a", "b"), torch.from_numpy(np.concatenate(parts, axis=1)), tuple(blocks), {})
    inputs = model_input(model, table)
    np.testing.assert_allclose(inputs.numpy(), example["inputs"], atol=TOLERANCE)
    found = predict_features(model, inputs)
    np.testing.assert_allclose(found.scores, example["scores"], atol=TOLERANCE)
    np.testing.assert_allclose(found.sigmas, example["sigmas"], atol=TOLERANCE)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.domain_distances, example["domain_distances"], atol=2e-6)  # type: ignore[arg-type]


def test_the_document_names_every_view_and_every_key_that_affects_the_input() -> None:
    for view in ("centre", "whole", "mirror", "mirror_whole"):
        assert view in VIEWS
        assert f"`{view}`" in TEXT
    for key in ("feature_extractor_model", "hidden_states_used", "hidden_states_mode", "views", "fp16_features"):
        assert f"| `{key}` |" in TEXT


def test_the_package_has_the_version_in_pyproject() -> None:
    assert f'\nversion = "{custom_aesthetic.__version__}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
