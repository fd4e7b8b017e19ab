"""The A/B scorer: open a session from the arguments and serve its page."""

import logging
import webbrowser
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.extras import require
from custom_aesthetic.base.files import existing_file, in_folder_or_here
from custom_aesthetic.labelling.plan import PairPlan, with_names
from custom_aesthetic.labelling.score_files import ScoreFiles, find_log, open_score_files
from custom_aesthetic.labelling.session import Session
from custom_aesthetic.pictures.folders import find_images
from custom_aesthetic.pictures.judgements import (
    LEAST_FOR_A_LABEL,
    PENDING,
    PICKED,
    REJECTED,
    Judgement,
    Levels,
    levels_of,
    read_judgement,
)
from custom_aesthetic.scores.choice_log import ComparisonLog, merge_log
from custom_aesthetic.scores.prior import standardised, starting_prior, to_units
from custom_aesthetic.scores.score_files import name_some
from custom_aesthetic.settings.scorers import ABArguments, ComparisonSettings, PriorSettings

log = logging.getLogger(__name__)

QUESTIONS = {
    "pair": "Which do you like more?",
    "stars": "How much do you like it?",
    "pick": "Which do you like?",
}
"""Mode -> the question on the page."""


def score_by_comparisons(arguments: ABArguments) -> None:
    """Serve the page until the user finishes; with `--recompute`, only compute the scores from the log."""
    images = arguments.images
    if images.pairs is not None:
        export_pairs(images, Path(images.pairs))
        if not images.recompute:
            return
    session = open_session(arguments)
    if images.recompute:
        session.scores.update()
        log.info("%s", describe(session))
        return
    from custom_aesthetic.base.local_server import THIS_MACHINE, open_socket
    from custom_aesthetic.commands.page_gallery import make_gallery
    from custom_aesthetic.labelling.phone import ANY_ADDRESS, WARNING, qr_code
    from custom_aesthetic.labelling.server import ABServer, serve

    listener = open_socket(arguments.page.port, host=arguments.page.host, advice="; is the page already open?")
    gallery = make_gallery(session, arguments)
    try:
        server = ABServer(session, Path(images.directory), more=gallery.page(), host=arguments.page.host)
        port = listener.getsockname()[1]
        address = server.address(port, server.hosts[0] if arguments.page.host not in ANY_ADDRESS else THIS_MACHINE)
        listener.listen()
        if server.key is not None:
            outer = server.address(port, server.hosts[0])
            log.info("%s\non other machines, open %s\n%s", qr_code(outer), outer, WARNING)
        log.info("%s\nopen %s (q there or Ctrl-C here ends)", describe(session), address)
        if not arguments.page.no_browser:
            webbrowser.open(address)
        gallery.begin()
        serve(server, listener)
    finally:
        outcome = gallery.training.outcome()
        gallery.stop()
        if outcome:
            log.info("%s", "\n".join(outcome))
    log.info("%s", describe(session))


def open_session(arguments: ABArguments) -> Session:
    """Return the session that the arguments describe; raise UserError for mistakes the user can correct."""
    images = arguments.images
    directory = Path(images.directory)
    paths = find_images(directory)
    if len(paths) < 2:
        raise UserError(f"{len(paths)} picture(s) in {directory}; at least 2 are needed; check -d")
    files = open_score_files(directory, images.scores, images.criterion)
    comparisons = open_log(files.log, images.merge)
    plan = make_plan(directory, paths, files, first_guesses(directory, paths, arguments))
    plan = replace(
        plan,
        strategy=images.strategy,
        number_to_compare=images.number_to_compare,
        mode=images.mode,
        question=_question(images),
    )
    named = [name for row in comparisons.answers() for name in (row.winner, row.loser)]
    return Session(with_names(plan, named), files, comparisons)


def _question(images: ComparisonSettings) -> str:
    """Return the question in the settings, else the question of the mode, with the name of the criterion."""
    if images.question is not None:
        return images.question
    question = QUESTIONS[images.mode]
    return question if images.criterion is None else f"{images.criterion}: {question}"


def open_log(file: Path, merge: Sequence[str]) -> ComparisonLog:
    """Return the log of choices, with those of other logs added."""
    comparisons = ComparisonLog(file)
    for other in merge:
        log.info("%d row(s) added from %s", merge_log(comparisons, Path(other)), other)
    if comparisons.n_unreadable:
        log.warning("%s: %d line(s) cannot be read and are left out", file, comparisons.n_unreadable)
    return comparisons


