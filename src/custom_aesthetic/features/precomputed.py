"""Tables of precomputed features, in place of an extractor: opened, checked, and read a block of rows at a time."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.features.npy_parts import BLOCK_BYTES, NpzPart
from custom_aesthetic.features.table import FeatureBlock, FeatureTable
from custom_aesthetic.features.table_files import (
    NPZ,
    BadRows,
    below,
    clip_retrieval_files,
    extractor_name,
    find_table,
    is_clip_retrieval,
    parquet_files,
)
from custom_aesthetic.scores.csv_rows import PATH
from custom_aesthetic.scores.score_files import (
    ScoreTable,
    check_paths,
    find_score_file,
    make_table,
    name_some,
    read_scores,
    usual_score_file,
)
from custom_aesthetic.settings.arguments import as_text
from custom_aesthetic.settings.training import TABLE_PREFIX, FeatureSettings

log = logging.getLogger(__name__)

OF_THE_USER = ("split", "weight")
"""Columns that a table may have beside `score`."""

OF_AN_EXTRACTOR = (
    *("feature_extractor_model", "hidden_states_used", "hidden_states_mode", "weight_hidden_states"),
    *("fixed_hidden_state_weights", "views"),
)
"""Settings that say how features are computed; a table has its features already."""


class Part(Protocol):
    """Consecutive rows of a table, in one file."""

    n_rows: int
    n_features: int
    dtype: np.dtype

    def paths(self) -> list[str]: ...

    def column(self, name: str) -> list[Any] | None: ...

    def blocks(self) -> Iterator[NDArray[Any]]: ...


@dataclass(frozen=True)
class PrecomputedTable:
    """A table of features, opened: its paths are in memory, its features are not."""

    file: Path
    name: str
    """What a model file names as its extractor: `features:NAME`."""
    paths: tuple[str, ...]
    parts: tuple[Part, ...]
    """At least one, all with the same number of features."""

    @property
    def n_features(self) -> int:
        return self.parts[0].n_features

    @property
    def dtype(self) -> np.dtype:
        """Half precision where the whole table is in it, else single."""
        return np.dtype(np.float16 if all(part.dtype == np.float16 for part in self.parts) else np.float32)

    @cached_property
    def row_of(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self.paths)}

    def missing(self, paths: Sequence[str]) -> list[str]:
        """Return the paths that the table does not have; UserError where it has none of them."""
        missing = [path for path in paths if path not in self.row_of]
        if len(missing) == len(paths):
            raise UserError(
                f"table {self.file} has none of the {len(paths)} pictures, which are {name_some(missing, 3)}; its "
                f"paths are {name_some(self.paths, 3)}: make both relative to the same folder"
            )
        return missing

    def blocks(self, *, fp16: bool = False) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield the first row and the features, (n_rows, n_features), of some rows at a time, in order.

        They are in the table's precision, or with `fp16` in half precision. UserError for features that are not
        finite numbers, after the block before them.
        """
        for start, values in self._blocks(fp16):
            self._refuse(_not_finite(values) + start)
            yield start, values

    def load(self, paths: Sequence[str], *, fp16: bool = False) -> FeatureTable:
        """Return the features of these pictures, in this order; all must be in the table.

        They are read into their place: the memory needed beside them is one block. UserError for features that are
        not finite numbers.
        """
        place = np.full(len(self.paths), -1)
        place[[self.row_of[path] for path in paths]] = np.arange(len(paths))
        values = torch.empty(len(paths), self.n_features, dtype=torch.float16 if self._half(fp16) else torch.float32)
        n_left, bad = len(paths), []
        for start, block in self._blocks(fp16):
            places = place[start : start + len(block)]
            rows = np.flatnonzero(places >= 0)
            found = block if len(rows) == len(block) else block[rows]
            values.numpy()[places[rows]] = found
            bad += (rows[_not_finite(found)] + start).tolist()
            n_left -= len(rows)
            if not n_left:
                break
        self._refuse(bad)
        columns = FeatureBlock(self.name, 0, "centre", 0, self.n_features)
        return FeatureTable(tuple(paths), values, (columns,), {})

    def scores(self) -> ScoreTable | None:
        """Return the table's own scores, splits and weights, of the rows that have a score; None where it has none."""
        found = self.columns(("score", *OF_THE_USER))
        if "score" not in found:
            return None
        rows = [row for row, score in enumerate(found["score"]) if not _is_empty(score)]
        if not rows:
            return None
        kept = {name: [values[row] for row in rows] for name, values in found.items()}
        return make_table(f"table {self.file}", {PATH: [self.paths[row] for row in rows], **kept})

    def columns(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """Return those of these columns that every part of the table has; an empty text stands where a row has none."""
        found: dict[str, list[Any]] = {}
        for name in names:
            parts = [part.column(name) for part in self.parts]
            if all(part is not None for part in parts):
                found[name] = ["" if _is_empty(value) else value for part in parts for value in part or ()]
        return found

    def _half(self, fp16: bool) -> bool:
        return fp16 or self.dtype == np.float16

    def _blocks(self, fp16: bool) -> Iterator[tuple[int, NDArray[Any]]]:
        dtype = np.float16 if self._half(fp16) else np.float32
        first = 0
        for part in self.parts:
            start = first
            try:
                for values in part.blocks():
                    with np.errstate(over="ignore"):  # too large for half precision: infinite, which is refused
                        yield start, values.astype(dtype, copy=False)
                    start += len(values)
            except BadRows as error:
                named = name_some([self.paths[first + row] for row in error.rows])
                raise UserError(
                    f"table {self.file}: {len(error.rows)} rows {error.reason}: {named}; correct or remove them"
                ) from None
            first += part.n_rows

    def _refuse(self, bad: Sequence[int] | NDArray[np.int64]) -> None:
        """Raise UserError if there are any of these rows, whose features are not finite numbers."""
        if len(bad):
            named = name_some([self.paths[row] for row in bad])
            raise UserError(
                f"table {self.file} has features that are not finite, or too large for their precision, for {named}; "
                "correct or remove those rows"
            )


def open_table(directory: Path, settings: FeatureSettings) -> PrecomputedTable | None:
    """Return the table of `--features`, opened; None where none is asked for. UserError for what cannot be used."""
    if settings.features is None:
        return None
    return read_table(find_table(directory, settings.features), directory, settings.features_name)


def read_table(place: Path, directory: Path, name: str | None = None) -> PrecomputedTable:
    """Return the table in a file or folder; clip-retrieval's paths become relative to the image directory."""
    parts = [part for part in _parts(place) if part.n_rows]
    if not parts:
        raise UserError(f"table {place} has no rows; name another")
    widths = sorted({part.n_features for part in parts})
    if len(widths) > 1:
        raise UserError(f"table {place} has files of {' and '.join(map(str, widths))} features; keep them apart")
    paths = [path for part in parts for path in part.paths()]
    if place.is_dir() and is_clip_retrieval(place):
        paths = below(directory, paths, place)
    return PrecomputedTable(
        place, extractor_name(place, name), tuple(check_paths(f"table {place}", paths)), tuple(parts)
    )


def given_scores(directory: Path, name: str | None, table: PrecomputedTable | None) -> tuple[Path, ScoreTable]:
    """Return the scores that the user gave, and where: from the score file, else from the table's column `score`.

    `name` is the score file asked for; None for the usual ones. A column `split` or `weight` that the score file lacks
    comes from the table. UserError where neither has scores.
    """
    if table is None:
        file = find_score_file(directory, name)
        return file, read_scores(file)
    if name is None and usual_score_file(directory) is None:
        own = table.scores()
        if own is None:
            raise UserError(
                f"no scores: there is no score file in {directory}, and table {table.file} has no column score with "
                "numbers; name a score file by --scores"
            )
        log.info("the scores are those of the column score in %s", table.file)
        return table.file, own
    file = find_score_file(directory, name)
    return file, _completed(read_scores(file), table)


def _completed(scores: ScoreTable, table: PrecomputedTable) -> ScoreTable:
    """Return the scores with the table's columns that they lack."""
    lacking = [name for name in OF_THE_USER if name not in scores.columns]
    for column, values in table.columns(lacking).items():
        known = [values[table.row_of[path]] if path in table.row_of else "" for path in scores.paths]
        read = make_table(f"table {table.file}", {PATH: scores.paths, column: known})
        scores = scores.with_column(column, read.columns[column])
        log.info("%s is that of the column in %s", column, table.file)
    return scores


def without_extractor(settings: FeatureSettings) -> FeatureSettings:
    """Return the settings with those of an extractor at their defaults, as a table takes their place; name them."""
    plain = FeatureSettings()
    unused = {name: value for name in OF_AN_EXTRACTOR if (value := getattr(settings, name)) != getattr(plain, name)}
    if unused:
        named = " ".join(f"--{name}={as_text(value)}" for name, value in unused.items())
        log.info("not used, as --features gives the features: %s", named)
    return replace(settings, **{name: getattr(plain, name) for name in unused})


def blocks_of(values: torch.Tensor) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the first row and the numbers of some rows at a time, as `PrecomputedTable.blocks` does."""
    start = 0
    for rows in values.split(max(1, BLOCK_BYTES // (values.shape[1] * values.element_size()))):
        yield start, rows.numpy()
        start += len(rows)


def is_from_table(features: FeatureTable) -> bool:
    """Return whether features come from a table: then they are what a model takes, with nothing left to arrange."""
    return any(block.extractor.startswith(TABLE_PREFIX) for block in features.blocks)


def _parts(place: Path) -> list[Part]:
    if place.suffix.lower() == NPZ and not place.is_dir():
        return [NpzPart(place)]
    from custom_aesthetic.features.parquet_parts import ClipRetrievalPart, ParquetPart

    if not place.is_dir():
        return [ParquetPart(place)]
    if not is_clip_retrieval(place):
        return [ParquetPart(file) for file in parquet_files(place)]
    return [ClipRetrievalPart(features, metadata) for features, metadata in clip_retrieval_files(place)]


def _not_finite(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the rows, (n,), with a feature that is no finite number."""
    return np.flatnonzero(~np.isfinite(values).all(axis=1))


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))
