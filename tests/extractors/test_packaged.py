"""The packaged extractor: its transform, its hidden states, and the scores of a model trained on it elsewhere."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from custom_aesthetic.extractors import build_extractor
from custom_aesthetic.extractors.packaged import load_model
from tests.tiny_checkpoints import make_picture

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def extractor():
    return build_extractor("efficientnet-lite0", CPU)


def test_the_transform_is_resize_to_256_crop_224_and_a_shift_and_scale(extractor):
    picture = make_picture(300, 280)
    resized = picture.resize((274, 256), Image.Resampling.BICUBIC).crop((25, 16, 249, 240))
    expected = (torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() - 127) / 128
    assert torch.equal(extractor.transform(picture), expected)


def test_hidden_states_are_the_averages_of_the_feature_maps_of_a_plain_forward_pass(extractor):
    model, pixels = load_model(), torch.stack([extractor.transform(make_picture(300, 260, seed=i)) for i in range(2)])
    outputs = []
    for block in model._blocks:
        block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.inference_mode():
        last = model.extract_features(pixels)
    found = extractor.features(pixels, range(extractor.n_hidden_states))
    assert [features.shape[1] for features in found.values()][:3] == [1280, 320, 192]
    for k, maps in enumerate([last, *reversed(outputs)]):
        torch.testing.assert_close(found[k], maps.mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)


def test_feature_0_feeds_the_classifier_of_the_network(extractor):
    """What it would say about a picture follows from feature 0 alone, so this is the network's own pooled output."""
    model, pixels = load_model(), extractor.transform(make_picture(300, 260))[None]
    with torch.inference_mode():
        expected = model(pixels)
        torch.testing.assert_close(model._fc(extractor.features(pixels, [0])[0]), expected, rtol=1e-4, atol=1e-4)


def test_a_model_trained_on_these_features_elsewhere_gives_its_scores(extractor, data_folder: Path):
    from safetensors.torch import load_file

    tensors = load_file(data_folder / "older-models" / "newer.safetensors")
    expected = json.loads((data_folder / "older-models" / "expected_scores.json").read_text())["newer"]
    paths = sorted(expected)[::40]
    assert len(paths) >= 6
    for path in paths:
        with Image.open(data_folder / "photos" / path) as image:
            layer = extractor.features(extractor.transform(image.convert("RGB"))[None], [0])[0]
        for i in (1, 4, 7):
            weight, bias = tensors[f"main_process.{i}.weight"], tensors[f"main_process.{i}.bias"]
            layer = torch.nn.functional.linear(layer if i == 1 else layer.relu(), weight, bias)
        assert layer.item() == pytest.approx(expected[path], abs=1e-4)
