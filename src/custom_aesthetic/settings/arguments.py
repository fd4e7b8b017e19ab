"""Parse the command line and arguments files into the setting groups, and check every value."""

import argparse
import dataclasses
import difflib
import logging
import math
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

from custom_aesthetic.base.database_urls import shown_url
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.text import printable
from custom_aesthetic.settings.arguments_file import as_line, expand_files
from custom_aesthetic.settings.declaration import Range
from custom_aesthetic.settings.head_parameters import INTEGER_PARAMETERS
from custom_aesthetic.settings.training import EXTRACTOR_SEPARATOR, HiddenStates

log = logging.getLogger(__name__)

Arguments = TypeVar("Arguments")

RENAMED = {"--feature_extractor": "--feature_extractor_model"}
"""Options that are also accepted by their name in the predecessor of this tool."""

OF_THE_PREDECESSOR = {
    "--no_server": "the server is off by default: delete the line",
    "--final_layer_bias": "it is always on: delete the line",
    "--stack_hidden_states": "write --hidden_states_mode=join instead",
    "--modelpath": "write --model instead, which takes absolute paths too",
}
"""Options of the predecessor that no longer exist -> what to do instead."""


def parse_arguments(
    kind: type[Arguments], argv: Sequence[str], *, description: str, ignore_unknown: bool = False
) -> tuple[Arguments, list[str]]:
    """Return the settings for these arguments, and the arguments that were ignored.

    `kind` is a dataclass whose fields are groups of settings. `argv` may contain `@file` entries; if an option is given
    twice, the later one is used. An unknown option raises UserError with the nearest known one, unless `ignore_unknown`
    is set; then it is returned. `--help` prints the help and exits.
    """
    parser = build_parser(kind, description)
    arguments = [_renamed(parser, argument) for argument in expand_files(argv)]
    for argument in arguments:
        _check_dashes(argument)
    namespace, unknown = parser.parse_known_args(arguments)
    given = vars(namespace)
    alone = [argument for argument in unknown if not argument.startswith("-")]
    if alone and "directory" in given and given["directory"] is None:
        raise UserError(_alone_message(alone[0]))
    if unknown and not ignore_unknown:
        raise UserError(_unknown_message(parser, unknown[0]))
    groups = {name: _build_group(group, given) for name, group in setting_groups(kind).items()}
    return kind(**groups), [shown_argument(argument) for argument in unknown]


def parse_shared_arguments(kind: type[Arguments], argv: Sequence[str], *, description: str) -> Arguments:
    """Return the settings; arguments that are unknown, as they belong to other scripts, are ignored and logged."""
    arguments, ignored = parse_arguments(kind, argv, description=description, ignore_unknown=True)
    if ignored:
        log.info("ignored arguments, which this script does not use: %s", " ".join(ignored))
    return arguments


def _renamed(parser: argparse.ArgumentParser, argument: str) -> str:
    name, equals, value = argument.partition("=")
    new = RENAMED.get(name)
    return f"{new}{equals}{value}" if new in parser._option_string_actions else argument


def _check_dashes(argument: str) -> None:
    """Raise UserError for the value `--`, which argparse treats as the end of the options."""
    if re.fullmatch(r"(-\w|--\w+=)?--", argument):
        raise UserError(f"{argument.removesuffix('--').rstrip('=') or 'the argument'} has no value but --; give one")


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
        epilog="Arguments can be read from a file, one per line: @arguments.txt. Later arguments replace earlier ones.",
    )
    for group in setting_groups(kind).values():
        section = parser.add_argument_group(str(group.__doc__))
        hints = typing.get_type_hints(group)
        for field in dataclasses.fields(group):
            _add_options(section, field, hints[field.name])
    return parser


def as_lines(settings: Any) -> list[str]:
    """Return the settings as lines of an arguments file, in the order of their declaration."""
    lines = []
    for group_field in dataclasses.fields(settings):
        group = getattr(settings, group_field.name)
        for field in dataclasses.fields(group):
            lines += _field_lines(field, getattr(group, field.name))
    return lines


