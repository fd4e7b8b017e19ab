"""The common part of all extractors: load the weights, unpickling nothing but tensors, and choose the precision."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.extractors.checkpoint import Checkpoint, checkpoint_fingerprint, weights_files
from custom_aesthetic.extractors.naflex import NaflexTransform
from custom_aesthetic.extractors.transforms import Transform

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class NetworkExtractor(ABC):
    """The common part of all extractors; `FeatureExtractor` describes the public members."""

    features_thread_safe = True

    def __init__(
        self,
        name: str,
        fingerprint: str,
        transform: Transform | NaflexTransform,
        *,
        n_hidden_states: int,
        device: torch.device,
    ) -> None:
        self.name, self.fingerprint, self.n_hidden_states, self.device = name, fingerprint, n_hidden_states, device
        self.target_size = transform.target_size
        self._transform = transform
        self._network: nn.Module | None = None
        self._dtype = torch.float32
        self._loading = Lock()

    def transform(self, image: Image.Image, view: str = "centre") -> Tensor:
        return self._transform(image, view)

    def transform_views(self, image: Image.Image, views: Sequence[str]) -> dict[str, Tensor]:
        if isinstance(self._transform, Transform):
            return self._transform.views(image, views)
        return {view: self._transform(image, view) for view in views}

    @torch.inference_mode()
    def features(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        check_hidden_states(self.name, list(hidden_states), self.n_hidden_states)
        network = self.network()
        with self._loading:  # another thread must not find it half moved
            place(network, self.device)
        found = self._compute(network, pixels.to(self.device), hidden_states)
        return {k: found[k].float() for k in hidden_states}

    def network(self) -> nn.Module:
        with self._loading:
            if self._network is None:
                self._network = self._load().eval().requires_grad_(False)
            return self._network

    @abstractmethod
    def _load(self) -> nn.Module:
        """Return the network in main memory, and set `_dtype` to its precision; UserError if it cannot be loaded."""

    @abstractmethod
    def _compute(self, network: Any, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        """Return hidden state -> features for `pixels` on the device of the network."""


class CheckpointExtractor(NetworkExtractor):
    """The common part of extractors whose weights are in a checkpoint."""

    def __init__(
        self,
        family: str,
        checkpoint: Checkpoint,
        transform: Transform | NaflexTransform,
        *,
        n_hidden_states: int,
        device: torch.device,
    ) -> None:
        self._checkpoint, self._precision = checkpoint, precision(checkpoint.config, device)
        fingerprint = f"{family}; {checkpoint_fingerprint(checkpoint)}; {transform.key}; {self._precision}"
        super().__init__(checkpoint.name, fingerprint, transform, n_hidden_states=n_hidden_states, device=device)

    def _load(self) -> nn.Module:
        tensors = load_tensors(self._checkpoint, self._needs)
        self._dtype = compute_dtype(self._precision, tensors)
        return self._build(tensors)

    @abstractmethod
    def _needs(self, name: str) -> bool:
        """Return whether the network needs the tensor with this name."""

    @abstractmethod
    def _build(self, tensors: dict[str, Tensor]) -> nn.Module:
        """Return the network with these weights, in `_dtype`; UserError if they do not fit config.json."""

    def _misfit(self, error: Exception) -> UserError:
        return UserError(
            f"feature extractor {self.name}: the weights do not fit config.json "
            f"({' '.join(str(error).split())[:300]}); get the checkpoint again"
        )


def load_tensors(checkpoint: Checkpoint, keep: Callable[[str], bool]) -> dict[str, Tensor]:
    """Return the checkpoint's tensors whose names `keep` accepts; the others are not read into memory.

    Raises UserError if a file is damaged.
    """
    tensors: dict[str, Tensor] = {}
    for path in weights_files(checkpoint):
        try:
            tensors.update(_load_safetensors(path, keep) if path.suffix == ".safetensors" else _load_bin(path, keep))
        except Exception as error:  # what is raised depends on the format and the damage
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"feature extractor {checkpoint.name}: {path.name} is damaged or not a weights file ({reason}); "
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
            raise ValueError(f"{name} is not a plain tensor")
        if tensor.numel() * tensor.element_size() > room:  # a tensor with zero strides repeats a few numbers
            raise ValueError(f"{name} is larger than the file")
    return tensors


def precision(config: dict, device: torch.device) -> str:
    """Return `float32`, `float16`, `bfloat16`, or `stored` if the precision is only known from the weights.

    It is always float32 on a CPU, and the checkpoint's precision on an accelerator.
    """
    if device.type == "cpu":
        return "float32"
    vision = config.get("vision_config") or {}
    named = config.get("dtype") or config.get("torch_dtype") or vision.get("dtype") or vision.get("torch_dtype")
    return str(named).removeprefix("torch.") if str(named).removeprefix("torch.") in DTYPES else "stored"


def compute_dtype(wanted: str, tensors: dict[str, Tensor]) -> torch.dtype:
    """Return the dtype for the result of `precision`; `stored` stands for the dtype of most weights."""
    if wanted != "stored":
        return DTYPES[wanted]
    counts = {dtype: sum(t.numel() for t in tensors.values() if t.dtype == dtype) for dtype in DTYPES.values()}
    return max(counts, key=lambda dtype: counts[dtype])


def place(network: nn.Module, device: torch.device) -> None:
    """Move the network to the device, unless it is there."""
    here = next(network.parameters()).device
    if here.type != device.type or device.index not in (None, here.index):
        network.to(device)


def check_hidden_states(name: str, hidden_states: list[int], n_hidden_states: int) -> None:
    """Raise UserError if a hidden state does not exist."""
    outside = [k for k in hidden_states if not 0 <= k < n_hidden_states]
    if outside:
        raise UserError(
            f"--hidden_states_used: {', '.join(map(str, outside))} asked for, but {name} has hidden states "
            f"0 (the final output) to {n_hidden_states - 1}"
        )
