"""Which pictures of a folder belong together: near-duplicates by their features, and bursts by features and time."""

from pathlib import Path

from custom_aesthetic.features.table import FeatureTable
from custom_aesthetic.pictures.capture_times import shot_together
from custom_aesthetic.scores.duplicates import group_duplicates


def picture_groups(directory: Path, features: FeatureTable) -> list[str]:
    """Return the name of each picture's group: the first path of the group, its own if it is like no other picture."""
    together = shot_together(directory, features.paths)
    first = group_duplicates(features.paths, features.values.numpy(), shot_together=together)
    return [first.get(path, path) for path in features.paths]
