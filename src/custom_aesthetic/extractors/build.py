"""Build a feature extractor from its name: the packaged one, or a checkpoint identified by its config.json."""

import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors.aim import AimExtractor, is_aim_config
from custom_aesthetic.extractors.checkpoint import CHOICES, is_path, named_folder, open_checkpoint
from custom_aesthetic.extractors.clip import KINDS as CLIP_KINDS
from custom_aesthetic.extractors.packaged import NETWORKS, PackagedExtractor
from custom_aesthetic.extractors.protocol import FeatureExtractor
from custom_aesthetic.extractors.tower import Tower
from custom_aesthetic.extractors.towers import KINDS as OTHER_KINDS
from custom_aesthetic.settings.training import EXTRACTOR_SEPARATOR, TABLE_PREFIX

KINDS = {**CLIP_KINDS, **OTHER_KINDS}


def build_extractor(name: str, device: torch.device, *, offline: bool = False) -> FeatureExtractor:
    """Return the extractor for a packaged network, a local folder or a hub name; no weights are loaded yet.

    The packaged ones are `efficientnet-lite0`, `-lite1` and `-lite2`. It computes in float32 on a CPU and in the
    checkpoint's precision on an accelerator. With `offline` the hub is never asked. Raises UserError if the checkpoint
    is of an unknown kind or, within 15 seconds, if it cannot be reached.
    """
    if name in NETWORKS:
        return PackagedExtractor(NETWORKS[name], device)
    if name.startswith(TABLE_PREFIX):
        raise UserError(
            f"{name} is a table of features, which no extractor computes; name the table by --features=FILE"
        )
    checkpoint = open_checkpoint(name, offline=offline)
    if is_aim_config(checkpoint.config):
        return AimExtractor(checkpoint, device)
    model_type = checkpoint.config.get("model_type")
    if model_type not in KINDS:
        raise UserError(
            f"feature extractor {name}: its config.json has model type {model_type!r}; supported are AIM v1 and "
            f"{', '.join(sorted(KINDS))}; {CHOICES}"
        )
    return Tower(checkpoint, KINDS[model_type], device)


def build_extractors(names: str, device: torch.device, offline: bool = False) -> list[FeatureExtractor]:
    """Return the extractors of a comma-separated list, in its order; a trailing comma is allowed.

    Raises UserError if a name is given twice, or contains `__`, which separates the names in a model file.
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
                "the folder, or give a link to it that has another name"
            )
    return [build_extractor(part, device, offline=offline) for part in parts]


def short_name(extractor: str) -> str:
    """Return the last part of an extractor's hub name or folder, of whatever system the folder is."""
    return extractor.replace("\\", "/").rstrip("/").rpartition("/")[2]


def asks_a_hub(name: str) -> bool:
    """Return whether this extractor is looked up on a hub if the hub's cache does not have it."""
    return name not in NETWORKS and not named_folder(name).is_dir() and not is_path(name)
