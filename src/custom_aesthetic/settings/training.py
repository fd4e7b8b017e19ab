"""Every setting, declared once in frozen groups: name, default, meaning and bounds.

The command line, `--help`, the checks and `arguments-example.txt` are derived from these declarations.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Generic, Literal, TypeVar

SPLITS = ("full", "train", "eval")
METRICS = ("mse", "wmse", "nll", "ab", "spearman", "pearson", "accuracy")
LOSSES = ("mse", "ab", "nll", "wmse")
SAMPLERS = ("CmaEs", "random", "QMC", "TPE", "GP")


@dataclass(frozen=True)
class Range:
    """Inclusive bounds of a searched parameter; equal bounds fix it and remove it from the search."""

    low: float
    high: float

    @property
    def is_fixed(self) -> bool:
        return self.low == self.high

    def clip(self, value: float) -> float:
        """Return the value in the range that is nearest to the given one."""
        return min(max(value, self.low), self.high)


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    short: str | None = None,
    first: float | None = None,
    yields_to: tuple[tuple[str, ...], Any] = ((), None),
) -> Any:
    """Return a dataclass field that carries its help text, choices, bounds (both included) and short option.

    `first` is the value of a searched parameter in the first trial. `yields_to` names other settings and a value:
    where one of them is given and this one is not, it has that value.
    """
    declared = {"help": help, "choices": choices, "low": low, "high": high, "short": short}
    return field(default=default, metadata={**declared, "first": first, "yields_to": yields_to})


EXTRACTOR_SEPARATOR = "__"
"""Separates the values of different extractors, in options and in the model file."""

HiddenStates = tuple[tuple[int, ...], ...]
"""Hidden states of each extractor, in the order of the extractors; a single list applies to all."""

TABLE_PREFIX = "features:"
"""Begins the extractor's name in a model file whose features come from a table."""

TABLE_OF_PICTURES = (
    "a table of precomputed features in place of an extractor, relative to the directory or a path: .parquet "
    "(relative_path, features), .npz (paths, features), a folder of .parquet files, or the output folder of "
    "clip-retrieval"
)
TABLE = f"{TABLE_OF_PICTURES}; the pictures themselves need not be there"

OFFLINE = "never ask a hub for an extractor; use only files on this machine"

REQUIRED: Any = None
"""Default of a setting that the user must give (its type does not allow None)."""


@dataclass(frozen=True)
class ImageSettings:
    """Pictures and scores"""

    directory: str = setting(
        REQUIRED,
        "top-level image directory; sub-directories are included. With --features it may be left away, and is then the "
        "current directory",
        short="-d",
        yields_to=(("features",), "."),
    )
    scores: str | None = setting(
        None,
        "score file, relative to the directory or absolute; the first found of scores.json, score.json, scores.csv "
        "if not given, else the column score of the table of --features",
    )
    split: str = setting("split.json", "file that the train/eval split is read from and written to")


@dataclass(frozen=True)
class OutputSettings:
    """What is written"""

    model: str = setting(
        "model.safetensors", "file for the trained model, relative to the directory or absolute", short="-m"
    )
    savefile: str | None = setting(
        None,
        "CSV of score, model_score, out_of_fold_score (with folds), split and every other column of the score file; "
        "relative to the directory or absolute",
        short="-s",
    )
    report: str | None = setting(
        None,
        "an HTML page of statistics, charts and thumbnails, written at the end; relative to the current directory",
    )
    verbose: bool = setting(False, "also print all arguments, p-values, seeds and unused parameters")


@dataclass(frozen=True)
class StudySettings:
    """Study and machine"""

    name: str = setting("aesthetic", "study name; the same name continues that study")
    workers: str = setting(
        "auto",
        "processes that run trials side by side on this machine: auto = one a core on a CPU (a single one if a "
        "seed is given, as several would not be repeatable), one that trains 16 heads at once on an accelerator; or a "
        "number; or heads:N, one process that trains N heads at once on any device. Further machines join by running "
        "the same command on a shared --database",
    )
    database: str = setting(
        "sqlite:///db.sqlite",
        "any Optuna storage URL (SQLite, PostgreSQL, MySQL), grpc://host:port of Optuna's proxy in front of one, or "
        "the path of a journal file; empty = keep nothing",
    )
    server: str = setting(
        "off",
        "on starts optuna-dashboard on the storage, prints its address, and keeps it running after training; "
        "daemon stops it with training",
        choices=("off", "on", "daemon"),
    )


