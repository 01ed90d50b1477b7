"""Candidates that stayed become findings: labels, scores, boxes and masks in source pixels, the best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.capture.calibration import Calibration
from agent.vision import masks
from agent.vision.candidates import Candidates
from agent.vision.decoders.contract import MIN_AREA_PX, OUTLINE
from agent.vision.geometry import Geometry
from agent.vision.masks import Mask
from wire.inspection import Box, Finding
from wire.manifest import Manifest

# A record of eight views with a hundred findings each, all with masks, must stay within the byte budget of its topic.
MAX_SHAPE_COST: Final = 2000  # a run of a mask costs 1
_CORNER_COST: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingOptions:
    """What findings carry.

    Args:
        max_findings: of one look; the best stay.
        outline: how a shape is written down: "mask", "polygon", "both" or "none".
        min_area_px: findings with a smaller mask are left out, in source pixels.
        calibration: of the view, made for pictures of this size; None: it has none.
    """

    max_findings: int = 100
    outline: str = "mask"
    min_area_px: float = 0.0
    calibration: Calibration | None = None


def options_of(manifest: Manifest) -> FindingOptions:
    """Return what a manifest says of its findings."""
    given = manifest.decoder.parameters
    area = given.get(MIN_AREA_PX.name, MIN_AREA_PX.default)
    return FindingOptions(
        max_findings=manifest.max_findings,
        outline=str(given.get(OUTLINE.name, OUTLINE.default)),
        min_area_px=float(area) if isinstance(area, (int, float)) else MIN_AREA_PX.default,
    )


def build(
    candidates: Candidates,
    kept: NDArray[np.int64],
    labels: Sequence[str],
    geometry: Geometry,
    options: FindingOptions,
) -> tuple[Finding, ...]:
    """Return the findings of one look, clipped to the source picture.

    Shapes together cost at most `MAX_SHAPE_COST`: a mask that has too many runs for what is left of it is written as a
    polygon, and what is too long even so has box and area only.

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
    built: list[Finding] = []
    cost_left = MAX_SHAPE_COST
    for index, name, score, (x1, y1, x2, y2) in zip(kept.tolist(), names, scores, boxes, strict=True):
        if len(built) == options.max_findings:
            break
        if x1 >= x2 or y1 >= y2:
            continue  # what lies wholly in the letterbox's border is not in the picture
        finding = Finding(label=name, score=score, box=Box(x1_px=x1, y1_px=y1, x2_px=x2, y2_px=y2))
        field = None if candidates.masks is None else candidates.masks.at(index)
        if field is None:
            finding = _measured(finding, options.calibration)
        else:
            mask = masks.pixels_of(field, (x1, y1, x2, y2), geometry)
            if (0.0 if mask is None else mask.area_px) < options.min_area_px:
                continue
            finding = _outlined(finding, mask, field.cropped, options, cost_left)
            cost_left -= len(finding.mask_rle or ()) + _CORNER_COST * len(finding.polygon_px or ())
        built.append(finding)
    return tuple(built)


def sizes_mm(findings: Sequence[Finding], calibration: Calibration | None) -> tuple[tuple[float, float], ...] | None:
    """Return width and height on the part of each finding's box, in their order, in mm.

    Args:
        findings: of one look, in source pixels.
        calibration: of the view, made for pictures of this size.

    Returns:
        None where the view is not calibrated, or a finding speaks of the whole picture.
    """
    boxes = [finding.box for finding in findings if finding.box is not None]
    if calibration is None or len(boxes) != len(findings):
        return None
    return tuple(calibration.size_mm(box) for box in boxes)


def _measured(finding: Finding, calibration: Calibration | None) -> Finding:
    """Return a finding without a mask with the area of its box on the part."""
    if calibration is None or finding.box is None:
        return finding
    return replace(finding, area_mm2=calibration.area_mm2(finding.box))


def _outlined(finding: Finding, mask: Mask | None, cropped: bool, options: FindingOptions, cost_left: int) -> Finding:
    """Return a finding with its shape; something that covers the middle of no pixel keeps its box, with area 0."""
    area_px = 0.0 if mask is None else float(mask.area_px)
    calibration = options.calibration
    if mask is None:
        return replace(finding, area_px=area_px, area_mm2=None if calibration is None else 0.0)
    area_mm2 = None
    if calibration is not None:
        area_mm2 = calibration.mask_area_mm2(mask.pixels, left_px=mask.left_px, top_px=mask.top_px)
    runs = mask.runs() if options.outline in ("mask", "both") else None
    too_long = runs is not None and len(runs) > cost_left
    if too_long:
        runs = None
    polygon = None
    if options.outline in ("polygon", "both") or too_long:
        polygon = mask.polygon()
        if polygon is not None and _CORNER_COST * len(polygon) + len(runs or ()) > cost_left:
            polygon = None
    height, width = mask.pixels.shape
    around = Box(
        x1_px=float(mask.left_px),
        y1_px=float(mask.top_px),
        x2_px=float(mask.left_px + width),
        y2_px=float(mask.top_px + height),
    )
    return replace(
        finding,
        box=finding.box if cropped else around,
        mask_rle=runs,
        polygon_px=polygon,
        area_px=area_px,
        area_mm2=area_mm2,
    )
