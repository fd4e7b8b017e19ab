"""Show pictures in Renumics Spotlight: the table, a layout that is ready to use, and the suspect scores."""

import logging
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from renumics import spotlight
from renumics.spotlight import layout
from renumics.spotlight.analysis import DataIssue
from renumics.spotlight.layout import Layout, lenses
from scipy import stats

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.base.machine import n_cores
from custom_aesthetic.base.text import csv_bytes
from custom_aesthetic.features.table import FeatureTable
from custom_aesthetic.pictures.camera import NEEDED
from custom_aesthetic.quality.suspects import find_suspects
from custom_aesthetic.report.judged_pictures import JUDGED_BY, JudgedPictures
from custom_aesthetic.report.picture_map import place_pictures
from custom_aesthetic.report.thumbnails import jpeg_of

log = logging.getLogger(__name__)

EXPECTED = "expected_score"
"""Column of the scores predicted from the other pictures' scores, out of fold."""

SHOWN_SIZE = 1024
"""Longer side, in pixels, of the pictures that are converted for Spotlight."""

MAP = ("map_x", "map_y")
"""Columns of the places on the similarity map."""

MOST_IMAGES_FOR_UMAP = 2000

PLUGIN = Path(__file__).parent.parent / "report" / "assets" / "spotlight"
"""Folder of the plugin that selects the first pictures, as Spotlight's server finds plugins on Python's path."""

LIKE_SCORES = ("score", "model_score", "out_of_fold_score", "error", EXPECTED)
"""Columns that are shown with four digits."""


def make_frame(pictures: JudgedPictures, features: FeatureTable | None) -> pd.DataFrame:
    """Return the table that Spotlight shows, one row per picture.

    Rank 1 is the highest score; equal scores share the lower number. `judged_by` is the origin of the judged score,
    from which error (score - judged score), model_rank and rank_error (rank - model_rank) are computed: the out-of-fold
    score of a picture that the model has learnt from, else the model score. Pictures marked `learnt from` have none of
    the three, because they do not show how good the model is. `features` belong to the same pictures, in any order;
    without them there is no embedding.
    """
    folder = pictures.directory.resolve()
    is_unseen = ~pictures.learnt | np.isfinite(pictures.out_of_fold)
    judged_scores = np.where(is_unseen, pictures.judged_scores, np.nan)
    ranks, model_ranks = _ranks(pictures.scores), _ranks(judged_scores)
    by_folds = {"out_of_fold_score": pictures.out_of_fold} if np.isfinite(pictures.out_of_fold).any() else {}
    frame = pd.DataFrame(
        {
            "image": [str(folder / path) for path in pictures.paths],
            "path": pictures.paths,
            "split": pictures.splits,
            "score": pictures.scores,
            "model_score": pictures.model_scores,
            **by_folds,
            "judged_by": [JUDGED_BY[kind] for kind in pictures.kinds],
            "error": pictures.scores - judged_scores,
            "rank": ranks,
            "model_rank": model_ranks,
            "rank_error": ranks - model_ranks,
        }
    )
    if features is not None:
        row_of = {path: row for row, path in enumerate(features.paths)}
        frame = frame[frame["path"].isin(row_of)].reset_index(drop=True)
        values = features.values.float().numpy()
        frame["features"] = [values[row_of[path]] for path in frame["path"]]
    return frame


def convert_pictures(frame: pd.DataFrame, folder: Path) -> None:
    """Put JPEG files in place of the HEIC and RAW files, which Spotlight cannot show, in the column of pictures.

    They are written to the folder. A picture that cannot be opened stays as it is.
    """
    rows = [row for row, path in enumerate(frame["path"]) if path.lower().endswith(tuple(NEEDED))]
    if not rows:
        return
    log.info("%d HEIC and RAW pictures are converted for Spotlight", len(rows))

    def convert(row: int) -> None:
        content = jpeg_of(Path(frame["image"].iloc[row]), SHOWN_SIZE)
        if content is not None:
            (folder / f"{row}.jpg").write_bytes(content)

    with ThreadPoolExecutor(n_cores()) as pool:
        list(pool.map(convert, rows))
    column = frame.columns.get_loc("image")
    for row in rows:
        if (folder / f"{row}.jpg").exists():
            frame.iat[row, column] = str(folder / f"{row}.jpg")


