"""Every way from pixels to elements against a naive reference in double precision that shares no code with ours."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.vision.geometry import Geometry
from agent.vision.preprocess import Preprocessor
from wire.errors import LinesideError
from wire.manifest import Color, Dtype, Input, Layout, Resize
from wire.model_input import InputRegion, Interpolation

SIDES = st.integers(2, 60)
MEANS = {3: (0.485, 0.456, 0.406), 1: (0.5,)}
STDS = {3: (0.229, 0.224, 0.225), 1: (0.25,)}
# OpenCV's linear interpolation of 8-bit pixels is within one grey level of the exact one; grey adds a rounding.
LEVELS = 1.01
GREY_LEVELS = 1.6


def source_place(
    index: int, start: float, scale: float, length: int, first: int, interpolation: Interpolation, nudge: float
) -> float:
    """Where, in source pixels, the middle of a network pixel lies."""
    place = first + (index + 0.5 - start) / scale - 0.5
    if interpolation is Interpolation.NEAREST:
        place = first + np.floor((index + 0.5 - start) / scale + nudge)
    return float(min(max(place, first), first + length - 1))


def reference(
    image: NDArray[np.uint8], spec: Input, placed: Geometry, nudges: tuple[float, float] = (0.0, 0.0)
) -> NDArray[np.float64]:
    """(H, W, C) elements, one pixel after the other, from where each network pixel looks."""
    region = placed.region
    left, top = (0, 0) if region is None else (region.left_px, region.top_px)
    height, width = placed.network_height_px or 0, placed.network_width_px or 0
    pixels = np.full((height, width, 3), float(spec.pad_value))
    scale_x, scale_y = placed.width_px / placed.region_width_px, placed.height_px / placed.region_height_px
    for row in range(height):
        for column in range(width):
            if not (
                placed.top_px <= row < placed.top_px + placed.height_px
                and placed.left_px <= column < placed.left_px + placed.width_px
            ):
                continue
            y = source_place(row, placed.top_px, scale_y, placed.region_height_px, top, spec.interpolation, nudges[0])
            x = source_place(
                column, placed.left_px, scale_x, placed.region_width_px, left, spec.interpolation, nudges[1]
            )
            y0, x0 = int(y), int(x)
            y1 = min(y0 + 1, top + placed.region_height_px - 1)
            x1 = min(x0 + 1, left + placed.region_width_px - 1)
            upper = image[y0, x0] * (1.0 - (x - x0)) + image[y0, x1] * (x - x0)
            lower = image[y1, x0] * (1.0 - (x - x0)) + image[y1, x1] * (x - x0)
            pixels[row, column] = upper * (1.0 - (y - y0)) + lower * (y - y0)
    if spec.color is Color.RGB:
        pixels = pixels[:, :, ::-1]
    elif spec.color is Color.GRAY:
        pixels = (pixels @ np.array([0.114, 0.587, 0.299]))[:, :, np.newaxis]
    return (pixels * spec.scale - np.array(spec.mean)) / np.array(spec.std)


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    color = draw(st.sampled_from(Color))
    channels = 1 if color is Color.GRAY else 3
    resize = draw(st.sampled_from(Resize))
    dtype = draw(st.sampled_from(Dtype))
    width, height = draw(SIDES), draw(SIDES)
    dynamic = resize is not Resize.CROP_CENTER and draw(st.booleans())
    if dynamic:
        width, height = 8 * (width // 8 + 1), 8 * (height // 8 + 1)
    scaled = dtype is not Dtype.UINT8
    return Input(
        width_px=width,
        height_px=height,
        dtype=dtype,
        layout=draw(st.sampled_from(Layout)),
        color=color,
        resize=resize,
        shorter_side_px=draw(st.none() | st.integers(max(width, height), 90)) if resize is Resize.CROP_CENTER else None,
        interpolation=draw(st.sampled_from([Interpolation.LINEAR, Interpolation.NEAREST])),
        pad_value=draw(st.integers(0, 255)),
        scale=1 / 255 if scaled else 1.0,
        mean=MEANS[channels] if scaled else (0.0,),
        std=STDS[channels] if scaled else (1.0,),
        dynamic=dynamic,
        multiple_px=8,
        region=draw(st.none() | st.just(InputRegion(left=0.2, top=0.1, width=0.6, height=0.75))),
    )


@settings(max_examples=150, deadline=None)
@given(spec=inputs(), size=st.tuples(SIDES, SIDES), seed=st.integers(0, 1000))
def test_the_tensor_is_that_of_the_naive_reference(spec: Input, size: tuple[int, int], seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)

    tensor, placed = Preprocessor(spec)(image)

    elements = tensor[0].transpose(1, 2, 0) if spec.layout is Layout.NCHW else tensor[0]
    expected = reference(image, spec, placed)
    assert elements.shape == expected.shape
    assert elements.dtype == spec.dtype.value
    off = np.abs(elements.astype(np.float64) - expected)
    if spec.interpolation is Interpolation.NEAREST:  # where two pixels are equally near, either will do
        for nudges in itertools.product((-1e-3, 1e-3), repeat=2):
            off = np.minimum(off, np.abs(elements.astype(np.float64) - reference(image, spec, placed, nudges)))
    levels = (off * np.array(spec.std) / spec.scale).max()
    half_float = 0.2 if spec.dtype is Dtype.FLOAT16 else 0.0
    assert levels <= (GREY_LEVELS if spec.color is Color.GRAY else LEVELS) + half_float


def test_area_takes_the_mean_of_what_a_pixel_covers() -> None:
    image = np.random.default_rng(1).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    spec = Input(width_px=12, height_px=8, interpolation=Interpolation.AREA, layout=Layout.NHWC)

    tensor, _ = Preprocessor(spec)(image)

    mean = image.reshape(8, 3, 12, 3, 3).mean(axis=(1, 3))
    assert np.abs(tensor[0] - mean).max() <= 0.51


def test_cubic_keeps_a_ramp_and_differs_from_linear_where_it_bends() -> None:
    ramp = np.repeat(np.arange(0, 250, 5, dtype=np.uint8)[np.newaxis, :, np.newaxis], 50, axis=0).repeat(3, axis=2)
    cubic = Preprocessor(Input(width_px=100, height_px=50, interpolation=Interpolation.CUBIC, layout=Layout.NHWC))
    linear = Preprocessor(Input(width_px=100, height_px=50, layout=Layout.NHWC))

    inside = slice(8, -8)
    assert np.abs(cubic(ramp)[0][0, :, inside] - linear(ramp)[0][0, :, inside]).max() <= 1.0
    step = np.where(ramp > 120, 255, 0).astype(np.uint8)
    assert np.abs(cubic(step)[0] - linear(step)[0]).max() > 5.0


def test_no_picture_costs_a_new_tensor_even_where_the_size_follows_the_picture() -> None:
    preprocess = Preprocessor(
        Input(width_px=64, height_px=64, resize=Resize.LETTERBOX_CENTER, dynamic=True, multiple_px=16)
    )
    wide = np.zeros((30, 120, 3), dtype=np.uint8)
    high = np.zeros((120, 30, 3), dtype=np.uint8)

    first, _ = preprocess(wide)
    start = first.__array_interface__["data"][0]
    second, _ = preprocess(high)

    assert (first.shape, second.shape) == ((1, 3, 16, 64), (1, 3, 64, 16))
    assert second.__array_interface__["data"][0] == start


def test_the_rows_of_a_batch_are_the_pictures_in_their_order() -> None:
    preprocess = Preprocessor(Input(width_px=8, height_px=8), batch=3)
    pictures = [np.full((8, 8, 3), value, dtype=np.uint8) for value in (10, 20, 30)]

    for slot, picture in enumerate(pictures):
        preprocess.fill(slot, picture)

    assert preprocess.tensor(2).shape == (2, 3, 8, 8)
    assert preprocess.tensor(3)[:, 0, 0, 0].tolist() == [10, 20, 30]


def test_sides_too_unequal_for_a_crop_are_refused_before_memory_is_asked_for() -> None:
    preprocess = Preprocessor(Input(width_px=224, height_px=224, resize=Resize.CROP_CENTER, shorter_side_px=256))

    with pytest.raises(LinesideError, match="centre crop") as refused:
        preprocess(np.zeros((1, 16000, 3), dtype=np.uint8))

    assert refused.value.code == "source.unreadable"
