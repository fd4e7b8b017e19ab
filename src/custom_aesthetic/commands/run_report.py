"""The report at the end of a training."""

import logging
from pathlib import Path

import numpy as np
import optuna

from custom_aesthetic.commands.judged_pictures import model_facts, splits_learnt
from custom_aesthetic.commands.preparation import ScoredImages
from custom_aesthetic.features.hidden_states import arrange
from custom_aesthetic.features.table import FeatureTable
from custom_aesthetic.heads.model_file import load_model
from custom_aesthetic.heads.predictor import predict
from custom_aesthetic.report.page import ReportData, write_report

log = logging.getLogger(__name__)


def write_run_report(
    file: Path, study: optuna.Study | None, scored: ScoredImages, features: FeatureTable, model_file: Path
) -> None:
    """Write the report of the model file on the scored images, whose features these are; of the study too if kept."""
    model = load_model(model_file)
    outputs = predict(model.predictor, arrange(features, model.mode or "join")).double().numpy()
    data = ReportData(
        scored.directory,
        scored.table.paths,
        np.asarray(scored.table.scores, dtype=np.float64),
        outputs[:, 0],
        splits_learnt(scored.table.columns["split"], folded=model.folded),
        np.abs(outputs[:, 1]) if outputs.shape[1] > 1 else None,
        model_facts(model_file, model, features),
    )
    write_report(file, data, study=study)
    log.info("report written to %s", file)
