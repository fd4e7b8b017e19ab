"""Charts: round ticks, points in their places, one image for many points."""

import base64
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from custom_aesthetic.report.svg import MOST_POINTS, Frame, chart, padded_range, points, ticks


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6))
def test_ticks_are_a_few_evenly_spaced_numbers_within_the_range(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in found)
    np.testing.assert_allclose(np.diff(found), found[1] - found[0], rtol=1e-6)


def test_ticks_are_round() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    np.testing.assert_allclose(ticks(-0.13, 0.47), [0, 0.2, 0.4], atol=1e-12)


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0], [np.nan]])
def test_a_range_is_never_empty(values: list[float]) -> None:
    low, high = padded_range(np.array(values))
    assert low < high


def test_every_point_has_a_title_that_cannot_break_the_page() -> None:
    frame = Frame((0, 1), (0, 1), "x", "y")
    svg = points(frame, np.array([0.0, 1.0]), np.array([0.0, 1.0]), "eval", ["<b>", "b&c"])
    places = [tuple(map(float, found)) for found in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)]
    assert places[0][0] < places[1][0]
    assert places[0][1] > places[1][1]
    assert "<title>&lt;b&gt;</title>" in svg
    assert "b&amp;c" in svg


def test_many_points_become_one_image_with_each_point_in_its_place() -> None:
    frame = Frame((0, 1), (0, 1), "x", "y")
    n_points = MOST_POINTS + 1
    corner = np.full(n_points, 0.01)
    svg = points(frame, corner, 1 - corner, "train", [""] * n_points)
    assert len(svg) < 20_000
    content = re.search(r"base64,([^\"]+)", svg)
    assert content is not None
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content[1]))))
    rows, columns = np.nonzero(pixels[..., 3])
    assert rows.max() < 0.05 * pixels.shape[0]
    assert columns.max() < 0.05 * pixels.shape[1]


def test_a_chart_says_what_it_shows() -> None:
    assert 'role="img" aria-label="a &lt; b"' in chart(Frame((0, 1), (0, 1), "x", "y"), [], "a < b")
