"""What every feature extractor offers, whatever network it wraps."""

from collections.abc import Sequence
from typing import Protocol

from PIL import Image
from torch import Tensor

VIEWS = ("centre", "whole", "mirror", "mirror_whole", "corner_0", "corner_1", "corner_2", "corner_3")


class FeatureExtractor(Protocol):
    """A frozen network and the transform that it wants.

    Making one is cheap: it reads the configuration only. The weights are loaded by the first call of
    `features`, so a run whose features are all cached never loads them.
    """

    name: str
    """The name as the user gave it; it goes into the model file's metadata."""

    fingerprint: str
    """Everything that changes the numbers: checkpoint, its revision or the local file's size and hash,
    transform, precision. Two extractors with the same fingerprint give the same features."""

    n_hidden_states: int
    """Hidden states 0 ... n_hidden_states - 1 can be asked for; 0 is the final output."""

    default_hidden_states: tuple[int, ...]
    """The hidden states used when the user names none."""

    default_mode: str
    """`join` or `average`: what `--hidden_states_mode=default` stands for."""

    target_size: int
    """Pixels of the shorter side after the transform's resize; a JPEG draft stays well above it."""

    def transform(self, image: Image.Image, view: str = "centre") -> Tensor:
        """Return the pixels the network wants, (3, height, width) float32, for an upright RGB image.

        `view` is one of VIEWS: `centre` is the extractor's own transform (resize, centre crop), `whole` squeezes
        the whole picture to the crop's size, `mirror` and `mirror_whole` are those flipped left to right, and
        `corner_0` ... `corner_3` crop the corners (top left, top right, bottom left, bottom right) of the resized
        picture. Thread-safe.
        """

    def features(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        """Return hidden state -> features (n_images, width), float32 on the extractor's device.

        `pixels` is a batch of transformed pictures, (n_images, 3, height, width), on any device. All the hidden
        states come from one forward pass. Widths may differ between hidden states.

        Called from one thread at a time, unless the extractor has an attribute `features_thread_safe` that is true:
        then on a CPU several batches go through it at once, each with one torch thread.
        """
