"""Read the arguments file: one argument per line, with comments, quotes and further files."""

import re
from collections.abc import Sequence
from pathlib import Path

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.text import encoding_of, printable

MOST_FILES = 100
"""Maximum number of files that one command may read, which stops files that name each other repeatedly."""

_QUOTED = re.compile(r"""(?P<name>-[^=\s]*\s*(?:=\s*|\s))(?P<quote>["'])(?P<value>.*)(?P=quote)\s*(?:\s#.*)?""")
_COMMENT = re.compile(r"\s+#(?:\s.*)?$")


def expand_files(argv: Sequence[str]) -> list[str]:
    """Return the arguments with every `@file` replaced by the content of the file, which may name further files."""
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
    """Return the file with this name, in the current directory or beside the file that names it."""
    places = [Path(name), *(file.parent / name for file in inside[-1:])]
    try:
        return next((place for place in places if place.is_file()), places[0])
    except OSError:
        return places[0]


def read_arguments_file(file: Path) -> list[str]:
    """Return the arguments in a file.

    `#` starts a comment at the beginning of a line, or after an argument if there is white space on both sides of it.
    White space around the first `=` and quotes around a value are removed. A value that contains ` # ` must be quoted.
    Raises UserError if the file cannot be read.
    """
    shown = printable(str(file))
    try:
        content = file.read_bytes()
        text = content.decode(encoding_of(content), "surrogateescape")
    except FileNotFoundError:
        raise UserError(
            f"arguments file {shown} does not exist (looked from {Path.cwd()}); check the name behind the @"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"arguments file {shown} cannot be read: {error}; check that it is a text file") from None
    if "\0" in text:
        raise UserError(f"arguments file {shown} is not a text file; give one that has an argument on each line")
    stripped = (line.strip() for line in re.split(r"[\r\n]+", text))
    return [argument for line in stripped if line and not line.startswith("#") for argument in _split_line(line)]


def _split_line(line: str) -> list[str]:
    """Return a line as one argument, or as option and value if white space separates them (`-d my pictures`)."""
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
    """Return an option and its value as a line that reads back the same, quoted only if needed."""
    line = f"{option}={value}"
    return line if _split_line(line.strip()) == [line] else f'{option}="{value}"'
