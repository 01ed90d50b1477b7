"""Where a source picture lies inside the network's input, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wire.errors import LinesideError
from wire.manifest import Input, Resize
from wire.model_input import InputRegion, Outside, Unit

# A picture ten thousand times wider than high must not be scaled to gigabytes before its middle is cut out.
_MAX_SCALED_PIXELS = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Rect:
    """A rectangle of whole pixels."""

    left_px: int
    top_px: int
    width_px: int
    height_px: int

    def of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return this part of a picture, (height_px, width_px, 3), as a view."""
        return image[self.top_px : self.top_px + self.height_px, self.left_px : self.left_px + self.width_px]


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """A region of a source picture placed in the network's input: network = (source - region) * scale + offset.

    Coordinates count from the outer corner of the first pixel, as OpenCV's resize places its samples, so a box that
    covers a whole source picture covers the whole placed picture.

    Args:
        source_width_px, source_height_px: of the whole source picture.
        left_px, top_px, width_px, height_px: the rectangle of the network's input that the scaled region fills; with
            a centre crop it reaches beyond the input, with a letterbox the input reaches beyond it.
        region: the part of the source that was scaled; None: all of it.
        network_width_px, network_height_px: of the network's input; None: it ends where the scaled region does.
    """

    source_width_px: int
    source_height_px: int
    left_px: int
    top_px: int
    width_px: int
    height_px: int
    region: Rect | None = None
    network_width_px: int | None = None
    network_height_px: int | None = None

    @property
    def region_width_px(self) -> int:
        return self.source_width_px if self.region is None else self.region.width_px

    @property
    def region_height_px(self) -> int:
        return self.source_height_px if self.region is None else self.region.height_px

    @property
    def scale_x(self) -> float:
        """Network pixels for each source pixel."""
        return self.width_px / self.region_width_px

    @property
    def scale_y(self) -> float:
        """Network pixels for each source pixel."""
        return self.height_px / self.region_height_px

    @property
    def seen_xyxy(self) -> tuple[float, float, float, float]:
        """The part of the source the network sees, in source pixels."""
        x, y = (0, 0) if self.region is None else (self.region.left_px, self.region.top_px)
        right = self.left_px + self.width_px
        bottom = self.top_px + self.height_px
        right = right if self.network_width_px is None else min(right, self.network_width_px)
        bottom = bottom if self.network_height_px is None else min(bottom, self.network_height_px)
        return (
            x + max(0, -self.left_px) / self.scale_x,
            y + max(0, -self.top_px) / self.scale_y,
            x + (right - self.left_px) / self.scale_x,
            y + (bottom - self.top_px) / self.scale_y,
        )

    def to_source(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return boxes in source pixels, clipped to what the network saw of the source picture.

        Args:
            boxes_xyxy: (n, 4) float32 in network pixels.
        """
        scale, offset, origin = self._arrays()
        left, top, right, bottom = self.seen_xyxy
        lowest = np.array([left, top] * 2, dtype=np.float32)
        highest = np.array([right, bottom] * 2, dtype=np.float32)
        boxes: NDArray[np.float32] = np.clip((boxes_xyxy - offset) / scale + origin, lowest, highest)
        return boxes

    def to_network(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return boxes in network pixels, not clipped.

        Args:
            boxes_xyxy: (n, 4) float32 in source pixels.
        """
        scale, offset, origin = self._arrays()
        return (boxes_xyxy - origin) * scale + offset

    def _arrays(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        x, y = (0, 0) if self.region is None else (self.region.left_px, self.region.top_px)
        return (
            np.array([self.scale_x, self.scale_y] * 2, dtype=np.float32),
            np.array([self.left_px, self.top_px] * 2, dtype=np.float32),
            np.array([x, y] * 2, dtype=np.float32),
        )


def region_of(region: InputRegion | None, *, source_width_px: int, source_height_px: int) -> Rect:
    """Return the whole pixels of the source picture that a manifest's region means.

    Raises:
        LinesideError: `source.region_outside` where a region in pixels reaches beyond the picture and may not, or
            where nothing of it is left.
    """
    if region is None:
        return Rect(left_px=0, top_px=0, width_px=source_width_px, height_px=source_height_px)
    left, right = _span(region.left, region.width, source_width_px, region)
    top, bottom = _span(region.top, region.height, source_height_px, region)
    return Rect(left_px=left, top_px=top, width_px=right - left, height_px=bottom - top)


def _span(start: float, length: float, side_px: int, region: InputRegion) -> tuple[int, int]:
    if region.unit is Unit.FRACTION:  # of any picture something is left
        first = min(int(start * side_px + 0.5), side_px - 1)
        return first, max(first + 1, min(int((start + length) * side_px + 0.5), side_px))
    first, last = int(start + 0.5), int(start + length + 0.5)
    if first >= side_px or (last > side_px and region.outside is Outside.REFUSE):
        raise LinesideError(
            "source.region_outside",
            f"The manifest's region goes from pixel {first} to {last}; the picture has {side_px} on that axis.",
            "Set the camera to the size the model was made for, or correct input.region in the manifest.",
        )
    return first, max(first + 1, min(last, side_px))


def place_input(spec: Input, region: Rect, *, source_width_px: int, source_height_px: int) -> Geometry:
    """Decide where a region of a picture goes, by everything the manifest says of its input.

    Raises:
        LinesideError: `source.unreadable` where the region's sides are too unequal to be scaled.
    """
    return place(
        spec.resize,
        source_width_px=source_width_px,
        source_height_px=source_height_px,
        width_px=spec.width_px,
        height_px=spec.height_px,
        shorter_side_px=spec.shorter_side_px,
        multiple_px=spec.multiple_px if spec.dynamic else None,
        region=region,
    )


def place(
    resize: Resize,
    *,
    source_width_px: int,
    source_height_px: int,
    width_px: int,
    height_px: int,
    shorter_side_px: int | None = None,
    multiple_px: int | None = None,
    region: Rect | None = None,
) -> Geometry:
    """Decide where a picture goes in the network's input.

    The rules round as the projects that made them usual do: the centred letterbox to the nearest pixel with the
    smaller half of the border first (Ultralytics' LetterBox), the top-left one downwards (YOLOX's preproc), the crop
    as torchvision's Resize (longer side downwards) and CenterCrop (to the nearest pixel).

    Args:
        resize: the manifest's rule.
        width_px, height_px: size of the network's input, or the largest, where it follows the picture.
        shorter_side_px: of the scaled picture whose middle is cut out; None: it just covers the network's input.
        multiple_px: the network's input follows the picture's shape, each side a multiple of this; None: it does not.
        region: the part of the source that is placed; None: all of it.

    Raises:
        LinesideError: `source.unreadable` where a crop's picture has sides too unequal to be scaled.
    """
    width, height = (source_width_px, source_height_px) if region is None else (region.width_px, region.height_px)
    if region is not None and (width, height) == (source_width_px, source_height_px):
        region = None
    left = top = 0
    if resize is Resize.CROP_CENTER:
        placed_width, placed_height = _covering(width, height, width_px, height_px, shorter_side_px)
        left, top = -round((placed_width - width_px) / 2), -round((placed_height - height_px) / 2)
    else:
        placed_width, placed_height = width_px, height_px
        if resize is not Resize.STRETCH or multiple_px is not None:
            placed_width, placed_height = _fitting(resize, width, height, width_px, height_px)
        if multiple_px is not None:
            width_px, height_px = (
                min(_multiple(side, multiple_px, nearest=resize is Resize.STRETCH), most)
                for side, most in ((placed_width, width_px), (placed_height, height_px))
            )
            if resize is Resize.STRETCH:
                placed_width, placed_height = width_px, height_px
        if resize is Resize.LETTERBOX_CENTER:
            left, top = (width_px - placed_width) // 2, (height_px - placed_height) // 2
    return Geometry(
        source_width_px=source_width_px,
        source_height_px=source_height_px,
        left_px=left,
        top_px=top,
        width_px=placed_width,
        height_px=placed_height,
        region=region,
        network_width_px=width_px,
        network_height_px=height_px,
    )


def _fitting(resize: Resize, width: int, height: int, width_px: int, height_px: int) -> tuple[int, int]:
    """Return the size of a picture scaled until it just fits into the network's input."""
    ratio = min(width_px / width, height_px / height)
    exact = (width * ratio, height * ratio)
    sizes = [int(size + 1e-9) if resize is Resize.LETTERBOX_TOP_LEFT else round(size) for size in exact]
    return min(max(sizes[0], 1), width_px), min(max(sizes[1], 1), height_px)


def _covering(width: int, height: int, width_px: int, height_px: int, shorter_side_px: int | None) -> tuple[int, int]:
    """Return the size of a picture scaled until it covers the network's input, or its shorter side is as asked."""
    if shorter_side_px is None:
        ratio = max(width_px / width, height_px / height)
        scaled = max(round(width * ratio), width_px), max(round(height * ratio), height_px)
    else:
        longer = int(shorter_side_px * max(width, height) / min(width, height))
        scaled = (longer, shorter_side_px) if width > height else (shorter_side_px, longer)
    if scaled[0] * scaled[1] > _MAX_SCALED_PIXELS:
        raise LinesideError(
            "source.unreadable",
            f"A picture of {width} x {height} pixels would be scaled to {scaled[0]} x {scaled[1]} for a centre crop.",
            "Set input.region in the manifest to a part with less unequal sides.",
        )
    return scaled


def _multiple(side: int, multiple_px: int, *, nearest: bool) -> int:
    if nearest:
        return max(multiple_px, (side + multiple_px // 2) // multiple_px * multiple_px)
    return -(-side // multiple_px) * multiple_px
