"""Settings of the analysis and of the Spotlight viewer."""

from dataclasses import dataclass

from custom_aesthetic.settings.declaration import setting
from custom_aesthetic.settings.training import DeviceSettings, FeatureSettings, ImageSettings


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
