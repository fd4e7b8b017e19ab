"""Settings of the training, and the groups that it shares with other scripts."""

from dataclasses import dataclass
from typing import Any, Literal

from custom_aesthetic.settings.declaration import setting
from custom_aesthetic.settings.head_parameters import SearchSpace

SPLITS = ("full", "train", "eval")
METRICS = ("mse", "wmse", "nll", "ab", "spearman", "pearson", "accuracy")
LOSSES = ("mse", "ab", "nll", "wmse")
SAMPLERS = ("CmaEs", "random", "QMC", "TPE", "GP")


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
