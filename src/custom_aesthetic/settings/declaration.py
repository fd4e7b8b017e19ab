"""How a setting is declared, once, in a frozen group: name, default, meaning and bounds.

The command line, `--help`, the checks and `arguments-example.txt` are derived from the declarations.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Range:
    """Inclusive bounds of a searched parameter; equal bounds fix it and remove it from the search."""

    low: float
    high: float

    @property
    def is_fixed(self) -> bool:
        return self.low == self.high

    def clip(self, value: float) -> float:
        """Return the value in the range that is nearest to the given one."""
        return min(max(value, self.low), self.high)


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    short: str | None = None,
    first: float | None = None,
    yields_to: tuple[tuple[str, ...], Any] = ((), None),
) -> Any:
    """Return a dataclass field that carries its help text, choices, bounds (both included) and short option.

    `first` is the value of a searched parameter in the first trial. `yields_to` names other settings and a value:
    where one of them is given and this one is not, it has that value.
    """
    declared = {"help": help, "choices": choices, "low": low, "high": high, "short": short}
    return field(default=default, metadata={**declared, "first": first, "yields_to": yields_to})
