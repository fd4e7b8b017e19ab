"""Untrusted checkpoints: nothing outside their folder is opened, nothing large is built, no hub is asked."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors import build_extractor, checkpoint
from custom_aesthetic.extractors.checkpoint import MOST_JSON_BYTES, open_checkpoint, weights_files
from tests.mutations import mutations
from tests.tiny_checkpoints import SIDE, save_aim, save_checkpoint

CPU = torch.device("cpu")
PIXELS = torch.zeros(1, 3, SIDE, SIDE)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "aim").mkdir()
    return save_aim(tmp_path / "aim")


@pytest.fixture
def clip(tmp_path):
    return save_checkpoint("clip", tmp_path / "clip")


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def features(folder):
    return build_extractor(str(folder), CPU).features(PIXELS, [0])[0]


def split_weights(folder, weight_map):
    (folder / "model.safetensors").rename(folder / "part-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_an_index_names_files_of_the_folder(folder):
    whole = features(folder)
    split_weights(folder, {"x": "part-1.safetensors"})
    assert torch.equal(features(folder), whole)


@pytest.mark.parametrize("weight_map", [None, [], "x", 3, {"x": 1}, {"x": None}, {"x": ["part-1.safetensors"]}])
def test_a_weight_map_of_another_type_is_refused(folder, weight_map):
    split_weights(folder, weight_map)
    with pytest.raises(UserError, match="weight_map"):
        features(folder)


@pytest.mark.parametrize(
    "shard",
    [
        "../out.safetensors",
        "/etc/passwd",
        "C:\\x",
        "\\\\host\\x",
        "a/../../out.safetensors",
        ".",
        "",
        "a\0b",
        "x" * 9999,
    ],
)
def test_a_weight_file_outside_the_folder_is_not_opened(folder, tmp_path, shard):
    save_file(load_file(folder / "model.safetensors"), tmp_path / "out.safetensors")
    (folder / "a").mkdir()
    split_weights(folder, {"x": shard})
    with pytest.raises(UserError, match="not opened"):
        features(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_link_that_leads_out_of_the_folder_is_not_opened(folder, tmp_path, name):
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name} is a link that leads out"):
        features(folder)


def test_links_to_the_blobs_of_the_hubs_cache_are_opened(folder, tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    blob = tmp_path / "models--a--b" / "blobs" / "abc"
    (snapshot / "model.safetensors").rename(blob)
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    assert features(snapshot).shape == (1, 16)


@pytest.mark.parametrize("value", [10_000_000, 10**30, -1, 0.5, "4", [4], {"a": 1}, True])
@pytest.mark.parametrize("key", ["num_blocks", "embed_dim", "img_size", "patch_size", "num_heads", "num_channels"])
def test_absurd_sizes_of_aim_are_refused_before_anything_is_built(folder, key, value):
    change(folder / "config.json", **{key: value})
    with pytest.raises(UserError, match=r"config\.json"):
        features(folder)


@pytest.mark.parametrize("value", [10_000_000, 10**30, -1, 0.5, "4", {"a": 1}, True])
@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "intermediate_size", "image_size", "patch_size"])
def test_absurd_sizes_of_a_tower_are_refused_before_anything_is_built(clip, key, value):
    config = json.loads((clip / "config.json").read_text())
    change(clip / "config.json", vision_config={**config["vision_config"], key: value})
    with pytest.raises(UserError, match=r"config\.json"):
        features(clip)


def test_a_network_far_larger_than_its_weights_is_not_filled(clip, monkeypatch):
    config = json.loads((clip / "config.json").read_text())
    huge = {"hidden_size": 65_536, "intermediate_size": 262_144, "num_hidden_layers": 2}
    change(clip / "config.json", vision_config={**config["vision_config"], **huge})
    with pytest.raises(UserError, match="the weights hold"):
        features(clip)


@pytest.mark.parametrize("values", [{"vision_config": [1]}, {"vision_config": "x"}, {"model_type": ["clip"]}])
def test_parts_of_another_type_are_refused(clip, values):
    change(clip / "config.json", **values)
    with pytest.raises(UserError, match=r"config\.json"):
        features(clip)


def test_a_configuration_cannot_make_transformers_load_other_code(clip):
    whole = features(clip)
    config = json.loads((clip / "config.json").read_text())
    other = {
        "attn_implementation": "someone/kernel",
        "_attn_implementation": "x",
        "quantization_config": {"quant_method": "x"},
    }
    change(clip / "config.json", **other, vision_config={**config["vision_config"], **other})
    assert torch.equal(features(clip), whole)


@pytest.mark.parametrize(
    "content", ["[]", "3", "{", "", "\0", "[" * 99_999, '{"a":' * 99_999, '{"a": ' + "9" * 5000 + "}"]
)
def test_a_config_that_is_not_an_object_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        open_checkpoint(str(folder))


def test_a_huge_config_is_not_read(folder):
    with (folder / "config.json").open("r+b") as file:
        file.truncate(MOST_JSON_BYTES + 1)
    with pytest.raises(UserError, match="MiB"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("settings", [
    {"size": {"shortest_edge": 10**9}, "crop_size": 10**9}, {"size": [1]}, {"size": {"shortest_edge": "28"}},
    {"crop_size": {"height": -1, "width": 28}}, {"image_mean": 3}, {"image_mean": [1]}, {"image_std": [0, 0, 0]},
    {"rescale_factor": "x"}, {"rescale_factor": 1e300}, {"resample": 99}, {"resample": [1]},
])  # fmt: skip
def test_an_image_processor_with_odd_numbers_is_refused(clip, settings):
    change(clip / "preprocessor_config.json", **settings)
    with pytest.raises(UserError, match="image processor"):
        build_extractor(str(clip), CPU)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_pickle_that_runs_code_is_refused(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    for write in (pickle.dump, torch.save):
        with (folder / "pytorch_model.bin").open("wb") as file:
            write({"x": Evil()}, file)
        with pytest.raises(UserError, match=r"pytorch_model\.bin is damaged"):
            features(folder)
    assert not (tmp_path / "executed").exists()


def test_a_tensor_that_repeats_one_number_without_end_is_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"head.k.weight": torch.zeros(1).expand(10**12)}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="larger than the file"):
        features(folder)


@pytest.mark.parametrize("name", ["x" * 10_000, "a\0b", "~nobody-of-that-name/x", "a\nb"])
def test_impossible_names_are_refused_in_one_line(name):
    with pytest.raises(UserError) as caught:
        open_checkpoint(name, offline=True)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_offline_asks_no_hub(monkeypatch, tmp_path, clip):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    monkeypatch.setattr(checkpoint, "_hub_config", lambda *_: pytest.fail("the hub was asked"))
    with pytest.raises(UserError, match="--offline"):
        open_checkpoint("openai/clip-vit-large-patch14", offline=True)
    assert open_checkpoint(str(clip), offline=True).offline


def test_offline_uses_what_the_hubs_cache_holds(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    snapshot = tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save_aim(snapshot)
    (tmp_path / "models--a--b" / "refs").mkdir()
    (tmp_path / "models--a--b" / "refs" / "main").write_text("0" * 40)
    found = open_checkpoint("a/b", offline=True)
    assert weights_files(found) == [snapshot / "model.safetensors"]


def test_the_hub_is_named_before_it_is_asked(monkeypatch, caplog):
    from huggingface_hub.errors import OfflineModeIsEnabled

    def asked(name):
        assert "no local folder" in caplog.text and name in caplog.text
        raise OfflineModeIsEnabled("no")

    monkeypatch.setattr(checkpoint, "_hub_config", asked)
    with caplog.at_level("INFO"), pytest.raises(UserError):
        open_checkpoint("nobody/nothing-of-that-name")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_checkpoint_works_or_is_refused_with_its_name(folder, name):
    whole = (folder / name).read_bytes()
    for damaged in mutations(whole[:2000] if name.endswith("json") else whole):
        (folder / name).write_bytes(damaged)
        try:
            features(folder)
        except UserError as error:
            assert str(folder) in str(error) and "\n" not in str(error)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_damaged_tower_works_or_is_refused_with_its_name(clip, name):
    whole = (clip / name).read_bytes()
    for damaged in mutations(whole):
        (clip / name).write_bytes(damaged)
        try:
            build_extractor(str(clip), CPU)
        except UserError as error:
            assert "\n" not in str(error)
