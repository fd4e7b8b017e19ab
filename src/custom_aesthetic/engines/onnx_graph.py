"""Write networks as ONNX, the format of ONNX Runtime, with nothing but numpy.

An ONNX file is a protocol-buffer message. The few kinds of message that a network takes are written here field by
field, with the numbers that onnx.proto gives the fields, so that no package for exporting is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

OPSET = 13
"""Version of the operators: of 2020, which all versions of ONNX Runtime in use know."""

IR_VERSION = 7
"""Version of the format that belongs to OPSET."""

_FLOAT32, _INT64 = 1, 7
_TYPES = {np.dtype(np.float32): _FLOAT32, np.dtype(np.int64): _INT64}
_VARINT, _BYTES, _FLOAT = 0, 2, 5

Attribute = int | float | str | Sequence[int]


@dataclass
class Graph:
    """A network under construction: each call of `add` appends one operation and returns the name of its result."""

    inputs: dict[str, Sequence[int | str]]
    """Name -> shape; a text in place of a size stands for any size."""

    _nodes: list[bytes] = field(default_factory=list)
    _constants: list[bytes] = field(default_factory=list)
    _n_names: int = 0

    def add(self, operation: str, *inputs: str, **attributes: Attribute) -> str:
        """Append an operation of ONNX with these inputs and attributes; return the name of its only result."""
        name = self._new_name()
        self._nodes.append(
            b"".join(
                (
                    *(_text(1, one) for one in inputs),
                    _text(2, name),
                    _text(4, operation),
                    *(_message(5, _attribute(key, value)) for key, value in attributes.items()),
                )
            )
        )
        return name

    def constant(self, values: NDArray[np.float32] | NDArray[np.int64]) -> str:
        """Add an array to the weights; return its name."""
        name = self._new_name()
        sizes = b"".join(_number(1, size) for size in values.shape)
        self._constants.append(
            sizes + _number(2, _TYPES[values.dtype]) + _text(8, name) + _message(9, values.tobytes())
        )
        return name

    def to_bytes(self, outputs: dict[str, Sequence[int | str]]) -> bytes:
        """Return the ONNX file; `outputs` has names that `add` returned -> the shapes of those results."""
        graph = b"".join(
            (
                *(_message(1, node) for node in self._nodes),
                _text(2, "network"),
                *(_message(5, constant) for constant in self._constants),
                *(_message(11, _value(name, shape)) for name, shape in self.inputs.items()),
                *(_message(12, _value(name, shape)) for name, shape in outputs.items()),
            )
        )
        return _number(1, IR_VERSION) + _message(7, graph) + _message(8, _text(1, "") + _number(2, OPSET))

    def _new_name(self) -> str:
        self._n_names += 1
        return f"v{self._n_names}"


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    """Return an input or output: its name, its type, which is float32, and its shape."""
    sizes = (_text(2, size) if isinstance(size, str) else _number(1, size) for size in shape)
    kind = _number(1, _FLOAT32) + _message(2, b"".join(_message(1, size) for size in sizes))
    return _text(1, name) + _message(2, _message(1, kind))


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, int):
        return _text(1, name) + _number(3, value) + _number(20, 2)
    if isinstance(value, float):
        return _text(1, name) + _key(2, _FLOAT) + np.float32(value).tobytes() + _number(20, 1)
    if isinstance(value, str):
        return _text(1, name) + _text(4, value) + _number(20, 3)
    return _text(1, name) + b"".join(_number(8, one) for one in value) + _number(20, 7)


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _message(number: int, content: bytes) -> bytes:
    return _key(number, _BYTES) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _key(number, _VARINT) + _varint(value)


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    """Return a whole number in groups of 7 bits, the lowest first; negative ones as 64 bits."""
    value &= 2**64 - 1
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes((*groups, value))
