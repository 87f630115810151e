"""engrec: engagement recognition from faces."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engrec.use.predict import predict as predict


def __getattr__(name: str) -> Any:
    """`engrec.predict`, looked up when it is used: torch and the networks are not loaded with engrec."""
    if name != "predict":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from engrec.use.predict import predict

    return predict
