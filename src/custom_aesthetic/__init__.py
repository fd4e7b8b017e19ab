"""Teach a machine your taste in pictures: from scored pictures to a model file that scores any other.

    from custom_aesthetic import Scorer

    scorer = Scorer.load("model.safetensors")
    scorer.score(["first.jpg", "second.jpg"])

Importing this takes nothing but the standard library; what is used is imported on its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from custom_aesthetic.base.errors import ImageError, UserError
    from custom_aesthetic.heads.model_file import load_model
    from custom_aesthetic.heads.scorer import Scorer

__version__ = "0.2.0"

__all__ = ["ImageError", "Scorer", "UserError", "__version__", "load_model"]

_PLACES = {
    "ImageError": "base.errors",
    "UserError": "base.errors",
    "load_model": "heads.model_file",
    "Scorer": "heads.scorer",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
