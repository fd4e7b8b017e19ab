"""The judge of heads: it computes the metrics of their outputs on the train, eval and full sets."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.base.errors import UserError
from custom_aesthetic.quality import metrics

Rows = NDArray[np.int64]

SETS = ("train", "eval", "full")
"""The sets that metrics are computed on; `full` is train and eval together."""


@dataclass(frozen=True)
class Judge:
    """The true scores, with the other data that metrics need. All arrays are (n_images,), in units of the scores."""

    scores: Array
    rows: Mapping[str, Rows]
    """Set name (`train`, `eval`, `full`) -> the rows of its images; a test set is in none of them."""
    divider: float
    """Threshold between good and bad for `accuracy`."""
    weights: Array | None = None
    """Weights of the images for `wmse`."""

    def measure(self, metric: str, set_name: str, outputs_of: Callable[[Tensor], Tensor]) -> float:
        """Return a metric on a set; nan if undefined. `outputs_of` maps rows to their outputs (n_rows, n_outputs)."""
        rows = self.rows[set_name]
        outputs = outputs_of(torch.from_numpy(rows)).double().numpy()
        return self._compute(metric, rows, outputs, lambda: self._train_error(outputs_of))

    def measure_all(self, names: tuple[str, ...], outputs: Array) -> dict[str, float]:
        """Return the metrics (`eval_ab`, ...) of outputs (n_images, n_outputs) on all sets, without undefined ones."""

        def outputs_of(rows: Tensor) -> Tensor:
            return torch.from_numpy(outputs[rows.numpy()])

        values = {f"{kind}_{name}": self.measure(name, kind, outputs_of) for kind in self.rows for name in names}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _compute(self, metric: str, rows: Rows, outputs: Array, train_error: Callable[[], float]) -> float:
        if metric != "nll":
            sigmas = None
        elif outputs.shape[1] > 1:
            sigmas = outputs[:, 1]
        else:
            sigmas = np.full(len(rows), train_error())
        weights = None if self.weights is None else self.weights[rows]
        scores, predictions = self.scores[rows], outputs[:, 0]
        return metrics.compute(metric, scores, predictions, divider=self.divider, weights=weights, sigmas=sigmas)

    def _train_error(self, outputs_of: Callable[[Tensor], Tensor]) -> float:
        """Return the root mean squared error on the training images: the sigma of a head without a sigma output."""
        rows = self.rows["train"]
        predictions = outputs_of(torch.from_numpy(rows))[:, 0].double().numpy()
        return math.sqrt(metrics.mse(self.scores[rows], predictions))


def check_scores(judge: Judge, *, loss_model: str, metric: str, set_for_scoring: str, wanted: tuple[str, ...]) -> None:
    """Raise UserError if the loss or a metric cannot be computed from these scores.

    `metric` is the metric that the search optimises, and `wanted` are all names of losses and metrics in use.
    """
    if judge.weights is None and ("wmse" in wanted):
        raise UserError(
            "wmse needs a column weight in the score file, which has none; add it, or choose another loss or metric"
        )
    train = judge.scores[judge.rows["train"]]
    if loss_model == "ab" and np.ptp(train) == 0:
        raise UserError(
            "all training scores are equal, but --loss_model=ab learns from pairs with different scores; score more "
            "pictures, or choose another --loss_model"
        )
    scored = judge.scores[judge.rows[set_for_scoring]]
    if metric in ("ab", "spearman", "pearson") and np.ptp(scored) == 0:
        raise UserError(
            f"{metric} is undefined on the {set_for_scoring} set: its {len(scored)} score(s) are all equal; "
            "use another --metric_for_scoring, --set_for_scoring or --fraction_for_eval"
        )
