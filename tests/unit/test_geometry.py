"""A box goes from the source to the network and back without moving."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.vision import geometry
from wire.manifest import Resize

SIDES = st.integers(min_value=1, max_value=5000)


@given(
    rule=st.sampled_from(Resize),
    source=st.tuples(SIDES, SIDES),
    network=st.tuples(SIDES, SIDES),
    seed=st.integers(0, 99),
)
def test_a_box_comes_back_within_half_a_pixel(
    rule: Resize, source: tuple[int, int], network: tuple[int, int], seed: int
) -> None:
    placed = geometry.place(
        rule, source_width_px=source[0], source_height_px=source[1], width_px=network[0], height_px=network[1]
    )
    corners = np.random.default_rng(seed).random((8, 2, 2)) * np.array(source)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)

    back = placed.to_source(placed.to_network(boxes))

    assert np.abs(back - boxes).max() <= 0.5


@given(rule=st.sampled_from(Resize), source=st.tuples(SIDES, SIDES), network=st.tuples(SIDES, SIDES))
def test_the_picture_lies_inside_the_network_input(
    rule: Resize, source: tuple[int, int], network: tuple[int, int]
) -> None:
    placed = geometry.place(
        rule, source_width_px=source[0], source_height_px=source[1], width_px=network[0], height_px=network[1]
    )

    assert placed.left_px >= 0
    assert placed.top_px >= 0
    assert 1 <= placed.width_px <= network[0] - placed.left_px
    assert 1 <= placed.height_px <= network[1] - placed.top_px


@pytest.mark.parametrize(
    ("rule", "size", "expected"),
    [
        (Resize.STRETCH, (1280, 720), (0, 0, 320, 320)),
        (Resize.LETTERBOX_CENTER, (1280, 720), (0, 70, 320, 180)),
        (Resize.LETTERBOX_CENTER, (720, 1280), (70, 0, 180, 320)),
        (Resize.LETTERBOX_CENTER, (640, 638), (0, 0, 320, 319)),
        (Resize.LETTERBOX_TOP_LEFT, (1280, 720), (0, 0, 320, 180)),
        (Resize.LETTERBOX_TOP_LEFT, (720, 1280), (0, 0, 180, 320)),
    ],
)
def test_each_rule_places_a_picture_where_its_project_does(
    rule: Resize, size: tuple[int, int], expected: tuple[int, ...]
) -> None:
    placed = geometry.place(rule, source_width_px=size[0], source_height_px=size[1], width_px=320, height_px=320)

    assert (placed.left_px, placed.top_px, placed.width_px, placed.height_px) == expected


def test_boxes_are_clipped_to_the_source() -> None:
    placed = geometry.place(
        Resize.LETTERBOX_CENTER, source_width_px=200, source_height_px=100, width_px=100, height_px=100
    )

    boxes = placed.to_source(np.array([[-10, 0, 50, 100], [0, 0, 100, 20]], dtype=np.float32))

    assert boxes.tolist() == [[0, 0, 100, 100], [0, 0, 200, 0]]
