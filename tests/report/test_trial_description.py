"""A finished trial as text."""

import optuna
from optuna.distributions import IntDistribution

from custom_aesthetic.report.trial_description import describe_trial


def test_parameters_metrics_and_undefined_metrics_are_described() -> None:
    fixed = {"second_layer_size": 12, "train_epochs": 5, "warmup_ratio": 0.1, "log_lr": -2.8, "batch_size": 8}
    fixed |= {"input_dropout": 0.25, "dropout": 0.0, "output_dropout": 0.0, "log_weight_lr": -3.0}
    measured = {"train_ab": 0.75, "eval_ab": 0.5, "full_ab": 0.625, "full_spearman": 0.123456}
    trial = optuna.trial.create_trial(
        value=0.5,
        params={"first_layer_size": 24},
        distributions={"first_layer_size": IntDistribution(10, 1000)},
        user_attrs={**fixed, **measured, "best_epoch": 4, "seconds": 0.2, "seed": 7},
    )
    lines = [line.split() for line in describe_trial(trial)]
    assert ["first_layer_size", "24"] in lines
    assert ["input_dropout", "0.25"] in lines
    assert ["metric", "train", "eval", "full"] in lines
    assert ["ab", "0.75", "0.5", "0.625"] in lines
    assert ["spearman", "undefined", "undefined", "0.1235"] in lines
    assert not any(line[0] == "mse" for line in lines)
    assert lines[-1] == ["best", "epoch", "4,", "0.2", "s,", "seed", "7"]
