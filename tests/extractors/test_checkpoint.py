"""Sources of checkpoints: folders, the hub and its cache, damaged files, fingerprints."""

import json
import logging
import os
import socket
import sys
import threading
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors import build_extractor, checkpoint
from custom_aesthetic.extractors.checkpoint import open_checkpoint, within
from tests.tiny_checkpoints import save_aim, save_checkpoint

CPU = torch.device("cpu")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the hub in a temporary folder."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def point_hub_at(monkeypatch, address):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def put_in_cache(hub_cache, name, commit=COMMIT):
    """Put a tiny AIM checkpoint into the cache, laid out like a download of the hub."""
    folder = hub_cache / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    save_aim(snapshot)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    return snapshot


def test_a_hub_that_refuses_is_an_error(hub_cache, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        point_hub_at(monkeypatch, f"http://127.0.0.1:{unused.getsockname()[1]}")
    with pytest.raises(UserError, match=r"openai/clip.*out of reach.*local folder.*efficientnet-lite2"):
        build_extractor("openai/clip-vit-large-patch14", CPU)


def test_a_hub_that_never_answers_is_an_error_after_one_wait(hub_cache, monkeypatch):
    monkeypatch.setattr(checkpoint, "HUB_ANSWER_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        point_hub_at(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UserError, match="out of reach"):
            build_extractor("openai/clip-vit-large-patch14", CPU)


def test_waiting_for_a_name_server_ends_at_the_deadline(hub_cache, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(checkpoint, "HUB_DEADLINE_SECONDS", 0.3)
    monkeypatch.setattr(checkpoint, "_hub_commit", lambda _name: released.wait(30))
    with pytest.raises(UserError, match=r"out of reach \(TimeoutError\)"):
        build_extractor("somebody/something", CPU)
    assert not released.is_set()
    released.set()


def test_the_waits_together_stay_below_fifteen_seconds():
    assert checkpoint.HUB_ANSWER_SECONDS < checkpoint.HUB_DEADLINE_SECONDS < 14


def test_offline_mode_is_an_error_that_names_the_choices(hub_cache, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"OfflineModeIsEnabled.*local folder.*efficientnet-lite2"):
        build_extractor("ChrisGoringe/vitH16", CPU)


def test_earlier_downloads_are_used_when_the_hub_is_out_of_reach(hub_cache, monkeypatch, caplog):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    snapshot = put_in_cache(hub_cache, "somebody/aim")
    with caplog.at_level(logging.WARNING):
        extractor = build_extractor("somebody/aim", CPU)
    assert "using the copy already downloaded" in caplog.text
    assert COMMIT in extractor.fingerprint
    pixels = torch.randn(2, 3, 28, 28)
    local = build_extractor(str(snapshot), CPU)
    assert torch.equal(extractor.features(pixels, [0])[0], local.features(pixels, [0])[0])


def test_a_hub_name_is_kept_by_its_commit(hub_cache, monkeypatch):
    """The hub answers with a commit whose files are all in the cache, so nothing else is requested."""
    put_in_cache(hub_cache, "somebody/aim")
    monkeypatch.setattr(checkpoint, "_hub_commit", lambda _name: COMMIT)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_a, **_o: pytest.fail("a file was downloaded again"))
    extractor = build_extractor("somebody/aim", CPU)
    assert f"commit={COMMIT}" in extractor.fingerprint
    assert extractor.features(torch.randn(1, 3, 28, 28), [0])[0].shape == (1, 16)


def test_weights_that_cannot_be_downloaded_are_an_error(hub_cache, monkeypatch):
    snapshot = put_in_cache(hub_cache, "somebody/aim")
    (snapshot / "model.safetensors").unlink()
    monkeypatch.setattr(checkpoint, "_hub_commit", lambda _name: COMMIT)

    def break_off(*_arguments, **_options):
        raise ConnectionError("reset by peer")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", break_off)
    extractor = build_extractor("somebody/aim", CPU)
    with pytest.raises(UserError, match=r"download of model\.safetensors broke off.*same command again"):
        extractor.features(torch.randn(1, 3, 28, 28), [0])


def test_a_small_file_that_never_arrives_is_an_error_at_the_deadline(hub_cache, monkeypatch):
    """A guessed image processor would change the features silently."""
    snapshot = put_in_cache(hub_cache, "somebody/clip")
    (snapshot / "config.json").write_text('{"model_type": "clip_vision_model"}')
    released = threading.Event()
    monkeypatch.setattr(checkpoint, "HUB_DEADLINE_SECONDS", 0.3)
    monkeypatch.setattr(checkpoint, "_hub_commit", lambda _name: COMMIT)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_a, **_o: released.wait(30))
    with pytest.raises(UserError, match=r"preprocessor_config\.json"):
        build_extractor("somebody/clip", CPU)
    assert not released.is_set()
    released.set()


def test_every_file_is_of_the_commit_the_hub_named(hub_cache, monkeypatch):
    newer = "f" * 40
    put_in_cache(hub_cache, "somebody/aim")
    snapshot = hub_cache / "models--somebody--aim" / "snapshots" / newer
    snapshot.mkdir()
    save_aim(snapshot)
    tensors = load_file(snapshot / "model.safetensors")
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, snapshot / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_a, **_o: pytest.fail("a file was downloaded again"))
    pixels, found = torch.randn(1, 3, 28, 28), []
    for commit in (COMMIT, newer):
        monkeypatch.setattr(checkpoint, "_hub_commit", lambda _name, commit=commit: commit)
        found.append(build_extractor("somebody/aim", CPU).features(pixels, [0])[0])
    assert torch.equal(found[1], build_extractor(str(snapshot), CPU).features(pixels, [0])[0])
    assert not torch.allclose(found[0], found[1])


