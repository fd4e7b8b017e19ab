"""Write a contact sheet: one self-contained HTML file with the pictures, best first."""

import html
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.base.text import json_bytes
from custom_aesthetic.pictures.thumbnails import thumbnail_uri

SIZE = 224
N_THREADS = 4

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title><style>
:root {{ --ground: #f3f2ef; --ink: #22211f; --faint: #6a6863; --flag: #8a3412; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ground: #171716; --ink: #ecebe7; --faint: #a3a19a; --flag: #f0a37f; }}
}}
body {{ background: var(--ground); color: var(--ink); font: 14px/1.35 system-ui, sans-serif; margin: 1.2rem; }}
h1 {{ font-size: 1.2rem; }} p {{ color: var(--faint); max-width: 46rem; }}
ol {{ display: grid; gap: 1rem .8rem; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); }}
ol {{ list-style: none; margin: 0; padding: 0; }}
li {{ content-visibility: auto; contain-intrinsic-size: 10rem 13rem; min-width: 0; }}
img {{ aspect-ratio: 1; display: block; object-fit: contain; width: 100%; }}
b {{ font-variant-numeric: tabular-nums; }}
small {{ color: var(--faint); display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }}
.flag {{ color: var(--flag); }}
</style></head><body><h1>{title}</h1><p>{note}</p><ol>
"""


def write_sheet(
    file: Path, directory: Path, rows: Sequence[tuple[str, float, bool]], *, title: str, note: str = ""
) -> list[str]:
    """Write the sheet of rows (path, score, out of domain), in their order; return the paths that cannot be read."""
    parts, missing = [_HEAD.format(title=html.escape(title), note=html.escape(note))], []
    for rank, ((path, score, flagged), uri) in enumerate(zip(rows, _thumbnails(directory, rows), strict=True), start=1):
        if uri is None:
            missing.append(path)
            continue
        parts.append(_item(rank, path, score, flagged, uri))
    write_atomically(file, json_bytes("".join([*parts, "</ol></body></html>\n"])))
    return missing


def _item(rank: int, path: str, score: float, flagged: bool, uri: str) -> str:
    name = html.escape(path, quote=True)
    flag = (
        ' <span class="flag" title="far from everything the model was trained on">unfamiliar</span>' if flagged else ""
    )
    return (
        f'<li><img src="{uri}" alt="" loading="lazy" title="{name}">'
        f"<b>{score:.3f}</b> <span>#{rank}</span>{flag}<small>{name}</small></li>\n"
    )


def _thumbnails(directory: Path, rows: Sequence[tuple[str, float, bool]]) -> Iterator[str | None]:
    with ThreadPoolExecutor(N_THREADS) as pool:
        yield from pool.map(lambda row: thumbnail_uri(directory / row[0], SIZE), rows)
