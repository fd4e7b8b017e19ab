"""The report at the end of a training."""

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from custom_aesthetic.commands.analyse import report_data
from custom_aesthetic.commands.judging import chosen_by, judged_sigmas, learnt_by_split, model_facts
from custom_aesthetic.commands.preparation import ScoredImages
from custom_aesthetic.features.table import FeatureTable
from custom_aesthetic.heads.model_file import load_model
from custom_aesthetic.heads.prediction import model_input, predict_features
from custom_aesthetic.report.judged_pictures import JudgedPictures
from custom_aesthetic.report.page import write_report
from custom_aesthetic.scores.out_of_fold import read_out_of_fold

if TYPE_CHECKING:
    from custom_aesthetic.search.study import Study

log = logging.getLogger(__name__)


def write_run_report(
    file: Path, study: "Study | None", scored: ScoredImages, features: FeatureTable, model_file: Path
) -> None:
    """Write the report on the model file, judged by the scored images, and on the study if it was saved."""
    model = load_model(model_file)
    found = predict_features(model, model_input(model, features))
    paths, splits = scored.table.paths, tuple(scored.table.columns["split"])
    by_folds = read_out_of_fold(model_file) if model.folded else {}
    recorded = dict(zip(paths, splits, strict=True))
    learnt = learnt_by_split(recorded, paths, folded=model.folded)
    out_of_fold = np.where(learnt, [by_folds.get(path, math.nan) for path in paths], math.nan)
    pictures = JudgedPictures(
        scored.directory,
        scored.table,
        found.scores,
        splits,
        learnt,
        out_of_fold,
        judged_sigmas(found.sigmas, model_file, paths, learnt),
        features,
        model_facts(model_file, model, features),
        chosen_by(recorded, paths, np.isfinite(out_of_fold), folded=model.folded),
        model.ab_flattery,
        model.eval_chose,
        scored.answers,
    )
    write_report(file, report_data(pictures, {}), study=study)
    log.info("report written to %s", file)
