"""The prior model that a training starts from: its file, whether it takes the same features, and its scores."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.base.files import existing_file
from custom_aesthetic.extractors.build import short_name
from custom_aesthetic.features.hidden_states import spell_modes
from custom_aesthetic.features.views import SEPARATOR
from custom_aesthetic.heads.learnt_pictures import KEY as MARKS
from custom_aesthetic.heads.learnt_pictures import from_text, is_copy
from custom_aesthetic.heads.linear_members import LinearModel
from custom_aesthetic.heads.model_file import Model, load_model
from custom_aesthetic.heads.predictor import Predictor, from_layers, predict, to_layers
from custom_aesthetic.priors.public_heads import PublicHead, is_public_head, linear_in_raw_features, read_public_head
from custom_aesthetic.scores.out_of_fold import read_out_of_fold

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GivenPrior:
    """The content of the file of `--prior_model`."""

    file: Path
    digest: str
    """Of the file's content; part of the identity of a study."""
    model: Model | None
    """None for a public head."""
    head: PublicHead | None = None


@dataclass(frozen=True)
class PriorScores:
    """A prior model on the features of a training."""

    predictor: Predictor
    """Takes what the new model takes, (n_images, n_features), and returns the prior's scores, (n_images, 1)."""
    scores: Array
    """(n_images,) in the prior's own units: out of fold where the prior has learnt from the image and that is known."""
    n_flattered: int = 0
    """Number of images that the prior has learnt from, and for which it has no out-of-fold score."""


def read_prior(directory: Path, name: str) -> GivenPrior:
    """Return the prior in a file, relative to the directory or a path; UserError if it cannot serve as one."""
    file = existing_file(directory, name, "--prior_model")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    if is_public_head(file.name):
        return GivenPrior(file, digest, None, read_public_head(file))
    model = load_model(file)
    if not isinstance(model.predictor, Predictor):
        raise UserError(
            f"--prior_model={file} sums hidden states with weights and a ReLU, as an older version did, which a plain "
            "model file cannot hold; train it again with this version, or give another one"
        )
    return GivenPrior(file, digest, model)


def check_features(prior: GivenPrior, planned: str) -> None:
    """Raise UserError where the prior takes other features than `preparation.planned_features` says."""
    blocks, _, mode = planned.rpartition("; ")
    wanted = blocks.split("; ")
    if prior.model is None:
        if len(wanted) > 1 or wanted[0].split()[-2] != "0":
            raise UserError(
                f"--prior_model={prior.file} takes the embedding of one CLIP model, hidden state 0, not {planned}; set "
                "--hidden_states_used=0 and one --feature_extractor_model"
            )
        return
    theirs = _planned(prior.model)
    if theirs is None:
        return
    same_mode = len(wanted) == 1 or mode in ("weight", *(["join"] if prior.model.modes is None else [theirs[1]]))
    if [_short(block) for block in wanted] != [_short(block) for block in theirs[0]] or not same_mode:
        raise UserError(
            f"--prior_model={prior.file} takes the features {'; '.join((*theirs[0], theirs[1]))}, but this training "
            f"{planned}; give the prior's extractor, hidden states and views, or leave --prior_model away"
        )


def prior_scores(prior: GivenPrior, values: Tensor, marked: Array, paths: Sequence[str]) -> PriorScores:
    """Return the prior on these images; `values` (n_images, n_features) are what the new model takes.

    `marked` are the features that training pictures are marked by. UserError if the number of features differs.
    """
    taken = len(prior.head.weight) if prior.head is not None else prior.model.n_features if prior.model else 0
    if taken != values.shape[1]:
        raise UserError(
            f"--prior_model={prior.file} takes {taken} features, but this training has {values.shape[1]}; give a model "
            "on the same features"
        )
    if prior.head is not None:
        given = values.double().numpy()
        linear = linear_in_raw_features(prior.head, given)
        exact, near = prior.head.predict(given), linear.predict(given)
        _say_nearness(prior, exact, near)
        return PriorScores(as_predictor(linear), near)
    assert prior.model is not None
    predictor = first_output(prior.model.predictor)
    scores = predict(predictor, values)[:, 0].double().numpy()
    return _without_flattery(prior, predictor, scores, marked, paths)


