"""A name -> its feature extractor: the packaged one, or a checkpoint told by its config.json."""

import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors.aim import AimExtractor, is_aim_config
from custom_aesthetic.extractors.checkpoint import CHOICES, is_path, named_folder, open_checkpoint
from custom_aesthetic.extractors.clip import KINDS as CLIP_KINDS
from custom_aesthetic.extractors.packaged import NAME, PackagedExtractor
from custom_aesthetic.extractors.protocol import FeatureExtractor
from custom_aesthetic.extractors.tower import Tower
from custom_aesthetic.extractors.towers import KINDS as OTHER_KINDS
from custom_aesthetic.settings.training import EXTRACTOR_SEPARATOR

KINDS = {**CLIP_KINDS, **OTHER_KINDS}


def build_extractor(name: str, device: torch.device, *, offline: bool = False) -> FeatureExtractor:
    """Return the extractor for `efficientnet-lite0`, a local folder or a hub name; no weights are loaded yet.

    On a CPU it computes in float32. On an accelerator it computes in the checkpoint's own precision. `offline` never
    asks a hub. UserError within 15 seconds if the checkpoint is out of reach, or of no known kind.
    """
    if name == NAME:
        return PackagedExtractor(device)
    checkpoint = open_checkpoint(name, offline=offline)
    if is_aim_config(checkpoint.config):
        return AimExtractor(checkpoint, device)
    model_type = checkpoint.config.get("model_type")
    if model_type not in KINDS:
        raise UserError(
            f"feature extractor {name}: its config.json names model type {model_type!r}; known are AIM v1 and "
            f"{', '.join(sorted(KINDS))}; {CHOICES}"
        )
    return Tower(checkpoint, KINDS[model_type], device)


def build_extractors(names: str, device: torch.device, offline: bool = False) -> list[FeatureExtractor]:
    """Return the extractors of a comma-separated list, in its order; a comma at its end is allowed.

    UserError for a list that no model file could name again: a name twice, or `__` in a name, which separates the
    names there.
    """
    parts = [part.strip() for part in names.strip().removesuffix(",").split(",")]
    option = f"--feature_extractor_model={names}"
    if not all(parts):
        raise UserError(f"{option}: a name is missing between the commas; {CHOICES}")
    if len(set(parts)) < len(parts):
        raise UserError(f"{option} names an extractor twice; name each once, with all its hidden states")
    for part in parts:
        if EXTRACTOR_SEPARATOR in part:
            raise UserError(
                f"{option}: {part} contains {EXTRACTOR_SEPARATOR}, which separates the names in a model file; rename "
                "the folder, or give it by a link without it"
            )
    return [build_extractor(part, device, offline=offline) for part in parts]


def asks_a_hub(name: str) -> bool:
    """Return whether an extractor of this name is looked for on a hub, if it is not in the hub's cache."""
    return name != NAME and not named_folder(name).is_dir() and not is_path(name)
