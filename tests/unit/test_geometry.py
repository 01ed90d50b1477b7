"""A box goes from the source to the network and back without moving, whatever the rule, the sizes and the region."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.vision import geometry
from agent.vision.geometry import Geometry, Rect
from wire.errors import LinesideError
from wire.manifest import Input, Resize
from wire.model_input import InputRegion, Outside, Unit

SIDES = st.integers(min_value=1, max_value=5000)
SIZES = st.tuples(SIDES, SIDES)
FRACTIONS = st.floats(0.0, 0.95)


@st.composite
def placements(draw: st.DrawFn) -> Geometry:
    """Any rule, size, region and way to choose the network's size."""
    rule = draw(st.sampled_from(Resize))
    source, network = draw(SIZES), draw(SIZES)
    left, top = draw(FRACTIONS), draw(FRACTIONS)
    region = draw(
        st.none()
        | st.builds(
            InputRegion,
            left=st.just(left),
            top=st.just(top),
            width=st.floats(0.01, 1.0 - left),
            height=st.floats(0.01, 1.0 - top),
        )
    )
    dynamic = rule is not Resize.CROP_CENTER and draw(st.booleans())
    multiple = draw(st.integers(1, 64))
    if dynamic:
        network = (-(-network[0] // multiple) * multiple, -(-network[1] // multiple) * multiple)
    shorter = draw(st.none() | st.integers(max(network), 6000)) if rule is Resize.CROP_CENTER else None
    spec = Input(
        width_px=network[0],
        height_px=network[1],
        resize=rule,
        region=region,
        shorter_side_px=shorter,
        dynamic=dynamic,
        multiple_px=multiple,
    )
    rect = geometry.region_of(region, source_width_px=source[0], source_height_px=source[1])
    try:
        return geometry.place_input(spec, rect, source_width_px=source[0], source_height_px=source[1])
    except LinesideError as error:
        assume(error.code != "source.unreadable")  # sides too unequal for a crop
        raise


@given(placed=placements(), seed=st.integers(0, 99))
def test_a_box_comes_back_within_half_a_pixel(placed: Geometry, seed: int) -> None:
    left, top, right, bottom = placed.seen_xyxy
    corners = np.random.default_rng(seed).random((8, 2, 2)) * np.array([right - left, bottom - top]) + [left, top]
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)

    back = placed.to_source(placed.to_network(boxes))

    assert np.abs(back - boxes).max() <= 0.5


@given(placed=placements())
def test_what_is_seen_lies_in_the_region_and_in_the_network_input(placed: Geometry) -> None:
    region = placed.region or Rect(
        left_px=0, top_px=0, width_px=placed.source_width_px, height_px=placed.source_height_px
    )
    assert placed.network_width_px is not None
    assert placed.network_height_px is not None
    left, top, right, bottom = placed.seen_xyxy

    assert region.left_px - 1e-6 <= left < right <= region.left_px + region.width_px + 1e-6
    assert region.top_px - 1e-6 <= top < bottom <= region.top_px + region.height_px + 1e-6
    net = placed.to_network(np.array([[left, top, right, bottom]], dtype=np.float32))[0]
    assert (net >= -0.5).all()
    assert net[2] <= placed.network_width_px + 0.5
    assert net[3] <= placed.network_height_px + 0.5


@given(
    rule=st.sampled_from([Resize.STRETCH, Resize.LETTERBOX_CENTER, Resize.LETTERBOX_TOP_LEFT]),
    source=SIZES,
    cells=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    multiple=st.sampled_from([1, 8, 32, 64]),
)
def test_a_dynamic_size_is_a_multiple_and_within_the_largest(
    rule: Resize, source: tuple[int, int], cells: tuple[int, int], multiple: int
) -> None:
    most = (cells[0] * multiple, cells[1] * multiple)

    placed = geometry.place(
        rule,
        source_width_px=source[0],
        source_height_px=source[1],
        width_px=most[0],
        height_px=most[1],
        multiple_px=multiple,
    )

    sizes = (placed.network_width_px or 0, placed.network_height_px or 0)
    assert all(size % multiple == 0 and 0 < size <= side for size, side in zip(sizes, most, strict=True))
    if rule is not Resize.STRETCH:  # and no border is wider than it must be
        assert sizes[0] - placed.width_px < multiple
        assert sizes[1] - placed.height_px < multiple


@pytest.mark.parametrize(
    ("rule", "size", "expected"),
    [
        (Resize.STRETCH, (1280, 720), (0, 0, 320, 320)),
        (Resize.LETTERBOX_CENTER, (1280, 720), (0, 70, 320, 180)),
        (Resize.LETTERBOX_CENTER, (720, 1280), (70, 0, 180, 320)),
        (Resize.LETTERBOX_CENTER, (640, 638), (0, 0, 320, 319)),
        (Resize.LETTERBOX_TOP_LEFT, (1280, 720), (0, 0, 320, 180)),
        (Resize.LETTERBOX_TOP_LEFT, (720, 1280), (0, 0, 180, 320)),
        (Resize.CROP_CENTER, (1280, 720), (-124, 0, 569, 320)),
        (Resize.CROP_CENTER, (720, 1280), (0, -124, 320, 569)),
    ],
)
def test_each_rule_places_a_picture_where_its_project_does(
    rule: Resize, size: tuple[int, int], expected: tuple[int, ...]
) -> None:
    placed = geometry.place(rule, source_width_px=size[0], source_height_px=size[1], width_px=320, height_px=320)

    assert (placed.left_px, placed.top_px, placed.width_px, placed.height_px) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # torchvision: Resize(256) gives int(256 * long / short), CenterCrop(224) begins at round((side - 224) / 2).
        ((500, 375), (-58, -16, 341, 256)),
        ((640, 480), (-58, -16, 341, 256)),
        ((375, 500), (-16, -58, 256, 341)),
        ((100, 100), (-16, -16, 256, 256)),
    ],
)
def test_the_middle_of_a_picture_is_cut_out_as_torchvision_does(
    size: tuple[int, int], expected: tuple[int, ...]
) -> None:
    placed = geometry.place(
        Resize.CROP_CENTER,
        source_width_px=size[0],
        source_height_px=size[1],
        width_px=224,
        height_px=224,
        shorter_side_px=256,
    )

    assert (placed.left_px, placed.top_px, placed.width_px, placed.height_px) == expected


