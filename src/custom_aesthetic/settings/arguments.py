"""The command line and the arguments file: text to the groups of `settings`, with every check."""

import argparse
import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.settings.training import INTEGER_PARAMETERS, Range

Arguments = TypeVar("Arguments")


def parse_arguments(
    kind: type[Arguments], argv: Sequence[str], *, description: str, ignore_unknown: bool = False
) -> tuple[Arguments, list[str]]:
    """Return the settings that the arguments ask for, and the arguments that were ignored.

    `kind` is a dataclass whose fields are groups of settings. `argv` may hold `@file` entries; where an option is
    given twice the later one wins. Unknown options are an error that names the nearest known one, unless
    `ignore_unknown`; then they are returned. `--help` prints and exits.
    """
    parser = build_parser(kind, description)
    namespace, unknown = parser.parse_known_args(expand_files(argv))
    if unknown and not ignore_unknown:
        raise UserError(_unknown_message(parser, unknown[0]))
    given = vars(namespace)
    groups = {name: _build_group(group, given) for name, group in setting_groups(kind).items()}
    return kind(**groups), unknown


def setting_groups(kind: type) -> dict[str, type]:
    """Return the groups of a dataclass of settings, by field name."""
    return typing.get_type_hints(kind)


def options_of(field: dataclasses.Field) -> tuple[str, ...]:
    """Return the options that set a field: two for a range."""
    if isinstance(field.default, Range):
        return (f"--min_{field.name}", f"--max_{field.name}")
    return (f"--{field.name}",)


def build_parser(kind: type, description: str) -> argparse.ArgumentParser:
    """Return the parser for a dataclass of settings."""
    parser = _Parser(
        description=description,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=110),
        epilog="Arguments may stand in a file, one a line: @arguments.txt. The later of two wins.",
    )
    for group in setting_groups(kind).values():
        section = parser.add_argument_group(str(group.__doc__))
        hints = typing.get_type_hints(group)
        for field in dataclasses.fields(group):
            _add_options(section, field, hints[field.name])
    return parser


def expand_files(argv: Sequence[str]) -> list[str]:
    """Return the arguments with every `@file` replaced by what the file holds."""
    expanded: list[str] = []
    for argument in argv:
        expanded += read_arguments_file(Path(argument[1:])) if argument.startswith("@") else [argument]
    return expanded


def read_arguments_file(file: Path) -> list[str]:
    """Return the arguments in a file: one a line, `#` starts a comment line, spaces round the first `=` dropped."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"arguments file {file} cannot be read: {error}; check its path and that it is text") from None
    stripped = (line.strip() for line in lines)
    return [argument for line in stripped if line and not line.startswith("#") for argument in _split_line(line)]


def _split_line(line: str) -> list[str]:
    """Return a line as one argument, or as option and value where white space parts them (`-d my pictures`)."""
    name, equals, value = line.partition("=")
    name = name.rstrip()
    if not line.startswith("-"):
        return [line]
    if " " in name or "\t" in name:
        return line.split(maxsplit=1)
    return [f"{name}={value.lstrip()}"] if equals else [name]


def as_lines(settings: Any) -> list[str]:
    """Return the settings in force as lines of an arguments file, in the order of their declaration."""
    lines = []
    for group_field in dataclasses.fields(settings):
        group = getattr(settings, group_field.name)
        for field in dataclasses.fields(group):
            lines += _field_lines(field, getattr(group, field.name))
    return lines


def shown_lines(settings: Any) -> list[str]:
    """Return `as_lines` for screens and studies: the password of a database's URL is starred out."""
    return [re.sub(r"(://[^:/@\s]*):[^/\s]*@", r"\1:***@", line) for line in as_lines(settings)]


def _field_lines(field: dataclasses.Field, value: Any) -> list[str]:
    if isinstance(value, Range):
        return [f"{option}={bound}" for option, bound in zip(options_of(field), (value.low, value.high), strict=True)]
    (option,) = options_of(field)
    if value is None or value is False:
        return []
    if value is True:
        return [option]
    if isinstance(value, tuple) and _is_repeatable(field):
        return [f"{option}={item}" for item in value]
    return [f"{option}={as_text(value)}"]


