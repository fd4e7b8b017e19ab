"""The engines that can compute features, and the fastest way to use the cores with them, for bench_features."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from custom_aesthetic.base.machine import n_cores
from custom_aesthetic.engines.efficientnet import onnx_file
from custom_aesthetic.extractors import FeatureExtractor
from custom_aesthetic.extractors.packaged import NETWORKS, PackagedExtractor
from custom_aesthetic.extractors.tower import Tower
from custom_aesthetic.features.extraction import model_features

Compute = Callable[[Tensor], dict[int, NDArray[np.float32]]]
"""Compute the features of a batch, (n_pictures, 3, height, width): hidden state -> (n_pictures, width)."""


class Rate(NamedTuple):
    """Pictures per second, and per second of CPU time of this process, which other processes hardly change."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Way:
    """One way to compute: an engine, how many batches at once, threads and pictures of each."""

    engine: str
    n_lanes: int
    n_threads: int
    batch_size: int

    def __str__(self) -> str:
        return f"{self.engine}, {self.n_lanes} x batch {self.batch_size}, {self.n_threads} threads each"


def engines_for(extractor: FeatureExtractor, pixels: Tensor) -> dict[str, Compute]:
    """Return the engines that can compute these features: PyTorch, ONNX Runtime and OpenVINO, where they are there."""
    states = extractor.default_hidden_states
    has_openvino = find_spec("openvino") is not None
    if not isinstance(extractor, PackagedExtractor):
        engines: dict[str, Compute] = {"PyTorch": lambda batch: model_features(extractor, batch, states)}
        if isinstance(extractor, Tower) and extractor.device.type == "cpu" and has_openvino:
            engines["OpenVINO"] = openvino(traced(extractor, pixels[:2], states), states)
        return engines
    plain = PackagedExtractor(NETWORKS[extractor.name], extractor.device, onnx=False)
    engines = {"PyTorch": lambda batch: model_features(plain, batch, states)}
    extractor.features(pixels[:1], states)
    if any(extractor._sessions.values()):
        engines["ONNX Runtime"] = lambda batch: model_features(extractor, batch, states)
    if has_openvino and extractor.device.type == "cpu":
        engines["OpenVINO"] = openvino(onnx_file(plain.network(), pixels.shape[-1], states), states)
    return engines


def traced(extractor: Tower, pixels: Tensor, states: Sequence[int]) -> Any:
    """Return the network of a tower as OpenVINO's model, for batches of any size; `pixels` are an example."""
    import openvino

    class Outputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = extractor.network()

        def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
            found = extractor._compute(self.network, batch, states)
            return tuple(found[state] for state in states)

    return openvino.convert_model(Outputs().eval(), example_input=pixels, input=[[-1, *pixels.shape[1:]]])


def openvino(model: Any, states: Sequence[int]) -> Compute:
    """Return a function that computes by OpenVINO in float32, in a stream for each core.

    `model` is an ONNX file in memory or a model of OpenVINO; its outputs are these hidden states.
    """
    import openvino

    hints = {"NUM_STREAMS": n_cores(), "INFERENCE_NUM_THREADS": n_cores(), "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model) if isinstance(model, bytes) else model, "CPU", hints)
    requests = threading.local()

    def compute(batch: Tensor) -> dict[int, NDArray[np.float32]]:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        found = requests.own.infer({0: batch.numpy()})
        return {state: found[i] for i, state in enumerate(states)}

    return compute


def best_ways(engines: dict[str, Compute], pixels: Tensor, max_batch_size: int) -> list[Way]:
    """Return the fastest combination of lanes and batch size for each engine, by the better of two tries."""
    n_threads = torch.get_num_threads()
    sizes = list(itertools.takewhile(lambda size: size <= max_batch_size, (2**i for i in range(20))))
    ways = [Way("PyTorch", 1, n_threads, size) for size in sizes]
    side_by_side = [engine for engine in engines if n_threads > 1 or engine != "PyTorch"]
    ways += [Way(engine, n_threads, 1, size) for engine in side_by_side for size in sizes]
    rates = dict.fromkeys(ways, 0.0)
    for way in (*ways, *ways):
        rates[way] = max(rates[way], model_rate(engines[way.engine], pixels, way, seconds=0.5).wall)
    for way, found in rates.items():
        print(f"  model alone, {way}: {found:.1f} pictures/s", flush=True)
    return [max((way for way in ways if way.engine == engine), key=rates.__getitem__) for engine in engines]


def model_rate(compute: Compute, pixels: Tensor, way: Way, *, seconds: float) -> Rate:
    """Return the rate of the model alone, timed for about `seconds` after a warm-up round."""
    whole = [batch for batch in pixels.split(way.batch_size) if len(batch) == way.batch_size]
    batches = itertools.cycle(whole or [pixels])

    def run(batch: Tensor) -> int:
        torch.set_num_threads(way.n_threads)
        compute(batch)
        return len(batch)

    n_torch_threads_before = torch.get_num_threads()
    with ThreadPoolExecutor(way.n_lanes) as pool:
        started = time.perf_counter()
        list(pool.map(run, itertools.islice(batches, way.n_lanes)))
        n_rounds = max(2, int(seconds / (time.perf_counter() - started)))
        started, cpu_started = time.perf_counter(), time.process_time()
        n_pictures = sum(pool.map(run, itertools.islice(batches, n_rounds * way.n_lanes)))
        elapsed, cpu_elapsed = time.perf_counter() - started, time.process_time() - cpu_started
    torch.set_num_threads(n_torch_threads_before)
    return Rate(n_pictures / elapsed, n_pictures / cpu_elapsed)
