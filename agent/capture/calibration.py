"""From source pixels to millimetres on the part, for one view: a scale, or a homography of the plane the part lies in.

Pure geometry; a calibration is made from a picture of a target in `agent.capture.target`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wire.errors import LinesideError
from wire.inspection import Box

Matrix = tuple[float, float, float, float, float, float, float, float, float]
# Where the plane is seen so flat that a pixel is this much deeper than at the best corner, sizes mean nothing.
_LEAST_DEPTH: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Where a point of the picture lies on the part: (x, y, 1) mm ~ homography (x, y, 1) px.

    Args:
        homography: 3 x 3, row by row; pixels count from the outer corner of the first one, as boxes do.
        width_px, height_px: of the pictures it is for; None: of any.
        error_mm: root mean square distance of the target's corners from where they should be; 0 of a given scale.
        target: what it was made from, in words.
    """

    homography: Matrix
    width_px: int | None = None
    height_px: int | None = None
    error_mm: float = 0.0
    target: str = ""

    def fits(self, width_px: int, height_px: int) -> bool:
        """Tell whether it speaks of pictures of this size; of another size pixels would be other millimetres."""
        return (self.width_px or width_px, self.height_px or height_px) == (width_px, height_px)

    def to_mm(self, points_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where points (n, 2) of the picture lie on the part, (n, 2) mm."""
        matrix = self._matrix()
        mapped = points_px @ matrix[:, :2].T + matrix[:, 2]
        on_part: NDArray[np.float64] = mapped[:, :2] / mapped[:, 2:]
        return on_part

    def size_mm(self, box: Box) -> tuple[float, float]:
        """Return width and height of a box on the part, each the mean of its two opposite sides."""
        corners = self.to_mm(_corners(box))
        sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
        return float(sides[0] + sides[2]) / 2.0, float(sides[1] + sides[3]) / 2.0

    def area_mm2(self, shape: Box | Sequence[tuple[float, float]]) -> float:
        """Return the area of a box, or of a polygon with corners in source pixels, on the part."""
        corners = _corners(shape) if isinstance(shape, Box) else np.asarray(shape, dtype=np.float64)
        x, y = self.to_mm(corners).T
        return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2.0

    def mask_area_mm2(self, pixels: NDArray[np.bool_], *, left_px: int, top_px: int) -> float:
        """Return the area of a mask on the part: each pixel counts what it covers there.

        Args:
            pixels: (height, width), from the pixel (left_px, top_px) on.
        """
        matrix = self._matrix()
        rows, columns = np.nonzero(pixels)
        depth = matrix[2, 0] * (columns + left_px + 0.5) + matrix[2, 1] * (rows + top_px + 0.5) + matrix[2, 2]
        # The determinant of a homography's derivative at a point.
        return float(abs(np.linalg.det(matrix)) * np.sum(1.0 / np.abs(depth) ** 3))

    def _matrix(self) -> NDArray[np.float64]:
        return np.array(self.homography, dtype=np.float64).reshape(3, 3)


def of_scale(mm_per_px: float, *, width_px: int | None = None, height_px: int | None = None) -> Calibration:
    """Return the calibration of a camera that looks straight at the part.

    Raises:
        LinesideError: `calibration.invalid` where the scale is not above zero.
    """
    if not (0.0 < mm_per_px < 1e6):
        raise LinesideError(
            "calibration.invalid", f"{mm_per_px} millimetres for a pixel is no scale.", "Give a number above 0."
        )
    return Calibration(
        homography=(mm_per_px, 0.0, 0.0, 0.0, mm_per_px, 0.0, 0.0, 0.0, 1.0),
        width_px=width_px,
        height_px=height_px,
        target=f"{mm_per_px:g} mm for each pixel",
    )


def of_homography(
    homography: NDArray[np.float64], *, width_px: int, height_px: int, error_mm: float = 0.0, target: str = ""
) -> Calibration:
    """Return the calibration of a camera that looks at the plane of the part from anywhere.

    Args:
        homography: (3, 3) from source pixels to mm.

    Raises:
        LinesideError: `calibration.invalid` where a part of the picture does not show the plane at all.
    """
    matrix = np.asarray(homography, dtype=np.float64)
    ends = np.array([[0, 0, 1], [width_px, 0, 1], [width_px, height_px, 1], [0, height_px, 1]], dtype=np.float64)
    depths = ends @ matrix[2]
    deepest = float(depths[np.abs(depths).argmax()]) if np.isfinite(depths).all() else 0.0
    usable = deepest != 0.0 and np.isfinite(matrix).all() and abs(float(np.linalg.det(matrix))) > 0.0
    if not usable or float((depths / deepest).min()) < _LEAST_DEPTH:
        raise LinesideError(
            "calibration.invalid",
            "Seen like this, a part of the picture shows nothing of the target's plane.",
            "Show the target flat in the plane of the part, with the camera less tilted.",
        )
    row = [float(value) for value in (matrix / deepest).ravel()]
    return Calibration(
        homography=(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8]),
        width_px=width_px,
        height_px=height_px,
        error_mm=error_mm,
        target=target,
    )


def _corners(box: Box) -> NDArray[np.float64]:
    return np.array(
        [(box.x1_px, box.y1_px), (box.x2_px, box.y1_px), (box.x2_px, box.y2_px), (box.x1_px, box.y2_px)],
        dtype=np.float64,
    )