def differing_lines(settings: Any) -> list[str]:
    """Return `shown_lines` without the settings that have their defaults."""
    defaults = {
        line
        for group in setting_groups(type(settings)).values()
        for field in dataclasses.fields(group)
        for line in _field_lines(field, field.default)
    }
    return [line for line in shown_lines(settings) if line not in defaults]


def shown_lines(settings: Any) -> list[str]:
    """Return `as_lines` with passwords in URLs hidden, for screens and studies."""
    return [shown_argument(line) for line in as_lines(settings)]


def _shown(text: str) -> str:
    """Return the value of an option for a message: short, on one line, with the password of a URL hidden."""
    return printable(shown_url(text), 60)


def shown_argument(argument: str) -> str:
    """Return an argument with the password of a URL in it hidden."""
    option, equals, value = argument.partition("=")
    return f"{option}={shown_url(value)}" if equals and "://" not in option else shown_url(argument)


def _field_lines(field: dataclasses.Field, value: Any) -> list[str]:
    if isinstance(value, Range):
        return [f"{option}={bound}" for option, bound in zip(options_of(field), (value.low, value.high), strict=True)]
    (option,) = options_of(field)
    if value is None or value is False:
        return []
    if value is True:
        return [option]
    if isinstance(value, tuple) and _is_repeatable(field):
        return [as_line(option, item) for item in value]
    return [as_line(option, as_text(value))]


def as_text(value: Any) -> str:
    """Return a value as it is written after the equals sign."""
    if not isinstance(value, tuple):
        return str(value)
    if value and isinstance(value[0], tuple):
        return EXTRACTOR_SEPARATOR.join(map(as_text, value))
    return ",".join(map(str, value))


def _is_repeatable(field: dataclasses.Field) -> bool:
    return field.default == ()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        plain = re.sub(r"^argument (?:-\w/)?(--\w+): ", r"\1: ", message)
        plain = re.sub(r"^--\w+: (?=--)", "", plain)  # our converters name the option themselves
        plain = re.sub(
            r"ignored explicit argument '(.*)'",
            lambda found: f"a flag takes no value, but was given '{_shown(found[1])}'",
            plain,
        )
        plain = re.sub(r"^(--\w+): expected one argument$", r"\1 has no value; write \1=VALUE", plain)
        raise UserError(f"{printable(plain)}; --help lists the arguments")


def _add_options(section: Any, field: dataclasses.Field, hint: Any) -> None:
    text = field.metadata["help"].replace("%", "%%")
    short = [field.metadata["short"]] if field.metadata["short"] else []
    if isinstance(field.default, Range):
        whole = field.name in INTEGER_PARAMETERS
        for option, bound in zip(options_of(field), (field.default.low, field.default.high), strict=True):
            help_text = f"{text} (default: {bound})"
            section.add_argument(
                option, type=_reader(option, int if whole else float), metavar="N" if whole else "X", help=help_text
            )
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
        type=str if repeatable else _converter(option, hint, field.metadata["choices"]),
        action="append" if repeatable else "store",
        metavar=f"{{{','.join(field.metadata['choices'])}}}" if field.metadata["choices"] else "VALUE",
        help=f"{text} (default: {shown})" if shown != "required" else f"{text} (required)",
    )


def _is_required(field: dataclasses.Field, hint: Any) -> bool:
    return field.default is None and not isinstance(hint, types.UnionType)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


READERS: dict[type, tuple[Any, str, str]] = {
    int: (int, "a whole number", "whole numbers"),
    float: (_finite, "a number", "numbers"),
    str: (str, "a text", "names"),
}
"""Type of a setting -> its reader, its name in messages, and the plural of that."""


