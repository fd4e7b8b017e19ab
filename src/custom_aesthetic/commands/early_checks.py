"""What can be told of the arguments before torch and the other heavy libraries are imported, which takes seconds."""

from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import is_file
from custom_aesthetic.base.text import printable
from custom_aesthetic.scores.score_files import check_directory, find_score_file
from custom_aesthetic.settings.training import ImageSettings, ModelScoreSettings


def check_scored_images(images: ImageSettings) -> None:
    """Raise UserError if the image directory or its score file is not there."""
    find_score_file(Path(images.directory), images.scores)


def check_judged_images(images: ImageSettings, source: ModelScoreSettings) -> None:
    """Raise UserError if the image directory, the score file named, the model or its scores are not there."""
    directory = Path(images.directory)
    check_directory(directory)
    if images.scores is not None or (source.model is None and source.model_scores is None):
        find_score_file(directory, images.scores)
    if source.model is not None:
        check_file(directory, source.model, "--model")
    elif source.model_scores is not None:
        check_file(directory, source.model_scores, "--model_scores")


def check_file(directory: Path, name: str, option: str) -> None:
    """Raise UserError if there is no such file, neither in the directory nor as a path."""
    if not is_file(directory / name) and not is_file(Path(name)):
        raise UserError(
            f"{option}={printable(name)} is not there: looked in {directory} and {Path.cwd()}; check the path"
        )
