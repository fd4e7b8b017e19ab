"""ComfyUI's own nodes of the workflows: their inputs and outputs, and something simple for a network to compute."""

import os
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from PIL import Image

SIDE = 40


class CheckpointLoaderSimple:
    FUNCTION, RETURN_TYPES = "load", ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"ckpt_name": (folder_paths.get_filename_list("checkpoints"),)}}

    def load(self, ckpt_name: str) -> tuple[Any, ...]:
        return "model", "clip", "vae"


class CLIPTextEncode:
    FUNCTION, RETURN_TYPES = "encode", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"text": ("STRING", {"multiline": True}), "clip": ("CLIP",)}}

    def encode(self, text: str, clip: Any) -> tuple[Any, ...]:
        return (text,)


class EmptyLatentImage:
    FUNCTION, RETURN_TYPES = "generate", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        size = {"default": 512, "min": 16, "max": 16384, "step": 8}
        batch = {"default": 1, "min": 1, "max": 4096}
        return {"required": {"width": ("INT", size), "height": ("INT", size), "batch_size": ("INT", batch)}}

    def generate(self, width: int, height: int, batch_size: int) -> tuple[Any, ...]:
        return ({"samples": torch.zeros(batch_size, 3, 6, 6)},)


class KSampler:
    FUNCTION, RETURN_TYPES = "sample", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 10000}),
                "cfg": ("FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0}),
                "sampler_name": (["euler", "dpmpp_2m"],),
                "scheduler": (["normal", "karras"],),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latent_image": ("LATENT",),
                "denoise": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
            }
        }

    def sample(self, latent_image: dict[str, Any], seed: int, **_others: Any) -> tuple[Any, ...]:
        generator = torch.Generator().manual_seed(seed)
        return ({"samples": torch.rand(latent_image["samples"].shape, generator=generator)},)


class VAEDecode:
    FUNCTION, RETURN_TYPES = "decode", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "vae": ("VAE",)}}

    def decode(self, samples: dict[str, Any], vae: Any) -> tuple[Any, ...]:
        images = torch.nn.functional.interpolate(samples["samples"], (SIDE, SIDE), mode="bicubic")
        return (images.movedim(1, -1),)


class SaveImage:
    FUNCTION, RETURN_TYPES, OUTPUT_NODE = "save_images", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": ("IMAGE",), "filename_prefix": ("STRING", {"default": "ComfyUI"})}}

    def save_images(self, images: torch.Tensor, filename_prefix: str) -> dict[str, Any]:
        folder = Path(os.environ["COMFYUI_FOLDER"]) / "output"
        folder.mkdir(exist_ok=True)
        for image in images:
            levels = np.clip(255.0 * image.cpu().numpy(), 0, 255).astype(np.uint8)
            name = f"{filename_prefix}_{len(list(folder.iterdir())) + 1:05}_.png"
            Image.fromarray(levels).save(folder / name)
        return {"ui": {}, "result": ()}


NODES = {
    own.__name__: own
    for own in (CheckpointLoaderSimple, CLIPTextEncode, EmptyLatentImage, KSampler, VAEDecode, SaveImage)
}
