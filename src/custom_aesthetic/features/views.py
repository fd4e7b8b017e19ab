"""Views: the crops of a picture that an extractor sees, and the mean of their features."""

from collections.abc import Sequence
from itertools import groupby

import torch

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors import VIEWS
from custom_aesthetic.features.table import FeatureBlock, FeatureTable

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
