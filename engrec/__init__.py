"""engrec: engagement recognition from faces."""

import os
from typing import TYPE_CHECKING, Any

# Before onnxruntime is loaded, which else keeps an identifier of this machine and sends events to Microsoft.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from engrec.use.predict import predict as predict


def __getattr__(name: str) -> Any:
    """`engrec.predict`, looked up when it is used: torch and the networks are not loaded with engrec."""
    if name != "predict":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from engrec.use.predict import predict

    return predict
