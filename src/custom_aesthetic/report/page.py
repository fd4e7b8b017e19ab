"""The report: one HTML page that shows how well model scores agree with the given scores, without network access."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.base.text import json_bytes
from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.answers import Taste, how_often
from custom_aesthetic.quality.confidence import (
    OUT_OF_FOLD_SPREAD,
    Interval,
    ab_interval,
    spearman_interval,
)
from custom_aesthetic.report.charts import chart_sections
from custom_aesthetic.report.strips import strip_sections

if TYPE_CHECKING:
    from custom_aesthetic.search.study import Study

PAGE_FOLDER = Path(__file__).parent / "assets"
FEWEST_FOR_PEARSON = 4
SET_NAMES = {"test": "Test", "eval": "Evaluation", "out_of_fold": "Out of fold", "learnt_from": "Learnt from"}


@dataclass(frozen=True)
class ReportData:
    """The content of the report. Arrays are (n_images,), in the units of the scores; their rows correspond."""

    directory: Path
    """The image directory, for the thumbnails."""
    paths: Sequence[str]
    scores: Array
    """The given scores; nan for a picture without a score."""
    model_scores: Array
    """The scores that the model is judged by; for training pictures the out-of-fold scores, if there are any."""
    kinds: Sequence[str]
    """The kind of each picture: `test` or `eval`, not used for training; `out_of_fold`, scored by heads that were not
    trained on it; or `learnt_from`, used for training, so that its model score does not show how good the model is.
    """
    sigmas: Array | None = None
    """The standard deviations that go with `model_scores`, if the model predicts them; nan where it learnt from the
    picture."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Facts about the run, name -> value: model, features, loss, ..."""
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Further sets of rows for the table of statistics, by name."""
    include_learnt: bool = False
    """Whether the table of statistics also counts pictures of the kind `learnt_from`."""
    flattery: float = 0.0
    """How much choosing among trials adds to the share of right pairs, 0...1; taken off in the headline."""
    eval_chose: bool = False
    """Whether the pictures judged also chose the best epoch, which adds more."""
    taste: Taste | None = None
    """What the answers tell of the true scores, by which the headline judges; None unless the scores come from them."""

    @property
    def is_judged(self) -> NDArray[np.bool_]:
        """Whether a picture has a score and is not of the kind `learnt_from`."""
        return np.isfinite(self.scores) & (np.array(self.kinds) != "learnt_from")

    def any_by_folds(self, rows: Array | NDArray[np.bool_]) -> bool:
        """Return whether any of these pictures is scored out of fold, which widens intervals."""
        return bool((np.array(self.kinds)[rows] == "out_of_fold").any())


def write_report(file: Path, data: ReportData, *, study: "Study | None" = None) -> None:
    """Write the report atomically; UserError if it cannot be written.

    With a study, Optuna's plots of it are added.
    """
    write_atomically(file, json_bytes(report_page(data, study=study)))


def report_page(data: ReportData, *, study: "Study | None" = None) -> str:
    """Return the report as HTML."""
    sets = _sets(data)
    sections = []
    if sets:
        sections.append(_statistics_section(data, sets))
    if np.isfinite(data.scores).any():
        sections += chart_sections(data.paths, data.scores, data.model_scores, data.kinds, data.sigmas)
    sections += strip_sections(data.directory, data.paths, data.scores, data.model_scores, data.kinds)
    if study is not None:
        sections.append(_study_section(study))
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in data.facts.items())
    return Template((PAGE_FOLDER / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"Model scores of {data.directory.resolve().name}"),
        style=(PAGE_FOLDER / "style.css").read_text(encoding="utf-8"),
        headline=_headline(data),
        facts=facts,
        sections="\n".join(sections),
    )


def _sets(data: ReportData) -> dict[str, Array]:
    """Return set name -> rows that count: all of them, each kind if there are several, then the groups."""
    kinds = np.array(data.kinds)
    counted = np.isfinite(data.scores) if data.include_learnt else data.is_judged
    sets = {SET_NAMES[name]: np.flatnonzero(counted & (kinds == name)) for name in SET_NAMES}
    sets = {name: rows for name, rows in sets.items() if len(rows)}
    if len(sets) > 1:
        sets = {"All": np.flatnonzero(counted)} | sets
    return sets | {name: np.array([row for row in rows if counted[row]], int) for name, rows in data.groups.items()}


def _headline(data: ReportData) -> str:
    n_images = len(data.paths)
    if not np.isfinite(data.scores).any():
        words = f"The model scores {n_images:,} pictures; none of them has a score to compare with."
        return f'<p class="headline">{words}</p>'
    judged = data.is_judged
    said = escape(
        how_often(
            data.scores[judged],
            data.model_scores[judged],
            taste=data.taste,
            rows=np.flatnonzero(judged),
            flattery=data.flattery,
            chose=data.eval_chose,
            out_of_fold=data.any_by_folds(judged),
        )
    )
    said = re.sub(r"\d+ times in 100", r"<strong>\g<0></strong>", said, count=1)
    return f'<p class="headline">{said}</p>' + "".join(f"<p>{escape(line)}</p>" for line in _standing(data))


def _standing(data: ReportData) -> Iterator[str]:
    """Yield sentences that say which pictures the figures count and which they leave out."""
    known, kinds = np.isfinite(data.scores), np.array(data.kinds)
    counts = {name: int((known & (kinds == name)).sum()) for name in SET_NAMES}
    unseen, by_folds = counts["test"] + counts["eval"], counts["out_of_fold"]
    parts = [f"{unseen:,} pictures that the model has not learnt from"] if unseen else []
    if by_folds:
        parts.append(f"{by_folds:,} training pictures, scored by heads that were not trained on them (out of fold)")
    if parts:
        yield f"The figures count {' and '.join(parts)}."
    if data.taste is not None:
        yield (
            "The table compares with the written scores, which few answers leave uncertain; the figure above is judged "
            "by the answers themselves."
        )
    if counts["learnt_from"]:
        counted = "The table counts them, as was asked" if data.include_learnt else "No figure counts them"
        yield (
            f"{counts['learnt_from']:,} further pictures are learnt from: the model has seen their scores, so what it "
            f"says of them tells nothing of how good it is. {counted}."
        )


def _statistics_section(data: ReportData, sets: Mapping[str, Array]) -> str:
    columns = [
        _statistics_cells(data.scores[rows], data.model_scores[rows], out_of_fold=data.any_by_folds(rows))
        for rows in sets.values()
    ]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in sets)
    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cells[name]}</td>" for cells in columns)}</tr>'
        for name in columns[0]
    )
    return (
        '<section><h2 id="statistics">Statistics</h2>'
        "<p>AB is the share of pairs of pictures that the model puts in your order: 50 % is chance, 100 % perfect. "
        "Small print: 95 % intervals, and p-values of no correlation. The search chose its best trial by evaluation "
        "pictures or out-of-fold scores, which flatters the model a little; test pictures chose nothing.</p>"
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="statistics">'
        f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _statistics_cells(scores: Array, model_scores: Array, *, out_of_fold: bool) -> dict[str, str]:
    """Return row name -> cell of one column of the table; "undefined" for values that cannot be computed.

    `out_of_fold` is that of `ab_interval`.
    """
    errors = model_scores - scores
    return {
        "Pictures": f"{len(scores):,}",
        "AB": _share_cell(ab_interval(scores, model_scores, out_of_fold=out_of_fold)),
        "Spearman correlation": _correlation_cell(
            metrics.spearman(scores, model_scores), spearman_interval(scores, model_scores, out_of_fold=out_of_fold)
        ),
        "Pearson correlation": _correlation_cell(
            metrics.pearson(scores, model_scores), pearson_interval(scores, model_scores, out_of_fold=out_of_fold)
        ),
        "Root mean squared error": _number(math.sqrt(metrics.mse(scores, model_scores)) if len(scores) else math.nan),
        "Mean absolute error": _number(float(np.mean(np.abs(errors))) if len(scores) else math.nan),
        "Your scores, mean ± deviation": _spread(scores),
        "Model scores, mean ± deviation": _spread(model_scores),
    }


def pearson_interval(scores: Array, model_scores: Array, *, out_of_fold: bool = False) -> Interval:
    """Return Pearson's correlation of two arrays (n_images,) and its 95 % interval by Fisher's transformation.

    `out_of_fold` is that of `ab_interval`.
    """
    value = metrics.pearson(scores, model_scores).statistic
    if len(scores) < FEWEST_FOR_PEARSON:
        return Interval(value, math.nan, math.nan)
    centre, half = math.atanh(min(max(value, -1 + 1e-9), 1 - 1e-9)), 1.96 / math.sqrt(len(scores) - 3)
    half *= OUT_OF_FOLD_SPREAD if out_of_fold else 1.0
    return Interval(value, math.tanh(centre - half), math.tanh(centre + half))


def _share_cell(share: Interval) -> str:
    if not math.isfinite(share.value):
        return "undefined"
    bounds = f"<small>{100 * share.low:.1f} … {100 * share.high:.1f} %</small>" if math.isfinite(share.low) else ""
    return f"{100 * share.value:.1f} %{bounds}"


def _correlation_cell(correlation: metrics.Correlation, interval: Interval) -> str:
    if not math.isfinite(correlation.statistic):
        return "undefined"
    bounds = f"<small>{interval.low:.3f} … {interval.high:.3f}</small>" if math.isfinite(interval.low) else ""
    p_value = f"<small>p = {correlation.p_value:.1e}</small>" if math.isfinite(correlation.p_value) else ""
    return f"{correlation.statistic:.3f}{bounds}{p_value}"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "undefined"


def _spread(values: Array) -> str:
    if len(values) < 2:
        return "undefined"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def _study_section(study: "Study") -> str:
    from custom_aesthetic.report.study_plots import finished_trials, optimised_metric, study_plots

    plots = study_plots(study)
    n_trials = len(finished_trials(study))
    if not plots:
        words = f"The study {study.study_name} has {n_trials} finished trial(s): too few to plot."
        return f"<section><h2>Search</h2><p>{escape(words)}</p></section>"
    words = (
        f"The study {study.study_name} has {n_trials:,} finished trials; trial {study.best_trial.number} is the best, "
        f"with {optimised_metric(study)} {study.best_value:.4g}."
    )
    cards = "".join(
        f'<figure role="group"><figcaption><h3>{escape(plot.title)}</h3></figcaption>'
        f"{plot.svg.replace('<svg', _labelled_svg(plot.description), 1)}</figure>"
        for plot in plots
    )
    return f'<section><h2>Search</h2><p>{escape(words)}</p><div class="cards study">{cards}</div></section>'


def _labelled_svg(description: str) -> str:
    return f'<svg role="img" aria-label="{escape(description)}"'
