"""The report: one page that needs no network, whatever the scores are."""

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import optuna
import pytest
from PIL import Image
from scipy import stats

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.quality.confidence import OUT_OF_FOLD_SPREAD
from custom_aesthetic.report.page import ReportData, pearson_interval, report_page, write_report

SIX = ("cold/00.png", "cold/02.png", "cold/04.png", "warm/01.png", "warm/03.png", "gone.png")


class Page(HTMLParser):
    """Collects the elements of a page, by tag, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def six_pictures(folder: Path, **changes: object) -> ReportData:
    fields: dict[str, object] = {
        "directory": folder,
        "paths": SIX,
        "scores": np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        "model_scores": np.array([1.5, 1.0, 3.5, 4.5, 4.0, 9.0]),
        "kinds": ("learnt_from", "learnt_from", "learnt_from", "eval", "eval", "eval"),
    }
    return ReportData(**(fields | changes))  # type: ignore[arg-type]


def small_study(n_trials: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="<colours>", sampler=optuna.samplers.RandomSampler(0))

    def objective(trial: optuna.Trial) -> float:
        return trial.suggest_float("log_lr", -4, -2) ** 2 + trial.suggest_int("train_epochs", 1, 9)

    study.optimize(objective, n_trials=n_trials)
    return study


def test_the_page_needs_no_network_and_all_images_have_a_text(colour_pictures: Path) -> None:
    text = report_page(six_pictures(colour_pictures, sigmas=np.ones(6)), study=small_study(6))
    page = Page(text)
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert links
    assert all(str(link).startswith(("data:", "#")) for link in links)
    assert "@import" not in text
    assert not page.all("script")
    assert all(picture["alt"] for picture in page.all("img"))
    charts = [svg for svg in page.all("svg")]
    assert len(charts) == 6 + 4
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in charts)
    assert page.all("meta")[1]["content"] == "width=device-width, initial-scale=1"
    assert "prefers-color-scheme: dark" in text


def test_each_strip_shows_its_pictures_in_order_with_both_scores(colour_pictures: Path) -> None:
    text = report_page(six_pictures(colour_pictures))
    strips = dict(re.findall(r"<h2>(Best|Worst|Most [a-z-]+)</h2>.*?(<ul.*?</ul>)", text, re.DOTALL))
    names = {title: re.findall(r'title="([^"]+)"', strip) for title, strip in strips.items()}
    assert names["Best"] == ["gone.png", "warm/01.png", "warm/03.png", "cold/04.png", "cold/00.png", "cold/02.png"]
    assert names["Worst"] == names["Best"][::-1]
    assert names["Most over-rated"] == ["gone.png", "warm/01.png"], "of those not learnt from"
    assert names["Most under-rated"] == ["warm/03.png"]
    assert 'alt="warm/03.png, your score 5.00, model score 4.00"' in strips["Most under-rated"]
    assert "gone.png cannot be opened" in strips["Best"]


def test_the_table_holds_the_statistics_of_each_split_and_group(colour_pictures: Path) -> None:
    text = report_page(six_pictures(colour_pictures, groups={"<cold>": [0, 1, 2]}, include_learnt=True))
    table = text[text.index("<table>") : text.index("</table>")]
    assert re.findall(r'<th scope="col">(.*?)</th>', table) == ["All", "Evaluation", "Learnt from", "&lt;cold&gt;"]
    shares = re.search(r'<th scope="row">AB</th>(.*?)</tr>', table)
    assert shares is not None
    assert re.findall(r"<td>([\d.]+) %", shares[1]) == ["86.7", "66.7", "66.7", "66.7"]


def test_no_figure_includes_pictures_that_the_model_has_learnt_from(colour_pictures: Path) -> None:
    flattered = np.array([1.0, 2.0, 3.0, 4.5, 4.0, 9.0])
    text = report_page(six_pictures(colour_pictures, model_scores=flattered, groups={"cold": [0, 1, 2]}))
    page = Page(text)
    table = text[text.index("<table>") : text.index("</table>")]
    assert re.findall(r'<th scope="col">(.*?)</th>', table) == ["Evaluation", "cold"]
    assert re.findall(r"<td>([\d.]+)", table)[:2] == ["3", "0"]
    assert "67 times in 100" in page.text
    assert "3 further pictures are learnt from" in page.text
    assert "evaluation pictures, by how far apart" in page.text
    every = Page(report_page(six_pictures(colour_pictures, kinds=("learnt_from",) * 6)))
    assert "It is unknown how good the model is" in every.text
    assert "times in 100" not in every.text
    assert not every.all("table")
    assert "Most over-rated" not in every.text


def test_sigmas_of_pictures_that_the_model_has_learnt_from_are_not_judged(colour_pictures: Path) -> None:
    kinds = ("out_of_fold",) * 6
    unknown = report_page(six_pictures(colour_pictures, kinds=kinds, sigmas=np.full(6, np.nan)))
    assert "Calibration" not in unknown
    assert "Calibration" in report_page(six_pictures(colour_pictures, kinds=kinds, sigmas=np.ones(6)))
    assert "Calibration" in report_page(six_pictures(colour_pictures, sigmas=np.ones(6)))


def test_out_of_fold_scores_are_labelled(colour_pictures: Path) -> None:
    page = Page(report_page(six_pictures(colour_pictures, kinds=("out_of_fold",) * 5 + ("test",))))
    assert "judged on 6 pictures" in page.text
    assert "1 pictures that the model has not learnt from and 5 training pictures" in page.text
    assert [svg["class"] for svg in page.all("g") if "points" in str(svg["class"])][:2] == [
        "points out_of_fold",
        "points test",
    ]


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([math.nan] * 6, "none of them has a score"),
        ([2.0] * 6, "Too few different scores"),
        ([1.0] + [math.nan] * 5, "learnt from every picture that has a score"),
        ([math.nan] * 5 + [1.0], "Too few different scores"),
        ([math.nan] * 4 + [1.0, 2.0], "0 times in 100"),
    ],
)
def test_constant_scores_give_a_page(colour_pictures: Path, scores: list[float], words: str) -> None:
    page = Page(report_page(six_pictures(colour_pictures, scores=np.array(scores), sigmas=np.ones(6))))
    assert words in page.text
    assert "nan" not in page.text
    assert page.all("img")


def test_intervals_of_the_table_are_wider_where_scores_are_out_of_fold(colour_pictures: Path) -> None:
    scores, noise = np.random.default_rng(0).normal(size=(2, 60))
    paths = [f"{number}.png" for number in range(60)]

    def spreads(kind: str) -> list[float]:
        text = report_page(ReportData(colour_pictures, paths, scores, scores + noise, (kind,) * 60))
        bounds = re.findall(r"<small>(-?[\d.]+) … (-?[\d.]+)( %)?</small>", text)
        ends = [
            [float(end) / 50 - 1 if percent else float(end) for end in (low, high)] for low, high, percent in bounds
        ]
        return [math.atanh(high) - math.atanh(low) for low, high in ends]

    expected = [OUT_OF_FOLD_SPREAD * spread for spread in spreads("test")]
    assert len(expected) == 3, "AB, Spearman and Pearson"
    assert spreads("out_of_fold") == pytest.approx(expected, rel=0.05)  # they are rounded on the page


def test_the_interval_of_pearson_is_scipys() -> None:
    scores, noise = np.random.default_rng(0).normal(size=(2, 30))
    found, expected = pearson_interval(scores, scores + noise), stats.pearsonr(scores, scores + noise)
    assert found.value == pytest.approx(expected.statistic)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()), abs=1e-4)


def test_a_picture_s_name_cannot_break_the_page(tmp_path: Path) -> None:
    path = 'a"><script>b&c.png'
    Image.new("RGB", (8, 8)).save(tmp_path / path)
    one = ReportData(tmp_path, (path, path), np.array([1.0, 2.0]), np.array([2.0, 1.0]), ("eval", "eval"))
    page = Page(report_page(one))
    assert not page.all("script")
    assert page.all("img")[0]["alt"] == f"{path}, your score 1.00, model score 2.00"


def test_one_picture_gives_a_page(colour_pictures: Path) -> None:
    one = ReportData(colour_pictures, SIX[:1], np.array([1.0]), np.array([2.0]), ("eval",))
    assert "cold/00.png" in report_page(one)


def test_a_hundred_thousand_rows_make_a_page_of_a_megabyte(tmp_path: Path) -> None:
    scores, noise = np.random.default_rng(0).normal(size=(2, 100_000))
    kinds = ["eval", "learnt_from", "learnt_from", "learnt_from"] * 25_000
    text = report_page(ReportData(tmp_path, [f"{i}.png" for i in range(100_000)], scores, scores + noise, kinds))
    assert len(text) < 2_000_000
    assert text.count("<circle") < 1000


@pytest.mark.parametrize(("n_trials", "n_plots"), [(0, 0), (1, 0), (5, 4)])
def test_an_unfinished_study_is_plotted(colour_pictures: Path, n_trials: int, n_plots: int) -> None:
    page = Page(report_page(six_pictures(colour_pictures), study=small_study(n_trials)))
    assert len(page.all("svg")) == 4 + n_plots
    assert "The study <colours> has" in page.text


def test_a_page_that_cannot_be_written_is_a_user_error(colour_pictures: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        write_report(colour_pictures / "cold" / "00.png" / "report.html", six_pictures(colour_pictures))
