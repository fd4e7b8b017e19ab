"""The extractor for vision towers of transformers; a `TowerKind` describes each model type.

Hidden state k is the output of the k-th block before the last (k = number of blocks: the patch embedding), processed as
the model processes its last hidden state, so k = 0 is the model's pooled output. All come from one forward pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors.block_outputs import BlockOutputs
from custom_aesthetic.extractors.checkpoint import Checkpoint
from custom_aesthetic.extractors.naflex import NaflexTransform, naflex_transform
from custom_aesthetic.extractors.processors import processor_config, processor_transform
from custom_aesthetic.extractors.sizes import check_fits, check_sizes, without_code
from custom_aesthetic.extractors.transforms import Transform
from custom_aesthetic.extractors.weights import CheckpointExtractor

NOT_VISION = ("text_model.", "text_projection.", "logit_scale", "logit_bias")
"""Prefixes of the names of tensors that no vision tower needs; they are not read into memory."""

CONFIG_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ArithmeticError,
    IndexError,
    MemoryError,
)
"""Errors of transformers for configurations that are damaged or do not fit the weights."""

NOT_WEIGHTS = ("position_ids",)
"""Suffixes of the names of tensors that older checkpoints contain but the classes create themselves."""


@dataclass(frozen=True)
class TowerKind:
    """The properties of one model type."""

    n_blocks: int
    """`num_hidden_layers` if config.json lacks it: the default of the transformers configuration class."""

    processor: str
    """The image processor if the checkpoint names none."""

    load: Callable[[dict[str, Any], dict[str, Tensor], torch.dtype], tuple[nn.Module, set[str]]]
    """Load function: config.json, tensors, precision -> the model and the names of missing weights."""

    pool: Callable[[Any, Tensor, Tensor | None], Tensor]
    """Pooling function: model, a hidden state (images, tokens, width), mask of the tokens in use -> (images, features).
    """


class Tower(CheckpointExtractor):
    """Extracts features with a checkpoint of one of the kinds; by default its final output, hidden state 0."""

    default_hidden_states: tuple[int, ...] = (0,)
    default_mode = "join"

    def __init__(self, checkpoint: Checkpoint, kind: TowerKind, device: torch.device) -> None:
        check_sizes(checkpoint)
        self._kind = kind
        n_blocks = _whole_number(checkpoint, "num_hidden_layers", kind.n_blocks)
        super().__init__("tower", checkpoint, _transform(checkpoint, kind), n_hidden_states=n_blocks + 1, device=device)

    def _needs(self, name: str) -> bool:
        return not name.startswith(NOT_VISION) and not name.endswith(NOT_WEIGHTS)

    def _build(self, tensors: dict[str, Tensor]) -> nn.Module:
        from huggingface_hub.errors import StrictDataclassError

        try:
            network, missing = self._kind.load(without_code(self._checkpoint.config), tensors, self._dtype)
        except (StrictDataclassError, *CONFIG_ERRORS) as error:
            raise self._misfit(error) from error
        if missing:
            raise UserError(
                f"feature extractor {self.name}: the weights lack {', '.join(sorted(missing)[:3])} ({len(missing)} "
                f"tensors in all) that a {self._checkpoint.config['model_type']} model needs; get a whole checkpoint"
            )
        self._outputs = BlockOutputs(network)
        return network

    def _compute(self, network: Any, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        mask = None
        if isinstance(self._transform, NaflexTransform):
            patches, mask, shapes = self._transform.patches(pixels)
            network(patches.to(self._dtype), mask, shapes)
        else:
            network(pixels.to(self._dtype))
        outputs = self._outputs.take()
        return {k: self._kind.pool(network, outputs[-1 - k], mask) for k in hidden_states}


def _transform(checkpoint: Checkpoint, kind: TowerKind) -> Transform | NaflexTransform:
    config = processor_config(checkpoint, kind.processor, _whole_number(checkpoint, "image_size", 224))
    if config["image_processor_type"] == "Siglip2ImageProcessor":
        return naflex_transform(config, checkpoint.name)
    return processor_transform(config, checkpoint.name)


def _whole_number(checkpoint: Checkpoint, key: str, default: int) -> int:
    """Return a size from the vision part of config.json; UserError if it is not a positive integer."""
    value = (checkpoint.config.get("vision_config") or checkpoint.config).get(key, default)
    if not isinstance(value, int) or value < 1:
        raise UserError(
            f"feature extractor {checkpoint.name}: config.json has {key} {value!r}, which is not a positive integer"
        )
    return value


def from_tensors(
    model_class: Any, config: Any, tensors: dict[str, Tensor], dtype: torch.dtype
) -> tuple[nn.Module, set[str]]:
    """Return a transformers model with these tensors, and the names of the tensors that it lacks."""
    from transformers.utils import logging as transformers_logging

    with torch.device("meta"):
        check_fits(model_class(config), tensors)
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model, report = model_class.from_pretrained(
            None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True
        )
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()
    return model, set(report["missing_keys"])
