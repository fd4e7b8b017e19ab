"""The parameters of a head, and the ranges that a search draws them from."""

from dataclasses import dataclass, fields
from typing import Generic, TypeVar

from custom_aesthetic.settings.declaration import Range, setting

Whole = TypeVar("Whole")
Real = TypeVar("Real")


@dataclass(frozen=True)
class PerHeadParameter(Generic[Whole, Real]):
    """One entry for each parameter of a head: a range in `SearchSpace`, a number in `HeadParameters`.

    This is the only list of them: range, first trial, meaning and bounds stand here.
    """

    first_layer_size: Whole = setting(Range(10, 1000), "size of the first hidden layer", first=64, low=1)
    second_layer_size: Whole = setting(Range(10, 1000), "size of the second hidden layer", first=24, low=1)
    train_epochs: Whole = setting(Range(5, 50), "passes over the training images", first=40, low=1)
    warmup_ratio: Real = setting(
        Range(0.0, 0.2), "share of the steps of linear warm-up, then cosine to zero", first=0.1, low=0, high=1
    )
    log_lr: Real = setting(Range(-4.5, -2.5), "log10 of AdamW's learning rate", first=-2.6, low=-10, high=1)
    log_weight_lr: Real = setting(
        Range(-4.5, -2.5), "the same for the hidden-state weights, only in weight mode", first=-3.0, low=-10, high=1
    )
    batch_size: Whole = setting(
        Range(1, 100), "images a step; for ab and nll an odd value is rounded up", first=16, low=1
    )
    input_dropout: Real = setting(
        Range(0.0, 0.8), "dropout between features and first layer", first=0.4, low=0, high=0.99
    )
    dropout: Real = setting(Range(0.0, 0.8), "dropout between the two hidden layers", first=0.1, low=0, high=0.99)
    output_dropout: Real = setting(
        Range(0.0, 0.0), "dropout after the second hidden layer", first=0.0, low=0, high=0.99
    )


@dataclass(frozen=True)
class SearchSpace(PerHeadParameter[Range, Range]):
    """Metaparameters: equal --min_x and --max_x fix x and take it out of the search"""


INTEGER_PARAMETERS = tuple(field.name for field in fields(SearchSpace) if isinstance(field.metadata["first"], int))
"""The searched parameters that are whole numbers."""
