"""A picture of any size becomes the tensor a network was trained on: 8-bit until the last step, nothing allocated.

element = (pixel * scale - mean) / std has 256 possible values per channel, so it is looked up: the table is computed
once with full precision, and each element is the correctly rounded one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.vision import geometry
from agent.vision.geometry import Geometry, Rect
from wire.errors import LinesideError
from wire.manifest import Color, Dtype, Input, Layout, Resize
from wire.model_input import Interpolation

_ELEMENTS: Final[dict[Dtype, Any]] = {Dtype.FLOAT32: np.float32, Dtype.FLOAT16: np.float16, Dtype.UINT8: np.uint8}
_INTERPOLATIONS: Final[dict[Interpolation, int]] = {
    Interpolation.LINEAR: cv2.INTER_LINEAR,
    Interpolation.AREA: cv2.INTER_AREA,
    # OpenCV's plain INTER_NEAREST takes the pixel at the corner, up to half a source pixel from where boxes are.
    Interpolation.NEAREST: cv2.INTER_NEAREST_EXACT,
    Interpolation.CUBIC: cv2.INTER_CUBIC,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """Everything for pictures of one size: views of memory that is kept.

    Args:
        placed: where the picture goes.
        tensor: (batch, ...) as the network takes it.
        canvas: (height, width, 3), the network's input in 8 bit.
        scaled: the part of the canvas the picture is scaled into; of a crop, the picture the canvas is the middle of.
    """

    placed: Geometry
    tensor: NDArray[Any]
    canvas: NDArray[np.uint8]
    scaled: NDArray[np.uint8]
    planes: list[NDArray[np.uint8]]
    mixed: NDArray[np.uint8]


class Preprocessor:
    """Fills one tensor again and again; used by one thread at a time.

    Args:
        spec: the manifest's input.
        batch: pictures in one tensor.

    Attributes:
        interpolation: as OpenCV numbers it.

    Raises:
        LinesideError: `model.manifest_invalid` where the values do not fit the element type.
    """

    def __init__(self, spec: Input, *, batch: int = 1) -> None:
        self._spec = spec
        self._batch = batch
        self._channels = 1 if spec.color is Color.GRAY else 3
        pixels = spec.height_px * spec.width_px
        # Zeros, so that the unused end of a fixed batch holds numbers too.
        self._elements: NDArray[Any] = np.zeros(batch * self._channels * pixels, dtype=_ELEMENTS[spec.dtype])
        self._canvas_pixels = np.empty(pixels * 3, dtype=np.uint8)
        self._plane_pixels = [np.empty(pixels, dtype=np.uint8) for _ in range(self._channels)]
        self._mixed_pixels = np.empty(pixels * 3 if spec.color is Color.RGB else 0, dtype=np.uint8)
        self.interpolation = _INTERPOLATIONS[spec.interpolation]
        self._tables = _tables(spec, self._channels)
        self._table = None if self._tables is None else np.stack(self._tables, axis=-1)[np.newaxis]
        self._tensor: NDArray[Any] | None = None
        self._prepared: _Prepared | None = None

    def __call__(self, image_bgr: NDArray[np.uint8]) -> tuple[NDArray[Any], Geometry]:
        """Return the tensor with a picture in its first row, which the next call overwrites, and where its region lies.

        Args:
            image_bgr: (H, W, 3) uint8.

        Raises:
            LinesideError: `source.unreadable` where the array is no such picture, `source.region_outside`.
        """
        check_picture(image_bgr)
        height, width = image_bgr.shape[:2]
        prepared = self._prepared
        if prepared is None or (prepared.placed.source_width_px, prepared.placed.source_height_px) != (width, height):
            looked_at = geometry.region_of(self._spec.region, source_width_px=width, source_height_px=height)
            prepared = self._prepare(looked_at, width, height)
        region = prepared.placed.region
        self._fill(prepared, 0, image_bgr if region is None else region.of(image_bgr))
        return prepared.tensor, prepared.placed

    def fill(self, slot: int, image_bgr: NDArray[np.uint8]) -> Geometry:
        """Place a whole picture (a tile) in one row of the batch; all pictures of a batch have one size.

        Args:
            image_bgr: (H, W, 3) uint8, may be a view.
        """
        height, width = image_bgr.shape[:2]
        prepared = self._prepared
        if prepared is None or (prepared.placed.source_width_px, prepared.placed.source_height_px) != (width, height):
            whole = Rect(left_px=0, top_px=0, width_px=width, height_px=height)
            prepared = self._prepare(whole, width, height)
        self._fill(prepared, slot, image_bgr)
        return prepared.placed

    def tensor(self, count: int) -> NDArray[Any]:
        """Return the first `count` rows that `fill` has filled."""
        if self._prepared is None:
            raise ValueError("nothing has been filled")
        return self._prepared.tensor[:count]

    def _prepare(self, region: Rect, source_width_px: int, source_height_px: int) -> _Prepared:
        spec = self._spec
        placed = geometry.place_input(spec, region, source_width_px=source_width_px, source_height_px=source_height_px)
        height, width = placed.network_height_px or spec.height_px, placed.network_width_px or spec.width_px
        pixels = height * width
        shape = (self._channels, height, width) if spec.layout is Layout.NCHW else (height, width, self._channels)
        canvas = self._canvas_pixels[: pixels * 3].reshape(height, width, 3)
        if spec.resize is Resize.CROP_CENTER:
            scaled = np.empty((placed.height_px, placed.width_px, 3), dtype=np.uint8)
            canvas = scaled[-placed.top_px :, -placed.left_px :][:height, :width]
        else:
            canvas.fill(spec.pad_value)
            scaled = canvas[placed.top_px :, placed.left_px :][: placed.height_px, : placed.width_px]
        if self._tensor is None or self._tensor.shape[1:] != shape:
            self._tensor = self._elements[: self._batch * self._channels * pixels].reshape(self._batch, *shape)
        self._prepared = _Prepared(
            placed=placed,
            tensor=self._tensor,
            canvas=canvas,
            scaled=scaled,
            planes=[plane[:pixels].reshape(height, width) for plane in self._plane_pixels],
            mixed=self._mixed_pixels[: pixels * 3].reshape(height, width, 3) if self._mixed_pixels.size else canvas,
        )
        return self._prepared

    def _fill(self, prepared: _Prepared, slot: int, image_bgr: NDArray[np.uint8]) -> None:
        size = (prepared.placed.width_px, prepared.placed.height_px)
        cv2.resize(image_bgr, size, dst=prepared.scaled, interpolation=self.interpolation)
        if self._spec.layout is Layout.NCHW or self._spec.color is Color.GRAY:
            self._fill_planes(prepared, prepared.tensor[slot])
        else:
            self._fill_mixed(prepared, prepared.tensor[slot])

    def _fill_planes(self, prepared: _Prepared, row: NDArray[Any]) -> None:
        color, planes = self._spec.color, prepared.planes
        if color is Color.GRAY:
            cv2.cvtColor(prepared.canvas, cv2.COLOR_BGR2GRAY, dst=planes[0])
        else:
            cv2.split(prepared.canvas, planes)
        in_order = planes[::-1] if color is Color.RGB else planes
        for channel, plane in enumerate(in_order):
            into = row[channel] if self._spec.layout is Layout.NCHW else row[:, :, channel]
            if self._tables is None:
                np.copyto(into, plane)
            else:
                cv2.LUT(plane, self._tables[channel], dst=_as_opencv(into))

    def _fill_mixed(self, prepared: _Prepared, row: NDArray[Any]) -> None:
        mixed = prepared.canvas
        if self._spec.color is Color.RGB:
            mixed = prepared.mixed
            cv2.cvtColor(prepared.canvas, cv2.COLOR_BGR2RGB, dst=mixed)
        if self._table is None:
            np.copyto(row, mixed)
        else:
            cv2.LUT(mixed, self._table, dst=_as_opencv(row))


def check_picture(image_bgr: NDArray[np.uint8]) -> None:
    """Refuse what is no picture.

    Raises:
        LinesideError: `source.unreadable` where the array is not (H, W, 3) uint8.
    """
    if image_bgr.ndim != 3 or image_bgr.shape[2] != 3 or image_bgr.dtype != np.uint8 or image_bgr.size == 0:
        raise LinesideError(
            "source.unreadable",
            f"A picture must be (height, width, 3) of 8-bit values; this is {image_bgr.shape} {image_bgr.dtype}.",
        )


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
