"""The charts of the report, each with a title, a short explanation, and its numbers."""

from collections.abc import Sequence
from html import escape

import numpy as np

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality.diagnostics import calibration, errors_by_model_score, order_by_distance
from custom_aesthetic.report.svg import Frame, band, chart, line, padded_range, points, steps

N_HISTOGRAM_BINS = 30
LEGENDS = {"eval": "evaluation", "out_of_fold": "out of fold", "learnt_from": "learnt from", "test": "test"}


def chart_sections(
    paths: Sequence[str], scores: Array, model_scores: Array, kinds: Sequence[str], sigmas: Array | None
) -> list[str]:
    """Return the sections of charts, as HTML. Arrays are (n_images,); `kinds` are those of `ReportData`.

    The scatter plots show every picture with a score; the numbers and curves leave out pictures that the model was
    trained on.
    """
    known = np.flatnonzero(np.isfinite(scores))
    known_paths = [paths[row] for row in known.tolist()]
    names = np.array(kinds)
    judged = known[names[known] != "learnt_from"]
    words = _words(names[judged], n_learnt=len(known) - len(judged))
    cards = [
        _scatter(known_paths, scores[known], model_scores[known], names[known]),
        _residuals(known_paths, scores[known], model_scores[known], names[known]),
    ]
    if len(judged):
        cards += [
            _distributions(scores[judged], model_scores[judged]),
            _order(scores[judged], model_scores[judged], words),
        ]
    unseen = judged[np.isfinite(sigmas[judged])] if sigmas is not None else judged[:0]
    if sigmas is not None and len(unseen):
        cards += _calibration(scores[unseen], model_scores[unseen], sigmas[unseen], words)
    return [f'<section><h2>Where the model is right and wrong</h2><div class="cards">{"".join(cards)}</div></section>']


def _words(kinds: Array, *, n_learnt: int) -> str:
    """Return the name of the judged pictures, which says if some are left out of the figures."""
    if not n_learnt:
        return "pictures"
    return "evaluation pictures" if set(kinds) == {"eval"} else "pictures that were not learnt from"


def _card(title: str, words: str, svg: str, *, legend: str = "", numbers: str = "") -> str:
    caption = f"<figcaption><h3>{escape(title)}</h3><p>{escape(words)}</p>{legend}</figcaption>"
    return f"<figure>{caption}{svg}{numbers}</figure>"


def _legend(entries: dict[str, str]) -> str:
    items = "".join(f'<li class="{kind}"><span>{escape(words)}</span></li>' for kind, words in entries.items())
    return f'<ul class="legend">{items}</ul>'


def _numbers(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<details><summary>Numbers</summary><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></details>"
    )


def _present(kinds: Array) -> list[str]:
    """Return the kinds that have pictures, `learnt_from` first so that the others are drawn on top."""
    return [name for name in ("learnt_from", "out_of_fold", "test", "eval") if (kinds == name).any()]


def _points_by_kind(
    frame: Frame, paths: Sequence[str], values: tuple[Array, Array], kinds: Array, titles: Sequence[str]
) -> list[str]:
    x, y = values
    rows_of = {name: np.flatnonzero(kinds == name) for name in _present(kinds)}
    return [
        points(frame, x[rows], y[rows], name, [titles[row] for row in rows.tolist()]) for name, rows in rows_of.items()
    ]


def _titles(paths: Sequence[str], scores: Array, model_scores: Array) -> list[str]:
    return [
        f"{path}: your score {score:.3f}, model {model:.3f}"
        for path, score, model in zip(paths, scores, model_scores, strict=True)
    ]


def _scatter(paths: Sequence[str], scores: Array, model_scores: Array, kinds: Array) -> str:
    frame = Frame(padded_range(scores), padded_range(model_scores), "your score", "model score")
    both = np.array([max(frame.x_range[0], frame.y_range[0]), min(frame.x_range[1], frame.y_range[1])])
    shapes = _points_by_kind(frame, paths, (scores, model_scores), kinds, _titles(paths, scores, model_scores))
    if both[0] < both[1]:
        shapes.append(line(frame, both, both, "ideal"))
    counts = ", ".join(f"{(kinds == name).sum():,} {LEGENDS[name]}" for name in _present(kinds))
    return _card(
        "Model score against yours",
        "A perfect model has every picture on the dashed line.",
        chart(frame, shapes, f"Scatter of model score against your score: {counts} pictures"),
        legend=_legend({name: LEGENDS[name] for name in reversed(_present(kinds))}),
    )


