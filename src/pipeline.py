"""The main job, from arguments to a model file and its statistics."""

import logging
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial

from src.analysis import statistics_line
from src.arguments import as_lines
from src.dashboard import serve_dashboard
from src.device import choose_device
from src.domain import find_domain, to_text
from src.features import FeatureTable
from src.hidden_states import HeadInput, arrange
from src.metrics import HIGHER_IS_BETTER, Array
from src.model_file import EXTRACTOR_SEPARATOR, load_model, save_model
from src.predictor import predict
from src.preparation import ScoredImages, describe, load_head_input, load_scored_images, make_judge, make_problem
from src.scores import ScoreTable, write_csv
from src.search import best_trial, make_sampler, search
from src.settings import TrainingArguments
from src.storage import close_storage, open_storage
from src.training import TrainedHead

log = logging.getLogger(__name__)


def train_predictor(arguments: TrainingArguments) -> None:
    """Extract the features, search, keep the best model, print the statistics, write the savefile."""
    device = choose_device(arguments.device.device)
    scored = load_scored_images(arguments.images, arguments.split)
    log.info("%s", describe(scored.table))
    make_judge(scored.table, arguments.scoring)  # what cannot be had from these scores is told before any work
    scored, features, head_input = load_head_input(scored, arguments.features, device)
    if arguments.search.trials == 0:
        log.info("features are cached; --trials=0, so no search")
        return
    problem = make_problem(scored.table, head_input, arguments.scoring, device)
    torch.set_num_threads(1)
    model_file = scored.directory / arguments.output.model
    storage = open_storage(arguments.study.database)
    study = optuna.create_study(
        study_name=arguments.study.name,
        storage=storage,
        sampler=make_sampler(arguments.search.sampler, arguments.search.model_seed),
        direction="maximize" if HIGHER_IS_BETTER[arguments.scoring.metric] else "minimize",
        load_if_exists=True,
    )
    study.set_user_attr("arguments", as_lines(arguments))

    domain = find_domain(arrange(features, head_input.mode).float().numpy())
    known = {} if domain is None else {"domain": to_text(domain)}

    def keep_model(head: TrainedHead, trial: FrozenTrial) -> None:
        predictor = head_input.fold(head.predictor)
        save_model(model_file, predictor, _metadata(arguments, features, head_input, head, trial) | known)

    with serve_dashboard(arguments.study.server, arguments.study.database):
        search(study, problem, arguments.space, arguments.search, keep_model)
    report(study, scored, features, model_file)
    if arguments.output.savefile is not None:
        write_savefile(Path(arguments.output.savefile), scored.table, model_scores(features, model_file))
    close_storage(storage)


def model_scores(features: FeatureTable, model_file: Path) -> Array:
    """Return the scores (n_images,) that the model file gives these features."""
    model = load_model(model_file)
    return predict(model.predictor, arrange(features, model.mode or "join"))[:, 0].double().numpy()


def report(study: optuna.Study, scored: ScoredImages, features: FeatureTable, model_file: Path) -> None:
    """Print the best trial, its parameters, and the statistics of the model file on every set."""
    trial = best_trial(study)
    log.info("best trial %d of study %s: %.4f", trial.number, study.study_name, trial.value)
    for name, value in {**trial.params, **trial.user_attrs}.items():
        log.info("  %s = %s", name, value)
    predictions = model_scores(features, model_file)
    scores, split = np.asarray(scored.table.scores), np.asarray(scored.table.columns["split"])
    for name, rows in {"Train": split == "train", "Eval": split == "eval", "Full": split != ""}.items():
        log.info("%s", statistics_line(name, scores[rows], predictions[rows]))
    log.info("model written to %s", model_file)


def write_savefile(file: Path, table: ScoreTable, predictions: Array) -> None:
    """Write score, model_score, split and every other column of the score file as CSV."""
    model_score = [float(str(np.float32(value))) for value in predictions]
    columns = {"score": table.scores, "model_score": model_score, "split": table.columns["split"]}
    write_csv(
        file, ScoreTable(table.paths, {**columns, **{k: v for k, v in table.columns.items() if k not in columns}})
    )
    log.info("scores written to %s", file)


def _metadata(
    arguments: TrainingArguments,
    features: FeatureTable,
    head_input: HeadInput,
    head: TrainedHead,
    trial: FrozenTrial,
) -> dict[str, str]:
    """Return what the model file says of itself; all strings."""
    predictions = head.outputs[:, 0]
    extractors = list(dict.fromkeys(block.extractor for block in features.blocks))
    states = list(dict.fromkeys(block.hidden_state for block in features.blocks))
    found = {"hidden_state_weights": str(head.state_weights)} if head.state_weights else {}
    parameters = {key: str(value) for key, value in {**trial.user_attrs, **trial.params}.items()}
    return {
        "feature_extractor_model": EXTRACTOR_SEPARATOR.join(extractors),
        "hidden_states_used": ",".join(map(str, states)),
        "hidden_states_mode": head_input.mode,
        "n_images": str(len(predictions)),
        "mean_predicted_score": str(float(predictions.mean())),
        "stdev_predicted_score": str(float(predictions.std())),
        "loss_model": arguments.scoring.loss_model,
        "metric_for_scoring": arguments.scoring.metric,
        "trial": str(trial.number),
        **parameters,
        **found,
    }
