"""The features that the options ask for, views averaged: by the extractors' names, hidden states and views."""

from collections.abc import Sequence
from pathlib import Path

from custom_aesthetic.extractors.protocol import FeatureExtractor
from custom_aesthetic.features.hidden_states import states_asked
from custom_aesthetic.features.table import FeatureTable, load_features
from custom_aesthetic.features.views import average_views, check_views
from custom_aesthetic.settings.training import FeatureSettings


def load_asked_features(
    directory: Path, paths: Sequence[str], extractors: Sequence[FeatureExtractor], settings: FeatureSettings
) -> FeatureTable:
    """Return the features of the pictures, (n_images, n_features), all hidden states joined and the views averaged.

    UserError where an option does not fit the extractors, before any picture is opened.
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
