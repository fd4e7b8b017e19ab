"""What people said of their pictures in photo programs, from XMP: stars, pick flags, colour labels.

Where each comes from:

- Stars: `xmp:Rating`. 0 means unrated. Stars that `--write_xmp` wrote are the model's and are left out.
- Rejected: `xmp:Rating` -1 (Bridge, darktable), digiKam's pick label 1, `xmpDM:good` False or `xmpDM:pick` -1. Picked:
  digiKam's pick label 3, `xmpDM:good` True or `xmpDM:pick` 1. Lightroom writes `xmpDM:good` since about 2024; flags of
  older versions are in its catalogue only, and cannot be read here.
- Colour labels: `photoshop:LabelColor`, which newer Lightrooms write and which is English in every language, digiKam's
  colour label, which is a number, or else the text of `xmp:Label`, which is in the user's language or words.

A level between 0 and 5 combines them. Rejected is 0, whatever the stars; stars are their number; picked without stars
is 4 and pending (digiKam) 2. A colour label has no meaning of its own: red is the best in one person's scheme and the
worst in another's. It gets the mean level of the pictures that have both the label and a level, if there are at least
LEAST_FOR_A_LABEL of them, and so the language of a label does not matter. Otherwise it says nothing.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from statistics import fmean

from custom_aesthetic.pictures.xmp import is_ours, packets_of, rating_in

LEAST_FOR_A_LABEL = 5
REJECTED, PENDING, PICKED = "rejected", "pending", "picked"

_LEVELS = {REJECTED: 0.0, PENDING: 2.0, PICKED: 4.0}
_FLAGS = {
    b"digiKam:PickLabel": {"1": REJECTED, "2": PENDING, "3": PICKED},
    b"xmpDM:pick": {"-1": REJECTED, "1": PICKED},
    b"xmpDM:good": {"false": REJECTED, "true": PICKED},
}
"""Property -> its values in lower case; the first that has one of them counts."""

_COLOURS = ("", "red", "orange", "yellow", "green", "blue", "magenta", "gray", "black", "white")
"""digiKam's colour labels, by number."""
_LONGEST_LABEL = 60


@dataclass(frozen=True)
class Judgement:
    """What is known of one picture."""

    stars: int | None = None
    """1 ... 5, by the user."""
    flag: str | None = None
    """REJECTED, PENDING or PICKED."""
    label: str | None = None
    """A colour in English or a text, in lower case."""
    has_our_stars: bool = False
    """Whether it has stars that are left out because a model gave them."""

    def level(self) -> float | None:
        """Return the level by flag and stars, 0 ... 5; None if there is neither."""
        if self.flag == REJECTED or self.stars is None:
            return None if self.flag is None else _LEVELS[self.flag]
        return float(self.stars)


@dataclass(frozen=True)
class Levels:
    """The levels of some pictures, and how they came about."""

    values: list[float | None]
    label_levels: dict[str, float]
    """Colour label -> its level, for the labels that say something."""
    silent_labels: dict[str, int]
    """Colour label -> number of pictures, for those that say nothing."""


def read_judgement(picture: Path) -> Judgement:
    """Return what XMP says of a picture, in its sidecars and inside it; UserError if a sidecar cannot be read.

    Of each property the first counts, in the order of `packets_of`.
    """
    packets = list(packets_of(picture))
    rated = next((packet for packet in packets if rating_in(packet) is not None), b"")
    rating, ours = rating_in(rated), is_ours(rated)
    flag = REJECTED if rating == -1 else _flag_in(packets)
    stars = rating if rating is not None and rating > 0 and not ours else None
    return Judgement(stars, flag, _label_in(packets), has_our_stars=ours and bool(rating))


def levels_of(judgements: Sequence[Judgement]) -> Levels:
    """Return a level for each picture, None where nothing is known."""
    own = [one.level() for one in judgements]
    by_label: defaultdict[str, list[float]] = defaultdict(list)
    for one, level in zip(judgements, own, strict=True):
        if one.label is not None and level is not None:
            by_label[one.label].append(level)
    meant = {label: fmean(found) for label, found in by_label.items() if len(found) >= LEAST_FOR_A_LABEL}
    values = [
        meant.get(one.label or "") if level is None else level for one, level in zip(judgements, own, strict=True)
    ]
    silent = Counter(one.label for one in judgements if one.label is not None and one.label not in meant)
    return Levels(values, meant, {str(label): n for label, n in silent.most_common()})


def _flag_in(packets: Sequence[bytes]) -> str | None:
    for name, meanings in _FLAGS.items():
        flag = meanings.get(_value_in(packets, name).lower())
        if flag is not None:
            return flag
    return None


def _label_in(packets: Sequence[bytes]) -> str | None:
    number = _value_in(packets, b"digiKam:ColorLabel")
    by_digikam = _COLOURS[int(number)] if re.fullmatch("[0-9]", number) else ""
    label = _value_in(packets, b"photoshop:LabelColor") or by_digikam or _value_in(packets, b"xmp:Label")
    return label[:_LONGEST_LABEL].casefold() or None


def _value_in(packets: Sequence[bytes], name: bytes) -> str:
    """Return the value of a simple property, an attribute or an element, in the first packet that has it; else ''."""
    # Values are bounded, so that a hostile file of openings without ends is not searched to its end from each of them.
    pattern = re.compile(rb"""\b%s(?:\s*=\s*(?:"([^"<]{0,200})"|'([^'<]{0,200})')|\s*>([^<]{0,200})<)""" % name)
    for packet in packets:
        found = pattern.search(packet)
        if found is not None:
            return unescape(
                next(part for part in found.groups() if part is not None).decode("utf-8", "replace")
            ).strip()
    return ""
