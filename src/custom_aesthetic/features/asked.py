"""Load the features that the options ask for, with the views averaged."""

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
