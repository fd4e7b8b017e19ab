"""The arguments file: one argument a line, with comments, quotes and further files."""

import re
from collections.abc import Sequence
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.text import encoding_of, printable

MOST_FILES = 100
"""Files that one command may name in all: more than that is two files that name each other many times over."""

_QUOTED = re.compile(r"""(?P<name>-[^=\s]*\s*(?:=\s*|\s))(?P<quote>["'])(?P<value>.*)(?P=quote)\s*(?:\s#.*)?""")
_COMMENT = re.compile(r"\s+#(?:\s.*)?$")


def expand_files(argv: Sequence[str]) -> list[str]:
    """Return the arguments with every `@file` replaced by what the file holds, which may name further files."""
    n_read = 0

    def expand(arguments: Sequence[str], inside: tuple[Path, ...]) -> list[str]:
        nonlocal n_read
        expanded: list[str] = []
        for argument in arguments:
            if not argument.startswith("@"):
                expanded.append(argument)
                continue
            file = _find(argument[1:], inside)
            n_read += 1
            if file.resolve() in inside or n_read > MOST_FILES:
                raise UserError(f"arguments file {printable(str(file))} names itself; remove its line @{file.name}")
            expanded += expand(read_arguments_file(file), (*inside, file.resolve()))
        return expanded

    return expand(argv, ())


def _find(name: str, inside: Sequence[Path]) -> Path:
    """Return the file of that name, from the current directory or beside the file that names it."""
    places = [Path(name), *(file.parent / name for file in inside[-1:])]
    try:
        return next((place for place in places if place.is_file()), places[0])
    except OSError:
        return places[0]


def read_arguments_file(file: Path) -> list[str]:
    """Return the arguments in a file.

    `#` starts a comment line, and a comment behind an argument where white space stands on both sides of it; white
    space round the first `=` and quotes round a value are dropped. A value with ` # ` in it stands in quotes.
    """
    shown = printable(str(file))
    try:
        content = file.read_bytes()
        text = content.decode(encoding_of(content), "surrogateescape")
    except FileNotFoundError:
        raise UserError(
            f"arguments file {shown} is not there (looked from {Path.cwd()}); check the name behind the @"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"arguments file {shown} cannot be read: {error}; check that it is a text file") from None
    if "\0" in text:
        raise UserError(f"arguments file {shown} is not a text file; name one with an argument a line")
    stripped = (line.strip() for line in re.split(r"[\r\n]+", text))
    return [argument for line in stripped if line and not line.startswith("#") for argument in _split_line(line)]


def _split_line(line: str) -> list[str]:
    """Return a line as one argument, or as option and value where white space parts them (`-d my pictures`)."""
    quoted = _QUOTED.fullmatch(line)
    if quoted:
        return [f"{quoted['name'].rstrip(' =	')}={quoted['value']}"]
    line = _COMMENT.sub("", line)
    if len(line) > 1 and line[0] in "\"'" and line[-1] == line[0]:
        line = line[1:-1].strip()
    name, equals, value = line.partition("=")
    name = name.rstrip()
    if not line.startswith("-"):
        return [line]
    if " " in name or "\t" in name:
        return line.split(maxsplit=1)
    return [f"{name}={value.lstrip()}"] if equals else [name]


def as_line(option: str, value: str) -> str:
    """Return an option and its value as a line that reads back equal: in quotes where it would not without."""
    line = f"{option}={value}"
    return line if _split_line(line.strip()) == [line] else f'{option}="{value}"'
