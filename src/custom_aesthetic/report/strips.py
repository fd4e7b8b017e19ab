"""The strips of thumbnails of the report: best, worst, most over-rated and most under-rated pictures."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.quality.diagnostics import extremes
from custom_aesthetic.report.charts import LEGENDS
from custom_aesthetic.report.thumbnails import thumbnail_uri

PICTURES_A_STRIP = 12


def strip_sections(
    directory: Path, paths: Sequence[str], scores: Array, model_scores: Array, kinds: Sequence[str]
) -> list[str]:
    """Return the strips as HTML sections. Arrays are (n_images,); a score may be nan; `kinds` are those of ReportData.

    Over- and under-rated pictures are chosen among those of a kind other than `learnt_from`.
    """
    errors = model_scores - scores
    judged = np.array(kinds) != "learnt_from"
    words = "that were not learnt from " if not judged[np.isfinite(errors)].all() else ""
    errors = np.where(judged, errors, math.nan)
    best, worst = extremes(model_scores, PICTURES_A_STRIP)
    over, under = extremes(errors, PICTURES_A_STRIP)
    over, under = over[errors[over] > 0], under[errors[under] < 0]
    strips = [
        ("Best", "The highest model scores.", best),
        ("Worst", "The lowest model scores.", worst),
        ("Most over-rated", f"The pictures {words}that the model likes most beyond your score.", over),
        ("Most under-rated", f"The pictures {words}that the model likes least, compared with your score.", under),
    ]
    return [
        f"<section><h2>{title}</h2><p>{caption}</p>"
        f"{_strip(directory, paths, scores, model_scores, kinds, rows)}</section>"
        for title, caption, rows in strips
        if len(rows)
    ]


def _strip(
    directory: Path,
    paths: Sequence[str],
    scores: Array,
    model_scores: Array,
    kinds: Sequence[str],
    rows: Iterable[int],
) -> str:
    items = [_item(directory, paths[row], float(scores[row]), float(model_scores[row]), kinds[row]) for row in rows]
    return f'<ul class="strip">{"".join(items)}</ul>'


def _item(directory: Path, path: str, score: float, model_score: float, kind: str) -> str:
    yours = f"{score:.2f}" if math.isfinite(score) else "none"
    uri = thumbnail_uri(directory / path)
    name = escape(path)
    words = escape(f"{path}, your score {yours}, model score {model_score:.2f}")
    picture = f'<img src="{uri}" alt="{words}">' if uri else f"<span>{name} cannot be opened</span>"
    return (
        f'<li><figure><div class="frame">{picture}</div><figcaption><span class="scores">model '
        f"<strong>{model_score:.2f}</strong> · you <strong>{yours}</strong></span>"
        f'<span class="name" title="{name}">{name}</span><span class="name">{escape(LEGENDS[kind])}</span>'
        "</figcaption></figure></li>"
    )
