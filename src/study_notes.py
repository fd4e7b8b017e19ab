"""What optuna-dashboard tells of a study beside its numbers: the name of the metric, a note, the best trial's model."""

import warnings
from pathlib import Path

import optuna
from optuna_dashboard import save_note

from src.arguments import as_lines
from src.search import best_trial
from src.settings import TrainingArguments


def note_study(study: optuna.Study, arguments: TrainingArguments, data: str) -> None:
    """Name the study's metric, and note its data (in words), features, loss and the command that made it."""
    scoring, features = arguments.scoring, arguments.features
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([f"{scoring.set_for_scoring}_{scoring.metric}"])
    states = "default" if features.hidden_states_used is None else ", ".join(map(str, features.hidden_states_used))
    lines = "\n".join(as_lines(arguments))
    note = (
        f"- **Data**: {Path(arguments.images.directory).resolve()}, {data}\n"
        f"- **Features**: {features.feature_extractor_model}, hidden states: {states}, "
        f"mode: {features.hidden_states_mode}\n"
        f"- **Loss**: {scoring.loss_model}, chosen by {scoring.metric} on the {scoring.set_for_scoring} set\n\n"
        "Command: `python aesthetic_predictor_training.py @arguments.txt`, with this `arguments.txt`:\n\n"
        f"```\n{lines}\n```\n"
    )
    save_note(study, note)


def note_best_trial(study: optuna.Study, model_file: Path) -> None:
    """Link the model file from the best trial, and say in the note of an earlier best one that it no longer is."""
    best = best_trial(study)
    former = study.user_attrs.get("noted_trial")
    trials = study.get_trials(deepcopy=False)
    if former is not None and former != best.number:
        save_note(trials[former], f"Was the best; now it is trial {best.number}.")
    file = model_file.resolve()
    save_note(best, f"The best trial. Its model: [{file}]({file.as_uri()})")
    study.set_user_attr("noted_trial", best.number)
    study.set_user_attr("model", str(file))