@dataclass(frozen=True)
class DeviceSettings:
    """Device"""

    device: str = setting("auto", "auto (cuda, then mps, then cpu) or any torch device")


@dataclass(frozen=True)
class FeatureSettings:
    """Features"""

    feature_extractor_model: str = setting(
        "ChrisGoringe/vitH16",
        "hub name or local folder; a comma-separated list concatenates the features of several; "
        "efficientnet-lite0, -lite1 and -lite2 need no download",
    )
    hidden_states_used: HiddenStates | None = setting(
        None,
        "comma-separated; 0 = final output, 1 = the layer before, ... need not be consecutive; with several extractors "
        "one list serves all, or one list each, separated by __ in their order (0,2__0); each extractor's own default "
        "if not given",
        low=0,
    )
    hidden_states_mode: str = setting(
        "default",
        "join (concatenate), average, weight (a trained linear layer with one weight per hidden state, shared by all "
        "features, plus a bias); default is the extractor's own: join for CLIP, average for AIM; with several "
        "extractors one mode serves all, or one each, separated by __ in their order (join__average)",
    )
    weight_hidden_states: bool = setting(False, "the older spelling of --hidden_states_mode=weight")
    fixed_hidden_state_weights: tuple[float, ...] | None = setting(
        None, "fixed, untrained weights in the order of --hidden_states_used, followed by the bias"
    )
    fp16_features: bool = setting(False, "keep features in half precision")
    views: tuple[str, ...] = setting(
        ("centre",),
        "comma-separated crops of each picture whose features are averaged: centre (the "
        "extractor's usual crop), whole (squeezed to the crop's size), mirror, mirror_whole, corner_0 ... corner_3",
    )
    features: str | None = setting(None, TABLE)
    features_name: str | None = setting(
        None, "what the model file calls the features of that table, as features:NAME; the file's name if not given"
    )
    offline: bool = setting(False, OFFLINE)