def test_boxes_are_clipped_to_the_source() -> None:
    placed = geometry.place(
        Resize.LETTERBOX_CENTER, source_width_px=200, source_height_px=100, width_px=100, height_px=100
    )

    boxes = placed.to_source(np.array([[-10, 0, 50, 100], [0, 0, 100, 20]], dtype=np.float32))

    assert boxes.tolist() == [[0, 0, 100, 100], [0, 0, 200, 0]]


def test_boxes_of_a_region_are_in_pixels_of_the_whole_picture_and_clipped_to_the_region() -> None:
    rect = geometry.region_of(
        InputRegion(left=0.5, top=0.25, width=0.25, height=0.5), source_width_px=400, source_height_px=200
    )

    placed = geometry.place(
        Resize.STRETCH, source_width_px=400, source_height_px=200, width_px=50, height_px=50, region=rect
    )

    assert rect == Rect(left_px=200, top_px=50, width_px=100, height_px=100)
    boxes = placed.to_source(np.array([[0, 0, 25, 25], [-5, -5, 60, 60]], dtype=np.float32))
    assert boxes.tolist() == [[200, 50, 250, 100], [200, 50, 300, 150]]


def test_a_region_beyond_the_picture_is_refused_or_clipped_as_the_manifest_says() -> None:
    spec = {"left": 600.0, "top": 0.0, "width": 200.0, "height": 100.0, "unit": Unit.PX}

    clipped = geometry.region_of(InputRegion(**spec, outside=Outside.CLIP), source_width_px=640, source_height_px=480)
    with pytest.raises(LinesideError, match="600 to 800; the picture has 640") as refused:
        geometry.region_of(InputRegion(**spec), source_width_px=640, source_height_px=480)
    with pytest.raises(LinesideError):
        geometry.region_of(InputRegion(**spec, outside=Outside.CLIP), source_width_px=600, source_height_px=480)

    assert clipped == Rect(left_px=600, top_px=0, width_px=40, height_px=100)
    assert refused.value.code == "source.region_outside"


@given(left=FRACTIONS, width=st.floats(0.001, 1.0), side=SIDES)
def test_a_region_in_fractions_is_never_empty_nor_beyond_the_picture(left: float, width: float, side: int) -> None:
    region = InputRegion(left=left, width=width, outside=Outside.CLIP)

    rect = geometry.region_of(region, source_width_px=side, source_height_px=side)

    assert 0 <= rect.left_px < rect.left_px + rect.width_px <= side
    assert abs(rect.left_px - left * side) <= 0.5 or rect.left_px == side - 1
