"""What a decoder is told and what it answers: candidates in network pixels, or that the output cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What a network saw, before overlapping boxes are merged.

    Args:
        boxes_xyxy: (n, 4) float32 in network pixels, from the outer corner of the first pixel; None where the
            candidates speak of the whole picture.
        scores: (n,) float32, 0 to 1.
        class_ids: (n,) int64, each an index into the labels.
    """

    boxes_xyxy: NDArray[np.float32] | None
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]


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
        score_threshold: candidates below it are left out.
        options: the manifest's decoder parameters, checked against the registry.
    """

    width_px: int
    height_px: int
    class_count: int
    score_threshold: float = 0.0
    options: Mapping[str, float | int | str | bool] = field(default_factory=dict)


Outputs: TypeAlias = Sequence[NDArray[Any]]
Decode: TypeAlias = Callable[[Outputs, DecoderParams], Candidates | Unusable]
