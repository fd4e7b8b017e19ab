"""The interface of all feature extractors."""

from collections.abc import Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from custom_aesthetic.engines.lanes import BATCH_SIZE

VIEWS = ("centre", "whole", "mirror", "mirror_whole", "corner_0", "corner_1", "corner_2", "corner_3")


class FeatureExtractor(Protocol):
    """A frozen network and its transform.

    Creating an extractor is cheap: only the configuration is read. The weights are loaded by the first call of
    `features`, so a run whose features are all cached never loads them.
    """

    name: str
    """The name given by the user; it is written to the model file's metadata."""

    fingerprint: str
    """Text that contains everything that changes the features: checkpoint, its revision or the local file's size and
    hash, transform, precision. Extractors with the same fingerprint give the same features.
    """

    n_hidden_states: int
    """Number of hidden states, 0 ... n_hidden_states - 1; 0 is the final output."""

    default_hidden_states: tuple[int, ...]
    """The hidden states that are used unless the user chooses others."""

    default_mode: str
    """`join` or `average`: the meaning of `--hidden_states_mode=default`."""

    target_size: int
    """Shorter side in pixels after the transform's resize; reduced decoding of a JPEG stays well above it."""

    def transform(self, image: Image.Image, view: str = "centre") -> Tensor:
        """Return the input of the network, (3, height, width) float32, for an upright RGB image. Thread-safe.

        `view` is one of VIEWS: `centre` is the extractor's usual transform (resize, centre crop), `whole` squeezes the
        whole picture to the size of the crop, `mirror` and `mirror_whole` are those flipped left to right, and
        `corner_0` ... `corner_3` crop a corner (top left, top right, bottom left, bottom right) of the resized picture.
        """

    def features(self, pixels: Tensor, hidden_states: Sequence[int]) -> dict[int, Tensor]:
        """Return hidden state -> features (n_images, width), float32 on the extractor's device.

        `pixels` is a batch of transformed pictures, (n_images, 3, height, width), on any device. All hidden states come
        from one forward pass. Widths may differ between hidden states.

        It is called from one thread at a time, unless the extractor has a true attribute `features_thread_safe`: then,
        on a CPU, several batches run at once, each with one torch thread.

        An extractor may have a method `network()`, which returns its network, loaded into main memory where it was not
        loaded yet. `features` moves it to the extractor's device from wherever it is. It may have a method
        `transform_views(image, views)`, which returns the result of `transform` for each view in less time, and an
        attribute `batch_size`, the fastest number of pictures for one core of a CPU.
        """


def runs_side_by_side(extractor: FeatureExtractor) -> bool:
    """Return whether `features` is called for several batches at once: on a CPU, where the extractor allows it."""
    is_on_cpu = torch.device(getattr(extractor, "device", "cpu")).type == "cpu"
    return is_on_cpu and bool(getattr(extractor, "features_thread_safe", False))


def batch_size_of(extractor: FeatureExtractor) -> int:
    """Return how many pictures go through the extractor together: on one core of a CPU, or at first elsewhere."""
    return getattr(extractor, "batch_size", BATCH_SIZE)


def all_views(extractor: FeatureExtractor, image: Image.Image, views: Sequence[str]) -> dict[str, Tensor]:
    """Return view -> the input of the network for an upright RGB image, as `transform` returns it."""
    together = getattr(extractor, "transform_views", None)
    return together(image, views) if together else {view: extractor.transform(image, view) for view in views}
