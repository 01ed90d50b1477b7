"""What is known of a graph when its manifest is drafted, and how its outputs are read (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from agent.vision.draft_metadata import Metadata
from agent.vision.onnx_walk import OnnxFacts, TensorInfo

Axes: TypeAlias = tuple[int | str | None, ...]
_PASSING: Final = frozenset(
    {
        "Cast",
        "DequantizeLinear",
        "Flatten",
        "Identity",
        "QuantizeLinear",
        "Reshape",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
_MAX_PASSED: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The network's input; None where it is free."""

    height_px: int | None
    width_px: int | None

    def cells(self, strides: Sequence[int]) -> int | None:
        """Return how many cells the grids of these strides have together."""
        if self.height_px is None or self.width_px is None:
            return None
        return sum(-(-self.height_px // stride) * -(-self.width_px // stride) for stride in strides)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the outputs are read.

    Args:
        decoder: a name of the registry; empty where none fits.
        family: whose convention the picture input follows.
        why: in a few words.
        parameters: name and (value, why it is a guess; empty where it was read).
        class_count: labels the output has room for, with the background.
        is_certain: the metadata says so.
    """

    decoder: str
    family: str
    why: str
    parameters: tuple[tuple[str, tuple[object, str]], ...] = ()
    class_count: int | None = None
    is_certain: bool = False
    has_background: bool = False
    merges_overlaps: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Everything a guess may look at."""

    facts: OnnxFacts
    size: Size
    class_count: int | None
    metadata: Metadata

    @property
    def shapes(self) -> list[Axes]:
        """Of the outputs."""
        return [output.shape for output in self.facts.outputs]

    def maker(self, output: TensorInfo) -> str:
        """The operator behind an output, past those that change no number or only their order."""
        name = output.name
        for _ in range(_MAX_PASSED):
            operator, source = self.facts.makers.get(name, ("", ""))
            if operator not in _PASSING:
                return operator
            name = source
        return ""


def ends_in(shape: Axes, last: int) -> bool:
    """Tell whether the last axis has this size."""
    return bool(shape) and shape[-1] == last


def elements(axes: Axes) -> int | None:
    """Return how many numbers there are, a free first axis counted as one; None where another is free."""
    count = 1
    for index, axis in enumerate(axes):
        if isinstance(axis, int):
            count *= axis
        elif index > 0:
            return None
    return count if axes else None


def is_map(shape: Axes, size: Size) -> bool:
    """Tell whether rows and columns are a good part of the picture's."""
    if len(shape) != 4 or not isinstance(shape[1], int):
        return False
    sides = ((shape[2], size.height_px), (shape[3], size.width_px))
    return all(not isinstance(side, int) or picture is None or 8 * side >= picture for side, picture in sides)
