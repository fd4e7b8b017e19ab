"""What optuna-dashboard tells of the best trial: that it is the best, and where its model is."""

from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial
from optuna_dashboard import save_note

from src.storage import patiently

NOTED = "noted trial"


def note_best_trial(study: optuna.Study, best: FrozenTrial, model_file: Path) -> None:
    """Name the model file in the note of the best trial; a former best trial's note says that it no longer is.

    A link would be dead: the dashboard strips links to files, as browsers do of pages from a server.
    """
    former = study.user_attrs.get(NOTED)
    if former is not None and former != best.number:
        former_trial = study.get_trials(deepcopy=False)[former]
        _note(study, former_trial, f"Was the best trial; now it is trial {best.number}.")
    _note(study, best, f"The best trial. Its model: `{model_file.resolve()}`")
    patiently(study.set_user_attr, NOTED, best.number)


def _note(study: optuna.Study, trial: FrozenTrial, text: str) -> None:
    patiently(save_note, Trial(study, trial._trial_id), text)
