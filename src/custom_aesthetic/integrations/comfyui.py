"""ComfyUI's nodes: score images, choose the best or the worst of a batch, divide a batch by a threshold.

ComfyUI imports this at its start and asks for the inputs of each node often, so that nothing heavy is imported here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from custom_aesthetic.integrations.comfyui_models import file_stamp, list_models, register_models_folder

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "register_models_folder"]

MOST_IMAGES = 4096
WIDEST_THRESHOLD = 1e6

MODEL_HELP = "A model file of Custom Aesthetic Training, from the folder models/customaesthetic."
IMAGES_HELP = "One image or a batch of them."


class ModelNode:
    """What all nodes share: their place in the menu, and that a changed model file makes them run again."""

    CATEGORY = "Custom Aesthetic"

    @classmethod
    def IS_CHANGED(cls, model: str = "", **_others: Any) -> Any:
        return file_stamp(model)


class AestheticScore(ModelNode):
    """Scores images, and passes them on unchanged."""

    DESCRIPTION = "Score images by your taste."
    FUNCTION = "score"
    RETURN_TYPES = ("IMAGE", "FLOAT", "STRING")
    RETURN_NAMES = ("images", "scores", "text")
    OUTPUT_IS_LIST = (False, True, False)
    OUTPUT_TOOLTIPS = ("The images, unchanged.", "A score for each image.", "The scores as text.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": _common_inputs()}

    def score(self, model: str, images: "Tensor") -> tuple[Any, ...]:
        rated = _rated(model, images)
        lines = [f"{_counted(len(images))} by {model}"]
        lines += [f"image {row}: {rated.describe(row)}" for row in range(len(images))]
        return images, rated.scores, "\n".join(lines)


class AestheticBestOf(ModelNode):
    """Chooses the best or the worst images of a batch."""

    DESCRIPTION = "Keep the n best images of a batch, best first, or the n worst, worst first."
    FUNCTION = "choose"
    RETURN_TYPES = ("IMAGE", "FLOAT", "STRING")
    RETURN_NAMES = ("images", "scores", "text")
    OUTPUT_IS_LIST = (False, True, False)
    OUTPUT_TOOLTIPS = (
        "The images chosen; all of them where there are fewer than n.",
        "Their scores, in the same order.",
        "Their positions in the batch, from 0, and scores, as text.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        n = {"default": 4, "min": 1, "max": MOST_IMAGES, "tooltip": "How many images to keep."}
        return {
            "required": {
                **_common_inputs(),
                "n": ("INT", n),
                "keep": (["best", "worst"], {"default": "best", "tooltip": "Which end of the order to keep."}),
            }
        }

    def choose(self, model: str, images: "Tensor", n: int, keep: str) -> tuple[Any, ...]:
        rated = _rated(model, images)
        rows = rated.in_order(best_first=keep == "best")[:n]
        lines = [f"{keep} {len(rows)} of {_counted(len(images))} by {model}"]
        lines += [f"{place}. image {row}: {rated.describe(row)}" for place, row in enumerate(rows, 1)]
        return images[rows], [rated.scores[row] for row in rows], "\n".join(lines)


class AestheticFilter(ModelNode):
    """Divides a batch by a threshold; what comes after an empty side is not executed."""

    DESCRIPTION = "Divide a batch by a threshold. Nodes after a side without images are skipped."
    FUNCTION = "divide"
    RETURN_TYPES = ("IMAGE", "IMAGE", "FLOAT")
    RETURN_NAMES = ("passed", "others", "scores")
    OUTPUT_IS_LIST = (False, False, True)
    OUTPUT_TOOLTIPS = (
        "The images that pass, in their order.",
        "All others, in their order, with those that cannot be scored.",
        "A score for each image given.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        threshold = {
            **{"default": 5.0, "min": -WIDEST_THRESHOLD, "max": WIDEST_THRESHOLD, "step": 0.01, "round": 0.0001},
            "tooltip": "In the units of the scores that the model was trained on.",
        }
        return {
            "required": {
                **_common_inputs(),
                "threshold": ("FLOAT", threshold),
                "keep": (
                    ["at least", "below"],
                    {"default": "at least", "tooltip": "Which side of the threshold passes."},
                ),
            }
        }

    def divide(self, model: str, images: "Tensor", threshold: float, keep: str) -> tuple[Any, ...]:
        scores = _rated(model, images).scores
        passes = [score >= threshold if keep == "at least" else score < threshold for score in scores]
        return _side(images, passes, True), _side(images, passes, False), scores


NODE_DISPLAY_NAME_MAPPINGS = {
    "Aesthetic Score": "Aesthetic Score",
    "Aesthetic Best Of": "Aesthetic Best Of",
    "Aesthetic Filter": "Aesthetic Filter",
}
NODE_CLASS_MAPPINGS = {
    "Aesthetic Score": AestheticScore,
    "Aesthetic Best Of": AestheticBestOf,
    "Aesthetic Filter": AestheticFilter,
}


def _common_inputs() -> dict[str, Any]:
    return {"model": (list_models(), {"tooltip": MODEL_HELP}), "images": ("IMAGE", {"tooltip": IMAGES_HELP})}


def _rated(model: str, images: "Tensor") -> Any:
    from custom_aesthetic.integrations.comfyui_scoring import rate_images

    return rate_images(model, images)


def _side(images: "Tensor", passes: Sequence[bool], wanted: bool) -> Any:
    """Return the images of one side; ComfyUI's mark for "skip what follows" where there are none."""
    from comfy_execution.graph_utils import ExecutionBlocker

    rows = [row for row, found in enumerate(passes) if found == wanted]
    return images[rows] if rows else ExecutionBlocker(None)


def _counted(n_images: int) -> str:
    return f"{n_images} image{'' if n_images == 1 else 's'}"
