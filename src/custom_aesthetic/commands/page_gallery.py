"""The gallery beside the scoring: what it needs of the folder scorer and of the training."""

import contextlib
import logging
import re
import shlex
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.commands.folder_actions import ScoredFolder, act, check_actions, take_back
from custom_aesthetic.gallery.choosing import Choosing, Deed, HalfDone, PictureOrder
from custom_aesthetic.gallery.learner import DEFAULT_EXTRACTOR, FeatureSource, Learner
from custom_aesthetic.gallery.routes import Parts
from custom_aesthetic.gallery.training import Call, Training
from custom_aesthetic.gallery.views import Gallery
from custom_aesthetic.labelling.session import Session
from custom_aesthetic.pictures import transfers
from custom_aesthetic.scores.choice_log import SCORES_OF_CRITERION
from custom_aesthetic.scores.score_files import read_scores
from custom_aesthetic.settings.scorers import (
    ABArguments,
    ActionSettings,
    ClusterSettings,
    ComparisonSettings,
    FolderArguments,
    FolderSettings,
    SelectionSettings,
    ServiceSettings,
)
from custom_aesthetic.settings.training import DeviceSettings

RECOMMENDED = (
    "--feature_extractor_model=efficientnet-lite2",
    "--views=centre,whole,mirror,mirror_whole",
    "--name=recommended",
    "--trials=20",
    "--savefile=model_scores.csv",
)
"""What `arguments-recommended.txt` adds to the shortest call, but for the folder and the place of the report."""

REPORT = "report.html"
MODEL = "model.safetensors"


def make_gallery(session: Session, arguments: ABArguments) -> Parts:
    """Return the gallery of a session; `begin` starts it."""
    directory = Path(arguments.images.directory)
    prior = arguments.prior
    extractor = prior.feature_extractor_model
    source = FeatureSource(
        directory,
        DEFAULT_EXTRACTOR if extractor is None else extractor,
        arguments.device.device,
        prior.offline,
    )
    learner = Learner(session, source)
    gallery = Gallery(session, directory, learner)
    return Parts(
        gallery,
        learner,
        Choosing(gallery, lambda order, dry_run: do_order(directory, order, dry_run), take_back_order),
        make_training(gallery, learner.folder, source, arguments.images),
        ready_made_commands(directory, source, arguments.images),
    )


def make_training(gallery: Gallery, folder: Path, source: FeatureSource, images: ComparisonSettings) -> Training:
    """Return the recommended training of the gallery's folder; `folder` takes the trained model's scores."""
    directory = gallery.directory.resolve()
    options = training_options(source, images)
    report = directory / of_criterion(REPORT, images)
    model = of_criterion(MODEL, images)
    scores = folder / "trained_scores.json"

    def show(file: Path) -> None:
        found = read_scores(file)
        row_of = gallery.session.scores.row_of
        values = np.full(gallery.session.plan.n_here, np.nan)
        for path, score in zip(found.paths, found.scores, strict=True):
            if gallery.session.holds(path):
                values[row_of[path]] = score
        gallery.use_trained(values)

    return Training(
        Call(
            "custom_aesthetic.scripts.training",
            (f"--directory={directory}", *options, f"--report={report}"),
        ),
        Call("custom_aesthetic.scripts.scorer", (f"--directory={directory}", f"--model={model}", f"--output={scores}")),
        model=directory / model,
        report=report,
        scores=scores,
        before=lambda: gallery.session.scores.update(with_figures=False),
        on_scores=show,
    )


def training_options(source: FeatureSource, images: ComparisonSettings) -> list[str]:
    """Return the recommended options, with the extractor and the score file that the page was started with.

    A criterion has a study and a model of its own, as it has answers and scores of its own. Another extractor has a
    study of its own, as a study is searched with the same features throughout.
    """
    changed = {"--feature_extractor_model": source.extractor}
    if source.extractor != DEFAULT_EXTRACTOR:
        changed["--name"] = f"{dict(_split(RECOMMENDED))['--name']}-{_WORDS.sub('-', source.extractor).strip('-')}"
    if images.criterion is not None:
        named = {name: value for name, value in (dict(_split(RECOMMENDED)) | changed).items() if name in _NAMED}
        changed |= {name: of_criterion(value, images) for name, value in named.items()}
        changed["--model"] = of_criterion(MODEL, images)
    if (score_file := score_file_of(images)) is not None:
        changed["--scores"] = score_file
    return [f"{name}={value}" for name, value in (dict(_split(RECOMMENDED)) | changed).items()]


