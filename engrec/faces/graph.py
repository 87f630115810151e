"""A small network in an ONNX file, run by torch, without the packages onnx and onnxruntime.

It reads the file itself, protobuf with the field numbers of onnx.proto3, and knows the few operations of the detector.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Fields = Iterator[tuple[int, Any]]
DTYPES = {1: np.dtype("<f4"), 7: np.dtype("<i8")}  # TensorProto.DataType FLOAT and INT64


@dataclass
class Node:
    """One operation: its type, the names of its inputs and outputs, and its attributes as whole numbers."""

    kind: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, list[int]] = field(default_factory=dict)


class Graph:
    """The network of a file: float32 in, the outputs by name."""

    def __init__(self, path: Path) -> None:
        graph = next(value for number, value in _fields(path.read_bytes()) if number == 7)
        parts = list(_fields(graph))
        self.nodes = [_node(value) for number, value in parts if number == 1]
        self.constants = dict(_tensor(value) for number, value in parts if number == 5)
        self.outputs = [_text(value, 1) for number, value in parts if number == 12]

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """images: float32 (1, C, H, W)."""
        values = self.constants | {"input": torch.from_numpy(images).to(memory_format=torch.channels_last)}
        for node in self.nodes:
            inputs = [values[name] for name in node.inputs if name]
            values[node.outputs[0]] = _computed(node, inputs)
        return {name: values[name].numpy() for name in self.outputs}


def _computed(node: Node, inputs: list[Tensor]) -> Tensor:
    """The output of one operation of the detector. Raises ValueError for any other."""
    first, *rest = inputs
    attributes = node.attributes
    match node.kind:
        case "Conv":
            stride, padding, groups = attributes["strides"], attributes["pads"][:2], attributes["group"][0]
            return F.conv2d(first, *rest, stride=stride, padding=padding, groups=groups)
        case "MaxPool":
            return F.max_pool2d(first, attributes["kernel_shape"], attributes["strides"])
        case "Resize":
            return F.interpolate(first, scale_factor=rest[-1][2:].tolist(), mode="nearest")
        case "Transpose":
            return first.permute(attributes["perm"])
        case "Reshape":
            return first.reshape(rest[0].tolist())
        case "Relu":
            return first.relu()
        case "Sigmoid":
            return first.sigmoid()
        case "Add":
            return first + rest[0]
    raise ValueError(f"the operation {node.kind} is not one of the detector")


def _node(content: memoryview) -> Node:
    node = Node()
    for number, value in _fields(content):
        if number == 1:
            node.inputs.append(bytes(value).decode())
        elif number == 2:
            node.outputs.append(bytes(value).decode())
        elif number == 4:
            node.kind = bytes(value).decode()
        elif number == 5:
            found = list(_fields(value))
            numbers = [number for key, number in found if key in (3, 8) and isinstance(number, int)]
            node.attributes[_text(value, 1)] = numbers
    return node


def _tensor(content: memoryview) -> tuple[str, Tensor]:
    shape, dtype, raw = [], 1, b""
    for number, value in _fields(content):
        if number == 1:
            shape += [value] if isinstance(value, int) else list(_packed(value))
        elif number == 2:
            dtype = value
        elif number == 9:
            raw = value
    array = np.frombuffer(raw, DTYPES[dtype]).reshape(shape)
    tensor = torch.from_numpy(array.copy())
    return _text(content, 8), tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _text(content: memoryview, field_number: int) -> str:
    return next(bytes(value).decode() for number, value in _fields(content) if number == field_number)


def _fields(content: bytes | memoryview) -> Fields:
    """Number and value of each field of a protobuf message: an int, four or eight bytes as float, or its content."""
    view, at = memoryview(content), 0
    while at < len(view):
        key, at = _varint(view, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(view, at)
        elif kind == 2:
            length, at = _varint(view, at)
            value, at = view[at : at + length], at + length
        else:
            form = {1: "<d", 5: "<f"}[kind]
            value, at = struct.unpack_from(form, view, at)[0], at + struct.calcsize(form)
        yield number, value


def _packed(content: memoryview) -> Iterator[int]:
    at = 0
    while at < len(content):
        value, at = _varint(content, at)
        yield value


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, at = view[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
