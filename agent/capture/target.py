"""A view's calibration from a picture of a chessboard that lies where the parts do, and where it is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.capture import calibration, commissioned
from agent.capture.calibration import Calibration
from wire.errors import LinesideError

# A target bent or seen through a lens that bends lines: sizes would be wrong by more than this share.
_LARGEST_ERROR: Final = 0.05
_FLAGS: Final = cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_ACCURACY | cv2.CALIB_CB_NORMALIZE_IMAGE


def from_chessboard(image_bgr: NDArray[np.uint8], *, columns: int, rows: int, square_mm: float) -> Calibration:
    """Return the calibration of a view from its picture of a chessboard.

    The plane is that of the target's face: what rises above it is nearer to the camera and measures larger. Distortion
    of the lens is not modelled; what it costs on the target is in `error_mm`.

    Args:
        image_bgr: (H, W, 3) uint8, with the whole target in it, with a white border around.
        columns, rows: inner corners, at least 3 each: a board of 8 x 6 squares has 7 x 5.
        square_mm: side of one square.

    Raises:
        LinesideError: `calibration.no_target` where the target is not found; `calibration.invalid` where it does not
            lie flat.
    """
    if columns < 3 or rows < 3 or not 0.0 < square_mm < 1e6:
        raise LinesideError(
            "usage.invalid",
            f"A board of {columns} x {rows} corners with squares of {square_mm} mm cannot be measured on.",
            "Count inner corners, at least 3 x 3, and give the side of a square in mm.",
        )
    height, width = image_bgr.shape[:2]
    grey = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
    found, corners = cv2.findChessboardCornersSB(grey, (columns, rows), flags=_FLAGS)
    if not found:
        raise LinesideError(
            "calibration.no_target",
            f"There is no chessboard with {columns} x {rows} inner corners in the picture.",
            "Show the whole board with a white border, sharp and evenly lit, and count the inner corners: a board of"
            " 8 x 6 squares has 7 x 5.",
        )
    # OpenCV counts from the middle of the first pixel, boxes from its outer corner.
    seen = corners.reshape(-1, 2).astype(np.float64) + 0.5
    down, across = np.divmod(np.arange(columns * rows), columns)
    real = np.stack([across, down], axis=1).astype(np.float64) * square_mm
    homography, _ = cv2.findHomography(seen, real)
    made = calibration.of_homography(
        np.asarray(homography, dtype=np.float64),
        width_px=width,
        height_px=height,
        target=f"chessboard of {columns} x {rows} corners, {square_mm:g} mm",
    )
    error_mm = float(np.sqrt(np.mean(np.sum((made.to_mm(seen) - real) ** 2, axis=1))))
    if error_mm > _LARGEST_ERROR * square_mm:
        raise LinesideError(
            "calibration.invalid",
            f"The corners lie {error_mm:.2f} mm from a flat board of {square_mm:g} mm squares.",
            "Lay the board flat; with a wide lens, use only the middle of the picture or a longer lens.",
        )
    return dataclasses.replace(made, error_mm=error_mm)


class CalibrationStore:
    """The calibrations of a device, one for each view.

    Args:
        folder: of its own, or that of the reference views.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)

    def read(self, station: str, view: str) -> Calibration | None:
        """Return a view's calibration; None where it has none.

        Raises:
            LinesideError: `storage.corrupt` where the file is damaged.
        """
        path = self._path(station, view)
        data = commissioned.read(path)
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=Calibration)
        except msgspec.DecodeError as error:
            raise LinesideError(
                "storage.corrupt",
                f"The calibration {path} is damaged.",
                "Calibrate the view again, or remove the file to measure in pixels only.",
            ) from error

    def write(self, station: str, view: str, made: Calibration) -> None:
        """Store a view's calibration durably."""
        commissioned.write(self._path(station, view), msgspec.json.encode(made))

    def remove(self, station: str, view: str) -> bool:
        """Forget a calibration; False where there was none."""
        return commissioned.remove(self._path(station, view))

    def _path(self, station: str, view: str) -> Path:
        return commissioned.folder_of(self._folder, station, view) / "calibration.json"
