"""Records of a training: the model file with its metadata, its out-of-fold predictions, and the note on the study."""

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from custom_aesthetic.commands.preparation import ScoredImages, describe
from custom_aesthetic.features.hidden_states import HeadInput, arrange
from custom_aesthetic.features.table import FeatureTable
from custom_aesthetic.heads.domain import find_domain, to_text
from custom_aesthetic.heads.learnt_pictures import learnt_metadata
from custom_aesthetic.heads.model_file import FLATTERY, input_metadata, model_bytes
from custom_aesthetic.heads.predictor import fold_mixtures
from custom_aesthetic.hub.figures import KEY as JUDGED
from custom_aesthetic.hub.figures import TEST, Figures, figures_to_text
from custom_aesthetic.quality.answers import find_taste
from custom_aesthetic.quality.closing import Judged
from custom_aesthetic.quality.confidence import ab_interval, spearman_interval
from custom_aesthetic.scores.out_of_fold import FINGERPRINT, LEVELS, TAKEN_OFF, fingerprint, out_of_fold_bytes
from custom_aesthetic.search.best_models import BestModel, MakeFiles, ModelFiles
from custom_aesthetic.search.study import PROCESS
from custom_aesthetic.settings.arguments import shown_lines
from custom_aesthetic.settings.training import TrainingArguments

BLEND = "blend"
"""The key in the metadata for the weights of the heads and of the linear models."""

OF_THE_MACHINE = (PROCESS, "seconds")
"""Left out of the model file: the machine's name and its speed."""


def file_maker(
    arguments: TrainingArguments, scored: ScoredImages, features: FeatureTable, head_input: HeadInput
) -> MakeFiles:
    """Return the function that makes the files of a model: the model file and, with folds, out-of-fold predictions."""
    table, folded = scored.table, arguments.split.n_folds > 1
    taught = np.flatnonzero(np.asarray(table.columns["split"]) != "test")

    @cache
    def known() -> dict[str, str]:
        """Return what every model of this training has in common; it takes seconds, and most runs write no model."""
        domain = find_domain(arrange(features, head_input.modes).float().numpy())
        domain_text = {} if domain is None else {"domain": to_text(domain)}
        return domain_text | learnt_metadata(features.values.numpy(), table.columns["split"], folded=folded)

    def make_files(model: BestModel) -> ModelFiles:
        out_of_fold, tie = None, {}
        if folded:
            paths, scores = [table.paths[row] for row in taught], np.asarray(table.scores)[taught]
            outputs = model.outputs[taught].numpy()
            sigmas = np.abs(outputs[:, 1]) if outputs.shape[1] > 1 else None
            out_of_fold = out_of_fold_bytes(paths, scores, outputs[:, 0], sigmas)
            tie = {FINGERPRINT: fingerprint(out_of_fold), LEVELS: TAKEN_OFF}
        judged = judged_metadata(scored, features, model, folded=folded)
        metadata = _metadata(arguments, features, head_input, model) | known() | tie | judged
        return ModelFiles(model_bytes(fold_mixtures(model.predictor, head_input.fixed), metadata), out_of_fold)

    return make_files


def judged_metadata(scored: ScoredImages, features: FeatureTable, model: BestModel, *, folded: bool) -> dict[str, str]:
    """Return how good a model is on images that it has not learnt from, as metadata; nothing if that is not known.

    Only the model at the end of a search has these figures: what choosing among trials adds is known only then.
    """
    flattery = model.origin.get(FLATTERY)
    outputs = model.outputs[:, 0].double().numpy()
    judged = Judged(
        scored.table, outputs, np.empty((len(outputs), 0)), folded=folded, out_of_fold=outputs if folded else None
    )
    believed = judged.believed
    if flattery is None or believed is None:
        return {}
    scores, judged_on = judged.scores[believed.rows], believed.name.lower()
    spearman = spearman_interval(scores, believed.predictions, out_of_fold=believed.is_out_of_fold)
    known = find_taste(scored.answers, scored.table, features.values.float().numpy(), judged.unseen)
    if known is None:
        pairs = ab_interval(scores, believed.predictions, out_of_fold=believed.is_out_of_fold)
    else:
        pairs = known.share(believed.rows, believed.predictions)
    if not (math.isfinite(spearman.value) and math.isfinite(pairs.value)):
        return {}
    less = 0.0 if judged_on == TEST or known is not None else float(flattery)
    figures = Figures(
        judged_on,
        len(scores),
        right_pairs=pairs.value - less,
        right_pairs_bounds=None if math.isnan(pairs.low) else (pairs.low - less, pairs.high - less),
        spearman=spearman.value,
        spearman_bounds=None if math.isnan(spearman.low) else (spearman.low, spearman.high),
    )
    return {JUDGED: figures_to_text(figures)}


def study_note(arguments: TrainingArguments, scored: ScoredImages, identity: Mapping[str, str]) -> str:
    """Return the note on the study that the dashboard shows, in Markdown."""
    command = "\n".join(shown_lines(arguments))
    return (
        f"Pictures in `{arguments.images.directory}`: {describe(scored.table, arguments.split.n_folds)}\n\n"
        f"Features: {identity['features']}\n\n"
        f"Loss {arguments.objective.loss_model}; the search improves {arguments.objective.metric} "
        f"{_judged_on(arguments)}\n\n"
        f"Model: `{scored.directory / arguments.output.model}`\n\n"
        f"Arguments of `aesthetic_predictor_training.py`:\n\n```\n{command}\n```\n"
    )


def _judged_on(arguments: TrainingArguments) -> str:
    if arguments.split.n_folds > 1:
        return f"out of fold, in {arguments.split.n_folds} folds"
    return f"on the {arguments.objective.set_for_scoring} set"


def _metadata(
    arguments: TrainingArguments, features: FeatureTable, head_input: HeadInput, model: BestModel
) -> dict[str, str]:
    """Return the metadata of the model file; all values are strings."""
    predictions = model.outputs[:, 0]
    trial = model.trials[0]
    extractors = list(dict.fromkeys(block.extractor for block in features.blocks))
    states = [[block.hidden_state for block in features.blocks if block.extractor == name] for name in extractors]
    known_input = input_metadata(
        extractors, states, head_input.modes, arguments.features.views, fp16=arguments.features.fp16_features
    )
    found = {"hidden_state_weights": str(model.state_weights)} if model.state_weights else {}
    if model.blend:
        found[BLEND] = ", ".join(f"{name} {weight:.4f}" for name, weight in model.blend.items())
    if arguments.search.prior_model is not None:
        found["prior_model"] = Path(arguments.search.prior_model).name
    known = {**trial.user_attrs, **model.metrics, **trial.params}
    parameters = {key: str(value) for key, value in known.items() if key not in OF_THE_MACHINE}
    return {
        **known_input,
        "folds": str(arguments.split.n_folds),
        "n_images": str(len(predictions)),
        "mean_predicted_score": str(float(predictions.mean())),
        "stdev_predicted_score": str(float(predictions.std())),
        "loss_model": arguments.objective.loss_model,
        "metric_for_scoring": arguments.objective.metric,
        "set_for_scoring": arguments.objective.set_for_scoring,
        **model.origin,
        **parameters,
        **found,
    }
