"""What a decoder is told and what it answers: candidates in network pixels, or that the output cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

OptionValue: TypeAlias = float | int | str | bool | tuple[float | int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A mask before it has pixels: it covers the places where the values, interpolated between cells, are positive.

    Args:
        values: (rows, columns) float32; the value of a cell belongs to its middle.
        region_xyxy: network pixels that the cells cover together.
        cropped: the mask ends at the candidate's box; otherwise the box is drawn around the mask.
    """

    values: NDArray[np.float32]
    region_xyxy: tuple[float, float, float, float]
    cropped: bool = True

    def shifted(self, dx_px: float, dy_px: float) -> Field:
        """Return the same mask elsewhere."""
        left, top, right, bottom = self.region_xyxy
        return replace(self, region_xyxy=(left + dx_px, top + dy_px, right + dx_px, bottom + dy_px))


class Masks(Protocol):
    """The masks of candidates, each made only when it is asked for: most candidates do not stay."""

    def at(self, index: int) -> Field | None:
        """Return the mask of one candidate, None where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What a network saw, before overlapping boxes are merged.

    Args:
        boxes_xyxy: (n, 4) float32 in network pixels, from the outer corner of the first pixel; None where the
            candidates speak of the whole picture.
        scores: (n,) float32, 0 to 1.
        class_ids: (n,) int64, each an index into the labels; several candidates may share a box (multi-label).
        masks: of the same n candidates, where the network outlines what it sees.
    """

    boxes_xyxy: NDArray[np.float32] | None
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    masks: Masks | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """The network's output cannot be read as what the manifest says; the part gets no verdict."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderParams:
    """What a decoder needs besides the outputs.

    Args:
        width_px, height_px: size of the network's input.
        class_count: number of labels.
        score_threshold: candidates below it are left out; the lowest one, where labels have thresholds of their own.
        options: the manifest's decoder parameters, checked against the registry.
        output_names: of the graph, in the order of the outputs; empty where nobody asks for an output by name.
    """

    width_px: int
    height_px: int
    class_count: int
    score_threshold: float = 0.0
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    output_names: tuple[str, ...] = ()


Outputs: TypeAlias = Sequence[NDArray[Any]]
Decode: TypeAlias = Callable[[Outputs, DecoderParams], Candidates | Unusable]


def above(candidates: Candidates, thresholds: NDArray[np.float32]) -> Candidates:
    """Return the candidates whose score reaches the threshold of their own class.

    Args:
        thresholds: (classes,) float32.
    """
    passed = np.flatnonzero(candidates.scores >= thresholds[candidates.class_ids])
    return candidates if len(passed) == len(candidates.scores) else _chosen(candidates, passed)


def shifted(candidates: Candidates, *, dx_px: float, dy_px: float) -> Candidates:
    """Return candidates moved from a tile's own pixels to those of the region it was cut from."""
    if candidates.boxes_xyxy is None:
        return candidates
    masks = None if candidates.masks is None else _Moved(candidates.masks, dx_px, dy_px)
    move = np.array([dx_px, dy_px] * 2, dtype=np.float32)
    return replace(candidates, boxes_xyxy=candidates.boxes_xyxy + move, masks=masks)


def joined(parts: Sequence[Candidates]) -> Candidates:
    """Return the candidates of several tiles as one; all of them have boxes, or none has. There is at least one."""
    if len(parts) == 1:
        return parts[0]
    boxes = [part.boxes_xyxy for part in parts if part.boxes_xyxy is not None]
    return Candidates(
        boxes_xyxy=np.concatenate(boxes) if boxes else None,
        scores=np.concatenate([part.scores for part in parts]),
        class_ids=np.concatenate([part.class_ids for part in parts]),
        masks=_Joined(parts) if any(part.masks is not None for part in parts) else None,
    )


def _chosen(candidates: Candidates, indices: NDArray[np.intp]) -> Candidates:
    return Candidates(
        boxes_xyxy=None if candidates.boxes_xyxy is None else candidates.boxes_xyxy[indices],
        scores=candidates.scores[indices],
        class_ids=candidates.class_ids[indices],
        masks=None if candidates.masks is None else _Chosen(candidates.masks, indices),
    )


class _Chosen:
    def __init__(self, masks: Masks, indices: NDArray[np.intp]) -> None:
        self._masks, self._indices = masks, indices

    def at(self, index: int) -> Field | None:
        return self._masks.at(int(self._indices[index]))


class _Moved:
    def __init__(self, masks: Masks, dx_px: float, dy_px: float) -> None:
        self._masks, self._dx_px, self._dy_px = masks, dx_px, dy_px

    def at(self, index: int) -> Field | None:
        mask = self._masks.at(index)
        return None if mask is None else mask.shifted(self._dx_px, self._dy_px)


class _Joined:
    def __init__(self, parts: Sequence[Candidates]) -> None:
        self._masks = [part.masks for part in parts]
        self._starts = np.cumsum([0, *(len(part.scores) for part in parts)])

    def at(self, index: int) -> Field | None:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        masks = self._masks[part]
        return None if masks is None else masks.at(index - int(self._starts[part]))