def export_pairs(images: ComparisonSettings, file: Path) -> None:
    """Write the choices of the log as preference pairs, without a page."""
    if file.suffix.lower() != ".parquet":
        raise UserError(f"--pairs={file}: pairs are written as Parquet; end the file name with .parquet")
    require("pyarrow", "tables", "--pairs")
    from custom_aesthetic.integrations.preference_pairs import preferences, write_pairs

    directory = Path(images.directory)
    comparisons = open_log(find_log(directory, images.scores, images.criterion), images.merge)
    pairs = preferences(comparisons.answers())
    if not pairs:
        raise UserError(f"no choices in {comparisons.file}; make some, or give another log with --merge")
    written = write_pairs(file, directory, set(find_images(directory)), pairs)
    log.info("%d pairs of %d choices written to %s", written.n_pairs, len({pair.time for pair in pairs}), file)
    if written.n_left_out:
        named = name_some([f"{path} ({reason})" for path, reason in written.missing.items()])
        log.warning("%d pairs left out because of pictures that cannot be used: %s", written.n_left_out, named)


@dataclass(frozen=True)
class Guesses:
    """First guesses that do not come from the score file; arrays are (n_pictures,) with nan for unknown values."""

    stars: np.ndarray | None = None
    model_scores: np.ndarray | None = None
    features: np.ndarray | None = None
    """(n_pictures, n_features)"""


def first_guesses(directory: Path, paths: Sequence[str], arguments: ABArguments) -> Guesses:
    """Return the stars, model scores and features that the arguments ask for."""
    stars = _stars(directory, paths) if arguments.images.from_xmp else None
    prior = arguments.prior
    name = named_prior(prior)
    if name is None and prior.feature_extractor_model is None and prior.features is None:
        return Guesses(stars)
    import torch

    from custom_aesthetic.base.machine import choose_device
    from custom_aesthetic.extractors import build_extractors
    from custom_aesthetic.features.precomputed import read_table
    from custom_aesthetic.features.table import FeatureTable, load_features
    from custom_aesthetic.features.table_files import find_table
    from custom_aesthetic.heads.model_file import load_model
    from custom_aesthetic.heads.prediction import score_pictures
    from custom_aesthetic.priors.public_heads import is_public_head, read_public_head

    log.info(
        "the scores start from features, so a model of the same features will look slightly better on them than it is; "
        "--recompute without a model, --feature_extractor_model and --features computes scores from the choices alone"
    )
    device = choose_device(arguments.device.device)
    scores, table, known = None, None, list(paths)
    given = None if prior.features is None else read_table(find_table(directory, prior.features), directory)
    if given is not None:
        missing = set(given.missing(paths))
        known = [path for path in paths if path not in missing]
    head = None
    if name is not None and is_public_head(name):
        head = read_public_head(existing_file(directory, name, "--prior_model"))
        if given is None and prior.feature_extractor_model is None:
            raise UserError(
                f"--prior_model={name} does not name its extractor; set --feature_extractor_model to the CLIP model"
            )
    elif name is not None:
        model = load_model(in_folder_or_here(directory, name))
        found = score_pictures(
            model,
            directory,
            known,
            device=device,
            extractor_model=prior.feature_extractor_model,
            offline=prior.offline,
            table=given,
        )
        table = found.features
        scores = _aligned(paths, found.paths, found.scores[:, None])[:, 0]
    if table is None and given is not None:
        table = given.load(known)
    elif table is None:
        extractors = build_extractors(str(prior.feature_extractor_model), device, prior.offline)
        states = None if head is None else [(0,)] * len(extractors)
        table = load_features(directory, paths, extractors, hidden_states=states)
    assert isinstance(table, FeatureTable)
    if head is not None:
        scores = _aligned(paths, table.paths, head.scores_of(table.values.numpy(), name=str(name))[:, None])[:, 0]
    features = _aligned(paths, table.paths, table.values.to(torch.float64).numpy())
    return Guesses(stars, scores, np.where(np.isnan(features), np.nanmean(features, axis=0), features))


def named_prior(prior: PriorSettings) -> str | None:
    """Return the model that the scores start from; UserError if two are named."""
    if prior.model is not None and prior.prior_model is not None:
        raise UserError("--model and --prior_model both name the model to start from; give one of them")
    return prior.model if prior.prior_model is None else prior.prior_model