@dataclass(frozen=True)
class ObjectiveSettings:
    """Training constants: loss and metrics"""

    loss_model: str = setting(
        "mse",
        "mse; ab = margin ranking loss over pairs with unequal scores; nll = two outputs, mean and sigma, Gaussian "
        "negative log likelihood; wmse = mse weighted by the score file's weight column",
        choices=LOSSES,
    )
    set_for_scoring: str = setting("eval", "the set whose metric the search improves", choices=SPLITS)
    metric_for_scoring: str | None = setting(
        None,
        "the metric the search improves; the loss model's own if not given. mse, wmse and nll are minimised, the "
        "others maximised",
        choices=METRICS,
    )
    calculate_ab: bool = setting(False, "also compute ab on all three sets and record it with the trial")
    calculate_mse: bool = setting(False, "also compute mse")
    calculate_wmse: bool = setting(False, "also compute wmse")
    calculate_nll: bool = setting(False, "also compute nll")
    calculate_spearman: bool = setting(False, "also compute spearman")
    calculate_pearson: bool = setting(False, "also compute pearson")
    calculate_accuracy: bool = setting(False, "also compute accuracy")
    accuracy_divider: float | None = setting(None, "threshold between good and bad; the median score if not given")
    normalise_weights: bool = setting(False, "scale weight to mean 1")

    @property
    def metric(self) -> str:
        """The metric that the search optimises."""
        return self.loss_model if self.metric_for_scoring is None else self.metric_for_scoring

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics recorded for a trial: that of the loss, the scoring metric, and those asked for."""
        asked = {name for name in METRICS if getattr(self, f"calculate_{name}")}
        return tuple(name for name in METRICS if name in asked | {self.loss_model, self.metric})


@dataclass(frozen=True)
class SplitSettings:
    """Training constants: split"""

    fraction_for_eval: float = setting(0.25, "share kept for evaluation", low=0, high=1)
    fraction_for_test: float = setting(
        0.0, "share reserved for the closing statistics; it is not used for training or selection", low=0, high=1
    )
    folds: int | Literal["auto"] = setting(
        "auto",
        "K = a trial is judged by K-fold cross-validation over train and eval together, and the model averages the "
        "folds' heads and a head of all images; 1 = by the eval set, which the model never learns from. auto = 4 "
        "where nothing is said of a split (no split column, no --split, --fraction_for_eval or --set_for_scoring) "
        "and up to 5,000 images are scored, else 1",
        low=1,
        yields_to=(("split", "fraction_for_eval", "set_for_scoring"), 1),
    )
    eval_pick_seed: int = setting(42, "seed of the split")
    group_duplicates: str = setting(
        "on",
        "on keeps near-duplicates (bursts, variations of one seed) on one side of a new split; existing splits are "
        "kept, with a warning",
        choices=("on", "off"),
    )
    ignore_existing_split: bool = setting(False, "make a new split even if there is one")

    @property
    def n_folds(self) -> int:
        """The folds, once `auto` is settled."""
        assert self.folds != "auto", "folds are settled when the score file has been read"
        return self.folds


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


@dataclass(frozen=True)
class SearchSettings:
    """Search"""

    trials: int = setting(
        200,
        "number of finished trials in the study: after a kill, the same command continues, and after the end it runs "
        "no more. 0 = extract and cache the features, then stop",
        low=0,
    )
    sampler: str = setting(
        "CmaEs",
        "how the next parameters are chosen. CmaEs: the usual choice, for some dozens of trials or more. TPE: for few "
        "trials or many fixed parameters, takes 3 ms per trial. GP: takes about 0.6 s per trial after 200, so only "
        "if a trial takes many seconds. random and QMC: to cover the space evenly, and as a baseline",
        choices=SAMPLERS,
    )
    pruner: str = setting(
        "none",
        "ends hopeless trials early, by their best score at each tenth of their training, or with folds by their score "
        "on the folds done so far",
        choices=("none", "median", "hyperband"),
    )
    prior_model: str | None = setting(
        None,
        "a model file on the same features, or a public linear head on the same CLIP embeddings (.pth), from whose "
        "scores the new model learns the difference, relative to the directory or a path; how far it is believed "
        "depends on the scores, and the new file stands alone. It needs folds and --loss_model=mse",
    )
    ensemble: int = setting(4, "average the best N heads into the one model file; 1 = the best alone", low=1)
    model_seed: int | None = setting(
        None,
        "seeds initialisation, shuffling, dropout and the sampler: same seed, same machine, same result",
        low=0,
        high=2**40,
    )


@dataclass(frozen=True)
class TrainingArguments:
    """All settings of `aesthetic_predictor_training.py`."""

    images: ImageSettings
    output: OutputSettings
    study: StudySettings
    device: DeviceSettings
    features: FeatureSettings
    objective: ObjectiveSettings
    split: SplitSettings
    space: SearchSpace
    search: SearchSettings


@dataclass(frozen=True)
class ModelScoreSettings:
    """Model scores, from a model or a file"""

    model: str | None = setting(
        None, "a trained model to run on the images, relative to the directory or a path", short="-m"
    )
    model_scores: str | None = setting(
        None, "a score file written by a model, or the savefile of a training; ignored if --model is given"
    )


@dataclass(frozen=True)
class AnalysisSettings:
    """What is reported and written"""

    include_train_split: bool = setting(False, "use all images; otherwise only those that the model was not trained on")
    regex: tuple[str, ...] = setting(
        (), "also report the images whose relative path matches; may be given several times"
    )
    directories: bool = setting(False, "also report each sub-directory")
    save_scores_and_errors: bool = setting(False, "write the two files below")
    save_model_scorefile: str = setting("model_scores.json", "model scores")
    save_error_scorefile: str = setting("error_scores.json", "absolute errors")
    baselines: bool = setting(False, "also report the results of ridge, support-vector and kernel regression")
    report: str | None = setting(None, "an HTML page of statistics, charts and thumbnails")
    database: str | None = setting(None, "for the report: the Optuna storage of the training")
    name: str | None = setting(None, "for the report: the name of its study")


@dataclass(frozen=True)
class AnalysisArguments:
    """All settings of `aesthetic_data_analysis.py`."""

    images: ImageSettings
    model_scores: ModelScoreSettings
    analysis: AnalysisSettings
    features: FeatureSettings
    device: DeviceSettings


@dataclass(frozen=True)
class ViewerSettings:
    """What is shown and written"""

    save: str | None = setting(None, "write the table as CSV")
    no_browser: bool = setting(False, "do not open a browser; print the address only")
    port: int | None = setting(None, "port to serve on; any free one if not given", low=1, high=65535)


@dataclass(frozen=True)
class ViewerArguments:
    """All settings of `aesthetic_spotlight.py`."""

    images: ImageSettings
    model_scores: ModelScoreSettings
    viewer: ViewerSettings
    features: FeatureSettings
    device: DeviceSettings
