"""Reading and writing of model files: safetensors files of plain Linear layers, with metadata about their features.

The format is described in docs/model-file.md.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import write_atomically
from custom_aesthetic.extractors.build import asks_a_hub, short_name
from custom_aesthetic.extractors.packaged import NETWORKS
from custom_aesthetic.extractors.protocol import VIEWS
from custom_aesthetic.features.hidden_states import spell_modes, spell_states
from custom_aesthetic.heads.predictor import LINEAR_LAYERS, Predictor, from_layers
from custom_aesthetic.settings.training import EXTRACTOR_SEPARATOR

MOST_HEADER_BYTES = 8 * 1024**2
"""Names, shapes and metadata take a few kilobytes, the summary of the training features up to 180 KB, and the marks of
the training pictures up to 2.1 MB."""

MOST_OUTPUTS = 2
"""A score and its standard deviation."""

MOST_EXTRACTORS, MOST_NAME_CHARACTERS = 32, 4096
MOST_STATES, MOST_STATE_DIGITS = 512, 6
"""Limits far above those of any extractor, so that a damaged or hostile file costs little memory and time."""

MODES = ("join", "average")

FLATTERY = "ab_flattery"
"""Metadata key: how much choosing the best trials raises AB on the images that they were chosen by, 0...1."""

PRIVATE = ("learnt_pictures", "out_of_fold", "study")
"""Metadata left out of a published file: marks of the training pictures, the mark of the file of their scores, the name
and time of the study."""

OLDER_LIST = re.compile(r"\s*[\[(]?\s*(\d+(?:\s*[,_\s]\s*\d+)*)\s*,?\s*[\])]?\s*")
"""`0,2,5`, `[0, 2, 5]` or `0_2_5`: the hidden states of one extractor."""


class _Wrong(Exception):
    """A model file with invalid content; the message says in a few words what is wrong."""


@dataclass(frozen=True)
class Model:
    """A trained model, read from a file."""

    file: Path
    """The file it was read from, for messages."""
    predictor: nn.Module
    """Maps joined (or averaged) features (n_images, n_features) to (n_images, n_outputs) in units of the scores."""
    extractors: tuple[str, ...]
    """Names of the feature extractors; empty if the file names none."""
    hidden_states: tuple[tuple[int, ...], ...] | None
    """One list for each extractor, or one for all; None: the default of each extractor."""
    modes: tuple[str, ...] | None
    """`join` or `average` for each extractor, or one for all; None if the file does not say."""
    views: tuple[str, ...]
    """Views of each picture that the features are averaged over."""
    fp16: bool
    """Whether the model was trained on features rounded to half precision."""
    folded: bool
    """Whether the model was trained by cross-validation, and so has learnt from the eval images too."""
    n_features: int
    """Number of columns that `predictor` takes."""
    metadata: Mapping[str, str]
    """All metadata of the file."""

    @property
    def ab_flattery(self) -> float:
        """How much choosing the best trials raises AB on the images they were chosen by, 0...1; 0 if not recorded."""
        try:
            found = float(self.metadata.get(FLATTERY, "0"))
        except ValueError:
            return 0.0
        return found if 0 <= found <= 1 else 0.0

    @property
    def eval_chose(self) -> bool:
        """Whether the eval set chose the best epoch of each trial: without folds, unless the train set did."""
        return not self.folded and self.metadata.get("set_for_scoring") != "train"


class OlderWeightedPredictor(nn.Module):
    """The weight mode of the predecessor's models: a weighted sum of the hidden states, a ReLU, then the plain stack.

    Takes joined hidden states (n_images, n_states x width). Because of the ReLU, the weighted sum cannot be folded into
    the stack.
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
    """Write the model file atomically; the sizes of the predictor are added to the metadata."""
    write_atomically(file, model_bytes(predictor, metadata))


def model_bytes(predictor: Predictor, metadata: Mapping[str, str]) -> bytes:
    """Return the content of the model file; the same model gives the same bytes."""
    sizes = {
        "number_of_features": str(predictor.n_features),
        "layers": str(list(predictor.layers)),
        "output_channels": str(predictor.n_outputs),
    }
    return _in_order(safetensors.torch.save(_tensors(predictor), {**metadata, **sizes}))