def _reader(option: str, kind: type) -> Any:
    """Return a function that reads one value, or raises ArgumentTypeError with the option and the text."""
    read, called, _ = READERS[kind]

    def convert(text: str) -> Any:
        try:
            return read(text)
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(f"{option}={_shown(text)} is not {called}") from None

    return convert


def _list_reader(option: str, kind: type) -> Any:
    """Return a function that reads a comma-separated list; a trailing comma is allowed."""
    read, _, called = READERS[kind]

    def convert(text: str) -> tuple[Any, ...]:
        items = [item.strip() for item in text.split(",")]
        if len(items) > 1 and not items[-1]:
            items.pop()
        try:
            return tuple(read(item) for item in items)
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(
                f"{option}={_shown(text)} is not a comma-separated list of {called}"
            ) from None

    return convert


def _choice_reader(option: str, choices: Sequence[str]) -> Any:
    def convert(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{option}={_shown(text)} is none of {', '.join(choices)}")
        return text

    return convert


def _lists_reader(option: str) -> Any:
    """Return a function that reads comma-separated lists of whole numbers, one for each extractor."""
    read = _list_reader(option, int)

    def convert(text: str) -> HiddenStates:
        return tuple(read(part) for part in text.split(EXTRACTOR_SEPARATOR))

    return convert


def _number_or(option: str, words: tuple[str, ...]) -> Any:
    def convert(text: str) -> int | str:
        try:
            return text if text in words else int(text)
        except ValueError:
            called = f"a whole number or {' or '.join(words)}"
            raise argparse.ArgumentTypeError(f"{option}={_shown(text)} is not {called}") from None

    return convert


def _converter(option: str, hint: Any, choices: Sequence[str]) -> Any:
    if choices:
        return _choice_reader(option, choices)
    if HiddenStates in typing.get_args(hint):
        return _lists_reader(option)
    words = [word for part in typing.get_args(hint) for word in typing.get_args(part) if isinstance(word, str)]
    if words:
        return _number_or(option, tuple(words))
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)] if typing.get_args(hint) else [hint]
    kind = hint if typing.get_origin(hint) is tuple else kinds[0]
    if typing.get_origin(kind) is tuple:
        return _list_reader(option, typing.get_args(kind)[0])
    return _reader(option, kind)


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
        others, instead = field.metadata["yields_to"]
        return instead if any(given.get(name) is not None for name in others) else field.default
    return tuple(value) if isinstance(value, list) else value


def _check(field: dataclasses.Field, value: Any) -> None:
    options = options_of(field)
    if isinstance(value, Range):
        for option, bound in zip(options, (value.low, value.high), strict=True):
            _check_bounds(option, bound, field)
        if value.low > value.high:
            raise UserError(
                f"{options[0]} ({value.low}) is above {options[1]} ({value.high}); swap them or make them equal"
            )
    elif isinstance(value, tuple):
        for item in value:
            for number in item if isinstance(item, tuple) else (item,):
                _check_bounds(options[0], number, field)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_bounds(options[0], value, field)


def _check_bounds(option: str, value: Any, field: dataclasses.Field) -> None:
    low, high = field.metadata["low"], field.metadata["high"]
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = " and ".join(
            words for words in (f"at least {low}" * (low is not None), f"at most {high}" * (high is not None)) if words
        )
        raise UserError(f"{option}={value} is out of bounds: it must be {bounds}")


def _alone_message(argument: str) -> str:
    shown = printable(shown_argument(argument))
    return f"{shown} stands alone, with no option before it; did you mean -d {shown}?"


def _unknown_message(parser: argparse.ArgumentParser, argument: str) -> str:
    name = argument.partition("=")[0]
    if name in OF_THE_PREDECESSOR:
        return f"{name} is no longer an argument: {OF_THE_PREDECESSOR[name]}"
    known = [option for action in parser._actions for option in action.option_strings]
    nearest = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]}?" if nearest else "; --help lists the arguments"
    return f"unknown argument {printable(shown_argument(argument))}{hint}"
