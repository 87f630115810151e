"""onnxruntime, without its telemetry."""

import os
from typing import Any


def onnxruntime() -> Any:
    """The package. Loaded without this, it keeps an identifier of the machine and sends events to Microsoft.

    Raises ImportError where it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime
