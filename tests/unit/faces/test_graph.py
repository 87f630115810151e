"""The reader of ONNX files agrees with the package onnx, and computes what onnxruntime does."""

import numpy as np
import pytest
import torch

from engrec.faces import graph
from engrec.faces.detect import PATH


@pytest.fixture(scope="module")
def network():
    return graph.Graph(PATH)


def test_it_reads_what_the_package_reads(network):
    onnx = pytest.importorskip("onnx")
    theirs = onnx.load(PATH).graph
    assert [node.kind for node in network.nodes] == [node.op_type for node in theirs.node]
    assert [node.inputs for node in network.nodes] == [list(node.input) for node in theirs.node]
    assert network.outputs == [output.name for output in theirs.output]
    assert network.constants.keys() == {tensor.name for tensor in theirs.initializer}
    for tensor in theirs.initializer:
        np.testing.assert_array_equal(network.constants[tensor.name].numpy(), onnx.numpy_helper.to_array(tensor))


def test_it_computes_what_onnxruntime_computes(network):
    onnxruntime = pytest.importorskip("onnxruntime")
    images = np.random.default_rng(0).uniform(0, 255, (1, 3, 64, 96)).astype(np.float32)
    session = onnxruntime.InferenceSession(PATH, providers=["CPUExecutionProvider"])
    theirs = session.run(network.outputs, {"input": images})
    for name, expected in zip(network.outputs, theirs, strict=True):
        np.testing.assert_allclose(network(images)[name], expected, atol=2e-4)


def test_another_operation_is_named():
    with pytest.raises(ValueError, match="the operation Softmax is not one of the detector"):
        graph._computed(graph.Node("Softmax"), [torch.zeros(1)])
