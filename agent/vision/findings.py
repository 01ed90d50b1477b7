"""Candidates that stayed become findings: labels, scores and boxes in source pixels, the best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import Candidates
from agent.vision.geometry import Geometry
from wire.inspection import Box, Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingOptions:
    """What findings carry.

    Args:
        max_findings: of one look; the best stay.
    """

    max_findings: int = 100


def build(
    candidates: Candidates,
    kept: NDArray[np.int64],
    labels: Sequence[str],
    geometry: Geometry,
    options: FindingOptions,
) -> tuple[Finding, ...]:
    """Return the findings of one look, clipped to the source picture.

    Args:
        candidates: in network pixels.
        kept: indices of the candidates that stay, the highest score first.
        labels: index = class id.
        geometry: the way back to source pixels.
    """
    scores = candidates.scores[kept].tolist()
    names = [labels[class_id] for class_id in candidates.class_ids[kept].tolist()]
    if candidates.boxes_xyxy is None:
        found = [Finding(label=name, score=score) for name, score in zip(names, scores, strict=True)]
        return tuple(found[: options.max_findings])
    boxes = geometry.to_source(candidates.boxes_xyxy[kept]).tolist()
    found = [
        Finding(label=name, score=score, box=Box(x1_px=x1, y1_px=y1, x2_px=x2, y2_px=y2))
        for name, score, (x1, y1, x2, y2) in zip(names, scores, boxes, strict=True)
        if x1 < x2 and y1 < y2  # what lies wholly in the letterbox's border is not in the picture
    ]
    return tuple(found[: options.max_findings])