def as_text(value: Any) -> str:
    """Return a value as it is written behind the equals sign."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _is_repeatable(field: dataclasses.Field) -> bool:
    return field.default == ()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        plain = message.replace("ignored explicit argument", "a flag takes no value, but was given")
        raise UserError(f"{plain}; --help lists the arguments")


def _add_options(section: Any, field: dataclasses.Field, hint: Any) -> None:
    text = field.metadata["help"].replace("%", "%%")
    short = [field.metadata["short"]] if field.metadata["short"] else []
    if isinstance(field.default, Range):
        whole = field.name in INTEGER_PARAMETERS
        for option, bound in zip(options_of(field), (field.default.low, field.default.high), strict=True):
            help_text = f"{text} (default: {bound})"
            section.add_argument(option, type=int if whole else _finite, metavar="N" if whole else "X", help=help_text)
        return
    (option,) = options_of(field)
    names = [*short, option]
    if hint is bool:
        section.add_argument(*names, action="store_const", const=True, help=text)
        return
    repeatable = _is_repeatable(field)
    shown = "none" if field.default is None or repeatable else as_text(field.default) or "empty"
    if _is_required(field, hint):
        shown = "required"
    section.add_argument(
        *names,
        type=str if repeatable else _converter(hint),
        action="append" if repeatable else "store",
        choices=field.metadata["choices"] or None,
        metavar=None if field.metadata["choices"] else "VALUE",
        help=f"{text} (default: {shown})" if shown != "required" else f"{text} (required)",
    )


def _is_required(field: dataclasses.Field, hint: Any) -> bool:
    return field.default is None and not isinstance(hint, types.UnionType)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


_finite.__name__ = "number"


LIST_OF = {int: "whole numbers", float: "numbers", str: "names"}


def _list_of(kind: type) -> Any:
    def convert(text: str) -> tuple[Any, ...]:
        read = _finite if kind is float else kind
        return tuple(read(item.strip()) for item in text.split(","))

    convert.__name__ = f"comma-separated list of {LIST_OF[kind]}"
    return convert


def _converter(hint: Any) -> Any:
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)] if typing.get_args(hint) else [hint]
    kind = hint if typing.get_origin(hint) is tuple else kinds[0]
    if typing.get_origin(kind) is tuple:
        return _list_of(typing.get_args(kind)[0])
    return {float: _finite}.get(kind, kind)


def _build_group(group: type, given: dict[str, Any]) -> Any:
    """Return one group, with each value checked against its declaration."""
    hints = typing.get_type_hints(group)
    values = {}
    for field in dataclasses.fields(group):
        value = _value_of(field, given)
        if value is None and _is_required(field, hints[field.name]):
            raise UserError(f"{'/'.join([field.metadata['short'] or '', *options_of(field)]).lstrip('/')} is required")
        _check(field, value)
        values[field.name] = value
    return group(**values)


def _value_of(field: dataclasses.Field, given: dict[str, Any]) -> Any:
    if isinstance(field.default, Range):
        low, high = (given[option.removeprefix("--")] for option in options_of(field))
        return Range(field.default.low if low is None else low, field.default.high if high is None else high)
    value = given[field.name]
    if value is None:
        return field.default
    return tuple(value) if isinstance(value, list) else value


def _check(field: dataclasses.Field, value: Any) -> None:
    options = options_of(field)
    if isinstance(value, Range):
        for option, bound in zip(options, (value.low, value.high), strict=True):
            _check_bounds(option, bound, field)
        if value.low > value.high:
            raise UserError(f"{options[0]} ({value.low}) is above {options[1]} ({value.high}); exchange or equal them")
    elif isinstance(value, tuple):
        for item in value:
            _check_bounds(options[0], item, field)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_bounds(options[0], value, field)


def _check_bounds(option: str, value: Any, field: dataclasses.Field) -> None:
    low, high = field.metadata["low"], field.metadata["high"]
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = " and ".join(
            words for words in (f"at least {low}" * (low is not None), f"at most {high}" * (high is not None)) if words
        )
        raise UserError(f"{option}={value} is out of bounds: it must be {bounds}")


def _unknown_message(parser: argparse.ArgumentParser, argument: str) -> str:
    name = argument.partition("=")[0]
    known = [option for action in parser._actions for option in action.option_strings]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]}?" if nearest else "; --help lists the arguments"
    return f"unknown argument {argument}{hint}"