def _aligned(paths: Sequence[str], known: Sequence[str], values: np.ndarray) -> np.ndarray:
    """Reorder the rows of `values` from the order of `known` to that of `paths`; nan for unknown paths."""
    row_of = {path: row for row, path in enumerate(known)}
    aligned = np.full((len(paths), values.shape[1]), np.nan)
    for place, path in enumerate(paths):
        if path in row_of:
            aligned[place] = values[row_of[path]]
    return aligned


def _stars(directory: Path, paths: Sequence[str]) -> np.ndarray:
    """Return the level of each picture by what people said of it in photo programs, 0 ... 5; nan for unknown."""
    judgements = [_judgement_of(directory / path) for path in paths]
    levels = levels_of(judgements)
    values = np.array([np.nan if value is None else value for value in levels.values])
    _report_judgements(judgements, levels)
    return values


def _judgement_of(picture: Path) -> Judgement:
    try:
        return read_judgement(picture)
    except UserError as error:
        log.warning("%s", error)
        return Judgement()


def _report_judgements(judgements: Sequence[Judgement], levels: Levels) -> None:
    """Log what was found, what colour labels were taken to mean, and what was left out."""
    flags = Counter(judgement.flag for judgement in judgements)
    log.info(
        "stars found for %d of %d pictures; flags: %d picked, %d pending, %d rejected; colour labels for %d",
        sum(judgement.stars is not None for judgement in judgements),
        len(judgements),
        *(flags[flag] for flag in (PICKED, PENDING, REJECTED)),
        sum(judgement.label is not None for judgement in judgements),
    )
    if levels.label_levels:
        means = [f"{label} = {level:.1f}" for label, level in sorted(levels.label_levels.items())]
        log.info("labels count as the mean stars of the pictures with both, 0 for rejected: %s", name_some(means))
    if levels.silent_labels:
        unused = [f"{label} ({n})" for label, n in levels.silent_labels.items()]
        log.info(
            "labels whose meaning is unknown, as fewer than %d of their pictures have stars or a flag: %s",
            LEAST_FOR_A_LABEL,
            name_some(unused),
        )
    n_ours = sum(judgement.has_our_stars for judgement in judgements)
    if n_ours:
        log.info("left out: stars of %d pictures that a model gave (--write_xmp)", n_ours)


def make_plan(directory: Path, paths: Sequence[str], files: ScoreFiles, guesses: Guesses) -> PairPlan:
    """Return the plan; a picture's first guess is its score in the file, else its stars, else the model's score."""
    earlier = {} if files.start is None else dict(zip(files.start.paths, files.start.scores, strict=True))
    here = set(paths)
    everyone = [*paths, *(path for path in earlier if path not in here)]
    start = np.array([earlier.get(path, np.nan) for path in everyone])
    guess = standardised(start)
    for values in (guesses.stars, guesses.model_scores):
        if values is not None:
            guess[: len(paths)] = np.where(np.isnan(guess[: len(paths)]), standardised(values), guess[: len(paths)])
    features = guesses.features
    if features is not None:
        unknown = np.tile(features.mean(axis=0), (len(everyone) - len(paths), 1))
        features = np.concatenate([features, unknown])
    scale, shift = to_units(start)
    return PairPlan(tuple(everyone), len(paths), starting_prior(guess, features), scale, shift)


def describe(session: Session) -> str:
    """Return lines on the number of answers, the quality of the scores, and the files."""
    progress = session.progress()
    if not progress["choices"]:
        return f"{progress['pictures']} pictures, no answers yet"
    n_answers = progress["choices"]
    lines = [f"{n_answers} answer{'s'[: n_answers != 1]}, {progress['seen']} of {progress['pictures']} pictures seen"]
    to_go = progress["choices_to_go"]
    if to_go:
        lines.append(f"give {to_go} more answer{'s'[: to_go != 1]} to see how good the scores are")
    elif progress["order_right"] is not None:
        lines.append(
            f"of two random pictures, the scores put the right one first in {_share(progress['order_right'])} "
            f"and predict your choice in {_share(progress['predicted'])}"
        )
    files = session.files
    return "\n".join([*lines, f"scores in {files.json.name} and {files.csv.name}, answers in {files.log.name}"])


def _share(figure: Sequence[float]) -> str:
    value, low, high = (round(100 * share) for share in figure)
    return f"{value} % ({low} to {high} %)"
