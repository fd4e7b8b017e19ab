"""Write a contact sheet: one self-contained HTML file with the pictures in order, near-duplicates side by side."""

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.base.text import json_bytes
from custom_aesthetic.report.thumbnails import thumbnail_uri

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
ol {{ align-items: flex-start; display: flex; flex-wrap: wrap; gap: 1rem .8rem; list-style: none; margin: 0; }}
ol {{ padding: 0; }}
li {{ content-visibility: auto; contain-intrinsic-size: 11rem 13rem; width: 11rem; }}
.group {{ border: 1px solid var(--faint); border-radius: .4rem; max-width: 100%; padding: .5rem; width: auto; }}
.group {{ box-sizing: border-box; content-visibility: visible; }} .group p {{ margin: 0 0 .4rem; }}
a:focus-visible {{ outline: 2px solid currentColor; outline-offset: 2px; }}
img {{ aspect-ratio: 1; display: block; object-fit: contain; width: 100%; }}
b {{ font-variant-numeric: tabular-nums; }}
small {{ color: var(--faint); display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }}
.flag {{ color: var(--flag); }}
</style></head><body><h1>{title}</h1><p>{note}</p><ol>
"""


@dataclass(frozen=True)
class SheetPicture:
    """What the sheet shows of a picture."""

    path: str
    score: float
    is_unfamiliar: bool
    group: str
    """Name of its group of near-duplicates."""


def write_sheet(
    file: Path,
    directory: Path,
    pictures: Sequence[SheetPicture],
    *,
    title: str,
    group_sizes: Mapping[str, int],
    note: str = "",
    moved: Mapping[str, Path] | None = None,
) -> list[str]:
    """Write the sheet of pictures in their order; return the paths that cannot be read.

    A picture of a group that has, by `group_sizes`, several pictures is shown in a frame, together with the others of
    its group on the sheet, where the first of them stands. A click on a picture opens the original, which is below the
    directory or, where `moved` has its path, in another place.
    """
    items: dict[str, list[str]] = {picture.group: [] for picture in pictures}
    missing = []
    thumbnails = zip(pictures, _thumbnails(directory, pictures), strict=True)
    for rank, (picture, uri) in enumerate(thumbnails, start=1):
        if uri is None:
            missing.append(picture.path)
        else:
            original = (moved or {}).get(picture.path, directory / picture.path)
            items[picture.group].append(_item(rank, picture, uri, address(original, file.parent)))
    head = _HEAD.format(title=html.escape(title), note=html.escape(note))
    body = [_framed(shown, group_sizes[group]) for group, shown in items.items()]
    write_atomically(file, json_bytes("".join([head, *body, "</ol></body></html>\n"])))
    return missing


def _framed(items: Sequence[str], group_size: int) -> str:
    """Return the items of a group, in a frame that says how many of it they are; as they are if it is one picture."""
    if group_size == 1 or not items:
        return "".join(items)
    return f'<li class="group"><p>{len(items)} of {group_size} alike</p><ol>\n{"".join(items)}</ol></li>\n'


def address(file: Path, folder: Path) -> str:
    """Return the address of a file on a page in a folder: relative where it can be, so that both may move together."""
    try:
        path = os.path.relpath(file, folder)
    except ValueError:  # on another drive of Windows
        return file.absolute().as_uri()
    return quote(os.fsencode(path.replace(os.sep, "/")))


def _item(rank: int, picture: SheetPicture, uri: str, original: str) -> str:
    name = html.escape(picture.path, quote=True)
    flag = ' <span class="flag" title="far from everything the model was trained on">unfamiliar</span>'
    return (
        f'<li><a href="{original}" target="_blank" aria-label="Open {name}"><img src="{uri}" alt="" loading="lazy" '
        f'title="{name}"></a><b>{picture.score:.3f}</b> <span>#{rank}</span>'
        f"{flag if picture.is_unfamiliar else ''}<small>{name}</small></li>\n"
    )


def _thumbnails(directory: Path, pictures: Sequence[SheetPicture]) -> Iterator[str | None]:
    with ThreadPoolExecutor(N_THREADS) as pool:
        yield from pool.map(lambda picture: thumbnail_uri(directory / picture.path, SIZE), pictures)
