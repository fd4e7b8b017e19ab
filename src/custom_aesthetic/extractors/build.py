"""A name -> its feature extractor: the packaged one, or a checkpoint told by its config.json."""

import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors.aim import AimExtractor, is_aim_config
from custom_aesthetic.extractors.checkpoint import CHOICES, open_checkpoint
from custom_aesthetic.extractors.clip import KINDS as CLIP_KINDS
from custom_aesthetic.extractors.packaged import NAME, PackagedExtractor
from custom_aesthetic.extractors.protocol import FeatureExtractor
from custom_aesthetic.extractors.tower import Tower
from custom_aesthetic.extractors.towers import KINDS as OTHER_KINDS

KINDS = {**CLIP_KINDS, **OTHER_KINDS}


def build_extractor(name: str, device: torch.device) -> FeatureExtractor:
    """Return the extractor for `efficientnet-lite0`, a local folder or a hub name; no weights are loaded yet.

    On a CPU it computes in float32. On an accelerator it computes in the checkpoint's own precision. UserError within
    15 seconds if the checkpoint is out of reach, or of no known kind.
    """
    if name == NAME:
        return PackagedExtractor(device)
    checkpoint = open_checkpoint(name)
    if is_aim_config(checkpoint.config):
        return AimExtractor(checkpoint, device)
    model_type = checkpoint.config.get("model_type")
    if model_type not in KINDS:
        raise UserError(
            f"feature extractor {name}: its config.json names model type {model_type!r}; known are AIM v1 and "
            f"{', '.join(sorted(KINDS))}; {CHOICES}"
        )
    return Tower(checkpoint, KINDS[model_type], device)


def build_extractors(names: str, device: torch.device) -> list[FeatureExtractor]:
    """Return the extractors of a comma-separated list, in its order."""
    parts = [part.strip() for part in names.rstrip().removesuffix(",").split(",")]
    if not all(parts):
        raise UserError(f"--feature_extractor_model={names}: a name is missing between the commas; {CHOICES}")
    return [build_extractor(part, device) for part in parts]
