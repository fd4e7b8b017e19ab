"""Optuna's own plots of a study, as SVG for a page."""

import io
import math
import warnings
from typing import NamedTuple

import matplotlib
import optuna
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.visualization import matplotlib as optuna_plots

matplotlib.use("agg")

FIGURE_INCHES = (4.6, 3.3)
FEWEST_TRIALS = 2
MOST_VECTOR_POINTS = 1000
"""With more trials than this, the points of a plot are rasterised, so that the page stays small."""


class StudyPlot(NamedTuple):
    """One plot: its title, the SVG element, and a description for screen readers."""

    title: str
    svg: str
    description: str


def study_plots(study: optuna.Study) -> list[StudyPlot]:
    """Return the optimisation history, the importances of the parameters, and a slice for each parameter.

    A plot is left out if the study has too few trials for it: all need two finished trials, the importances also two
    different values.
    """
    trials = finished_trials(study)
    if len(trials) < FEWEST_TRIALS:
        return []
    target = optimised_metric(study)
    best = study.best_value
    history = _draw(
        "Optimisation history",
        lambda: optuna_plots.plot_optimization_history(study, target_name=target),
        f"{target} of each of {len(trials)} finished trials and the best so far; the best is {best:.4g}",
    )
    return [history, *_importances(study, trials), *_slices(study, trials, target)]


def finished_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the completed trials whose value is finite."""
    completed = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return [trial for trial in completed if trial.value is not None and math.isfinite(trial.value)]


def optimised_metric(study: optuna.Study) -> str:
    """Return the name of the optimised metric."""
    names = study.metric_names
    return names[0] if names else "objective value"


def _importances(study: optuna.Study, trials: list[optuna.trial.FrozenTrial]) -> list[StudyPlot]:
    searched = _searched_parameters(trials)
    if len({trial.value for trial in trials}) < 2 or not searched:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        shares = optuna.importance.get_param_importances(study, params=searched)
    spoken = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    plot = _draw(
        "Importance of the parameters",
        lambda: optuna_plots.plot_param_importances(study, params=searched),
        f"shares of the parameters in what makes trials differ: {spoken}",
    )
    return [plot]


def _slices(study: optuna.Study, trials: list[optuna.trial.FrozenTrial], target: str) -> list[StudyPlot]:
    best = study.best_params
    return [
        _draw(
            name,
            lambda name=name: optuna_plots.plot_slice(study, params=[name], target_name=target),
            f"{target} of each trial against {name}; the best trial has {best.get(name, 'no value')}",
        )
        for name in _searched_parameters(trials)
    ]


def _searched_parameters(trials: list[optuna.trial.FrozenTrial]) -> list[str]:
    """Return the parameters with more than one value in the trials that have them, in the order of the trials."""
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    return [name for name in names if len({trial.params[name] for trial in trials if name in trial.params}) > 1]


def _draw(title, plot, description: str) -> StudyPlot:  # type: ignore[no-untyped-def]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "figure.dpi": 100}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            axes: Axes = plot()
        figure = axes.get_figure()
        assert isinstance(figure, Figure)
        try:
            svg = _svg(figure, axes)
        finally:
            pyplot.close(figure)
    return StudyPlot(title, svg, description)


def _svg(figure: Figure, axes: Axes) -> str:
    """Return the figure as an SVG element: small enough for a phone, without its own title and background."""
    figure.set_size_inches(*FIGURE_INCHES)
    for place in ("left", "center", "right"):
        axes.set_title("", loc=place)
    legend = axes.get_legend()
    if legend is not None:
        legend.remove()
        if len(legend.get_texts()) > 1:
            axes.legend(loc="best", fontsize="small", framealpha=0.7)
    for points in axes.collections:
        points.set_rasterized(len(points.get_offsets()) > MOST_VECTOR_POINTS)  # type: ignore[arg-type]
    axes.set_facecolor("#f3f3f3")
    stream = io.StringIO()
    figure.savefig(
        stream, format="svg", bbox_inches="tight", transparent=False, facecolor="#ffffff", metadata={"Date": None}
    )
    text = stream.getvalue()
    return text[text.index("<svg") :]
