"""SigLIP, SigLIP 2, DINOv2, DINOv3 and AIMv2: how each loads, and what its features are.

| model                                | feature k: `h = hidden_states[-1-k]` through | source in transformers     |
|--------------------------------------|----------------------------------------------|----------------------------|
| SigLIP, SigLIP 2 at fixed resolution | `head(post_layernorm(h))`, attention pooling | `SiglipVisionModel`        |
| SigLIP 2 NaFlex                      | the same, with the mask of patches in use    | `Siglip2VisionModel`       |
| DINOv2                               | `layernorm(h)`, its class token              | `Dinov2Model`              |
| DINOv2 with registers                | `layernorm(h)`, its class token              | `Dinov2WithRegistersModel` |
| DINOv3 ViT                           | `norm(h)`, its class token                   | `DINOv3ViTModel`           |
| AIMv2                                | `head(rms_norm(h))`, attention pooling       | `Aimv2VisionModel`         |

Feature 0 is the `pooler_output` of each class. SigLIP and AIMv2 checkpoints without a pooling head (`use_head` off)
have no such output; there a feature is the mean over the normalised patches. Fixed-resolution SigLIP 2 checkpoints have
the model type `siglip`.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from custom_aesthetic.extractors.tower import TowerKind, from_tensors

IMAGE_PART = "vision_model"

Load = Callable[[dict[str, Any], dict[str, Tensor], torch.dtype], tuple[nn.Module, set[str]]]


def loader(module: str, model_class: str, config_class: str) -> Load:
    """Return a function that loads tensors into a class of `transformers.models.<module>`.

    Of a configuration for image and text it uses the image part. Some classes are that part alone in transformers 5
    and hold it as `vision_model` in 4: what comes back is the part in both.
    """

    def load(config: dict[str, Any], tensors: dict[str, Tensor], dtype: torch.dtype) -> tuple[nn.Module, set[str]]:
        package = f"transformers.models.{module}"
        configuration = getattr(importlib.import_module(f"{package}.configuration_{module}"), config_class)
        model = getattr(importlib.import_module(f"{package}.modeling_{module}"), model_class)
        vision = configuration.from_dict(config.get("vision_config") or config)
        if model.base_model_prefix != IMAGE_PART:  # else transformers itself finds the image part's tensors
            prefix = f"{IMAGE_PART}." if _holds_image_part(model, vision) else ""
            tensors = {prefix + name.removeprefix(f"{IMAGE_PART}."): tensor for name, tensor in tensors.items()}
        whole, missing = from_tensors(model, vision, tensors, dtype)
        return getattr(whole, IMAGE_PART, whole), missing

    return load


def _holds_image_part(model: Any, config: Any) -> bool:
    with torch.device("meta"):
        return hasattr(model(config), IMAGE_PART)


def pool_siglip(model: Any, state: Tensor, _mask: Tensor | None) -> Tensor:
    patches = model.post_layernorm(state)
    return model.head(patches) if model.use_head else patches.mean(dim=1)


def pool_siglip2(model: Any, state: Tensor, mask: Tensor | None) -> Tensor:
    assert mask is not None
    patches = model.post_layernorm(state)
    if model.use_head:
        return model.head(patches, mask)
    return (patches * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def pool_dinov2(model: Any, state: Tensor, _mask: Tensor | None) -> Tensor:
    return model.layernorm(state[:, 0])


def pool_dinov3(model: Any, state: Tensor, _mask: Tensor | None) -> Tensor:
    return model.norm(state[:, 0])


def pool_aimv2(model: Any, state: Tensor, _mask: Tensor | None) -> Tensor:
    patches = model.rms_norm(state)
    return model.head(patches) if model.use_head else patches.mean(dim=1)


SIGLIP = TowerKind(12, "SiglipImageProcessor", loader("siglip", "SiglipVisionModel", "SiglipVisionConfig"), pool_siglip)
SIGLIP2 = TowerKind(
    12, "Siglip2ImageProcessor", loader("siglip2", "Siglip2VisionModel", "Siglip2VisionConfig"), pool_siglip2
)
DINOV2 = TowerKind(12, "BitImageProcessor", loader("dinov2", "Dinov2Model", "Dinov2Config"), pool_dinov2)
DINOV2_REGISTERS = TowerKind(
    12,
    "BitImageProcessor",
    loader("dinov2_with_registers", "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig"),
    pool_dinov2,
)
DINOV3 = TowerKind(
    12, "DINOv3ViTImageProcessor", loader("dinov3_vit", "DINOv3ViTModel", "DINOv3ViTConfig"), pool_dinov3
)
AIMV2 = TowerKind(24, "CLIPImageProcessor", loader("aimv2", "Aimv2VisionModel", "Aimv2VisionConfig"), pool_aimv2)

KINDS = {
    "siglip": SIGLIP,
    "siglip_vision_model": SIGLIP,
    "siglip2": SIGLIP2,
    "siglip2_vision_model": SIGLIP2,
    "dinov2": DINOV2,
    "dinov2_with_registers": DINOV2_REGISTERS,
    "dinov3_vit": DINOV3,
    "aimv2": AIMV2,
    "aimv2_vision_model": AIMV2,
}
