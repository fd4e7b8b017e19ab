"""The model file: one safetensors file of plain Linear layers, with metadata that says which features it wants."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.heads.predictor import LINEAR_LAYERS, Predictor, from_layers

EXTRACTOR_SEPARATOR = "__"


@dataclass(frozen=True)
class Model:
    """A trained model as its file holds it."""

    predictor: nn.Module
    """Takes joined (or averaged) features (n_images, n_features), gives (n_images, n_outputs) in units of scores."""
    extractors: tuple[str, ...]
    """Names of the feature extractors; empty if the file names none."""
    hidden_states: tuple[int, ...] | None
    """None: the extractors' own defaults."""
    mode: str | None
    """`join` or `average`; None where the file does not say."""
    views: tuple[str, ...]
    """How each picture is shown to the extractors; the features are the mean."""
    folded: bool
    """Whether it has learnt from the eval images too, fold by fold."""
    n_features: int
    """Columns that `predictor` takes."""
    metadata: Mapping[str, str]


class OlderWeightedPredictor(nn.Module):
    """The predecessor's weight mode: a weighted sum of the hidden states, a ReLU, then the plain stack.

    Takes joined hidden states (n_images, n_states x width). The ReLU keeps it from being folded into the stack.
    """

    def __init__(self, weights: Tensor, bias: Tensor, stack: Predictor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights.flatten().float())
        self.bias = nn.Parameter(bias.flatten()[0].float())
        self.stack = stack

    def forward(self, features: Tensor) -> Tensor:
        states = features.unflatten(1, (len(self.weights), -1))
        return self.stack(torch.einsum("nkw,k->nw", states, self.weights).add(self.bias).relu())


def save_model(file: Path, predictor: Predictor, metadata: Mapping[str, str]) -> None:
    """Write the model aside, then rename; the sizes are added to the metadata."""
    write_atomically(file, model_bytes(predictor, metadata))


def model_bytes(predictor: Predictor, metadata: Mapping[str, str]) -> bytes:
    """Return the model as the bytes of its file; the same model gives the same bytes."""
    sizes = {
        "number_of_features": str(predictor.n_features),
        "layers": str(list(predictor.layers)),
        "output_channels": str(predictor.n_outputs),
    }
    tensors = {name: value.detach().cpu().float().contiguous() for name, value in predictor.state_dict().items()}
    return _in_order(safetensors.torch.save(tensors, {**metadata, **sizes}))


def _in_order(content: bytes) -> bytes:
    """Return the file with its metadata sorted: the library writes them in an order that changes with every run."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def load_model(file: Path) -> Model:
    """Return the model in a file of this program or of its predecessor; UserError if it is neither."""
    tensors, metadata = _read(file)
    try:
        stack = _stack(tensors)
        mixing = _mixing(tensors, metadata)
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise UserError(f"model file {file} is not one of an aesthetic predictor: {error}; check --model") from None
    predictor: nn.Module = stack
    n_features = stack.n_features
    if mixing is not None:
        predictor = OlderWeightedPredictor(*mixing, stack).eval()
        n_features *= mixing[0].numel()
    names = metadata.get("feature_extractor_model", "")
    mode = metadata.get("hidden_states_mode")
    return Model(
        predictor=predictor,
        extractors=tuple(name for name in names.split(EXTRACTOR_SEPARATOR) if name),
        hidden_states=_hidden_states(metadata.get("hidden_states_used")),
        mode="join" if mixing is not None else mode if mode in ("join", "average") else None,
        views=tuple(metadata.get("views", "centre").split(",")),
        folded=metadata.get("folds", "1") != "1",
        n_features=n_features,
        metadata=metadata,
    )


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"model file {file} is not there; train one, or check --model") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"model file {file} cannot be read: {error}; restore it or train again") from None


def _stack(tensors: Mapping[str, Tensor]) -> Predictor:
    """Return the plain stack; a missing bias is zero."""
    named = {name.replace("parallel_blocks.0.", "main_process."): tensor for name, tensor in tensors.items()}
    layers = []
    for index in LINEAR_LAYERS:
        weight = named[f"main_process.{index}.weight"]
        layers.append((weight, named.get(f"main_process.{index}.bias", torch.zeros(weight.shape[0]))))
    return from_layers(layers)


def _mixing(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[Tensor, Tensor] | None:
    """Return the predecessor's trained hidden-state weights and bias, or None where the model has none."""
    marked = metadata.get("hidden_states_mode") == "weight" or metadata.get("stack_hidden_states") == "True"
    for prefix in ("weight.0", "preprocess.0"):
        if f"{prefix}.weight" in tensors:
            weight = tensors[f"{prefix}.weight"]
            return weight, tensors.get(f"{prefix}.bias", torch.zeros(1))
    if marked:
        raise KeyError("it is in weight mode but holds no hidden-state weights")
    return None


def _hidden_states(text: str | None) -> tuple[int, ...] | None:
    """Return `0,2,5`, `[0, 2, 5]` or `0_2_5` as numbers."""
    numbers = re.findall(r"\d+", text or "")
    return tuple(int(number) for number in numbers) or None
