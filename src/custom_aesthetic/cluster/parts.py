"""Score the pictures of an item of work and write them as one parquet part, unless a whole one is there."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from custom_aesthetic.base.errors import ImageError, UserError
from custom_aesthetic.base.text import printable
from custom_aesthetic.cluster.items import INCOMPLETE, MISTAKE, NOTE, Item
from custom_aesthetic.cluster.places import FilePlace, file_info, open_to_read, write_once
from custom_aesthetic.cluster.samples import Sample, ahead, samples_of
from custom_aesthetic.heads.scorer import Prepared, Scorer
from custom_aesthetic.integrations.score_parquet import utf8

N_ERRORS = b"n_errors"
"""The key in a part's metadata for the number of pictures that could not be scored.

A part without it is made again by the next run, which may be able to read what this one could not.
"""

ROWS_IN_GROUP = 1024

FEW = 10
"""Up to so many pictures may all be out of reach; a larger part of such pictures stops the run."""


class Outcome(NamedTuple):
    """What became of an item."""

    part: str = ""
    """The name of its part; empty if it has none."""
    n_pictures: int = 0
    n_errors: int = 0
    is_new: bool = False
    """Whether the part was written now."""
    notes: tuple[str, ...] = ()
    is_all_listed: bool = True
    """False where some folders could not be listed."""
    mistake: str | None = None
    """What the user can correct; the run ends."""


class Row(NamedTuple):
    """A row of a part."""

    name: str
    score: float | None = None
    sigma: float | None = None
    domain_distance: float | None = None
    error: str | None = None
    features: "np.ndarray[Any, Any] | None" = None


class Counts:
    """What a part holds."""

    def __init__(self) -> None:
        self.pictures = self.errors = self.unread = self.again = 0


class PartScorer:
    """Makes parts of items, one at a time."""

    def __init__(
        self,
        scorer: Scorer,
        source: FilePlace,
        target: FilePlace,
        *,
        n_threads: int,
        batch_size: int,
        with_features: bool,
    ) -> None:
        """`source` is the folder that the names of items are below, `target` that of the parts.

        Pictures are decoded by `n_threads` and go through the model `batch_size` at a time.
        """
        self._scorer, self._source, self._target = scorer, source, target
        self._n_threads, self._batch_size, self._with_features = n_threads, batch_size, with_features

    def make(self, item: Item) -> Outcome:
        """Return what became of the item; its part is there if the outcome names one."""
        if item.kind == MISTAKE:
            return Outcome(mistake=item.names[0])
        if item.kind in (NOTE, INCOMPLETE):
            return Outcome(notes=item.names, is_all_listed=item.kind == NOTE)
        try:
            return read_outcome(self._target, item.part) or self._make(item)
        except (UserError, OSError) as error:
            return Outcome(mistake=printable(" ".join(str(error).split())))

    def _make(self, item: Item) -> Outcome:
        counts = Counts()
        schema = part_schema(item.column, with_features=self._with_features)

        def write(stream: BinaryIO) -> None:
            with pq.ParquetWriter(stream, schema) as writer:
                for rows in in_groups(self._rows(item, counts), ROWS_IN_GROUP):
                    columns = [list(values) for values in zip(*rows, strict=True)][: len(schema)]
                    arrays = [pa.array(values, kind) for values, kind in zip(columns, schema.types, strict=True)]
                    writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
                if not counts.again:
                    writer.add_key_value_metadata({N_ERRORS.decode(): str(counts.errors)})
            if counts.unread == counts.pictures > FEW:
                raise UserError(
                    f"none of the {counts.pictures} pictures from {item.names[0]} on could be read, so the run stops; "
                    "check that every machine can read -d, and start it again"
                )

        write_once(self._target.below(item.part), write)
        return Outcome(item.part, counts.pictures, counts.errors, True)

    def _rows(self, item: Item, counts: Counts) -> Iterator[Row]:
        read = samples_of(item, self._source, self._n_threads)
        with ThreadPoolExecutor(self._n_threads, "decode") as decoders, closing(read):
            prepared = ahead(decoders, self._prepare, read, self._n_threads + self._batch_size)
            for batch in in_groups(prepared, self._batch_size):
                counts.pictures += len(batch)
                counts.unread += sum(sample.content is None for sample, _, _ in batch)
                counts.again += sum(sample.again for sample, _, _ in batch)
                for row in self._rate(batch):
                    counts.errors += row.error is not None
                    yield row

    def _prepare(self, sample: Sample) -> tuple[Sample, Prepared | None, str | None]:
        """Return the picture as the model takes it, or the reason why it cannot be used."""
        if sample.content is None:
            return sample, None, sample.reason
        bare = sample._replace(content=b"")  # its bytes are needed no longer
        try:
            return bare, self._scorer.prepare(sample.content, sample.name), None
        except ImageError as error:
            return bare, None, error.reason
        except UserError:  # of the extractor, which is opened for the first picture
            raise
        except MemoryError:
            return bare, None, "not enough memory to decode it"
        except Exception as error:  # an extractor's transform may raise anything on an unusual picture
            return bare, None, f"cannot be prepared for the model ({type(error).__name__}: {error})"

    def _rate(self, batch: Sequence[tuple[Sample, Prepared | None, str | None]]) -> Iterator[Row]:
        """Yield the rows of some pictures, which go through the model together."""
        good = [prepared for _, prepared, _ in batch if prepared is not None]
        features = self._scorer.features_prepared(good) if good else np.empty((0, 0), np.float32)
        ratings = self._scorer.rate_features(features) if good else None
        number = 0
        for sample, prepared, reason in batch:
            if prepared is None or ratings is None:
                yield Row(utf8(sample.name), error=reason)
                continue
            score, sigma, distance = (None if part is None else float(part[number]) for part in ratings)
            kept = features[number] if self._with_features else None
            number += 1
            if score is None or not math.isfinite(score):
                yield Row(utf8(sample.name), error="its score is not a finite number", features=kept)
            else:
                yield Row(utf8(sample.name), score, sigma, distance, features=kept)


def in_groups(values: Iterable[Any], n_values: int) -> Iterator[list[Any]]:
    """Yield the values as lists of `n_values`; the last may be shorter."""
    values = iter(values)
    while group := list(itertools.islice(values, n_values)):
        yield group


def part_schema(column: str, *, with_features: bool) -> "pa.Schema":
    """Return the columns of a part; `column` is that of the names."""
    numbers = [(name, pa.float64()) for name in ("score", "sigma", "domain_distance")]
    features = [("features", pa.list_(pa.float32()))] if with_features else []
    return pa.schema([(column, pa.string()), *numbers, ("error", pa.string()), *features])


def read_outcome(folder: FilePlace, part: str) -> Outcome | None:
    """Return what an earlier run wrote of an item; None if its part is missing, not whole or to be made again."""
    place = folder.below(part)
    if file_info(place) is None:
        return None
    with open_to_read(place, anywhere=True) as stream:
        try:
            metadata = pq.read_metadata(stream)
        except (pa.ArrowException, OSError):
            return None
    n_errors = (metadata.metadata or {}).get(N_ERRORS)
    return None if n_errors is None else Outcome(part, metadata.num_rows, int(n_errors))
