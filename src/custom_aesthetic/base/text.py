"""Encode text that contains file names, for files and for the screen.

Python represents the bytes of a file name that is not UTF-8 as surrogates. CSV files keep those bytes. JSON and HTML,
which must be UTF-8, contain the escape `\\udcXX` instead, which JSON readers turn back into the same name.
"""

import codecs
import re

_LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Surrogates that represent no byte; file names on Linux do not contain them."""

MOST_SHOWN = 200


def csv_bytes(text: str) -> bytes:
    """Return the text in UTF-8, with file names as the bytes that they have on the disk."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        escaped = _LONE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        return escaped.encode("utf-8", "surrogateescape")


def json_bytes(text: str) -> bytes:
    """Return JSON or HTML in UTF-8, with `\\udcXX` for each byte of a file name that is not UTF-8."""
    return text.encode("utf-8", "backslashreplace")


def may_name_a_file(text: str) -> bool:
    """Return whether a file can have this name: no zero byte, no surrogate that stands for no byte."""
    return "\0" not in text and not _LONE.search(text)


def hashable(text: str) -> bytes:
    """Return bytes to hash: UTF-8, different for any two different texts."""
    return text.encode("utf-8", "surrogatepass")


def encoding_of(start: bytes) -> str:
    """Return the encoding of a text file from its first bytes: UTF-16 if it has that byte order mark, else UTF-8."""
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


LONGEST_PATH = 10_000
"""Maximum length of a printed path that is to be read in full; no system allows longer paths."""


def printable(text: str, most: int = MOST_SHOWN) -> str:
    """Return text on one line for a screen, with escapes for unprintable characters, shortened in the middle."""
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[-most // 2 :]}"
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode() for each in text
    )