def public_bytes(model: Model) -> bytes:
    """Return the file of a model for others: without what belongs to its author's study, pictures and folders."""
    metadata = {key: value for key, value in model.metadata.items() if key not in PRIVATE}
    names = [name if name in NETWORKS or asks_a_hub(name) else short_name(name) for name in model.extractors]
    if len(set(names)) < len(names):
        raise UserError(f"model file {model.file} names two folders {names[0]}; rename one and train again")
    if names:
        metadata["feature_extractor_model"] = EXTRACTOR_SEPARATOR.join(names)
    if isinstance(model.predictor, OlderWeightedPredictor):
        mixing = {"weight.0.weight": model.predictor.weights[None], "weight.0.bias": model.predictor.bias[None]}
        tensors = {**_tensors(model.predictor.stack), **{name: value.detach().cpu() for name, value in mixing.items()}}
        return _in_order(safetensors.torch.save(tensors, metadata))
    assert isinstance(model.predictor, Predictor)
    return model_bytes(model.predictor, metadata)


def _tensors(predictor: Predictor) -> dict[str, Tensor]:
    return {name: value.detach().cpu().float().contiguous() for name, value in predictor.state_dict().items()}


def _in_order(content: bytes) -> bytes:
    """Return the file content with sorted metadata, because safetensors writes them in an order that varies."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def input_metadata(
    extractors: Sequence[str],
    hidden_states: Sequence[Sequence[int]],
    modes: Sequence[str],
    views: Sequence[str],
    *,
    fp16: bool,
) -> dict[str, str]:
    """Return the metadata that describe a model's features, with one list of states and one mode for each extractor.

    `load_model` reads them back; see docs/model-file.md.
    """
    assert len(extractors) == len(hidden_states) == len(modes)
    precision = {"fp16_features": "True"} if fp16 else {}
    return {
        "feature_extractor_model": EXTRACTOR_SEPARATOR.join(extractors),
        "hidden_states_used": spell_states(hidden_states),
        "hidden_states_mode": spell_modes(modes),
        "views": ",".join(views),
        **precision,
    }


def load_model(file: Path | str) -> Model:
    """Return the model in a file written by this program or its predecessor; UserError if it is neither.

    All sizes are checked before memory is allocated for them, so a hostile file takes no more memory than its length.
    """
    file = Path(file)
    tensors, metadata = _read(file)
    try:
        return _model(file, tensors, metadata)
    except _Wrong as error:
        raise UserError(f"model file {file} is not an aesthetic predictor: {error}; check --model") from None


def _model(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Model:
    stack = _stack(tensors)
    mixing = _mixing(tensors, metadata)
    predictor: nn.Module = stack
    n_features = stack.n_features
    if mixing is not None:
        predictor = OlderWeightedPredictor(*mixing, stack).eval()
        n_features *= mixing[0].numel()
    extractors = _extractors(metadata.get("feature_extractor_model", ""))
    n_extractors = max(1, len(extractors))
    return Model(
        file=file,
        predictor=predictor,
        extractors=extractors,
        hidden_states=_hidden_states(metadata.get("hidden_states_used"), n_extractors),
        modes=("join",) if mixing is not None else _modes(metadata.get("hidden_states_mode"), n_extractors),
        views=_views(metadata.get("views", "centre")),
        fp16=metadata.get("fp16_features") == "True",
        folded=metadata.get("folds", "1") != "1",
        n_features=n_features,
        metadata=metadata,
    )


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        if not file.exists():
            raise UserError(f"model file {file} does not exist; train a model, or check --model")
        if not file.is_file():
            raise UserError(f"model file {file} is not a file; give the path of the file itself")
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
        if length > MOST_HEADER_BYTES and length < file.stat().st_size:
            raise UserError(
                f"model file {file} has a header of {length / 1024**2:.0f} MB, too large for an aesthetic predictor; "
                "check --model"
            )
        with safetensors.safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"model file {file} cannot be read: {reason}; restore it or train again") from None


def _stack(tensors: Mapping[str, Tensor]) -> Predictor:
    """Return the plain stack of Linear layers; a missing bias is zero."""
    named = {name.replace("parallel_blocks.0.", "main_process."): tensor for name, tensor in tensors.items()}
    layers = []
    for index in LINEAR_LAYERS:
        name = f"main_process.{index}"
        weight = named.get(f"{name}.weight")
        if weight is None:
            raise _Wrong(f"it has no tensor {name}.weight")
        _check_tensor(f"{name}.weight", weight, n_axes=2)
        bias = named.get(f"{name}.bias", torch.zeros(weight.shape[0]))
        _check_tensor(f"{name}.bias", bias, n_axes=1)
        if len(bias) != len(weight):
            raise _Wrong(f"{name}.bias has {len(bias)} numbers, but {name}.weight has {len(weight)} rows")
        layers.append((weight, bias))
    for (before, _), (after, _) in itertools.pairwise(layers):
        if after.shape[1] != before.shape[0]:
            raise _Wrong(f"a layer has {before.shape[0]} outputs, but the next one takes {after.shape[1]}")
    n_outputs = layers[-1][0].shape[0]
    if n_outputs > MOST_OUTPUTS:
        raise _Wrong(f"it has {n_outputs} outputs, not 1 (the score) or 2 (the score and its standard deviation)")
    return from_layers(layers)


def _check_tensor(name: str, tensor: Tensor, *, n_axes: int) -> None:
    if tensor.dim() != n_axes or not tensor.numel():
        raise _Wrong(f"{name} has the shape {list(tensor.shape)[:8]}")
    if not tensor.is_floating_point():
        raise _Wrong(f"{name} holds {tensor.dtype}, not floating-point numbers")
    if not torch.isfinite(tensor.float()).all():
        raise _Wrong(f"{name} holds numbers that are not finite")


def _mixing(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[Tensor, Tensor] | None:
    """Return the hidden-state weights and bias of a model of the predecessor; None if the model has none."""
    for prefix in ("weight.0", "preprocess.0"):
        weight = tensors.get(f"{prefix}.weight")
        if weight is None:
            continue
        bias = tensors.get(f"{prefix}.bias", torch.zeros(1))
        _check_tensor(f"{prefix}.weight", weight, n_axes=2)
        _check_tensor(f"{prefix}.bias", bias, n_axes=1)
        if len(weight) != 1 or weight.numel() > MOST_STATES or len(bias) != 1:
            raise _Wrong(f"{prefix}.weight has the shape {list(weight.shape)}, not (1, number of hidden states)")
        return weight, bias
    if metadata.get("hidden_states_mode") == "weight" or metadata.get("stack_hidden_states") == "True":
        raise _Wrong("it is in weight mode but holds no hidden-state weights")
    return None


def _extractors(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(EXTRACTOR_SEPARATOR) if name)
    if len(names) > MOST_EXTRACTORS:
        raise _Wrong(f"it names {len(names)} feature extractors")
    for name in names:
        if len(name) > MOST_NAME_CHARACTERS or not name.isprintable() or "," in name:
            raise _Wrong(f"{_short(name)} is not the name of a feature extractor")
    if len(set(names)) < len(names):
        raise _Wrong("it names a feature extractor twice")
    return names


def _hidden_states(text: str | None, n_extractors: int) -> tuple[tuple[int, ...], ...] | None:
    """Return the numbers in `0,2,5`, `[0, 2, 5]` or `0_2_5`: one list for each extractor, or one for all."""
    if text is None or not text.strip():
        return None
    if len(text) > MOST_STATES * (MOST_STATE_DIGITS + 2) * n_extractors:
        raise _Wrong(f"its hidden states are {len(text):,} characters of text")
    found = []
    for part in text.split(EXTRACTOR_SEPARATOR):
        match = OLDER_LIST.fullmatch(part)
        digits = re.findall(r"\d+", match[1]) if match else []
        if not digits or len(digits) > MOST_STATES or max(map(len, digits)) > MOST_STATE_DIGITS:
            raise _Wrong(f"hidden_states_used is {_short(text)}, not a list of hidden states")
        found.append(tuple(int(number) for number in digits))
    if len(found) not in (1, n_extractors):
        raise _Wrong(f"it has hidden states for {len(found)} feature extractors but names {n_extractors}")
    if any(len(set(states)) < len(states) for states in found):
        raise _Wrong(f"hidden_states_used is {_short(text)}, which names a hidden state twice")
    return tuple(found)


def _modes(text: str | None, n_extractors: int) -> tuple[str, ...] | None:
    """Return the modes of the extractors; None if an older file has no usable ones."""
    if text is None:
        return None
    modes = tuple(text.split(EXTRACTOR_SEPARATOR)) if len(text) < 1000 else ()
    if not all(mode in MODES for mode in modes):
        return None
    if len(modes) not in (1, n_extractors):
        raise _Wrong(f"it has {len(modes)} hidden-state modes for {n_extractors} feature extractors")
    return modes


def _views(text: str) -> tuple[str, ...]:
    views = tuple(text.split(","))
    if not set(views) <= set(VIEWS) or len(set(views)) < len(views):
        raise _Wrong(f"views is {_short(text)}, not a list of different views out of {', '.join(VIEWS)}")
    return views


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