def _residuals(paths: Sequence[str], scores: Array, model_scores: Array, kinds: Array) -> str:
    errors = scores - model_scores
    frame = Frame(
        padded_range(model_scores), padded_range(errors, np.zeros(1)), "model score", "your score − model score"
    )
    judged = kinds != "learnt_from"
    bins = errors_by_model_score(model_scores[judged], errors[judged])
    shapes = _points_by_kind(frame, paths, (model_scores, errors), kinds, _titles(paths, scores, model_scores))
    shapes.append(line(frame, np.array(frame.x_range), np.zeros(2), "ideal"))
    if len(bins) > 1:
        centres = np.array([one.centre for one in bins])
        lows, highs = np.array([one.low for one in bins]), np.array([one.high for one in bins])
        shapes.insert(0, band(frame, centres, lows, highs, "errors"))
        shapes.append(line(frame, centres, np.array([one.mean for one in bins]), "mean"))
    header = ("model score", "mean error", "10 %", "90 %")
    rows = [(f"{one.centre:.3f}", f"{one.mean:+.3f}", f"{one.low:+.3f}", f"{one.high:+.3f}") for one in bins]
    return _card(
        "Errors",
        "Above the dashed line you like a picture better than the model does. The solid line is the mean error, the "
        "grey band holds the middle 80 %.",
        chart(frame, shapes, f"Scatter of errors against model score, {len(errors):,} pictures"),
        numbers=_numbers(header, rows) if rows else "",
    )


def _distributions(scores: Array, model_scores: Array) -> str:
    edges = np.linspace(*padded_range(scores, model_scores, share=0.01), N_HISTOGRAM_BINS + 1)
    shares = [np.histogram(values, edges)[0] / len(values) for values in (scores, model_scores)]
    top = float(max(share.max() for share in shares)) * 1.05
    frame = Frame((float(edges[0]), float(edges[-1])), (0.0, top), "score", "share of pictures", y_percent=True)
    shapes = [steps(frame, edges, share, kind) for share, kind in zip(shares, ("yours", "model"), strict=True)]
    spoken = ", ".join(
        f"{name} from {values.min():.2f} to {values.max():.2f}, median {np.median(values):.2f}"
        for name, values in (("your scores", scores), ("model scores", model_scores))
    )
    return _card(
        "Distributions",
        "A careful model spreads its scores less than you do.",
        chart(frame, shapes, f"Histograms: {spoken}"),
        legend=_legend({"yours": "your scores", "model": "model scores"}),
    )


def _order(scores: Array, model_scores: Array, words: str) -> str:
    bins = order_by_distance(scores, model_scores)
    if not bins:
        return ""
    centres = np.array([(one.low + one.high) / 2 for one in bins])
    shares = np.array([one.share_right for one in bins])
    x_range = (0.0, max(centres[-1] * 1.05, 1e-9))
    frame = Frame(
        x_range,
        (min(0.45, shares.min() - 0.05), 1.01),
        "distance of two of your scores",
        "pairs in your order",
        y_percent=True,
    )
    shapes = [
        line(frame, np.array(x_range), np.full(2, 0.5), "ideal"),
        line(frame, centres, shares, "model", dots=True),
    ]
    header = ("from", "to", "right", "pairs")
    rows = [(f"{one.low:.3f}", f"{one.high:.3f}", f"{100 * one.share_right:.1f} %", f"{one.n_pairs:,}") for one in bins]
    return _card(
        "AB by distance",
        f"How often the model is right about two {words}, by how far apart you scored them. The dashed line is chance.",
        chart(
            frame,
            shapes,
            f"Pairs in your order: {100 * shares[0]:.0f} % of the closest, {100 * shares[-1]:.0f} % of the farthest",
        ),
        numbers=_numbers(header, rows),
    )


def _calibration(scores: Array, model_scores: Array, sigmas: Array, words: str) -> list[str]:
    found = calibration(scores, model_scores, sigmas)
    unit = np.array([0.0, 1.0])
    frame = Frame((0.0, 1.0), (0.0, 1.0), "share promised", "share found", y_percent=True, x_percent=True)
    middle = int(np.argmin(np.abs(found.levels - 0.5)))
    coverage = _card(
        "Calibration",
        f"The share of the {words} whose score lies inside the interval that should contain that share. Below the "
        "dashed line the model is overconfident, above it too cautious.",
        chart(
            frame,
            [line(frame, unit, unit, "ideal"), line(frame, found.levels, found.coverage, "model", dots=True)],
            f"Calibration: the interval that should hold 50 % holds {100 * found.coverage[middle]:.0f} %",
        ),
        numbers=_numbers(
            ("promised", "found"),
            [
                (f"{100 * level:.0f} %", f"{100 * share:.1f} %")
                for level, share in zip(found.levels, found.coverage, strict=True)
            ],
        ),
    )
    predicted = np.array([one.predicted for one in found.bins])
    made = np.array([one.found for one in found.bins])
    both = padded_range(predicted, made, np.zeros(1))
    sigma_frame = Frame(both, both, "sigma predicted", "error made (root mean square)")
    sigma = _card(
        "Is a large sigma a large error?",
        f"The {words} in groups of similar predicted sigma. On the dashed line the predicted errors are right.",
        chart(
            sigma_frame,
            [
                line(sigma_frame, np.array(both), np.array(both), "ideal"),
                line(sigma_frame, predicted, made, "model", dots=True),
            ],
            f"Error made against sigma predicted, {len(found.bins)} groups",
        ),
        numbers=_numbers(
            ("sigma", "error", "pictures"),
            [(f"{one.predicted:.3f}", f"{one.found:.3f}", f"{one.n_images:,}") for one in found.bins],
        ),
    )
    return [coverage, sigma]
