"""Which of a graph's inputs takes a picture (pure)."""

from __future__ import annotations

from typing import Final

from agent.vision.onnx_walk import OnnxFacts, TensorInfo

_SPATIAL_MIN_PX: Final = 8


def picture_input(facts: OnnxFacts) -> TensorInfo:
    """Return the first input that takes a picture, of a file that `refuse` lets pass."""
    return next(tensor for tensor in facts.inputs if takes_picture(tensor))


def takes_picture(tensor: TensorInfo) -> bool:
    """Tell whether an input can be a picture: (N, C, H, W) or (N, H, W, C), 1 or 3 channels; free sizes fit any."""
    if len(tensor.shape) != 4 or tensor.element not in ("float32", "float16", "uint8"):
        return False
    _, first, second, third = tensor.shape
    return any(
        _may_be(channels, (1, 3)) and all(not isinstance(side, int) or side >= _SPATIAL_MIN_PX for side in sides)
        for channels, sides in ((first, (second, third)), (third, (first, second)))
    )


def _may_be(size: int | str | None, allowed: tuple[int, ...]) -> bool:
    return not isinstance(size, int) or size in allowed
