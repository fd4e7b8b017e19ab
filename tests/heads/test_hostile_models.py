"""Hostile and damaged model files: they are refused with a one-line message that names the file, or they work."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.heads.domain import find_domain, to_text
from custom_aesthetic.heads.model_file import load_model, model_bytes
from custom_aesthetic.heads.prediction import open_extractors, predict_features
from custom_aesthetic.heads.predictor import Predictor

KNOWN = {
    "feature_extractor_model": "efficientnet-lite0",
    "hidden_states_used": "0,2",
    "hidden_states_mode": "join",
    "views": "centre,mirror",
    "folds": "4",
}


def tensors() -> dict[str, torch.Tensor]:
    state = Predictor(6, (5, 4), generator=torch.Generator().manual_seed(0)).state_dict()
    return {name: tensor.clone() for name, tensor in state.items()}


def written(folder: Path, changed: dict[str, torch.Tensor] | None = None, **metadata: str) -> Path:
    file = folder / "m.safetensors"
    safetensors.torch.save_file({**tensors(), **(changed or {})}, file, {**KNOWN, **metadata})
    return file


def raw(folder: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "m.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder / "m.safetensors"


def refused(file: Path) -> str:
    with pytest.raises(UserError) as raised:
        load_model(file)
    message = str(raised.value)
    assert str(file) in message
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize(
    "metadata",
    [
        {"hidden_states_used": "9" * 5000},
        {"hidden_states_used": ",".join(map(str, range(5000)))},
        {"hidden_states_used": "0,-1"},
        {"hidden_states_used": "0,0"},
        {"hidden_states_used": "zero"},
        {"hidden_states_used": "0__1__2"},
        {"hidden_states_used": "0__"},
        {"hidden_states_mode": "join__average"},
        {"views": "middle"},
        {"views": "centre,centre"},
        {"views": ""},
        {"views": "x" * 100_000},
        {"feature_extractor_model": "x" * 10_000},
        {"feature_extractor_model": "a__a"},
        {"feature_extractor_model": "a,b"},
        {"feature_extractor_model": "a\nb"},
        {"feature_extractor_model": "__".join(map(str, range(1000)))},
        {"hidden_states_mode": "weight"},
    ],
    ids=lambda metadata: f"{next(iter(metadata))}-{next(iter(metadata.values()))[:12]!r}",
)
def test_invalid_metadata_are_refused(tmp_path: Path, metadata: dict[str, str]) -> None:
    refused(written(tmp_path, **metadata))


@pytest.mark.parametrize(
    "changed",
    [
        {"main_process.1.weight": torch.full((5, 6), torch.nan)},
        {"main_process.7.bias": torch.tensor([torch.inf])},
        {"main_process.1.weight": torch.zeros(0, 6)},
        {"main_process.1.weight": torch.zeros(100_000, 0)},
        {"main_process.4.weight": torch.zeros(100_000, 1)},
        {"main_process.4.weight": torch.zeros(4)},
        {"main_process.4.weight": torch.zeros(4, 5, 1)},
        {"main_process.4.weight": torch.zeros(4, 5, dtype=torch.int64)},
        {"main_process.4.bias": torch.zeros(1)},
        {"main_process.7.weight": torch.zeros(3, 4), "main_process.7.bias": torch.zeros(3)},
        {"weight.0.weight": torch.zeros(2, 2)},
        {"weight.0.weight": torch.zeros(1, 100_000)},
        {"weight.0.weight": torch.zeros(1, 2), "weight.0.bias": torch.zeros(2)},
    ],
)
def test_invalid_tensors_are_refused(tmp_path: Path, changed: dict[str, torch.Tensor]) -> None:
    refused(written(tmp_path, changed))


def huge(name: str, shape: list[int]) -> dict:
    return {"__metadata__": KNOWN, name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}


@pytest.mark.parametrize(
    "header",
    [
        huge("main_process.1.weight", [0, 10**15]),
        huge("main_process.1.weight", [10**9, 10**9]),
        huge("main_process.1.weight", [2**62, 4]),
        {"__metadata__": {**KNOWN, "folds": 4}},
        {"__metadata__": [1]},
        {"__metadata__": {"a": {"b": "c"}}},
        b"[" * 100_000,
        b"{}",
        b'{"__metadata__": {"a": "' + b"x" * 100 + b'\xff"}}',
    ],
    ids=range(9),
)
def test_invalid_headers_are_refused(tmp_path: Path, header: object) -> None:
    refused(raw(tmp_path, header))


def test_a_huge_header_is_not_parsed(tmp_path: Path) -> None:
    assert "header of 9 MB" in refused(raw(tmp_path, {"__metadata__": {"a": "x" * 9 * 1024**2}}))


def test_a_header_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    refused(tmp_path / "m.safetensors")


def test_a_folder_is_refused_as_a_model_file(tmp_path: Path) -> None:
    assert "is not a file" in refused(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"centres": 3}', '{"n_centres": 1e400, "scale": 1, "threshold": 1, "centres": "AAAA"}']
)
def test_an_invalid_domain_is_ignored(tmp_path: Path, text: str) -> None:
    model = load_model(written(tmp_path, domain=text))
    assert predict_features(model, torch.zeros(2, 6)).domain_distances is None


def test_a_hidden_state_that_the_extractor_lacks_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    model = load_model(written(tmp_path, hidden_states_used="0,99"))
    with pytest.raises(UserError, match=r"m\.safetensors takes hidden state 99 of efficientnet-lite0"):
        open_extractors(model, torch.device("cpu"))


def test_a_download_is_announced_in_the_log_first_and_never_done_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def ask(name: str) -> None:
        assert "needs the feature extractor somebody/tiny: asking the hub" in caplog.text
        asked.append(name)
        raise OSError("no network in tests")

    monkeypatch.setattr("custom_aesthetic.extractors.checkpoint._hub_config", ask)
    monkeypatch.setattr("custom_aesthetic.extractors.checkpoint._cached", lambda *_: None)
    model = load_model(written(tmp_path, feature_extractor_model="somebody/tiny"))
    caplog.set_level("INFO")
    with pytest.raises(UserError, match="--offline forbids"):
        open_extractors(model, torch.device("cpu"), offline=True)
    assert (asked, caplog.text) == ([], "")
    with pytest.raises(UserError, match="out of reach"):
        open_extractors(model, torch.device("cpu"))
    assert asked == ["somebody/tiny"]


def flipped(content: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 4)):
        content[chance.randrange(len(content))] = chance.randrange(256)


def flipped_in_the_header(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(8, 8 + struct.unpack("<Q", content[:8])[0])] = chance.choice(b'0123456789[]{},:"-eE_ \xff')


def cut(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content)) :]


def doubled(content: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(content))
    content[start:start] = content[start : start + chance.randint(1, 400)]


def reshaped(content: bytearray, chance: random.Random) -> None:
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    name = chance.choice([name for name in header if name != "__metadata__"])
    odd = [0, 1, -1, 10**9, 2**63, 2**64, 1e300, None, "6", [6]]
    if chance.random() < 0.5:
        header[name]["shape"] = [chance.choice([*odd, 4, 5, 6]) for _ in range(chance.randint(0, 4))]
    else:
        value = chance.choice([None, 3, "", "9" * 5000, "__", "-", "[[0]]", "\ud800", "x" * 10**4, {}, "0,1__2"])
        header["__metadata__"][chance.choice(list(header["__metadata__"]))] = value
    text = json.dumps(header).encode()
    content[: 8 + length] = struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize("change", [flipped, flipped_in_the_header, cut, doubled, reshaped])
def test_a_damaged_file_is_refused_or_works(tmp_path: Path, change: Callable[[bytearray, random.Random], None]) -> None:
    domain = find_domain(torch.randn(40, 6, generator=torch.Generator().manual_seed(1)).numpy())
    assert domain is not None
    whole = model_bytes(Predictor(6, (5, 4), 2), {**KNOWN, "domain": to_text(domain)})
    file = tmp_path / "m.safetensors"
    chance = random.Random(change.__name__)
    n_refused = 0
    for _ in range(150):
        content = bytearray(whole)
        change(content, chance)
        file.write_bytes(content)
        try:
            model = load_model(file)
        except UserError as error:
            n_refused += 1
            assert str(file) in str(error)
            assert "\n" not in str(error)
        else:
            found = predict_features(model, torch.zeros(2, model.n_features))
            assert found.scores.shape == (2,)
    assert n_refused
