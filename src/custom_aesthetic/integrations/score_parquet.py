"""Write scores as a parquet file, for data frames and data sets."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from custom_aesthetic.base.files import written_aside
from custom_aesthetic.scores.csv_rows import PATH
from custom_aesthetic.scores.score_files import ScoreTable


def write_parquet(file: Path, table: ScoreTable) -> None:
    """Write `relative_path` and every column. Names that are not UTF-8 get `\\udcXX` for each odd byte, as in JSON."""
    columns = {PATH: table.paths, **table.columns}
    content = pa.table({name: pa.array([_plain(value) for value in values]) for name, values in columns.items()})
    with written_aside(file) as stream:
        pq.write_table(content, stream)


def _plain(value: object) -> object:
    return utf8(value) if isinstance(value, str) else value


def utf8(name: str) -> str:
    """Return a file name as text that UTF-8 can hold."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
