"""Tiny random checkpoints of every kind, made with the transformers classes and saved as published ones are."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

SIDE = 28
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 14,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
AIM = {"img_size": SIDE, "patch_size": 14, "embed_dim": 16, "num_blocks": 4, "num_heads": 2, "num_channels": 3}

CLIP_PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": SIDE},
    "crop_size": {"height": SIDE, "width": SIDE},
}
SQUARE = {"size": {"height": SIDE, "width": SIDE}}
SIGLIP2_PROCESSOR = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 14, "max_num_patches": 16}

KINDS = (
    "clip",
    "clip_vision_model",
    "siglip",
    "siglip_vision_model",
    "siglip2",
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "aimv2",
    "aimv2_vision_model",
    "aim",
)


def make_model(kind: str) -> Any:
    """Return a transformers model of the kind with random weights, far from zero so that every part has an effect."""
    import transformers as t

    torch.manual_seed(len(kind))
    models = {
        "clip": lambda: t.CLIPModel(t.CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=24)),
        "clip_vision_model": lambda: t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(**VISION, projection_dim=24)),
        "siglip": lambda: t.SiglipModel(
            t.SiglipConfig(vision_config=VISION, text_config={**TEXT, "projection_size": 32})
        ),
        "siglip_vision_model": lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**VISION)),
        "siglip2": lambda: t.Siglip2Model(
            t.Siglip2Config(vision_config={**VISION, "num_patches": 16}, text_config={**TEXT, "projection_size": 32})
        ),
        "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**VISION)),
        "dinov2_with_registers": lambda: t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**VISION)),
        "dinov3_vit": lambda: t.DINOv3ViTModel(t.DINOv3ViTConfig(**VISION)),
        "aimv2": lambda: t.Aimv2Model(t.Aimv2Config(vision_config=VISION, text_config=TEXT, projection_dim=24)),
        "aimv2_vision_model": lambda: t.Aimv2VisionModel(t.Aimv2VisionConfig(**VISION, use_head=False)),
    }
    model = models[kind]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def processor_settings(kind: str) -> dict[str, Any]:
    """Return the content of `preprocessor_config.json` for the kind, at the tiny size."""
    if kind.startswith("siglip2"):
        return SIGLIP2_PROCESSOR
    if kind.startswith("siglip"):
        return {"image_processor_type": "SiglipImageProcessor", **SQUARE}
    if kind == "dinov3_vit":
        return {"image_processor_type": "DINOv3ViTImageProcessorFast", **SQUARE}
    if kind.startswith("dinov2"):
        return {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": SIDE + 4},
            "crop_size": {"height": SIDE, "width": SIDE},
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        }
    return CLIP_PROCESSOR


def save_checkpoint(kind: str, folder: Path) -> Path:
    """Save a tiny checkpoint of the kind with the file of its image processor, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "aim":
        return save_aim(folder)
    make_model(kind).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor_settings(kind)))
    return folder


def save_aim(folder: Path, weights: str = "model.safetensors") -> Path:
    """Save a tiny AIM v1 checkpoint in the published format, as safetensors or as `pytorch_model.bin`."""
    from safetensors.torch import save_file

    from custom_aesthetic.extractors.aim import Aim, AimConfig

    torch.manual_seed(3)
    tensors = {
        name: torch.rand_like(tensor) + 0.5 if "running_var" in name else 0.3 * torch.randn(tensor.shape)
        for name, tensor in Aim(AimConfig(**AIM)).state_dict().items()
        if tensor.is_floating_point()
    }
    tensors["head.bn.num_batches_tracked"] = torch.tensor(0)
    tensors["head.linear.weight"] = torch.randn(10, AIM["embed_dim"])
    (folder / "config.json").write_text(json.dumps({**AIM, "probe_layers": [1, 2], "num_classes": 10}))
    if weights.endswith(".bin"):
        torch.save(tensors, folder / weights)
    else:
        save_file(tensors, folder / weights)
    return folder


def make_picture(width: int = 70, height: int = 45, seed: int = 0) -> Image.Image:
    """Return an RGB picture of smooth random colours, without any symmetry."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def pillow_processor(kind: str) -> Any:
    """Return the transformers class `kind` (`CLIPImageProcessor`) in the version that works by Pillow.

    transformers 5 has it in a module and under a name of its own; in 4 it is the class of that name.
    """
    model = kind.removesuffix("ImageProcessor").lower()
    try:
        module = importlib.import_module(f"transformers.models.{model}.image_processing_pil_{model}")
    except ModuleNotFoundError:
        return getattr(importlib.import_module(f"transformers.models.{model}.image_processing_{model}"), kind)
    return getattr(module, f"{kind}Pil")
