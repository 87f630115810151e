"""engrec: engagement recognition from faces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engrec.use.answers import SeenFace
    from engrec.use.predict import Boxes, Picture, Weights


def predict(
    source: Picture | Sequence[Picture],
    weights: Weights = None,
    boxes: Boxes | None = None,
    every: float | None = None,
) -> list[SeenFace]:
    """Answers for every face in a picture, a folder, a video, or several of these: see `engrec.use.predict.predict`.

    Torch and the networks are loaded with the first call.
    """
    from engrec.use import predict as at_use

    return at_use.predict(source, weights, boxes, every)