def test_the_processor_of_the_original_is_used_if_the_copy_has_none(hub_cache, monkeypatch):
    from huggingface_hub.errors import EntryNotFoundError

    copy, original = "ChrisGoringe/vitH16", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    for name in (copy, original):
        folder = put_in_cache(hub_cache, name)
        (folder / "config.json").write_text(json.dumps({"model_type": "clip_vision_model", "image_size": 56}))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "CLIPImageProcessor", "size": 40, "crop_size": 28})
    )

    def missing(*_arguments, **_options):
        raise EntryNotFoundError("no such file")

    monkeypatch.setattr(checkpoint, "_hub_commit", lambda _name: COMMIT)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", missing)
    assert build_extractor(copy, CPU).target_size == 40


def test_a_call_with_a_deadline_returns_its_result_raises_its_error_or_times_out():
    assert within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)
    with pytest.raises(TimeoutError):
        within(0.05, lambda: time.sleep(0.5))


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_weights_are_an_error_that_names_the_file(tmp_path, weights, damage):
    folder = save_aim(tmp_path, weights)
    whole = (folder / weights).read_bytes()
    (folder / weights).write_bytes(
        {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"version https://git-lfs"}[damage]
    )
    extractor = build_extractor(str(folder), CPU)
    with pytest.raises(UserError, match=rf"{weights} is damaged or not a weights file"):
        extractor.features(torch.randn(1, 3, 28, 28), [0])


def test_a_damaged_tower_checkpoint_is_an_error_too(tmp_path):
    folder = save_checkpoint("clip_vision_model", tmp_path / "clip")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        build_extractor(str(folder), CPU).features(torch.randn(1, 3, 28, 28), [0])


class Trap:
    """Unpickling this creates a folder, as a hostile file could."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_nothing_but_tensors_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = save_aim(tmp_path, "pytorch_model.bin")
    torch.save({"weight": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is damaged or not a weights file"):
        build_extractor(str(folder), CPU).features(torch.randn(1, 3, 28, 28), [0])
    assert not (tmp_path / "sprung").exists()


def test_safetensors_and_bin_give_the_same_features(tmp_path):
    folders = {}
    for weights in ("model.safetensors", "pytorch_model.bin"):
        (tmp_path / weights).mkdir()
        folders[weights] = save_aim(tmp_path / weights, weights)
    pixels = torch.randn(2, 3, 28, 28)
    first, second = (build_extractor(str(folder), CPU).features(pixels, [0, 2]) for folder in folders.values())
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[2], second[2])


def test_weights_split_over_files_give_the_same_features(tmp_path):
    whole = save_aim(tmp_path)
    split = tmp_path / "split"
    split.mkdir()
    (split / "config.json").write_text((whole / "config.json").read_text())
    tensors = load_file(whole / "model.safetensors")
    names = sorted(tensors)
    weight_map = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name in names if weight_map[name] == file}, split / file)
    (split / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    pixels = torch.randn(2, 3, 28, 28)
    expected = build_extractor(str(whole), CPU).features(pixels, [1])[1]
    assert torch.equal(build_extractor(str(split), CPU).features(pixels, [1])[1], expected)
    (split / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors"):
        build_extractor(str(split), CPU)


def test_a_folder_without_weights_is_an_error(tmp_path):
    (save_aim(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"none of model\.safetensors.*local folder"):
        build_extractor(str(tmp_path), CPU)


def test_the_fingerprint_of_a_folder_depends_on_content_and_not_on_place_or_time(tmp_path):
    first = build_extractor(str(save_checkpoint("aim", tmp_path / "first")), CPU)
    folder = save_checkpoint("aim", tmp_path / "second")
    os.utime(folder / "model.safetensors", (1, 1))
    assert build_extractor(str(folder), CPU).fingerprint == first.fingerprint
    tensors = load_file(folder / "model.safetensors")
    tensors["head.cls_token"][0, 0, 0] += 1e-3
    save_file(tensors, folder / "model.safetensors")
    changed = build_extractor(str(folder), CPU).fingerprint
    assert changed != first.fingerprint
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_heads": 4}))
    assert build_extractor(str(folder), CPU).fingerprint not in (changed, first.fingerprint)


@pytest.mark.parametrize("part", [slice(0, 8), slice(-8, None), slice(None)], ids=["beginning", "end", "everywhere"])
def test_a_file_too_large_to_hash_whole_is_sampled_from_beginning_to_end(tmp_path, monkeypatch, part):
    monkeypatch.setattr(checkpoint, "SAMPLE_BYTES", 8)
    weights = save_aim(tmp_path) / "model.safetensors"
    before = checkpoint.checkpoint_fingerprint(open_checkpoint(str(tmp_path)))
    content = bytearray(weights.read_bytes())
    assert len(content) > checkpoint.N_SAMPLES * 8
    content[part] = bytes(byte ^ 1 for byte in content[part])
    weights.write_bytes(content)
    assert checkpoint.checkpoint_fingerprint(open_checkpoint(str(tmp_path))) != before


def test_building_an_aim_extractor_imports_no_transformers(tmp_path):
    import subprocess

    folder = save_aim(tmp_path)
    code = (
        "import sys, torch; from custom_aesthetic.extractors import build_extractor;"
        "build_extractor(sys.argv[1], torch.device('cpu')).features(torch.zeros(1, 3, 28, 28), [0]);"
        "sys.exit('transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(folder)], check=True, timeout=60)
