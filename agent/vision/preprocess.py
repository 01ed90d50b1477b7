"""A picture of any size becomes the tensor a network was trained on: 8-bit until the last step, nothing allocated.

element = (pixel * scale - mean) / std has 256 possible values per channel, so it is looked up: the table is computed
once with full precision, and each element is the correctly rounded one.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.vision import geometry
from agent.vision.geometry import Geometry
from wire.errors import LinesideError
from wire.manifest import Color, Dtype, Input, Layout, Resize

_ELEMENTS: dict[Dtype, Any] = {Dtype.FLOAT32: np.float32, Dtype.FLOAT16: np.float16, Dtype.UINT8: np.uint8}


class Preprocessor:
    """Fills one tensor again and again; used by one thread at a time.

    Args:
        spec: the manifest's input.

    Raises:
        LinesideError: `model.manifest_invalid` where the values do not fit the element type.
    """

    def __init__(self, spec: Input) -> None:
        self._spec = spec
        channels = 1 if spec.color is Color.GRAY else 3
        height, width = spec.height_px, spec.width_px
        shape = (1, channels, height, width) if spec.layout is Layout.NCHW else (1, height, width, channels)
        self._tensor: NDArray[Any] = np.empty(shape, dtype=_ELEMENTS[spec.dtype])
        self._canvas = np.empty((height, width, 3), dtype=np.uint8)
        self._planes = [np.empty((height, width), dtype=np.uint8) for _ in range(channels)]
        self._mixed = np.empty((height, width, 3), dtype=np.uint8)
        self._tables = _tables(spec, channels)
        self._geometry: Geometry | None = None

    def __call__(self, image_bgr: NDArray[np.uint8]) -> tuple[NDArray[Any], Geometry]:
        """Return the tensor, which the next call overwrites, and where the picture lies in it.

        Args:
            image_bgr: (H, W, 3) uint8.

        Raises:
            LinesideError: `source.unreadable` where the array is no such picture.
        """
        if image_bgr.ndim != 3 or image_bgr.shape[2] != 3 or image_bgr.dtype != np.uint8 or image_bgr.size == 0:
            raise LinesideError(
                "source.unreadable",
                f"A picture must be (height, width, 3) of 8-bit values; this is {image_bgr.shape} {image_bgr.dtype}.",
            )
        placed = self._place(image_bgr.shape[1], image_bgr.shape[0])
        rows = slice(placed.top_px, placed.top_px + placed.height_px)
        columns = slice(placed.left_px, placed.left_px + placed.width_px)
        size = (placed.width_px, placed.height_px)
        cv2.resize(image_bgr, size, dst=self._canvas[rows, columns], interpolation=cv2.INTER_LINEAR)
        if self._spec.layout is Layout.NCHW or self._spec.color is Color.GRAY:
            self._fill_planes()
        else:
            self._fill_mixed()
        return self._tensor, placed

    def _place(self, source_width_px: int, source_height_px: int) -> Geometry:
        known = self._geometry
        if known and (known.source_width_px, known.source_height_px) == (source_width_px, source_height_px):
            return known
        spec = self._spec
        self._geometry = geometry.place(
            spec.resize,
            source_width_px=source_width_px,
            source_height_px=source_height_px,
            width_px=spec.width_px,
            height_px=spec.height_px,
        )
        if spec.resize is not Resize.STRETCH:
            self._canvas.fill(spec.pad_value)
        return self._geometry

    def _fill_planes(self) -> None:
        color = self._spec.color
        if color is Color.GRAY:
            cv2.cvtColor(self._canvas, cv2.COLOR_BGR2GRAY, dst=self._planes[0])
        else:
            cv2.split(self._canvas, self._planes)
        in_order = self._planes[::-1] if color is Color.RGB else self._planes
        for channel, plane in enumerate(in_order):
            into = self._tensor[0, channel] if self._spec.layout is Layout.NCHW else self._tensor[0, :, :, channel]
            if self._tables is None:
                np.copyto(into, plane)
            else:
                cv2.LUT(plane, self._tables[channel], dst=_as_opencv(into))

    def _fill_mixed(self) -> None:
        mixed = self._canvas
        if self._spec.color is Color.RGB:
            cv2.cvtColor(self._canvas, cv2.COLOR_BGR2RGB, dst=self._mixed)
            mixed = self._mixed
        if self._tables is None:
            np.copyto(self._tensor[0], mixed)
        else:
            cv2.LUT(mixed, np.stack(self._tables, axis=-1)[np.newaxis], dst=_as_opencv(self._tensor[0]))


def _tables(spec: Input, channels: int) -> list[NDArray[Any]] | None:
    """Return per channel the 256 elements, or None where the pixels themselves are the elements."""
    means = spec.mean * channels if len(spec.mean) == 1 else spec.mean
    stds = spec.std * channels if len(spec.std) == 1 else spec.std
    if spec.dtype is Dtype.UINT8:
        if spec.scale != 1.0 or any(mean != 0.0 for mean in means) or any(std != 1.0 for std in stds):
            raise LinesideError(
                "model.manifest_invalid",
                "An input of type uint8 takes the pixels as they are, yet the manifest scales them.",
                "Remove input.scale, input.mean and input.std, or name another input.dtype.",
            )
        return None
    pixels = np.arange(256)
    tables = [(pixels * spec.scale - mean) / std for mean, std in zip(means, stds, strict=True)]
    return [_as_opencv(table.astype(_ELEMENTS[spec.dtype])) for table in tables]


def _as_opencv(array: NDArray[Any]) -> NDArray[Any]:
    """Let OpenCV move half floats as the 16-bit words they are; its tables know no half floats."""
    return array.view(np.uint16) if array.dtype == np.float16 else array