def describe_prior(prior: PriorScores, scores: Array, rows: NDArray[np.int64]) -> str:
    """Return a line on how well the prior alone orders the images `rows`, whose scores are (n_images,)."""
    from scipy.stats import spearmanr

    found = float(spearmanr(scores[rows], prior.scores[rows]).statistic) if np.ptp(prior.scores[rows]) > 0 else 0.0
    flattered = f", of which it has learnt from {prior.n_flattered}" if prior.n_flattered else ""
    return f"the prior model alone has spearman {found:.4f} on these {len(rows)} pictures{flattered}"


def as_predictor(linear: LinearModel) -> Predictor:
    """Return the plain network of a linear model: two units hold it and its negative, of which ReLU keeps one."""
    slope = torch.from_numpy(np.asarray(linear.weight, dtype=np.float64))
    nothing, last = torch.zeros(2, dtype=torch.float64), torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    return from_layers(
        [
            (torch.stack([slope, -slope]), nothing),
            (torch.eye(2, dtype=torch.float64), nothing),
            (last, torch.tensor([linear.bias], dtype=torch.float64)),
        ]
    )


def first_output(predictor: torch.nn.Module) -> Predictor:
    """Return the predictor of the score alone, without the standard deviation."""
    assert isinstance(predictor, Predictor)
    *rest, (weight, bias) = to_layers(predictor)
    return from_layers([*rest, (weight[:1], bias[:1])])


def _planned(model: Model) -> tuple[list[str], str] | None:
    """Return the blocks of features that the model takes, and its mode; None if its file does not say."""
    if not model.extractors or model.hidden_states is None:
        return None
    lists = model.hidden_states * (len(model.extractors) if len(model.hidden_states) == 1 else 1)
    views = SEPARATOR.join(model.views)
    blocks = [
        f"{name} {state} {views}" for name, states in zip(model.extractors, lists, strict=True) for state in states
    ]
    return blocks, spell_modes(model.modes or ("join",))


def _short(block: str) -> str:
    """Return a block with the last part of its extractor's name, which a folder and a hub name share."""
    name, state, views = block.rsplit(" ", 2)
    return f"{short_name(name)} {state} {views}"


def _say_nearness(prior: GivenPrior, exact: Array, near: Array) -> None:
    if np.ptp(exact) > 0 and np.ptp(near) > 0:
        log.info(
            "the prior %s divides by the length of an embedding; the model file holds it without, which gives the same "
            "scores up to a correlation of %.3f",
            *(prior.file.name, float(np.corrcoef(exact, near)[0, 1])),
        )


def _without_flattery(
    prior: GivenPrior, predictor: Predictor, scores: Array, marked: Array, paths: Sequence[str]
) -> PriorScores:
    """Put the prior's out-of-fold scores in place of those of pictures it has learnt from, and say what remains."""
    assert prior.model is not None
    learnt = from_text(prior.model.metadata.get(MARKS, ""))
    if learnt is None:
        log.info(
            "%s does not say which pictures it has learnt from; if these are among them, the figures flatter",
            prior.file.name,
        )
        return PriorScores(predictor, scores)
    seen = is_copy(marked, learnt)
    if not seen.any():
        return PriorScores(predictor, scores)
    unseen = read_out_of_fold(prior.file)
    honest = np.array([unseen.get(path, np.nan) for path in paths])
    replaced = seen & np.isfinite(honest)
    left = int((seen & ~replaced).sum())
    if replaced.any():
        log.info(
            "%s has learnt from %d of these pictures; its out-of-fold scores judge it there",
            *(prior.file.name, int(replaced.sum())),
        )
    if left:
        log.warning(
            "%s has learnt from %d of these %d pictures and has no out-of-fold scores of them: it is believed too much "
            "there, and the figures flatter; give a prior trained on other pictures, or keep its .out_of_fold.csv",
            *(prior.file.name, left, len(paths)),
        )
    return PriorScores(predictor, np.where(replaced, honest, scores), left)
