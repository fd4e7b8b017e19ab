"""Settings of the two scripts round the training: the A/B scorer and the scorer of folders."""

from dataclasses import dataclass

from src.settings import REQUIRED, DeviceSettings, setting

STRATEGIES = ("adaptive", "random")


@dataclass(frozen=True)
class ComparisonSettings:
    """Pictures and scores"""

    directory: str = setting(REQUIRED, "top-level image directory; sub-directories are included", short="-d")
    scores: str | None = setting(
        None,
        "score file to write, relative to the directory or absolute, as JSON and as CSV; an earlier one is the "
        "starting point and kept as a backup; if not given, the first found of scores.json, score.json, scores.csv, "
        "or else scores.json",
    )
    number_to_compare: int = setting(2, "pictures shown together", low=2, high=4)
    strategy: str = setting(
        "adaptive", "how the next pictures are chosen: those whose answer tells most, or evenly", choices=STRATEGIES
    )
    from_xmp: bool = setting(
        False, "start from the stars (0...5) that photo programs keep in XMP, in the picture or beside it"
    )
    merge: tuple[str, ...] = setting((), "bring in the choices of another comparisons.csv first; may be repeated")
    recompute: bool = setting(False, "compute the scores from comparisons.csv, write them and stop; no page")


@dataclass(frozen=True)
class PriorSettings:
    """A first guess for pictures not yet compared"""

    model: str | None = setting(
        None,
        "a trained model whose scores and features are the first guess, relative to the directory or a path",
        short="-m",
    )
    feature_extractor_model: str | None = setting(
        None, "features that carry scores from picture to picture; efficientnet-lite0 needs no download"
    )


@dataclass(frozen=True)
class PageSettings:
    """Page"""

    port: int = setting(8111, "port of the page on 127.0.0.1; 0 takes a free one", low=0, high=65535)
    no_browser: bool = setting(False, "do not open a browser")


@dataclass(frozen=True)
class ABArguments:
    """Everything `aesthetic_ab_scorer.py` is told."""

    images: ComparisonSettings
    prior: PriorSettings
    page: PageSettings
    device: DeviceSettings
