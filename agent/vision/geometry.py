"""Where a source picture lies inside the network's input, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wire.manifest import Resize


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """A source picture placed in the network's input: network = source * scale + offset, per axis.

    Coordinates count from the outer corner of the first pixel, as OpenCV's resize places its samples, so a box that
    covers a whole source picture covers the whole placed picture.

    Args:
        left_px, top_px, width_px, height_px: the rectangle of the network's input that holds the picture.
    """

    source_width_px: int
    source_height_px: int
    left_px: int
    top_px: int
    width_px: int
    height_px: int

    @property
    def scale_x(self) -> float:
        return self.width_px / self.source_width_px

    @property
    def scale_y(self) -> float:
        return self.height_px / self.source_height_px

    def to_source(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return boxes in source pixels, clipped to the source picture.

        Args:
            boxes_xyxy: (n, 4) float32 in network pixels.
        """
        offset = np.array([self.left_px, self.top_px] * 2, dtype=np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, dtype=np.float32)
        limit = np.array([self.source_width_px, self.source_height_px] * 2, dtype=np.float32)
        boxes: NDArray[np.float32] = np.clip((boxes_xyxy - offset) / scale, np.float32(0.0), limit)
        return boxes

    def to_network(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return boxes in network pixels, not clipped.

        Args:
            boxes_xyxy: (n, 4) float32 in source pixels.
        """
        offset = np.array([self.left_px, self.top_px] * 2, dtype=np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, dtype=np.float32)
        return boxes_xyxy * scale + offset


def place(resize: Resize, *, source_width_px: int, source_height_px: int, width_px: int, height_px: int) -> Geometry:
    """Decide where a picture goes in the network's input.

    The letterboxes round as the projects that made them usual do: centred to the nearest pixel with the smaller half
    of the border first (Ultralytics' LetterBox), top-left downwards (YOLOX's preproc).

    Args:
        resize: the manifest's rule.
        width_px, height_px: size of the network's input.
    """
    left = top = 0
    placed_width, placed_height = width_px, height_px
    if resize is not Resize.STRETCH:
        ratio = min(width_px / source_width_px, height_px / source_height_px)
        exact = (source_width_px * ratio, source_height_px * ratio)
        sizes = [int(size + 1e-9) if resize is Resize.LETTERBOX_TOP_LEFT else round(size) for size in exact]
        placed_width, placed_height = min(max(sizes[0], 1), width_px), min(max(sizes[1], 1), height_px)
    if resize is Resize.LETTERBOX_CENTER:
        left, top = (width_px - placed_width) // 2, (height_px - placed_height) // 2
    return Geometry(
        source_width_px=source_width_px,
        source_height_px=source_height_px,
        left_px=left,
        top_px=top,
        width_px=placed_width,
        height_px=placed_height,
    )
