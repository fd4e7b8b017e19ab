"""Tests of the charts of a study."""

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial

from custom_aesthetic.report.study_plots import study_plots

DROPOUT = {"dropout": FloatDistribution(0, 1)}
EPOCHS = {"train_epochs": IntDistribution(1, 60, log=True)}


def trial(value: float, dropout: float, **epochs: int) -> FrozenTrial:
    return create_trial(
        params={"dropout": dropout, **epochs}, distributions={**DROPOUT, **(EPOCHS if epochs else {})}, value=value
    )


def test_a_parameter_that_some_trials_lack_and_all_others_share_has_no_chart() -> None:
    study = optuna.create_study()
    study.add_trials([trial(3, 0.1, train_epochs=6), trial(2, 0.2, train_epochs=6), trial(1, 0.3)])
    assert [plot.title for plot in study_plots(study)][-1] == "dropout"
