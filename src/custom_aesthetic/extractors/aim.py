"""AIM v1, Apple's autoregressive image models (El-Nouby et al. 2024): the network and its extractor.

Hidden state k, 0 ... num_blocks - 1, is the output of the k-th block before the last, normalised and pooled by
attention, before the linear layer of the head. The modules have the names of the published checkpoints.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors.checkpoint import Checkpoint
from custom_aesthetic.extractors.sizes import check_sizes
from custom_aesthetic.extractors.transforms import IMAGENET_MEAN, IMAGENET_STD, Transform
from custom_aesthetic.extractors.weights import CheckpointExtractor

EPS = 1e-6
CONFIG_KEYS = ("img_size", "patch_size", "embed_dim", "num_blocks", "num_heads")


@dataclass(frozen=True)
class AimConfig:
    """Sizes of the network; images are img_size x img_size pixels."""

    img_size: int
    patch_size: int
    embed_dim: int
    num_blocks: int
    num_heads: int
    num_channels: int = 3
    probe_layers: tuple[int, ...] = ()


class Attention(nn.Module):
    """Multi-head self-attention of all patches, without biases."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        query, key, value = self.qkv(patches).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width, bias=False)
        self.fc2 = nn.Linear(4 * width, width, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(patches)))


class Block(nn.Module):
    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, n_heads)
        self.norm_2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width)

    def forward(self, patches: Tensor) -> Tensor:
        patches = patches + self.attn(self.norm_1(patches))
        return patches + self.mlp(self.norm_2(patches))


class Patchifier(nn.Module):
    """(images, 3, side, side) -> (images, patches, width)."""

    def __init__(self, config: AimConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.num_channels, config.embed_dim, config.patch_size, stride=config.patch_size)
        self.norm = nn.LayerNorm(config.embed_dim, eps=EPS)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.norm(self.proj(pixels).flatten(2).transpose(1, 2))


class AttentionPool(nn.Module):
    """One learnt query attends to the patches: (images, patches, width) -> (images, width)."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.bn = nn.BatchNorm1d(width, affine=False, eps=EPS)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        patches = self.bn(patches.transpose(1, 2)).transpose(1, 2)
        query = self.cls_token.expand(len(patches), -1, -1)
        heads = [
            part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in (query, self.k(patches), self.v(patches))
        ]
        return functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)[:, 0]


class Aim(nn.Module):
    def __init__(self, config: AimConfig) -> None:
        super().__init__()
        self.config = config
        self.preprocessor = nn.ModuleDict({"patchifier": Patchifier(config)})
        self.trunk = nn.ModuleDict(
            {
                "blocks": nn.ModuleList(Block(config.embed_dim, config.num_heads) for _ in range(config.num_blocks)),
                "post_trunk_norm": nn.LayerNorm(config.embed_dim, eps=EPS),
            }
        )
        self.head = AttentionPool(config.embed_dim, config.num_heads)

    def forward(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        """Return hidden state -> (images, width); blocks after the last one needed are not computed."""
        patches = self.preprocessor["patchifier"](pixels)
        patches = patches + sin_cos_positions(self.config, patches.device).to(patches.dtype)
        blocks = cast(nn.ModuleList, self.trunk["blocks"])
        last = self.config.num_blocks - 1
        found = {}
        for i in range(last - min(hidden_states, default=0) + 1):
            patches = blocks[i](patches)
            if last - i in hidden_states:
                found[last - i] = self.head(self.trunk["post_trunk_norm"](patches))
        return {k: found[k] for k in hidden_states}


def sin_cos_positions(config: AimConfig, device: torch.device) -> Tensor:
    """Return fixed positions, (patches, width): sines and cosines of the column, then those of the row."""
    side, quarter = config.img_size // config.patch_size, config.embed_dim // 4
    frequencies = 1 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    one_way = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns = one_way[None, :, :].expand(side, side, -1)
    rows = one_way[:, None, :].expand(side, side, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1).float().to(device)


def is_aim_config(config: dict) -> bool:
    """Return whether a `config.json` belongs to AIM v1, which has no `model_type`."""
    return "model_type" not in config and all(key in config for key in CONFIG_KEYS)


def read_config(checkpoint: Checkpoint) -> AimConfig:
    """Return the sizes in config.json; UserError if they are invalid or far too large."""
    check_sizes(checkpoint)
    known = AimConfig.__dataclass_fields__
    values = {key: value for key, value in checkpoint.config.items() if key in known and key != "probe_layers"}
    probe_layers = checkpoint.config.get("probe_layers") or ()
    if not all(isinstance(value, int) and value > 0 for value in values.values()) or not isinstance(
        probe_layers, list | tuple
    ):
        raise UserError(f"feature extractor {checkpoint.name}: config.json has sizes that are not positive integers")
    config = AimConfig(**values, probe_layers=tuple(probe_layers))
    if (
        config.embed_dim % config.num_heads
        or config.embed_dim % 4
        or config.img_size < config.patch_size
        or config.num_channels != 3
        or not all(isinstance(layer, int) and 0 <= layer < config.num_blocks for layer in probe_layers)
    ):
        raise UserError(f"feature extractor {checkpoint.name}: the sizes in config.json do not fit each other")
    return config


class AimExtractor(CheckpointExtractor):
    """Extracts features with AIM v1; by default the layers of `probe_layers` are averaged (600M: states 9 ... 4)."""

    default_mode = "average"

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self._config = read_config(checkpoint)
        side, n_blocks = self._config.img_size, self._config.num_blocks
        transform = Transform(crop=(side, side), resize=math.ceil(side / 0.875), mean=IMAGENET_MEAN, std=IMAGENET_STD)
        self.default_hidden_states = tuple(n_blocks - 1 - layer for layer in self._config.probe_layers) or (0,)
        super().__init__("aim", checkpoint, transform, n_hidden_states=n_blocks, device=device)

    def _needs(self, name: str) -> bool:
        return not name.startswith("head.linear.")

    def _build(self, tensors: dict[str, Tensor]) -> nn.Module:
        with torch.device("meta"):
            network = Aim(self._config)
        try:
            network.load_state_dict(
                {name: to_dtype(tensor, self._dtype) for name, tensor in tensors.items()}, assign=True
            )
        except RuntimeError as error:
            raise self._misfit(error) from error
        return network

    def _compute(self, network: Any, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        return network(pixels.to(self._dtype), hidden_states)


def to_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the tensor in `dtype`; integer tensors are returned unchanged."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
