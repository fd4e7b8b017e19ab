"""Views: the crops of a picture that an extractor sees, the mean of their features, and the features asked for."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors import VIEWS
from custom_aesthetic.extractors.protocol import FeatureExtractor
from custom_aesthetic.features.hidden_states import states_asked
from custom_aesthetic.features.table import FeatureBlock, FeatureTable, load_features
from custom_aesthetic.settings.training import FeatureSettings

SEPARATOR = "+"
"""Separates the views whose mean a block is."""


def check_views(views: Sequence[str]) -> tuple[str, ...]:
    """Return the views as given; UserError for an unknown view or one named twice."""
    for view in views:
        if view not in VIEWS:
            raise UserError(f"--views: {view} is not a view; choose from {', '.join(VIEWS)}")
    if len(set(views)) < len(views):
        raise UserError(f"--views={','.join(views)} names a view twice; name each once")
    return tuple(views)


def average_views(features: FeatureTable) -> FeatureTable:
    """Return the features with the views of each extractor averaged: one block for each hidden state."""
    if len({block.view for block in features.blocks}) == 1:
        return features
    parts, blocks, start = [], [], 0
    for extractor, group in groupby(features.blocks, key=lambda block: block.extractor):
        views = list(group)
        for state in dict.fromkeys(block.hidden_state for block in views):
            alike = [block for block in views if block.hidden_state == state]
            total = sum((features.values[:, block.start : block.stop].float() for block in alike), torch.zeros(()))
            parts.append((total / len(alike)).to(features.values.dtype))
            stop = start + parts[-1].shape[1]
            blocks.append(FeatureBlock(extractor, state, SEPARATOR.join(block.view for block in alike), start, stop))
            start = stop
    return FeatureTable(features.paths, torch.cat(parts, dim=1), tuple(blocks), features.failures)


def load_asked_features(
    directory: Path, paths: Sequence[str], extractors: Sequence[FeatureExtractor], settings: FeatureSettings
) -> FeatureTable:
    """Return the features of the pictures, (n_images, n_features): all hidden states joined, the views averaged.

    Raises UserError, before any picture is opened, if an option does not fit the extractors.
    """
    found = load_features(
        directory,
        paths,
        extractors,
        hidden_states=states_asked(settings.hidden_states_used, len(extractors)),
        views=check_views(settings.views),
        fp16=settings.fp16_features,
    )
    return average_views(found)
