"""AIM v1 compared with the features of the reference implementation, and with its definition."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors import build_extractor
from custom_aesthetic.extractors.aim import AimConfig, sin_cos_positions
from tests.tiny_checkpoints import AIM, save_aim

CPU = torch.device("cpu")


def test_every_hidden_state_agrees_with_the_reference_implementation(data_folder: Path):
    extractor = build_extractor(str(data_folder / "aim-tiny"), CPU)
    reference = json.loads((data_folder / "aim-tiny" / "reference_features.json").read_text())["features"]
    assert len(reference) == 3
    for path, expected in reference.items():
        with Image.open(data_folder / "photos" / path) as image:
            pixels = extractor.transform(image.convert("RGB"))
        found = extractor.features(pixels[None], range(extractor.n_hidden_states))
        assert {str(k) for k in found} == set(expected)
        for k, features in found.items():
            torch.testing.assert_close(features[0], torch.tensor(expected[str(k)]), rtol=0, atol=1e-4)


def test_the_probe_layers_are_averaged_by_default(tmp_path):
    """Counted from the end: of 24 blocks, layers 14 ... 19 are hidden states 9 ... 4."""
    config = json.loads((save_aim(tmp_path) / "config.json").read_text())
    extractor = build_extractor(str(tmp_path), CPU)
    assert extractor.default_hidden_states == (2, 1)
    assert extractor.default_mode == "average"
    config |= {"num_blocks": 24, "probe_layers": [14, 15, 16, 17, 18, 19]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert build_extractor(str(tmp_path), CPU).default_hidden_states == (9, 8, 7, 6, 5, 4)


def test_without_probe_layers_the_last_block_is_used(tmp_path):
    (save_aim(tmp_path) / "config.json").write_text(json.dumps(AIM))
    assert build_extractor(str(tmp_path), CPU).default_hidden_states == (0,)


def test_blocks_after_the_last_requested_one_are_not_computed(tmp_path, monkeypatch):
    extractor = build_extractor(str(save_aim(tmp_path)), CPU)
    pixels = torch.randn(2, 3, 28, 28)
    expected = extractor.features(pixels, [0, 2, 3])
    blocks = extractor.network().trunk["blocks"]
    calls = []
    for i, block in enumerate(blocks):
        block.register_forward_hook(lambda *_arguments, i=i: calls.append(i))
    found = extractor.features(pixels, [3, 2])
    assert calls == [0, 1]
    assert all(torch.equal(found[k], expected[k]) for k in (2, 3))


def test_the_transform_takes_the_shorter_side_to_eight_sevenths_of_the_image_size(tmp_path):
    assert build_extractor(str(save_aim(tmp_path)), CPU).target_size == 32
    config = {**AIM, "img_size": 224}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert build_extractor(str(tmp_path), CPU).target_size == 256


def test_positions_of_patches_in_a_row_share_their_second_half_and_in_a_column_their_first():
    config = AimConfig(**{**AIM, "img_size": 56})
    positions = sin_cos_positions(config, CPU).unflatten(0, (4, 4))
    half = config.embed_dim // 2
    assert torch.equal(positions[:, 0, :half], positions[0, 0, :half].expand(4, -1))
    assert torch.equal(positions[0, :, half:], positions[0, 0, half:].expand(4, -1))
    assert len({tuple(row.tolist()) for row in positions.flatten(0, 1)}) == 16
    assert positions.abs().max() <= 1


@pytest.mark.parametrize("change", [{"embed_dim": 32}, {"num_blocks": 5}, {"num_blocks": 3}], ids=str)
def test_weights_that_do_not_fit_the_configuration_are_an_error(tmp_path, change):
    (save_aim(tmp_path) / "config.json").write_text(json.dumps({**AIM, **change}))
    with pytest.raises(UserError, match=r"do not fit config\.json"):
        build_extractor(str(tmp_path), CPU).features(torch.randn(1, 3, 28, 28), [0])


@pytest.mark.parametrize(
    "change",
    [{"embed_dim": "wide"}, {"num_blocks": 0}, {"probe_layers": 7}, {"patch_size": None}, {"embed_dim": 10**9}],
    ids=str,
)
def test_sizes_that_are_not_positive_integers_are_an_error(tmp_path, change):
    (save_aim(tmp_path) / "config.json").write_text(json.dumps({**AIM, **change}))
    with pytest.raises(UserError, match=r"config\.json has"):
        build_extractor(str(tmp_path), CPU)


def test_half_precision_weights_compute_in_float32_on_a_cpu(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save_aim(tmp_path)
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in load_file(folder / "model.safetensors").items()}
    pixels = torch.randn(2, 3, 28, 28)
    save_file(tensors, folder / "model.safetensors")
    half = build_extractor(str(folder), CPU).features(pixels, [0])[0]
    save_file({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, folder / "model.safetensors")
    assert torch.equal(build_extractor(str(folder), CPU).features(pixels, [0])[0], half)
