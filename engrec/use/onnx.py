"""A network as ONNX: images uint8 (batch, C, H, W) in, probabilities float32 (batch, K) out, with everything between
them in the graph: scaling, standardising, the network, its temperature, the softmax."""

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engrec.machine.onnx_runtime import onnxruntime
from engrec.modules.classifier import Classifier
from engrec.transforms import standardize, to_float
from engrec.use.network import INPUT, NO_CHECKSUM, OUTPUT, checksummed
from engrec.weights_file import CHECKSUM, KEY

FOLDER, FLOAT, INT8 = "onnx", "model.onnx", "model_int8.onnx"  # as the hub and transformers.js look for them
OPSET = 20  # onnxruntime reads it since 1.17
BATCHES = (1, 5, 32)  # that are compared: a graph may have kept the size of the example
MOST_APART = 1e-4  # difference of a probability; 1e-6 is usual
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def needed() -> str:
    """The packages that are missing and what installs them; empty if all are there."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)}: pip install -e '.[export]'" if missing else ""


def check_installed(option: str) -> None:
    """Raise ValueError, with what to install for an option of the command, if a package is missing."""
    if missing := needed():
        raise ValueError(f"{option} needs {missing}")


class Answering(nn.Module):
    """Images uint8 (B, C, H, W) -> probabilities (B, K)."""

    def __init__(self, network: Classifier, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, images: Tensor) -> Tensor:
        return (self.network(standardize(to_float(images))) / self.temperature).softmax(1)


def exported(source: str, network: Classifier, temperature: float, about: dict[str, Any]) -> bytes:
    """The content of the file; the same arguments give the same bytes. about: plain values, stored as JSON.

    Raises ValueError for a network that the exporter cannot follow. The exporter is torch's newer one: the older is
    twenty times as fast, but deprecated.
    """
    example = torch.zeros(2, *network.example_input_array.shape[1:], dtype=torch.uint8)  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                Answering(network, temperature).eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except Exception as error:  # whatever the network's code can raise where it is traced
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise ValueError(f"{source} cannot be written as ONNX; set --no-onnx ({reason})") from error
    assert program is not None
    return described(program.model_proto, about)


def described(model: Any, about: dict[str, Any]) -> bytes:
    """The content of a file, for a ModelProto, in which `about` stands instead of what the exporter says of itself:
    that has the paths of this machine."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    for part in (*model.graph.input, *model.graph.output):
        del part.metadata_props[:]
    model.metadata_props.add(key=KEY, value=json.dumps(about, allow_nan=False))
    model.metadata_props.add(key=CHECKSUM, value=NO_CHECKSUM)
    return checksummed(model.SerializeToString(deterministic=True))[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporter says of packages that engrec does not need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def answering(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """The function that onnxruntime computes: images uint8 (B, C, H, W) -> probabilities float32 (B, K)."""
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run([OUTPUT], {INPUT: images})[0])


def check_same(source: str, content: bytes, network: Classifier, temperature: float, images: Tensor) -> float:
    """The largest difference of a probability from torch's, in batches of 1, 5 and 32 of these images, of which there
    are as many or more. Raises ValueError where it is above MOST_APART, or the graph does not take such a batch."""
    answers, largest = answering(content), 0.0
    for size in BATCHES:
        batch = images[-size:]
        with torch.inference_mode():
            expected = Answering(network, temperature).eval()(batch).numpy()
        try:
            found = answers(batch.numpy())
        except Exception as error:  # onnxruntime has no class of errors of its own
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{source} as ONNX does not take a batch of {size}: {reason}") from error
        apart = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
        if not apart <= MOST_APART:
            raise ValueError(
                f"{source} does not stay the same as ONNX: with a batch of {size}, probabilities differ by {apart:.2g} "
                f"from torch's (at most {MOST_APART:g} is allowed); set --no-onnx, and report the network"
            )
        largest = max(largest, apart)
    return largest
