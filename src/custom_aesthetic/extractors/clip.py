"""CLIP: full checkpoints (`CLIPModel`, of which only the vision part is read) and vision-only checkpoints.

Hidden state k is the class token of `hidden_states[-1-k]` after `post_layernorm` and `visual_projection`; k = 0 equals
the model's `image_embeds` (transformers, `CLIPVisionModelWithProjection.forward`).
"""

from typing import Any

import torch
from torch import Tensor, nn

from custom_aesthetic.extractors.tower import TowerKind, from_tensors


def load_clip(config: dict[str, Any], tensors: dict[str, Tensor], dtype: torch.dtype) -> tuple[nn.Module, set[str]]:
    """Return the tower with its projection, and the names of missing weights.

    The size of the projection is taken from the weights, because full and vision-only configurations store it in
    different places and not always correctly.
    """
    from transformers.models.clip.configuration_clip import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

    vision = CLIPVisionConfig.from_dict(config.get("vision_config") or config)
    if "visual_projection.weight" in tensors:
        vision.projection_dim = len(tensors["visual_projection.weight"])
    return from_tensors(CLIPVisionModelWithProjection, vision, tensors, dtype)


def pool_clip(model: Any, state: Tensor, _mask: Tensor | None) -> Tensor:
    return model.visual_projection(model.vision_model.post_layernorm(state[:, 0]))


CLIP = TowerKind(n_blocks=12, processor="CLIPImageProcessor", load=load_clip, pool=pool_clip)

KINDS = {"clip": CLIP, "clip_vision_model": CLIP}
