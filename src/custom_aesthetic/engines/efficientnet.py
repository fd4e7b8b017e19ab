"""Write an EfficientNet-Lite as ONNX, with its normalisations as parts of the convolutions before them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from custom_aesthetic.engines.onnx_graph import Graph


def onnx_file(network: Any, side: int, hidden_states: Sequence[int]) -> bytes:
    """Return an ONNX file whose outputs are the averages of feature maps, (images, width), for these hidden states.

    `network` is an `EfficientNet` of efficientnet_lite_pytorch, for pictures (3, side, side). Hidden state 0 is its
    last feature map, hidden state k the output of its k-th block from the end.
    """
    writer = _Writer(side)
    averages: dict[int, tuple[str, int]] = {}
    maps = writer.convolve("pixels", network._conv_stem, network._bn0, clipped=True)
    for k, block in zip(range(len(network._blocks), 0, -1), network._blocks, strict=True):
        maps = writer.block(maps, block)
        if k in hidden_states:
            averages[k] = writer.average(maps), block._project_conv.out_channels
    if 0 in hidden_states:
        last = writer.convolve(maps, network._conv_head, network._bn1, clipped=True)
        averages[0] = writer.average(last), network._conv_head.out_channels
    return writer.graph.to_bytes({name: ("images", width) for name, width in (averages[k] for k in hidden_states)})


class _Writer:
    """Appends the parts of a network to a graph; its methods take and return names of feature maps in the graph."""

    def __init__(self, side: int) -> None:
        self.graph = Graph({"pixels": ("images", 3, side, side)})
        self._bounds = [self.graph.constant(np.array(bound, np.float32)) for bound in (0, 6)]

    def block(self, maps: str, block: Any) -> str:
        before, parts = maps, block._block_args
        if parts.expand_ratio != 1:
            maps = self.convolve(maps, block._expand_conv, block._bn0, clipped=True)
        maps = self.convolve(maps, block._depthwise_conv, block._bn1, clipped=True)
        maps = self.convolve(maps, block._project_conv, block._bn2, clipped=False)
        is_same_shape = block._depthwise_conv.stride[0] == 1 and parts.input_filters == parts.output_filters
        return self.graph.add("Add", maps, before) if parts.id_skip and is_same_shape else maps

    def convolve(self, maps: str, convolution: Any, normalisation: Any, *, clipped: bool) -> str:
        factor = normalisation.weight.double() / (normalisation.running_var.double() + normalisation.eps).sqrt()
        weights = convolution.weight.double() * factor[:, None, None, None]
        biases = normalisation.bias.double() - normalisation.running_mean.double() * factor
        left, right, top, bottom = getattr(convolution.static_padding, "padding", (0, 0, 0, 0))
        maps = self.graph.add(
            "Conv",
            maps,
            self.graph.constant(weights.float().contiguous().numpy()),
            self.graph.constant(biases.float().numpy()),
            strides=tuple(convolution.stride),
            pads=(top, left, bottom, right),
            group=convolution.groups,
        )
        return self.graph.add("Clip", maps, *self._bounds) if clipped else maps

    def average(self, maps: str) -> str:
        return self.graph.add("Flatten", self.graph.add("GlobalAveragePool", maps))