_NAMED = ("--name", "--savefile")
"""Options that name what a training keeps."""


_WORDS = re.compile(r"[^\w.-]+")
"""What is between the words of an extractor's name, such as a slash."""


def _split(options: Sequence[str]) -> list[tuple[str, str]]:
    """Return the name and value of each option."""
    return [(name, value) for name, _, value in (option.partition("=") for option in options)]


def of_criterion(name: str, images: ComparisonSettings) -> str:
    """Return a file's or study's name with that of the criterion, `model-NAME.safetensors`; as it is without one."""
    stem, dot, ending = name.partition(".")
    return name if images.criterion is None else f"{stem}-{images.criterion}{dot}{ending}"


def score_file_of(images: ComparisonSettings) -> str | None:
    """Return the name of the score file where a training would not find it by itself."""
    if images.scores is not None or images.criterion is None:
        return images.scores
    return SCORES_OF_CRITERION.format(images.criterion)


def ready_made_commands(directory: Path, source: FeatureSource, images: ComparisonSettings) -> tuple[str, ...]:
    """Return the commands that go on from here in a terminal."""
    folder = shlex.quote(str(directory))
    name, report = of_criterion(MODEL, images), of_criterion(REPORT, images)
    model = shlex.quote(str(directory / name))
    extractor = shlex.quote(f"--feature_extractor_model={source.extractor}")
    score_file = score_file_of(images)
    scores = "" if score_file is None else " " + shlex.quote(f"--scores={score_file}")
    options = [one for one in training_options(source, images) if one.startswith((*_NAMED, "--model="))]
    names = "".join(f" {shlex.quote(one)}" for one in options if one not in RECOMMENDED)
    return (
        f"python aesthetic_predictor_training.py @arguments-recommended.txt -d {folder} {extractor}{scores}{names}",
        f"python aesthetic_data_analysis.py -d {folder} -m {name}{scores} --report {report}",
        f"python aesthetic_scorer.py -d new_images -m {model} --top 50 --copy_to best",
    )


def do_order(directory: Path, order: PictureOrder, dry_run: bool) -> Deed:
    """Do what the page orders, by the folder scorer's functions and with its checks; or only say what would be done."""
    action, output = action_of(order, dry_run=dry_run)
    arguments = FolderArguments(
        FolderSettings(directory=str(directory), output=output),
        SelectionSettings(),
        action,
        DeviceSettings(),
        ServiceSettings(),
        ClusterSettings(),
    )
    check_actions(arguments, directory)
    if output is not None and Path(output).exists():
        raise UserError(f"{output} exists already; choose another name")
    if output is not None and dry_run:
        return Deed([f"would write {len(order.rows)} scores to {output}"])
    scored = ScoredFolder(directory, order.paths, order.scores, None, None)
    folder = order.target if order.kind == "move" and order.target is not None else directory
    before = undo_files(folder)
    with heard() as lines:
        try:
            act(scored, order.rows, arguments)
        except UserError as error:
            if new := sorted(undo_files(folder) - before):
                raise HalfDone(str(error), new[-1]) from None
            raise
    new = sorted(undo_files(folder) - before)
    return Deed(lines, new[-1] if new else None)


def action_of(order: PictureOrder, *, dry_run: bool) -> tuple[ActionSettings, str | None]:
    """Return the folder scorer's action for an order, and for a list the file that it is written to."""
    place = None if order.target is None else str(order.target)
    if order.kind == "list":
        return ActionSettings(), place
    if order.kind == "stars":
        return ActionSettings(write_xmp=True, dry_run=dry_run), None
    if order.kind == "captions":
        return ActionSettings(captions=True, dry_run=dry_run), None
    places = {kind: place if kind == order.kind else None for kind in transfers.KINDS}
    return ActionSettings(copy_to=places["copy"], link_to=places["link"], move_to=places["move"], dry_run=dry_run), None


def take_back_order(undo_file: Path) -> Deed:
    """Take back what an undo file lists."""
    with heard() as lines:
        take_back(undo_file)
    return Deed(lines)


def undo_files(folder: Path) -> set[Path]:
    """Return the undo files in a folder."""
    return set(folder.glob("undo-*.jsonl"))


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """Yield the list of what this thread logs in the block, which is what the folder scorer says of its work."""
    lines: list[str] = []
    this_thread = threading.get_ident()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == this_thread:
                lines.append(record.getMessage())

    listener = Listener(logging.INFO)
    logger = logging.getLogger("custom_aesthetic")
    logger.addHandler(listener)
    try:
        yield lines
    finally:
        logger.removeHandler(listener)