def worst_first(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the largest errors first, either way; rows without an error last, in their order."""
    return frame.sort_values("error", key=lambda errors: -errors.abs(), kind="stable", na_position="last")


def for_the_page(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table as Spotlight shows it: scores with four digits, and their places on a map."""
    shown = frame.reset_index(drop=True)
    for name in LIKE_SCORES:
        if name in shown:
            shown[name] = [float(f"{value:.4g}") for value in shown[name]]
    if "features" in shown and len(shown):
        shown[list(MAP)] = place_pictures(np.stack(shown["features"].tolist()))
    return shown


def _ranks(values: Array) -> Array:
    """Return the rank of each value, 1 for the highest; nan stays nan."""
    return stats.rankdata(-values, method="min", nan_policy="omit")


def add_expected_scores(frame: pd.DataFrame) -> list[DataIssue]:
    """Add the column of expected scores, and return the suspect scores as issues of Spotlight."""
    known = np.flatnonzero(np.isfinite(frame["score"]))
    if "features" not in frame or len(known) == 0:
        return []
    features = np.stack(frame["features"].iloc[known].tolist())
    suspects = find_suspects(features, frame["score"].to_numpy()[known])
    if suspects is None:
        return []
    expected = np.full(len(frame), np.nan)
    expected[known] = suspects.predictions
    frame.insert(list(frame.columns).index("features"), EXPECTED, expected)
    log.info("%d of %d scores are suspect: see the issues panel", len(suspects.rows), len(known))
    rows = known[suspects.rows]
    directions = (
        (
            "Suspect scores: higher than those of similar pictures",
            rows[frame["score"].to_numpy()[rows] > expected[rows]],
        ),
        (
            "Suspect scores: lower than those of similar pictures",
            rows[frame["score"].to_numpy()[rows] < expected[rows]],
        ),
    )
    return [_issue(title, some, frame) for title, some in directions if len(some)]


def _issue(title: str, rows: Array, frame: pd.DataFrame) -> DataIssue:
    worst = frame.iloc[rows[0]]
    return DataIssue(
        title=title,
        rows=rows.tolist(),
        severity="medium",
        columns=["score", EXPECTED],
        description=(
            "A regression on the features of the other pictures predicts clearly different scores. Check these for "
            f"mistakes. The largest difference: {worst['path']}, score {worst['score']:.3f}, expected "
            f"{worst[EXPECTED]:.3f}."
        ),
    )


def make_layout(columns: Sequence[str], n_images: int) -> Layout:
    """Return the layout for a table with these columns: pictures, table, scatter plot and similarity map together.

    The map shows places from the table, which are there at once. Spotlight's widget, which computes another map when
    its tab is opened, is behind it: by UMAP if that takes only seconds, else by the first two principal components.
    """
    method: Literal["umap", "pca"] = "umap" if n_images <= MOST_IMAGES_FOR_UMAP else "pca"
    by_folds = ["out_of_fold_score"] if "out_of_fold_score" in columns else []
    known = [
        "path",
        "score",
        "model_score",
        *by_folds,
        "error",
        "rank_error",
        "judged_by",
        "split",
        "rank",
        "model_rank",
    ]
    shown = [*known, *([EXPECTED] if EXPECTED in columns else [])]
    shown_score = by_folds[0] if by_folds else "model_score"
    scatter = layout.scatterplot(f"{shown_score} against score", "score", shown_score, color_by_column="judged_by")
    histogram = layout.histogram("Scores", column="score", stack_by_column="split")
    similarity = [
        layout.scatterplot("Similarity", *MAP, color_by_column="score"),
        layout.similaritymap("Similarity by another method", ["features"], method, color_by_column="score"),
    ]
    upper_right = [layout.tab(scatter, layout.histogram("Errors", column="error", stack_by_column="judged_by"))]
    lower_right = [layout.tab(*similarity)] if MAP[0] in columns else []
    inspector = layout.inspector(
        "Pictures", [lenses.image("image"), *(lenses.scalar(name) for name in known)], num_columns=4
    )
    return layout.layout(
        layout.split(
            layout.tab(inspector, weight=55),
            layout.tab(layout.table(visible_columns=shown), weight=45),
            orientation="vertical",
            weight=55,
        ),
        layout.split(
            *upper_right,
            *lower_right,
            layout.tab(layout.issues("Issues"), histogram) if EXPECTED in columns else layout.tab(histogram),
            orientation="vertical",
            weight=45,
        ),
        orientation="horizontal",
    )


def save_frame(frame: pd.DataFrame, file: Path) -> None:
    """Write the table as CSV, without the features and the full paths of the images."""
    columns = [name for name in frame.columns if name not in ("image", "features")]
    text = (
        frame[columns]
        .rename(columns={"path": "relative_path"})
        .to_csv(index=False, lineterminator="\n", float_format="%.9g")
    )
    write_atomically(file, csv_bytes(text))
    log.info("table of %d pictures written to %s", len(frame), file)


def show(frame: pd.DataFrame, issues: Sequence[DataIssue], *, no_browser: bool, port: int | None) -> None:
    """Serve Spotlight on the table until it is stopped: by Ctrl-C, or, unless `no_browser`, by closing its tab."""
    dtypes = {"image": spotlight.Image, "split": spotlight.Category, "judged_by": spotlight.Category}
    if "features" in frame:
        dtypes["features"] = spotlight.Embedding
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")]))
    how = "press Ctrl-C to stop it" if no_browser else "close its tab or press Ctrl-C to stop it"
    log.info("starting Spotlight; %s", how)
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)  # else the server would outlive this process
    try:
        spotlight.show(
            frame,
            dtype=dtypes,
            issues=list(issues),
            layout=make_layout(list(frame.columns), len(frame)),
            analyze=False,
            no_browser=no_browser,
            port="auto" if port is None else port,
            wait="forever" if no_browser else True,
        )
    except KeyboardInterrupt:
        # The server ends when this process exits. Spotlight's close() would wait for a server that Ctrl-C has ended.
        log.info("Spotlight has stopped")
    except OSError as error:
        raise UserError(f"Spotlight cannot be served at port {port}: {error.strerror}; choose another --port") from None
    finally:
        signal.signal(signal.SIGTERM, former)
