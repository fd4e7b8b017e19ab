"""The packaged extractors: their transforms, their hidden states, and the scores of a model trained elsewhere."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from custom_aesthetic.extractors import build_extractor, build_extractors
from custom_aesthetic.extractors.build import asks_a_hub
from custom_aesthetic.extractors.packaged import NETWORKS
from tests.tiny_checkpoints import make_picture

CPU = torch.device("cpu")


RESIZED = {"efficientnet-lite0": 256, "efficientnet-lite1": 274, "efficientnet-lite2": 297}
"""Shorter side in pixels after the resize."""

WIDTHS = {
    "efficientnet-lite0": [1280, 320, 192],
    "efficientnet-lite1": [1280, 320, 192],
    "efficientnet-lite2": [1280, 352, 208],
}
"""Number of features of the hidden states 0, 1 and 2."""


@pytest.fixture(scope="module", params=NETWORKS)
def extractor(request):
    return build_extractor(request.param, CPU)


@pytest.fixture(scope="module")
def lite0():
    return build_extractor("efficientnet-lite0", CPU)


def test_the_transform_is_a_resize_a_crop_to_seven_eighths_and_a_shift_and_scale(extractor):
    side, crop = RESIZED[extractor.name], NETWORKS[extractor.name].side
    picture = make_picture(side + 40, side + 20)
    resized = picture.resize((int(side * (side + 40) / (side + 20)), side), Image.Resampling.BICUBIC)
    left, top = (resized.width - crop) // 2, (resized.height - crop) // 2
    resized = resized.crop((left, top, left + crop, top + crop))
    expected = (torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() - 127) / 128
    assert torch.equal(extractor.transform(picture), expected)


def test_hidden_states_are_the_averages_of_the_feature_maps_of_a_plain_forward_pass(extractor):
    model = NETWORKS[extractor.name].load()
    pixels = torch.stack([extractor.transform(make_picture(300, 260, seed=i)) for i in range(2)])
    outputs = []
    for block in model._blocks:
        block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.inference_mode():
        last = model.extract_features(pixels)
    found = extractor.features(pixels, range(extractor.n_hidden_states))
    assert [features.shape[1] for features in found.values()][:3] == WIDTHS[extractor.name]
    for k, maps in enumerate([last, *reversed(outputs)]):
        torch.testing.assert_close(found[k], maps.mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)


def test_feature_0_feeds_the_classifier_of_the_network(extractor):
    """The classifier's output follows from feature 0 alone, so it is the network's pooled output."""
    model, pixels = NETWORKS[extractor.name].load(), extractor.transform(make_picture(300, 260))[None]
    with torch.inference_mode():
        expected = model(pixels)
        torch.testing.assert_close(model._fc(extractor.features(pixels, [0])[0]), expected, rtol=1e-4, atol=1e-4)


def test_a_model_trained_on_these_features_elsewhere_gives_its_scores(lite0, data_folder: Path):
    from safetensors.torch import load_file

    tensors = load_file(data_folder / "older-models" / "newer.safetensors")
    expected = json.loads((data_folder / "older-models" / "expected_scores.json").read_text())["newer"]
    paths = sorted(expected)[::40]
    assert len(paths) >= 6
    for path in paths:
        with Image.open(data_folder / "photos" / path) as image:
            layer = lite0.features(lite0.transform(image.convert("RGB"))[None], [0])[0]
        for i in (1, 4, 7):
            weight, bias = tensors[f"main_process.{i}.weight"], tensors[f"main_process.{i}.bias"]
            layer = torch.nn.functional.linear(layer if i == 1 else layer.relu(), weight, bias)
        assert layer.item() == pytest.approx(expected[path], abs=1e-4)


def test_files_written_for_the_first_packaged_network_stay_valid(lite0):
    """Cached features and models from before there were other packaged networks."""
    assert lite0.fingerprint.startswith("efficientnet-lite0 57934424; crop=(224, 224),resize=256,mean=(127.0, 127.0")
    assert lite0.fingerprint.endswith("; float32")


def test_two_packaged_networks_are_joined():
    joined = build_extractors("efficientnet-lite0,efficientnet-lite2", CPU)
    assert [extractor.name for extractor in joined] == ["efficientnet-lite0", "efficientnet-lite2"]
    assert len({extractor.fingerprint for extractor in joined}) == 2
    assert not any(map(asks_a_hub, NETWORKS))
