"""Limits on the sizes in a checkpoint's configuration, checked before anything of that size is allocated."""

import math
from typing import Any

import torch
from PIL import Image
from torch import nn

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors.checkpoint import Checkpoint

MOST = {
    **dict.fromkeys(("num_hidden_layers", "num_blocks"), 512),
    **dict.fromkeys(("hidden_size", "embed_dim", "projection_dim"), 65_536),
    "intermediate_size": 262_144,
    **dict.fromkeys(("image_size", "img_size"), 4096),
    **dict.fromkeys(("num_attention_heads", "num_heads", "num_register_tokens", "patch_size"), 1024),
    "num_channels": 64,
    **dict.fromkeys(("num_patches", "max_num_patches"), 65_536),
}
"""The largest value of each size, well above those of any published checkpoint."""

MOST_PATCHES = 65_536
SPARE_NUMBERS = 10_000_000
"""How many numbers a network may have beyond those in the weights; they are reported as missing."""

NOT_SIZES = (
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation"),
    *("_experts_implementation", "use_kernels", "quantization_config", "auto_map", "trust_remote_code"),
)
"""Configuration keys that make transformers load other code, even from the hub; they are never passed on."""


def check_sizes(checkpoint: Checkpoint) -> None:
    """Raise UserError for a size in config.json, or in its vision part, far above those of published checkpoints."""
    vision = checkpoint.config.get("vision_config") or {}
    for config in (checkpoint.config, vision):
        for key, most in MOST.items():
            if key in config and config[key] is not None:
                _check(checkpoint.name, key, config[key], most)
    sizes = {**checkpoint.config, **vision}
    image, patch = sizes.get("image_size", sizes.get("img_size")), sizes.get("patch_size")
    if isinstance(image, int) and isinstance(patch, int) and image**2 > MOST_PATCHES * patch**2:
        raise UserError(
            f"feature extractor {checkpoint.name}: config.json cuts {image} pixels into patches of {patch}, which "
            f"makes more than {MOST_PATCHES}; get the checkpoint again"
        )


def _check(name: str, key: str, value: Any, most: int) -> None:
    values = value if isinstance(value, list | tuple) and 1 <= len(value) <= 2 else [value]
    said = f"feature extractor {name}: config.json has {key} {str(value)[:40]}"
    for one in values:
        if isinstance(one, bool) or not isinstance(one, int) or one < 0:
            raise UserError(f"{said}, which is not a positive integer")
        if one > most:
            raise UserError(f"{said}, more than {most}; get the checkpoint again")


def without_code(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration, and its vision part, without the keys that make transformers load other code."""
    kept = {key: value for key, value in config.items() if key not in NOT_SIZES}
    if isinstance(kept.get("vision_config"), dict):
        kept["vision_config"] = without_code(kept["vision_config"])
    return kept


def check_fits(skeleton: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Raise ValueError if a network, made on the device `meta`, is much larger than its weights."""
    wanted = sum(parameter.numel() for parameter in skeleton.parameters())
    held = sum(tensor.numel() for tensor in tensors.values())
    if wanted > held + SPARE_NUMBERS:
        raise ValueError(f"config.json describes {wanted:,} numbers and the weights hold {held:,}")


def check_numbers(config: dict[str, Any], name: str) -> None:
    """Raise UserError if the processor has invalid values for mean, standard deviation, scale or resampling filter."""
    fine = (
        all(_is_numbers(config[key], 3) for key in ("image_mean", "image_std") if key in config)
        and (all(config["image_std"]) if "image_std" in config else True)
        and _is_numbers([config.get("rescale_factor", 1)], 1)
        and config.get("resample", 0) in list(Image.Resampling)
    )
    if not fine:
        raise UserError(
            f"feature extractor {name}: image_mean, image_std, rescale_factor or resample of its image processor are "
            "not valid numbers; get the file again"
        )


def _is_numbers(values: Any, n: int) -> bool:
    """Return whether this is a list of `n` finite numbers."""
    return (
        isinstance(values, list | tuple)
        and len(values) == n
        and all(isinstance(one, int | float) and abs(one) < 1e6 and math.isfinite(one) for one in values)
    )
