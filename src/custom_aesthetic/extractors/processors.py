"""Apply the image processor of a transformers checkpoint, as described by its JSON file, without torchvision.

transformers 5 has Pillow versions of most processors (`CLIPImageProcessorPil` and others), but the one of DINOv3 needs
torchvision. The transform made here gives the same numbers without importing transformers, and supports other views.
Siglip2ImageProcessor, which cuts a picture of any shape into patches, is in `naflex`.
"""

import logging
from typing import Any

from PIL import Image

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors.checkpoint import Checkpoint, open_checkpoint, optional_json
from custom_aesthetic.extractors.sizes import MOST, check_numbers
from custom_aesthetic.extractors.transforms import (
    CLIP_MEAN,
    CLIP_STD,
    HALF_MEAN,
    HALF_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Transform,
)

logger = logging.getLogger(__name__)

DEFAULTS: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": {
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "resample": Image.Resampling.BICUBIC,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    },
    "SiglipImageProcessor": {
        "size": {"height": 224, "width": 224},
        "do_center_crop": False,
        "resample": Image.Resampling.BICUBIC,
        "image_mean": HALF_MEAN,
        "image_std": HALF_STD,
    },
    "DINOv3ViTImageProcessor": {
        "size": {"height": 224, "width": 224},
        "do_center_crop": False,
        "resample": Image.Resampling.BILINEAR,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    },
}
DEFAULTS["BitImageProcessor"] = DEFAULTS["CLIPImageProcessor"]
"""Default settings of each processor (its class attributes in transformers)."""

ORIGINALS = {
    "ChrisGoringe/vitH16": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "ChrisGoringe/vit-large-p14-vision-fp16": "openai/clip-vit-large-patch14",
    "ChrisGoringe/bigG-vision-fp16": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
}
"""Checkpoints whose repository may lack the processor file -> the checkpoints that they were made from."""


def processor_config(checkpoint: Checkpoint, default_type: str, image_size: int) -> dict[str, Any]:
    """Return the complete settings of the checkpoint's image processor.

    If the checkpoint has no such file, the settings are those of the checkpoint that it was made from, or else, which
    is logged, the defaults of `default_type` at `image_size` pixels.
    """
    config = _stored_config(checkpoint)
    if config is None and checkpoint.folder is None and checkpoint.name in ORIGINALS:
        config = _original_config(ORIGINALS[checkpoint.name], offline=checkpoint.offline)
    if config is None:
        logger.info("%s: no image processor file, using %s at %d pixels", checkpoint.name, default_type, image_size)
        config = _resized_defaults(default_type, image_size)
    named = str(config.get("image_processor_type") or config.get("feature_extractor_type") or default_type)
    kind = named.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    return {**DEFAULTS.get(kind, {}), **config, "image_processor_type": kind}


def processor_transform(config: dict[str, Any], name: str) -> Transform:
    """Return the transform for the result of `processor_config`; UserError for settings that are not supported."""
    kind = config["image_processor_type"]
    if kind not in DEFAULTS:
        raise UserError(
            f"feature extractor {name}: image processor {kind} is not known; choose from {', '.join(sorted(DEFAULTS))}"
        )
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if config.get(step) is False:
            raise UserError(f"feature extractor {name}: its image processor has {step} off, which is not supported")
    resize = _size(config.get("size"), square="height" in DEFAULTS[kind]["size"], name=name)
    crop = _size(config.get("crop_size"), square=True, name=name) if config["do_center_crop"] else resize
    if isinstance(crop, int):
        raise UserError(
            f"feature extractor {name}: its image processor gives pictures of different shapes (size {config['size']} "
            "without a centre crop), which cannot go through the network together"
        )
    room = (resize, resize) if isinstance(resize, int) else resize
    check_numbers(config, name)
    if max(*room, *crop) > MOST["image_size"]:
        raise UserError(f"feature extractor {name}: its image processor makes pictures of {max(*room, *crop)} pixels")
    if min(crop) < 1 or crop[0] > room[0] or crop[1] > room[1]:
        raise UserError(
            f"feature extractor {name}: its image processor crops {crop} out of a picture resized to {resize}, "
            "which is not supported: the crop must not be larger"
        )
    return Transform(
        crop=crop,
        resize=resize,
        mean=tuple(config["image_mean"]),
        std=tuple(config["image_std"]),
        scale=config.get("rescale_factor", 1 / 255),
        resample=int(config["resample"]),
        float_resize=kind == "DINOv3ViTImageProcessor",
    )


def _stored_config(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Return the processor settings from their own file or from the combined processor file; None if missing."""
    config = optional_json(checkpoint, "preprocessor_config.json")
    if config is None:
        config = (optional_json(checkpoint, "processor_config.json") or {}).get("image_processor")
    if config is not None and not isinstance(config, dict):
        raise UserError(f"feature extractor {checkpoint.name}: its image processor's settings are not a JSON object")
    return config


def _original_config(original: str, *, offline: bool) -> dict[str, Any] | None:
    try:
        return _stored_config(open_checkpoint(original, offline=offline))
    except UserError as error:
        logger.info("%s", error)
        return None


def _resized_defaults(kind: str, image_size: int) -> dict[str, Any]:
    square = {"height": image_size, "width": image_size}
    size = square if "height" in DEFAULTS[kind]["size"] else {"shortest_edge": image_size}
    return {**DEFAULTS[kind], "size": size, "crop_size": square, "image_processor_type": kind}


def _size(size: Any, *, square: bool, name: str) -> int | tuple[int, int]:
    """Return (height, width), or the shorter side in pixels; a single number is a square or the shorter side."""
    if _is_side(size):
        return (size, size) if square else size
    known = {key: value for key, value in size.items() if value is not None} if isinstance(size, dict) else {}
    if all(map(_is_side, known.values())):
        if set(known) == {"height", "width"}:
            return known["height"], known["width"]
        if set(known) == {"shortest_edge"}:
            return int(known["shortest_edge"])
    raise UserError(f"feature extractor {name}: its image processor's size {str(size)[:80]} is not supported")


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
