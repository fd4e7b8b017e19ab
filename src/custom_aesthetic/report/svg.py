"""Draw charts as inline SVG without scripts; they use the page's colours, and so follow dark mode."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.report.thumbnails import png_uri

WIDTH, HEIGHT = 440, 330
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 12, 46
MOST_POINTS = 3000
"""A scatter plot of more points is drawn as one picture, because browsers are slow with very many shapes."""
DENSE_RESOLUTION = 2
COLOURS = {
    "eval": (232, 89, 12),
    "out_of_fold": (174, 62, 201),
    "learnt_from": (134, 142, 150),
    "test": (18, 154, 104),
}
"""Colours of the kinds of pictures, readable on white and on black; also in the page's style sheet."""


@dataclass(frozen=True)
class Frame:
    """The plotting area of a chart: the ranges of its axes, in units of the data, and their labels."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_label: str
    y_label: str
    y_percent: bool = False
    x_percent: bool = False

    def across(self, values: Array) -> Array:
        """Return the horizontal positions of x values, in pixels of the chart."""
        low, high = self.x_range
        return LEFT + (np.asarray(values) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def down(self, values: Array) -> Array:
        """Return the vertical positions of y values, in pixels of the chart."""
        low, high = self.y_range
        return HEIGHT - BOTTOM - (np.asarray(values) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def padded_range(*arrays: Array, share: float = 0.04) -> tuple[float, float]:
    """Return the range of all values with a margin on both sides; it is never empty."""
    values = np.concatenate([np.asarray(array, dtype=float).ravel() for array in arrays])
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = (high - low) * share or max(abs(low), 1.0) * share
    return low - margin, high + margin


def ticks(low: float, high: float, n_wanted: int = 5) -> list[float]:
    """Return round numbers between low and high, about as many as wanted."""
    raw = (high - low) / n_wanted
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = magnitude * next(factor for factor in (1, 2, 5, 10) if raw <= factor * magnitude * 1.0001)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def chart(frame: Frame, shapes: Sequence[str], description: str) -> str:
    """Return the chart as an SVG element; `description` is for screen readers."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description)}">'
        f"{_axes(frame)}{''.join(shapes)}</svg>"
    )


def _axes(frame: Frame) -> str:
    parts = []
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    x_ticks, y_ticks = ticks(*frame.x_range), ticks(*frame.y_range)
    for tick, x in zip(x_ticks, frame.across(np.array(x_ticks)), strict=True):
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>')
        text = _tick_text(tick, x_ticks, frame.x_percent)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>')
    for tick, y in zip(y_ticks, frame.down(np.array(y_ticks)), strict=True):
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
        text = _tick_text(tick, y_ticks, frame.y_percent)
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    middle_x, middle_y = (LEFT + right) / 2, (TOP + bottom) / 2
    parts.append(
        f'<text class="label" x="{middle_x}" y="{HEIGHT - 8}" text-anchor="middle">{escape(frame.x_label)}</text>'
    )
    parts.append(
        f'<text class="label" transform="translate(14 {middle_y}) rotate(-90)" text-anchor="middle">'
        f"{escape(frame.y_label)}</text>"
    )
    return "".join(parts)


def _tick_text(value: float, all_ticks: Sequence[float], percent: bool) -> str:
    factor = 100 if percent else 1
    step = (all_ticks[1] - all_ticks[0]) * factor if len(all_ticks) > 1 else 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if max(abs(tick) for tick in all_ticks) >= 1e5 or decimals > 4:
        return f"{value:.3g}"
    text = f"{value * factor:,.{decimals}f}".replace("-", "−")
    return text + ("%" if percent else "")


def points(frame: Frame, x: Array, y: Array, kind: str, titles: Sequence[str]) -> str:
    """Return the points of one kind (see `ReportData`), each with a title, or as one picture beyond MOST_POINTS."""
    if len(x) > MOST_POINTS:
        return _dense_points(frame, x, y, kind)
    places = zip(frame.across(x), frame.down(y), titles, strict=True)
    circles = "".join(
        f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3.2"><title>{escape(title)}</title></circle>'
        for left, top, title in places
    )
    return f'<g class="points {escape(kind)}">{circles}</g>'


def _dense_points(frame: Frame, x: Array, y: Array, kind: str) -> str:
    """Return all points as one transparent picture, which is more opaque where there are more points."""
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    shape = (height * DENSE_RESOLUTION // 2, width * DENSE_RESOLUTION // 2)
    area = ((TOP, HEIGHT - BOTTOM), (LEFT, WIDTH - RIGHT))
    counts, _, _ = np.histogram2d(frame.down(y), frame.across(x), bins=shape, range=area)
    busy = np.quantile(counts[counts > 0], 0.98)
    opacity = np.where(counts > 0, 0.2 + 0.8 * np.minimum(np.log1p(counts) / np.log1p(busy), 1), 0)
    pixels = np.zeros((*shape, 4), dtype=np.uint8)
    pixels[..., :3] = COLOURS.get(kind, COLOURS["eval"])
    pixels[..., 3] = np.rint(255 * opacity)
    place = f'x="{LEFT}" y="{TOP}" width="{width}" height="{height}" preserveAspectRatio="none"'
    return f'<image {place} href="{png_uri(pixels)}"/>'


def line(frame: Frame, x: Array, y: Array, kind: str, *, dots: bool = False) -> str:
    """Return a line through the points; `kind` is its class in the style sheet."""
    places = list(zip(frame.across(x), frame.down(y), strict=True))
    path = "M" + "L".join(f"{left:.1f} {top:.1f}" for left, top in places)
    marks = "".join(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3.5"/>' for left, top in places) if dots else ""
    return f'<g class="line {escape(kind)}"><path d="{path}"/>{marks}</g>'


def band(frame: Frame, x: Array, low: Array, high: Array, kind: str) -> str:
    """Return the area between two lines."""
    there = [f"{left:.1f} {top:.1f}" for left, top in zip(frame.across(x), frame.down(high), strict=True)]
    back = [f"{left:.1f} {top:.1f}" for left, top in zip(frame.across(x), frame.down(low), strict=True)]
    return f'<path class="band {escape(kind)}" d="M{"L".join([*there, *reversed(back)])}Z"/>'


def steps(frame: Frame, edges: Array, heights: Array, kind: str) -> str:
    """Return the outline of a histogram, filled; `edges` are (n_bins + 1,), `heights` (n_bins,)."""
    left, top = frame.across(edges), frame.down(heights)
    base = float(frame.down(np.array(0.0)))
    path = f"M{left[0]:.1f} {base:.1f}"
    for i in range(len(heights)):
        path += f"V{top[i]:.1f}H{left[i + 1]:.1f}"
    return f'<path class="steps {escape(kind)}" d="{path}V{base:.1f}Z"/>'
