"""The packaged networks on ONNX Runtime: the same features as on PyTorch, which is used wherever it does not work."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from custom_aesthetic.engines import onnx_session
from custom_aesthetic.engines.onnx_graph import Graph
from custom_aesthetic.extractors.packaged import NETWORKS, PackagedExtractor
from tests.tiny_checkpoints import make_picture

CPU = torch.device("cpu")


def pictures(extractor: PackagedExtractor, n_pictures: int = 6) -> Tensor:
    return torch.stack([extractor.transform(make_picture(300, 270, seed=i)) for i in range(n_pictures)])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_features_are_those_of_pytorch_to_a_ten_thousandth_of_their_spread(name: str) -> None:
    """So both have the same fingerprint, and share the cache."""
    pytest.importorskip("onnxruntime")
    fast, plain = PackagedExtractor(NETWORKS[name], CPU), PackagedExtractor(NETWORKS[name], CPU, onnx=False)
    assert fast.fingerprint == plain.fingerprint
    states = range(fast.n_hidden_states)
    found, expected = (one.features(pictures(one), states) for one in (fast, plain))
    for k in states:
        spread = expected[k].std(dim=0).clamp_min(expected[k].std(dim=0).mean())
        assert ((found[k] - expected[k]).abs() / spread).max() < 1e-4
    assert any(fast._sessions.values()) and not plain._sessions


def test_real_photographs_have_the_same_features(data_folder: Any) -> None:
    pytest.importorskip("onnxruntime")
    network = NETWORKS["efficientnet-lite0"]
    fast, plain = PackagedExtractor(network, CPU), PackagedExtractor(network, CPU, onnx=False)
    files = sorted((data_folder / "photos").rglob("*.jpg"))[::12]
    pixels = torch.stack([fast.transform(Image.open(file).convert("RGB")) for file in files])
    found, expected = (one.features(pixels, fast.default_hidden_states) for one in (fast, plain))
    for k in fast.default_hidden_states:
        varying = expected[k].std(dim=0) > 1e-3
        assert ((found[k] - expected[k]).abs()[:, varying] / expected[k].std(dim=0)[varying]).max() < 1e-4


def test_hidden_states_come_in_any_number_and_order_and_from_several_threads() -> None:
    extractor = PackagedExtractor(NETWORKS["efficientnet-lite0"], CPU)
    pixels = pictures(extractor)
    whole = extractor.features(pixels, [0, 1, 5])
    assert list(extractor.features(pixels, [5, 0])) == [5, 0]
    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(lambda part: extractor.features(part, [5, 0, 1]), pixels.split(1)))
    for k in (0, 1, 5):
        torch.testing.assert_close(torch.cat([part[k] for part in parts]), whole[k], rtol=1e-4, atol=1e-5)


def test_a_run_starts_no_thread() -> None:
    pytest.importorskip("onnxruntime")
    code = """
import os, torch
from custom_aesthetic.extractors.packaged import NETWORKS, PackagedExtractor
torch.set_num_threads(1)
extractor = PackagedExtractor(NETWORKS["efficientnet-lite0"], torch.device("cpu"))
pixels = torch.zeros(2, 3, 224, 224)
import onnxruntime
extractor.network()
before = len(os.listdir("/proc/self/task"))
extractor.features(pixels, [0])
print(len(os.listdir("/proc/self/task")) - before, type(extractor._sessions[0,]).__name__)
"""
    if sys.platform != "linux":
        pytest.skip("counts threads by /proc")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "function"]


def broken(*_arguments: Any) -> Any:
    raise RuntimeError("the operator Conv is\nnot implemented")


@pytest.mark.parametrize("reason", ["broken", "wrong", "not a number", "cannot be imported", "absent"])
def test_pytorch_is_used_where_onnx_runtime_does_not_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    open_session = onnx_session.open_session
    factor = {"wrong": 1.01, "not a number": np.float32(np.nan)}.get(reason)
    if reason == "broken":
        monkeypatch.setattr(onnx_session, "open_session", broken)
    elif reason == "absent":
        monkeypatch.setattr(onnx_session, "is_installed", lambda: False)
    elif reason == "cannot be imported":
        monkeypatch.setattr(onnx_session, "is_installed", lambda: True)
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    else:
        pytest.importorskip("onnxruntime")
        monkeypatch.setattr(
            onnx_session,
            "open_session",
            lambda content: lambda pixels: [values * factor for values in open_session(content)(pixels)],
        )
    extractor = PackagedExtractor(NETWORKS["efficientnet-lite0"], CPU)
    plain = PackagedExtractor(NETWORKS["efficientnet-lite0"], CPU, onnx=False)
    pixels = pictures(extractor, 2)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(extractor.features(pixels, [0])[0], plain.features(pixels, [0])[0])
    assert len(caplog.records) == (reason != "absent")
    if caplog.records:
        assert "PyTorch is used" in caplog.text and "\n" not in caplog.records[0].getMessage()


@pytest.mark.parametrize("place", [0, 1])
def test_a_session_that_gives_nan_in_any_output_is_not_used(monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    expected = [np.ones((1, 3), np.float32), np.ones((1, 2), np.float32)]
    found = [values.copy() for values in expected]
    found[place][0, 1] = np.nan
    monkeypatch.setattr(onnx_session, "open_session", lambda _: lambda _: found)
    assert onnx_session.session_or_none("a network", bytes, expected[0], expected) is None


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_numbers_and_arrays_keep_their_values_in_a_file(axis: int) -> None:
    """Numbers of one and of several bytes, negative ones, and arrays of both types."""
    pytest.importorskip("onnxruntime")
    values = np.arange(600, dtype=np.float32).reshape(2, 300)
    graph = Graph({"given": (2, 300)})
    chosen = graph.add(
        "Gather", graph.add("Add", "given", graph.constant(values)), graph.constant(np.array([1])), axis=axis
    )
    flat = graph.add("Flatten", graph.add("LeakyRelu", chosen, alpha=0.25))
    run = onnx_session.open_session(graph.to_bytes({flat: ("any", "size")}))
    given = np.linspace(-900, 900, 600, dtype=np.float32).reshape(2, 300)
    expected = np.take(given + values, [1], axis=axis)
    (found,) = run(given)
    np.testing.assert_allclose(found, np.where(expected < 0, expected / 4, expected), rtol=1e-6)
