"""The gallery beside the scoring: what it needs of the folder scorer and of the training."""

import contextlib
import logging
import shlex
import threading
from collections.abc import Iterator
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
from custom_aesthetic.scores.score_files import read_scores
from custom_aesthetic.settings.scorers import (
    ABArguments,
    ActionSettings,
    ClusterSettings,
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
        make_training(gallery, learner.folder, source, arguments.images.scores),
        ready_made_commands(directory, source),
    )


def make_training(gallery: Gallery, folder: Path, source: FeatureSource, score_file: str | None) -> Training:
    """Return the recommended training of the gallery's folder; `folder` takes the trained model's scores."""
    directory = gallery.directory.resolve()
    options = training_options(source, score_file)
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
            (f"--directory={directory}", *options, f"--report={directory / REPORT}"),
        ),
        Call("custom_aesthetic.scripts.scorer", (f"--directory={directory}", f"--model={MODEL}", f"--output={scores}")),
        report=directory / REPORT,
        scores=scores,
        before=lambda: gallery.session.scores.update(with_figures=False),
        on_scores=show,
    )


def training_options(source: FeatureSource, score_file: str | None) -> list[str]:
    """Return the recommended options, with the extractor and the score file that the page was started with."""
    options = [
        f"--feature_extractor_model={source.extractor}" if option.startswith("--feature_extractor_model") else option
        for option in RECOMMENDED
    ]
    return [*options, *([] if score_file is None else [f"--scores={score_file}"])]


def ready_made_commands(directory: Path, source: FeatureSource) -> tuple[str, ...]:
    """Return the commands that go on from here in a terminal."""
    folder = shlex.quote(str(directory))
    model = shlex.quote(str(directory / MODEL))
    extractor = shlex.quote(f"--feature_extractor_model={source.extractor}")
    return (
        f"python aesthetic_predictor_training.py @arguments-recommended.txt -d {folder} {extractor}",
        f"python aesthetic_data_analysis.py -d {folder} -m {MODEL} --report report.html",
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
