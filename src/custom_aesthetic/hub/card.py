"""The model card: what a model file says of itself, for people and, in its YAML header, for the hub."""

from collections.abc import Mapping
from typing import Any

from custom_aesthetic.extractors.build import asks_a_hub
from custom_aesthetic.extractors.packaged import NETWORKS
from custom_aesthetic.hub.figures import EVAL, KEY, OUT_OF_FOLD, TEST, Bounds, Figures, figures_from_text
from custom_aesthetic.settings.training import EXTRACTOR_SEPARATOR

LIBRARY = "custom-aesthetic-training"
TASK = "image-classification"
"""The nearest of the hub's tasks; it knows none for scores of images."""

TAGS = ("aesthetics", "image-scoring", "preference-learning")
FILE = "model.safetensors"

HOW_JUDGED = {
    OUT_OF_FOLD: "Each picture was judged by heads that had not learnt from it.",
    TEST: "These pictures were kept apart from training and from every choice.",
    EVAL: "The model has not learnt from these pictures, but they chose the best of its trials.",
}


def model_card(metadata: Mapping[str, str], *, repository: str | None, licence: str | None) -> str:
    """Return the card, `README.md`, of a model with this metadata, in Markdown.

    `repository` is where it is published, `user/repo`; None: nowhere yet. `licence` is the hub's name of one.
    """
    from huggingface_hub import ModelCardData

    name = "aesthetic-predictor" if repository is None else repository.rpartition("/")[2]
    extractors = [part for part in metadata.get("feature_extractor_model", "").split(EXTRACTOR_SEPARATOR) if part]
    figures = figures_from_text(metadata.get(KEY, ""))
    data = ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=TASK,
        tags=list(TAGS),
        license=licence,
        base_model=[own for own in extractors if _is_on_a_hub(own)] or None,
        metrics=["spearmanr"] if figures else None,
        model_name=name,
        eval_results=_results(figures) if figures else None,
    )
    parts = [
        f"# {name}",
        "A small network that scores pictures by the taste of one person, trained with Custom Aesthetic Training. "
        "A higher score is better.",
        *_how_good(figures),
        *_what_it_learnt_from(metadata, extractors),
        *_how_to_use(extractors, repository),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _is_on_a_hub(extractor: str) -> bool:
    """Return whether this is a hub's `owner/name`; a name alone is what is left of a folder's path."""
    return "/" in extractor and asks_a_hub(extractor)


def _results(figures: Figures) -> list[Any]:
    from huggingface_hub import EvalResult

    found = (
        ("spearmanr", "Spearman's rank correlation", figures.spearman, figures.spearman_bounds),
        ("pairwise_accuracy", "Pairs in the right order", figures.right_pairs, figures.right_pairs_bounds),
    )
    return [
        EvalResult(
            task_type=TASK,
            task_name="Scoring pictures",
            dataset_type="private",
            dataset_name=f"{figures.n_images} pictures, {figures.judged_on}",
            metric_type=kind,
            metric_name=title,
            metric_value=round(value, 4),
            metric_args=None if bounds is None else {"interval_95": [round(end, 4) for end in bounds]},
        )
        for kind, title, value, bounds in found
    ]


def _how_good(figures: Figures | None) -> list[str]:
    if figures is None:
        return ["## How good it is", "The model file does not say; train it again to know."]
    rows = [
        ("pairs in the right order (guessing: 0.5)", figures.right_pairs, figures.right_pairs_bounds),
        ("Spearman's rank correlation (guessing: 0)", figures.spearman, figures.spearman_bounds),
    ]
    table = ["| figure | value | 95 % interval |", "|---|---|---|"]
    table += [f"| {title} | {value:.3f} | {_between(bounds)} |" for title, value, bounds in rows]
    return [
        "## How good it is",
        f"Of two new pictures like those it was trained on, it picks the one that its author would "
        f"{100 * figures.right_pairs:.0f} times in 100.",
        "\n".join(table),
        f"Measured on {figures.n_images} pictures, {figures.judged_on}. {HOW_JUDGED[figures.judged_on]}",
    ]


def _between(bounds: Bounds) -> str:
    return "too few pictures to say" if bounds is None else f"{bounds[0]:.3f} ... {bounds[1]:.3f}"


def _what_it_learnt_from(metadata: Mapping[str, str], extractors: list[str]) -> list[str]:
    facts = [
        ("scored pictures", metadata.get("n_images")),
        ("folds", metadata.get("folds")),
        ("features", " and ".join(f"`{name}`" for name in extractors)),
        ("hidden states (0 is the last)", metadata.get("hidden_states_used")),
        ("their mode", metadata.get("hidden_states_mode")),
        ("views of each picture", metadata.get("views")),
        ("loss", metadata.get("loss_model")),
        ("mean of its scores", _rounded(metadata.get("mean_predicted_score"))),
        ("standard deviation of its scores", _rounded(metadata.get("stdev_predicted_score"))),
    ]
    table = ["| | |", "|---|---|", *(f"| {title} | {_cell(value)} |" for title, value in facts if value)]
    note = "No picture, path or score of the author is in the model file."
    if metadata.get("domain"):
        note += " It recognises pictures that are unlike all that it was trained on: their domain distance is above 1."
    return ["## What it was trained on", "\n".join(table), note]


def _rounded(text: str | None) -> str | None:
    try:
        return None if text is None else f"{float(text):.3f}"
    except ValueError:
        return None


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _how_to_use(extractors: list[str], repository: str | None) -> list[str]:
    packaged = any(name in NETWORKS for name in extractors)
    install = f"{LIBRARY}[packaged]" if packaged else LIBRARY
    where = FILE if repository is None else repository
    code = f"from custom_aesthetic import Scorer\n\nscorer = Scorer.load({where!r})\n"
    code += 'print(scorer.score(["first.jpg", "second.jpg"]))'
    parts = [
        "## How to use it",
        f'`pip install "{install}"`, and then',
        f"```python\n{code}\n```",
        f"or `aesthetic_scorer -d folder -m {FILE}` for a folder of pictures. In ComfyUI, put `{FILE}` into "
        "`models/customaesthetic`.",
    ]
    local = [name for name in extractors if not _is_on_a_hub(name) and name not in NETWORKS]
    if local:
        parts.append(
            f"It needs the feature extractor {' and '.join(f'`{name}`' for name in local)}, which its author had in a "
            "folder: put a folder of that name where you run it."
        )
    return parts
