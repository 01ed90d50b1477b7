"""Every convention of pixels to elements, against a plain reference in double precision."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.vision import geometry
from agent.vision.preprocess import Preprocessor
from wire.errors import LinesideError
from wire.manifest import Color, Dtype, Input, Layout, Resize

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def reference(image: NDArray[np.uint8], spec: Input) -> NDArray[np.float64]:
    """What the manifest says, step by step, with nothing reused."""
    placed = geometry.place(
        spec.resize,
        source_width_px=image.shape[1],
        source_height_px=image.shape[0],
        width_px=spec.width_px,
        height_px=spec.height_px,
    )
    canvas = np.full((spec.height_px, spec.width_px, 3), spec.pad_value, dtype=np.uint8)
    resized = cv2.resize(image, (placed.width_px, placed.height_px), interpolation=cv2.INTER_LINEAR)
    for row, column in itertools.product(range(spec.height_px), range(spec.width_px)):
        from_row, from_column = row - placed.top_px, column - placed.left_px
        if 0 <= from_row < placed.height_px and 0 <= from_column < placed.width_px:
            canvas[row, column] = resized[from_row, from_column]
    if spec.color is Color.GRAY:
        pixels = cv2.cvtColor(canvas, cv2.COLOR_BGR2GRAY)[:, :, np.newaxis]
    else:
        pixels = canvas[:, :, ::-1] if spec.color is Color.RGB else canvas
    elements = (pixels.astype(np.float64) * spec.scale - np.array(spec.mean)) / np.array(spec.std)
    return (elements.transpose(2, 0, 1) if spec.layout is Layout.NCHW else elements)[np.newaxis]


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("resize", list(Resize))
@pytest.mark.parametrize("color", list(Color))
@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("dtype", [Dtype.FLOAT32, Dtype.FLOAT16])
def test_the_tensor_is_the_correctly_rounded_reference(
    resize: Resize, color: Color, layout: Layout, dtype: Dtype
) -> None:
    channels = 1 if color is Color.GRAY else 3
    spec = Input(
        width_px=24,
        height_px=20,
        resize=resize,
        color=color,
        layout=layout,
        dtype=dtype,
        scale=1 / 255,
        mean=IMAGENET[0][:channels],
        std=IMAGENET[1][:channels],
    )
    preprocess = Preprocessor(spec)

    # The second picture has another shape: nothing of the first may be left in the border.
    for image in (picture(30, 40), picture(50, 20, seed=1), picture(7, 9, seed=2)):
        tensor, _ = preprocess(image)

        expected = reference(image, spec)
        assert tensor.dtype == dtype.value
        assert tensor.shape == expected.shape
        assert np.array_equal(tensor, expected.astype(tensor.dtype))


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("color", list(Color))
def test_an_8_bit_input_gets_the_pixels_as_they_are(layout: Layout, color: Color) -> None:
    spec = Input(width_px=16, height_px=12, dtype=Dtype.UINT8, layout=layout, color=color)
    image = picture(33, 21)

    tensor, _ = Preprocessor(spec)(image)

    assert tensor.dtype == np.uint8
    assert np.array_equal(tensor, reference(image, spec).astype(np.uint8))


def test_the_same_memory_is_filled_again() -> None:
    preprocess = Preprocessor(Input(width_px=16, height_px=12))

    first, _ = preprocess(picture(10, 10))
    second, _ = preprocess(picture(20, 30))

    assert first is second


def test_an_8_bit_input_that_is_scaled_is_refused() -> None:
    with pytest.raises(LinesideError) as refused:
        Preprocessor(Input(width_px=8, height_px=8, dtype=Dtype.UINT8, scale=1 / 255))

    assert refused.value.code == "model.manifest_invalid"


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4), (0, 8, 3)])
def test_an_array_that_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(LinesideError) as refused:
        Preprocessor(Input(width_px=8, height_px=8))(np.zeros(shape, dtype=np.uint8))

    assert refused.value.code == "source.unreadable"
