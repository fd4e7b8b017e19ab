"""Tensors of a checkpoint's weight files, never unpickling more than tensors; and the precision to compute in."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors.checkpoint import Checkpoint, weights_files

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_tensors(checkpoint: Checkpoint, keep: Callable[[str], bool]) -> dict[str, Tensor]:
    """Return the checkpoint's tensors whose names `keep` accepts; the others are not read into memory."""
    tensors: dict[str, Tensor] = {}
    for path in weights_files(checkpoint):
        try:
            tensors.update(_load_safetensors(path, keep) if path.suffix == ".safetensors" else _load_bin(path, keep))
        except Exception as error:  # what is raised depends on the format and the damage
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"feature extractor {checkpoint.name}: {path.name} is damaged or no weights file ({reason}); "
                "get the file again"
            ) from error
    return tensors


def _load_safetensors(path: Path, keep: Callable[[str], bool]) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if keep(name)}  # noqa: SIM118 (no mapping)


def _load_bin(path: Path, keep: Callable[[str], bool]) -> dict[str, Tensor]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise ValueError("it holds no dictionary of tensors")
    tensors = {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor) and keep(name)}
    room = path.stat().st_size
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ValueError(f"{name} is no plain tensor")
        if tensor.numel() * tensor.element_size() > room:  # a few numbers repeated without end
            raise ValueError(f"{name} is larger than the file")
    return tensors


def precision(config: dict, device: torch.device) -> str:
    """Return `float32`, `float16`, `bfloat16` or, where only the weights can tell, `stored`.

    A CPU always computes in float32. An accelerator computes in the checkpoint's own precision.
    """
    if device.type == "cpu":
        return "float32"
    vision = config.get("vision_config") or {}
    named = config.get("dtype") or config.get("torch_dtype") or vision.get("dtype") or vision.get("torch_dtype")
    return str(named).removeprefix("torch.") if str(named).removeprefix("torch.") in DTYPES else "stored"


def compute_dtype(wanted: str, tensors: dict[str, Tensor]) -> torch.dtype:
    """Return the dtype for what `precision` says; `stored` is that of the most of the weights."""
    if wanted != "stored":
        return DTYPES[wanted]
    counts = {dtype: sum(t.numel() for t in tensors.values() if t.dtype == dtype) for dtype in DTYPES.values()}
    return max(counts, key=lambda dtype: counts[dtype])


def check_hidden_states(name: str, hidden_states: list[int], n_hidden_states: int) -> None:
    """UserError unless every hidden state asked for is there."""
    outside = [k for k in hidden_states if not 0 <= k < n_hidden_states]
    if outside:
        raise UserError(
            f"--hidden_states_used: {', '.join(map(str, outside))} asked for, but {name} has hidden states "
            f"0 (the final output) to {n_hidden_states - 1}"
        )
