"""The exact format of the statistics line."""

import re

import numpy as np
import pytest
from scipy import stats

from custom_aesthetic.quality.statistics_line import statistics, statistics_line

FORM = re.compile(
    r"^(?P<name>.+) : +(?P<n>\d+) images, db score +\S+ \+/- +\S+, model score +\S+ \+/- +\S+, "
    r"spearman +\S+ \(p= *\S+\), pearson +\S+ \(p= *\S+\), AB +\S+%$"
)


def test_the_line_has_the_format_that_scripts_parse() -> None:
    scores = np.array([1.0, 2.0, 3.0, 5.0])
    line = statistics_line("All", scores, np.array([0.1, 0.4, 0.2, 0.9]))
    assert line == (
        "All :     4 images, db score  2.750 +/- 1.71, model score  0.400 +/- 0.36, "
        "spearman 0.8000 (p= 2.0e-01), pearson 0.8775 (p= 1.2e-01), AB  83.33%"
    )


def test_the_numbers_equal_those_of_numpy_and_scipy() -> None:
    generator = np.random.default_rng(0)
    scores, models = generator.normal(size=(2, 60)).round(1)
    found = statistics(scores, models)
    assert found is not None
    assert found.score_deviation == np.std(scores, ddof=1)
    assert found.model_mean == models.mean()
    assert found.spearman.p_value == stats.spearmanr(scores, models).pvalue


def test_a_p_value_that_underflows_is_shown_as_zero() -> None:
    scores = np.linspace(0, 1, 3000)
    assert "(p= 0.0e+00)" in statistics_line("All", scores, scores**2)


@pytest.mark.parametrize("n_images", [0, 1])
def test_fewer_than_two_images_are_too_few(n_images: int) -> None:
    line = statistics_line("animal", np.ones(n_images), np.ones(n_images))
    assert line == f"animal :     {n_images} images, too few for statistics"


def test_undefined_values_keep_the_format_without_nan() -> None:
    for scores, models in (([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]), ([1.0, 2.0], [1.0, 3.0])):
        line = statistics_line("All", np.array(scores), np.array(models))
        assert FORM.match(line)
        assert "(p= undefined)" in line
        assert "nan" not in line


def test_equal_scores_are_reported_in_words() -> None:
    line = statistics_line("All", np.ones(3), np.arange(3.0))
    assert line == "All :     3 images, all have the score 1.000: no statistics"
