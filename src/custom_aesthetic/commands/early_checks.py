"""Checks of the arguments that run before torch and the other heavy libraries are imported, which takes seconds."""

from pathlib import Path

from custom_aesthetic.base.files import existing_file
from custom_aesthetic.features.table_files import find_table
from custom_aesthetic.scores.score_files import check_directory, find_score_file
from custom_aesthetic.settings.analysis import ModelScoreSettings
from custom_aesthetic.settings.training import FeatureSettings, ImageSettings


def check_scored_images(images: ImageSettings, features: FeatureSettings) -> None:
    """Raise UserError if the image directory, the score file or the table of features does not exist.

    With a table of features no score file is needed, because the table can hold the scores.
    """
    directory = Path(images.directory)
    check_directory(directory)
    if features.features is not None:
        find_table(directory, features.features)
    if features.features is None or images.scores is not None:
        find_score_file(directory, images.scores)


def check_prior(directory: Path, prior_model: str | None) -> None:
    """Raise UserError if the prior model does not exist."""
    if prior_model is not None:
        existing_file(directory, prior_model, "--prior_model")


def check_judged_images(images: ImageSettings, source: ModelScoreSettings, features: FeatureSettings) -> None:
    """Raise UserError if the image directory, or a file that the arguments name, does not exist."""
    directory = Path(images.directory)
    check_directory(directory)
    if features.features is not None:
        find_table(directory, features.features)
    if images.scores is not None or (
        source.model is None and source.model_scores is None and features.features is None
    ):
        find_score_file(directory, images.scores)
    if source.model is not None:
        existing_file(directory, source.model, "--model")
    elif source.model_scores is not None:
        existing_file(directory, source.model_scores, "--model_scores")
