"""The text of `arguments-example.txt`, made from the declarations of the settings.

python -m custom_aesthetic.settings.example_arguments > arguments-example.txt
"""

import dataclasses
import textwrap
from typing import Any

from custom_aesthetic.settings.arguments import as_text, options_of, setting_groups
from custom_aesthetic.settings.declaration import Range
from custom_aesthetic.settings.training import TrainingArguments

HEAD = """\
# Every argument of aesthetic_predictor_training.py, with its default and meaning.
# Copy this file, remove the # in front of the arguments that you want to change, and run
#     python aesthetic_predictor_training.py @arguments.txt
# One argument per line. Later arguments replace earlier ones: @arguments.txt --trials=5
# The analysis and Spotlight scripts take the same file, and list the arguments that they ignore.
"""


def example_text() -> str:
    """Return the text of the example file."""
    return HEAD + "".join(_group_text(group) for group in setting_groups(TrainingArguments).values())


def _group_text(group: type) -> str:
    return f"\n\n# ==== {group.__doc__} ====\n" + "".join(_field_text(field) for field in dataclasses.fields(group))


def _field_text(field: dataclasses.Field) -> str:
    choices = f" One of: {', '.join(field.metadata['choices'])}." if field.metadata["choices"] else ""
    meaning = field.metadata["help"] + "." + choices
    comment = textwrap.fill(meaning, 108, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    return f"\n{comment}\n" + "".join(f"{line}\n" for line in _lines(field))


def _lines(field: dataclasses.Field) -> list[str]:
    default: Any = field.default
    if field.name == "directory":
        return ["--directory=images"]
    if isinstance(default, Range):
        low, high = options_of(field)
        return [f"# {low}={default.low}", f"# {high}={default.high}"]
    (option,) = options_of(field)
    if default is False:
        return [f"# {option}"]
    if default is None or default == ():
        return [f"# {option}=   (none)"]
    return [f"# {option}={as_text(default)}"]


if __name__ == "__main__":
    print(example_text(), end="")
