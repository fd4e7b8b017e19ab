"""Read a large JSON object an entry at a time: as Python objects, all of it would take twelve times the text."""

import json
import re
from collections.abc import Callable
from typing import Any

_PLAIN_NAME = re.compile(r'[ \t\n\r]*"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')
_SPACE = re.compile(r"[ \t\n\r]*")
_AFTER = re.compile(r"[ \t\n\r]*([,}])")


def opens_object(text: str, place: int) -> bool:
    """Return whether an object begins at this place."""
    return text.startswith("{", place)


def read_entries(
    text: str, place: int, decoder: json.JSONDecoder, take: Callable[[str, int], int], *, is_whole: bool = False
) -> int:
    """Call `take` with the name of each entry of the object at `place`, and where its value begins; return the end.

    `take` returns where the value ends. `is_whole` says that nothing but space may follow the object. Raises
    JSONDecodeError for what is not JSON, and what `take` raises.
    """
    place = _SPACE.match(text, place + 1).end()  # type: ignore[union-attr]
    if text.startswith("}", place):
        return _end(text, place + 1, is_whole)
    while True:
        plain = _PLAIN_NAME.match(text, place)
        if plain is not None:
            name, place = plain[1], plain.end()
        else:
            name, place = _odd_name(text, place, decoder)
        place = take(name, place)
        after = _AFTER.match(text, place)
        if after is None:
            raise json.JSONDecodeError("Expecting ',' delimiter", text, place)
        place = after.end()
        if after[1] == "}":
            return _end(text, place, is_whole)


def _odd_name(text: str, place: int, decoder: json.JSONDecoder) -> tuple[str, int]:
    """Return a name with escapes, and where its value begins."""
    place = _SPACE.match(text, place).end()  # type: ignore[union-attr]
    if not text.startswith('"', place):
        raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, place)
    name: Any
    name, place = decoder.raw_decode(text, place)
    place = _SPACE.match(text, place).end()  # type: ignore[union-attr]
    if not text.startswith(":", place):
        raise json.JSONDecodeError("Expecting ':' delimiter", text, place)
    return name, _SPACE.match(text, place + 1).end()  # type: ignore[union-attr]


def _end(text: str, place: int, is_whole: bool) -> int:
    rest = _SPACE.match(text, place).end()  # type: ignore[union-attr]
    if is_whole and rest != len(text):
        raise json.JSONDecodeError("Extra data", text, rest)
    return place
