"""Text that may hold any file name, to bytes and back, and to the screen.

A name that is not UTF-8 reaches Python with surrogates for its odd bytes. CSV keeps those bytes; JSON and HTML, which
must be UTF-8, get the escape `\\udcXX`, which JSON readers turn into the same name.
"""

import codecs
import re

_LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Surrogates that stand for no byte: no file name on Linux holds them."""

MOST_SHOWN = 200


def csv_bytes(text: str) -> bytes:
    """Return the text in UTF-8, with the bytes that its file names really have."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        escaped = _LONE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        return escaped.encode("utf-8", "surrogateescape")


def json_bytes(text: str) -> bytes:
    """Return JSON or HTML in UTF-8, with `\\udcXX` for the bytes of file names that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace")


def may_name_a_file(text: str) -> bool:
    """Return whether a file can have this name: no zero byte, no surrogate that stands for no byte."""
    return "\0" not in text and not _LONE.search(text)


def hashable(text: str) -> bytes:
    """Return bytes to hash: UTF-8, and different for different names of any kind."""
    return text.encode("utf-8", "surrogatepass")


def encoding_of(start: bytes) -> str:
    """Return the encoding of a text file by its first bytes: UTF-16 where it says so, as Excel writes, else UTF-8."""
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def printable(text: str, most: int = MOST_SHOWN) -> str:
    """Return text on one line for a screen: what cannot be printed as escapes, the middle of a long one left out."""
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[-most // 2 :]}"
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode() for each in text
    )
