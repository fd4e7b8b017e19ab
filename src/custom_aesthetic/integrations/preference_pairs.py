"""Write the choices of a log as preference pairs in parquet, with the columns of Pick-a-Pic, for DPO and reward models.

Columns: `jpg_0` and `jpg_1` (bytes of JPEG files), `label_0` and `label_1` (1 for the preferred picture, 0 for the
other, 0.5 each for a tie), `relative_path_0` and `relative_path_1`, and `time` (UTC, as in the log). A choice among N
pictures is N - 1 pairs of one time. The two pictures of a pair are in the order of their paths, so that their order
says nothing of the choice.

Pick-a-Pic holds JPEG files only, and its readers ignore the EXIF orientation. So a JPEG file goes in byte for byte,
with its metadata, if it is upright and RGB or grey; every other picture is turned upright and encoded as JPEG.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from PIL.ExifTags import Base

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import written_aside
from custom_aesthetic.integrations.score_parquet import utf8
from custom_aesthetic.pictures.images import BadImage, open_image
from custom_aesthetic.scores.choice_log import Comparison

ROW_GROUP_BYTES = 64 * 2**20
"""Pictures are written as soon as they take this much memory."""

JPEG_QUALITY = 95
N_ENCODED = 16
"""Pictures that are kept encoded, as a log asks for the same pictures again."""

SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.binary(), nullable=False) for name in ("jpg_0", "jpg_1")),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("label_0", "label_1")),
        *(pa.field(name, pa.string(), nullable=False) for name in ("relative_path_0", "relative_path_1", "time")),
    ]
)
_SMALL = [name for name in SCHEMA.names if not name.startswith("jpg")]
"""Columns that are worth compressing and describing in the file; JPEG files are not."""


class Preference(NamedTuple):
    """A pair of pictures, in the order of their paths."""

    paths: tuple[str, str]
    label_0: float
    """1 if the first is preferred, 0 if the second is, 0.5 if neither is."""
    time: str


@dataclass
class PairsWritten:
    """What `write_pairs` did."""

    n_pairs: int = 0
    n_left_out: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    """Path -> reason, for the pictures whose pairs are left out."""


def preferences(rows: Iterable[Comparison]) -> list[Preference]:
    """Return the pairs of the rows of a log, in order of time; rows of one time in both directions are a tie."""
    labels: dict[tuple[str, tuple[str, str]], set[float]] = {}
    for row in rows:
        if row.kind not in ("choice", "tie"):
            continue
        is_in_order = row.winner < row.loser
        paths = (row.winner, row.loser) if is_in_order else (row.loser, row.winner)
        labels.setdefault((row.time, paths), set()).add(0.5 if row.kind == "tie" else float(is_in_order))
    return [Preference(paths, sum(found) / len(found), time) for (time, paths), found in sorted(labels.items())]


def write_pairs(file: Path, directory: Path, known: Set[str], pairs: Sequence[Preference]) -> PairsWritten:
    """Write the pairs whose pictures are `known` and can be read; a row group is in memory at a time.

    `known` are the relative paths of the pictures below the directory. Raises UserError, and leaves an older file as it
    is, if no pair can be written.
    """
    outcome, pictures = PairsWritten(), _Pictures(directory, known)
    with written_aside(file) as stream:
        compression = {name: "snappy" if name in _SMALL else "none" for name in SCHEMA.names}
        writer = pq.ParquetWriter(
            stream, SCHEMA, compression=compression, use_dictionary=_SMALL, write_statistics=_SMALL
        )
        with writer:
            for group in _row_groups(pairs, pictures, outcome):
                writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA), row_group_size=len(group))
        outcome.missing = pictures.missing
        if not outcome.n_pairs:
            first, reason = next(iter(pictures.missing.items()))
            raise UserError(f"no pair can be written: {len(pictures.missing)} pictures are missing, {first}: {reason}")
    return outcome


def _row_groups(
    pairs: Sequence[Preference], pictures: "_Pictures", outcome: PairsWritten
) -> Iterator[list[dict[str, object]]]:
    group: list[dict[str, object]] = []
    n_bytes = 0
    for pair in pairs:
        found = [pictures.jpeg(path) for path in pair.paths]
        if found[0] is None or found[1] is None:
            outcome.n_left_out += 1
            continue
        group.append(_row(pair, found[0], found[1]))
        outcome.n_pairs += 1
        n_bytes += len(found[0]) + len(found[1])
        if n_bytes >= ROW_GROUP_BYTES:
            yield group
            group, n_bytes = [], 0
    if group:
        yield group


def _row(pair: Preference, first: bytes, second: bytes) -> dict[str, object]:
    values = (first, second, pair.label_0, 1 - pair.label_0, *map(utf8, pair.paths), pair.time)
    return dict(zip(SCHEMA.names, values, strict=True))


class _Pictures:
    """The pictures of a directory as JPEG files."""

    def __init__(self, directory: Path, known: Set[str]) -> None:
        self._directory = directory
        self._known = known
        self._plain: set[str] = set()
        self._encoded = lru_cache(N_ENCODED)(self._encode)
        self.missing: dict[str, str] = {}
        """Path -> reason, for the pictures that were asked for and cannot be used."""

    def jpeg(self, path: str) -> bytes | None:
        """Return the JPEG file of a picture; None, and a reason in `missing`, if there is none."""
        if path in self.missing:
            return None
        try:
            if path not in self._known:
                raise BadImage(path, "not in the directory any more")
            return (self._directory / path).read_bytes() if path in self._plain else self._checked(path)
        except BadImage as error:
            self.missing[path] = error.reason
        except OSError as error:
            self.missing[path] = f"cannot be read ({error.strerror})"
        return None

    def _checked(self, path: str) -> bytes:
        """Return the JPEG file of a picture that is decoded for the first time, or that has to be encoded."""
        file = self._directory / path
        if _is_plain_jpeg(file):
            open_image(file)
            self._plain.add(path)
            return file.read_bytes()
        return self._encoded(path)

    def _encode(self, path: str) -> bytes:
        buffer = BytesIO()
        open_image(self._directory / path).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return buffer.getvalue()


def _is_plain_jpeg(file: Path) -> bool:
    """Return whether a file is an upright JPEG in RGB or grey; False if it cannot be read."""
    try:
        with Image.open(file, formats=("JPEG", "MPO")) as image:
            return image.mode in ("RGB", "L") and image.getexif().get(Base.Orientation, 1) == 1
    except Exception:  # what a decoder raises depends on the format and the damage
        return False
