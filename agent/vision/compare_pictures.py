"""Draws what two models found in one picture, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from wire.inspection import Finding, Verdict

MAX_SIDE_PX: Final = 960
_BAR_PX: Final = 28
_COLORS_BGR: Final[dict[Verdict, tuple[int, int, int]]] = {
    Verdict.OK: (80, 160, 60),
    Verdict.NG: (60, 60, 220),
    Verdict.UNSURE: (40, 160, 230),
    Verdict.NO_VERDICT: (130, 130, 130),
}
_WHITE: Final = (255, 255, 255)
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_TEXT_SCALE: Final = 0.45


def side_by_side(
    image_bgr: NDArray[np.uint8],
    a: tuple[str, Verdict, Sequence[Finding]],
    b: tuple[str, Verdict, Sequence[Finding]],
) -> NDArray[np.uint8]:
    """Return both models' view of a picture, (H, W, 3) uint8.

    Args:
        a, b: title, verdict and findings of each model.
    """
    return np.concatenate([_drawn(image_bgr, *a), _drawn(image_bgr, *b)], axis=1)


def _drawn(
    image_bgr: NDArray[np.uint8], title: str, verdict: Verdict, findings: Sequence[Finding]
) -> NDArray[np.uint8]:
    height, width = image_bgr.shape[:2]
    scale = min(1.0, MAX_SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = np.asarray(cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    canvas = np.zeros((size[1] + _BAR_PX, max(size[0], 320), 3), dtype=np.uint8)
    canvas[_BAR_PX:, : size[0]] = picture
    color = _COLORS_BGR[verdict]
    cv2.rectangle(canvas, (0, 0), (canvas.shape[1], _BAR_PX - 1), color, cv2.FILLED)
    whole = ", ".join(f"{found.label} {found.score:.2f}" for found in findings if found.box is None)
    _write(canvas, f"{title}: {verdict}" + (f" ({whole})" if whole else ""), (6, 19), color)
    for found in findings:
        if found.box is not None:
            corner = (round(found.box.x1_px * scale), round(found.box.y1_px * scale) + _BAR_PX)
            far = (round(found.box.x2_px * scale), round(found.box.y2_px * scale) + _BAR_PX)
            cv2.rectangle(canvas, corner, far, color, 2)
            _write(canvas, f"{found.label} {found.score:.2f}", (corner[0] + 2, max(_BAR_PX + 12, corner[1] - 4)), color)
    return canvas


def _write(canvas: NDArray[np.uint8], text: str, where: tuple[int, int], ground: tuple[int, int, int]) -> None:
    plain = text.encode("ascii", errors="replace").decode()[:120]
    (width, height), below = cv2.getTextSize(plain, _FONT, _TEXT_SCALE, 1)
    x, y = where
    cv2.rectangle(canvas, (x - 1, y - height - 2), (x + width + 1, y + below), ground, cv2.FILLED)
    cv2.putText(canvas, plain, where, _FONT, _TEXT_SCALE, _WHITE, 1, cv2.LINE_AA)
