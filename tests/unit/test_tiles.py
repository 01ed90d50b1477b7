"""Tiles cover every pixel, and what lies across their edges is found once and whole."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from agent.vision import geometry, runtime, tiles
from agent.vision.candidates import Candidates, Unusable
from agent.vision.pipeline import Look, Pipeline
from wire import package
from wire.errors import LinesideError
from wire.inspection import Finding
from wire.manifest import Resize, Tiling, parameters_of
from wire.model_input import Merge, TileOf

TILE_PX = 64
MAP_MANIFEST = """
schema = 1
name = "bright"
release = 1
task = "map"
labels = ["bright"]

[input]
width_px = {side}
height_px = {side}
color = "GRAY"
std = [255.0]

[decoder]
name = "semantic"
parameters = {{ rule = "threshold", outline = "none" }}

[thresholds]
score = {{ default = 0.5, min = 0.1, max = 0.9 }}
"""
TILES = """
[tiling]
tile_px = 64
stride_px = {stride}
batch = {batch}
merge = "nms"
"""
LABEL_MANIFEST = """
schema = 1
name = "bright"
release = 1
task = "classify"
labels = ["dark", "bright"]

[input]
width_px = 64
height_px = 64
color = "GRAY"
std = [255.0]

[decoder]
name = "classify"
parameters = {{ scores = "softmax" }}

[tiling]
tile_px = 64
stride_px = 32
batch = {batch}
merge = "{merge}"
background_labels = ["dark"]

[thresholds]
score = {{ default = 0.5, min = 0.1, max = 0.9 }}
"""


def save(folder: Path, manifest: str, nodes: list[onnx.NodeProto], shape: list[object], out: list[object]) -> Pipeline:
    """A pipeline of a package with the given graph, picture to scores."""
    folder.mkdir(parents=True, exist_ok=True)
    constants = [
        numpy_helper.from_array(np.array([-1], dtype=np.int64), "all"),
        numpy_helper.from_array(np.array(1.0, dtype=np.float32), "one"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, out)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    (folder / "manifest.toml").write_text(manifest, encoding="utf-8")
    found = package.read_folder(folder)
    return Pipeline(runtime.load(found, runtime.RuntimeOptions()), found, parameters_of(found.manifest, {})[0])


def map_model(folder: Path, *, side: int, tiling: str = "", batch: int | str = "n") -> Pipeline:
    """A model that answers the picture itself: bright pixels are what it marks."""
    nodes = [helper.make_node("Identity", ["picture"], ["scores"])]
    return save(folder, MAP_MANIFEST.format(side=side) + tiling, nodes, [batch, 1, side, side], [batch, 1, side, side])


def label_model(folder: Path, *, batch: int = 16, merge: str = "nms") -> Pipeline:
    """A classifier: how bright the brightest pixel of a tile is."""
    nodes = [
        helper.make_node("ReduceMax", ["picture"], ["bright"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Unsqueeze", ["bright", "all"], ["bright_column"]),
        helper.make_node("Unsqueeze", ["dark", "all"], ["dark_column"]),
        helper.make_node("Concat", ["dark_column", "bright_column"], ["scores"], axis=1),
    ]
    manifest = LABEL_MANIFEST.format(batch=batch, merge=merge)
    return save(folder, manifest, nodes, ["n", 1, 64, 64], ["n", 2])


def boxes_of(look: Look) -> list[tuple[float, ...]]:
    assert isinstance(look.findings, tuple), look.findings
    return sorted(tuple(round(v) for v in corners(finding)) for finding in look.findings)


def corners(finding: Finding) -> tuple[float, float, float, float]:
    assert finding.box is not None
    return finding.box.x1_px, finding.box.y1_px, finding.box.x2_px, finding.box.y2_px


@given(
    size=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    tile=st.integers(1, 200),
    share=st.floats(0.01, 1.0),
)
def test_tiles_cover_every_pixel_and_nothing_else(size: tuple[int, int], tile: int, share: float) -> None:
    # So fine a grid of tiny tiles that it only takes time is left out.
    tile = max(tile, max(size) // 25 + 1)
    tiling = Tiling(tile_px=tile, stride_px=max(1, round(tile * max(share, 0.2))))
    seen = np.zeros(size[::-1], dtype=np.uint16)

    plan = tiles.cut(tiling, width_px=size[0], height_px=size[1])
    for rect in plan:
        assert rect.width_px == min(tile, size[0])
        assert rect.height_px == min(tile, size[1])
        seen[rect.top_px : rect.top_px + rect.height_px, rect.left_px : rect.left_px + rect.width_px] += 1

    assert seen.min() >= 1
    assert int(seen.sum()) == sum(rect.width_px * rect.height_px for rect in plan)  # none reached beyond
    assert len(plan) == len(set(plan)) == tiles.tile_count(tiling, width_px=size[0], height_px=size[1])


def test_a_board_of_640_pixels_has_361_tiles() -> None:
    plan = tiles.cut(Tiling(tile_px=64, stride_px=32), width_px=640, height_px=640)

    assert len(plan) == 361


def things(seed: int, width: int, height: int) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """A dark picture with bright rectangles that keep apart, none larger than the tiles' overlap."""
    draw = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), dtype=np.uint8)
    taken = np.zeros((height, width), dtype=bool)
    boxes = []
    for _ in range(30):
        wide, high = (int(v) for v in draw.integers(4, 29, 2))
        left, top = int(draw.integers(0, width - wide + 1)), int(draw.integers(0, height - high + 1))
        around = (slice(max(0, top - 4), top + high + 4), slice(max(0, left - 4), left + wide + 4))
        if taken[around].any():
            continue
        taken[top : top + high, left : left + wide] = True
        image[top : top + high, left : left + wide] = draw.integers(150, 256)
        boxes.append((left, top, left + wide, top + high))
    return image, sorted(boxes)


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return map_model(tmp_path_factory.mktemp("tiled"), side=TILE_PX, tiling=TILES.format(stride=32, batch=8))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), width=st.integers(64, 330), height=st.integers(64, 330))
def test_tiles_find_what_the_whole_picture_shows_once_also_across_their_edges(
    tiled: Pipeline, seed: int, width: int, height: int
) -> None:
    image, expected = things(seed, width, height)

    look = tiled.look(image)

    assert boxes_of(look) == expected


def test_the_whole_picture_shows_the_same(tmp_path: Path) -> None:
    image, expected = things(7, 320, 320)
    whole = map_model(tmp_path / "whole", side=320)
    tiled = map_model(tmp_path / "tiled", side=TILE_PX, tiling=TILES.format(stride=32, batch=8))

    assert boxes_of(whole.look(image)) == boxes_of(tiled.look(image)) == expected


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_a_fixed_batch_is_filled_up_and_a_free_one_is_cut_short(batch: int, tmp_path: Path) -> None:
    image, expected = things(3, 200, 150)
    tiling = TILES.format(stride=32, batch=batch)

    fixed = map_model(tmp_path / "fixed", side=TILE_PX, tiling=tiling, batch=batch)
    free = map_model(tmp_path / "free", side=TILE_PX, tiling=tiling)

    assert boxes_of(fixed.look(image)) == boxes_of(free.look(image)) == expected
    # The second picture finds nothing of the first in the unused end of the batch.
    assert boxes_of(fixed.look(np.zeros((70, 70, 3), dtype=np.uint8))) == []


def test_a_part_with_a_higher_score_does_not_drive_out_the_whole() -> None:
    boxes = np.array([[40, 10, 64, 30], [40, 10, 80, 30], [100, 100, 110, 110]], dtype=np.float32)
    candidates = Candidates(
        boxes_xyxy=boxes, scores=np.array([0.9, 0.6, 0.5], dtype=np.float32), class_ids=np.array([0, 0, 0])
    )

    _, kept = tiles.merge(
        candidates, np.array([True, False, False]), how=Merge.NMS, iou_threshold=0.45, class_agnostic=False
    )

    assert kept.tolist() == [1, 2]


def test_a_part_of_another_label_stays_unless_labels_do_not_matter() -> None:
    boxes = np.array([[40, 10, 64, 30], [40, 10, 80, 30]], dtype=np.float32)
    candidates = Candidates(boxes_xyxy=boxes, scores=np.array([0.9, 0.6], dtype=np.float32), class_ids=np.array([0, 1]))

    def kept(class_agnostic: bool) -> list[int]:
        cut_off = np.array([True, False])
        return tiles.merge(candidates, cut_off, how=Merge.NMS, iou_threshold=0.9, class_agnostic=class_agnostic)[
            1
        ].tolist()

    assert kept(class_agnostic=False) == [0, 1]
    assert kept(class_agnostic=True) == [1]


def test_a_chain_of_boxes_that_overlap_is_joined_into_one_that_encloses_them() -> None:
    boxes = np.array(
        [[0, 0, 64, 64], [32, 0, 96, 64], [64, 32, 128, 96], [200, 0, 264, 64], [128, 0, 192, 64]], dtype=np.float32
    )
    candidates = Candidates(
        boxes_xyxy=boxes,
        scores=np.array([0.6, 0.9, 0.7, 0.8, 0.5], dtype=np.float32),
        class_ids=np.array([0, 0, 0, 0, 0]),
    )

    joined, kept = tiles.merge(
        candidates, np.zeros(5, dtype=bool), how=Merge.UNION, iou_threshold=0.0, class_agnostic=False
    )

    assert joined.boxes_xyxy is not None
    assert joined.boxes_xyxy[kept].tolist() == [[0, 0, 128, 96], [200, 0, 264, 64], [128, 0, 192, 64]]
    assert joined.scores[kept].tolist() == pytest.approx([0.9, 0.8, 0.5])


def test_a_classifiers_tiles_become_boxes_and_background_does_not(tmp_path: Path) -> None:
    image = np.zeros((128, 192, 3), dtype=np.uint8)
    image[100:104, 150:154] = 255
    image[10:12, 10:12] = 200

    separate = label_model(tmp_path / "nms").look(image)
    joined = label_model(tmp_path / "union", merge="union").look(image)

    assert boxes_of(separate) == [(0, 0, 64, 64), (96, 64, 160, 128), (128, 64, 192, 128)]
    assert boxes_of(joined) == [(0, 0, 64, 64), (96, 64, 192, 128)]
    assert isinstance(joined.findings, tuple)
    assert [(finding.label, round(finding.score, 2)) for finding in joined.findings] == [
        ("bright", 1.0),
        ("bright", 0.78),
    ]


def test_a_classifiers_score_threshold_holds_for_each_tile(tmp_path: Path) -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[5, 5] = 150  # .59 of the brightest

    found = label_model(tmp_path / "m")
    stricter = Pipeline(found._session, package.read_folder(tmp_path / "m"), {"score": 0.7})

    assert len(boxes_of(found.look(image))) == 1
    assert boxes_of(stricter.look(image)) == []


def test_a_picture_that_needs_too_many_tiles_has_no_verdict(tmp_path: Path) -> None:
    tiling = TILES.format(stride=32, batch=4) + "max_tiles = 20\n"

    look = map_model(tmp_path / "m", side=TILE_PX, tiling=tiling).look(np.zeros((640, 640, 3), dtype=np.uint8))

    assert isinstance(look.findings, Unusable)
    assert look.findings.reason == "The picture needs 361 tiles; 20 are allowed."


def test_tiles_of_the_resized_picture_lead_back_to_source_pixels(tmp_path: Path) -> None:
    image = np.zeros((300, 600, 3), dtype=np.uint8)
    cv2.rectangle(image, (270, 120), (329, 179), (255, 255, 255), -1)
    tiling = TILES.format(stride=32, batch=4) + 'of = "resized"\nresized_width_px = 200\n'

    look = map_model(tmp_path / "m", side=TILE_PX, tiling=tiling).look(image)

    assert boxes_of(look) == [(270, 120, 330, 180)]


def test_tiles_of_a_region_lead_back_to_the_whole_picture(tmp_path: Path) -> None:
    image = np.zeros((300, 600, 3), dtype=np.uint8)
    image[100:120, 400:420] = 255
    image[100:120, 10:30] = 255  # outside the region
    region = "\n[input.region]\nleft = 0.5\ntop = 0.2\nwidth = 0.5\nheight = 0.6\n\n[decoder]"
    manifest = (MAP_MANIFEST.format(side=TILE_PX) + TILES.format(stride=32, batch=4)).replace("\n[decoder]", region)
    nodes = [helper.make_node("Identity", ["picture"], ["scores"])]

    look = save(tmp_path / "m", manifest, nodes, ["n", 1, 64, 64], ["n", 1, 64, 64]).look(image)

    assert boxes_of(look) == [(400, 100, 420, 120)]


def test_an_output_without_a_row_for_each_tile_is_unusable() -> None:
    answer = tiles.rows_of([np.zeros((4, 2)), np.zeros((7, 2))], 4)

    assert isinstance(answer, Unusable)
    assert "4 tiles" in answer.reason


def test_masks_move_with_their_tile() -> None:
    placed = geometry.place(Resize.STRETCH, source_width_px=32, source_height_px=32, width_px=64, height_px=64)
    tile = geometry.Rect(left_px=96, top_px=10, width_px=32, height_px=32)

    class OneMask:
        def at(self, index: int) -> tiles.Field:
            return tiles.Field(values=np.ones((2, 2), dtype=np.float32), region_xyxy=(0.0, 0.0, 64.0, 32.0))

    candidates = Candidates(
        boxes_xyxy=np.array([[10, 10, 20, 20]], dtype=np.float32),
        scores=np.array([0.5], dtype=np.float32),
        class_ids=np.array([0]),
        masks=OneMask(),
    )

    sight = tiles.sight_of(candidates, placed, tile, canvas=(200, 200))

    assert sight.candidates.boxes_xyxy is not None
    assert sight.candidates.boxes_xyxy.tolist() == [[101, 15, 106, 20]]
    assert sight.candidates.masks is not None
    mask = sight.candidates.masks.at(0)
    assert mask is not None
    assert mask.region_xyxy == (96, 10, 128, 26)


@pytest.mark.parametrize(
    ("tiling", "size", "expected"),
    [
        (Tiling(tile_px=8, stride_px=8), (100, 50), (100, 50)),
        (Tiling(tile_px=8, stride_px=8, of=TileOf.RESIZED, resized_width_px=50), (100, 50), (50, 25)),
        (Tiling(tile_px=8, stride_px=8, of=TileOf.RESIZED, resized_height_px=100), (100, 50), (200, 100)),
        (
            Tiling(tile_px=8, stride_px=8, of=TileOf.RESIZED, resized_height_px=10, resized_width_px=99),
            (100, 50),
            (99, 10),
        ),
    ],
)
def test_the_size_tiles_are_cut_from(tiling: Tiling, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert tiles.canvas_size(tiling, width_px=size[0], height_px=size[1]) == expected


def test_an_unknown_background_label_is_refused(tmp_path: Path) -> None:
    found = label_model(tmp_path / "m")
    manifest = (tmp_path / "m" / "manifest.toml").read_text()
    (tmp_path / "m" / "labels.txt").write_text("dark\nbright\n")
    (tmp_path / "m" / "manifest.toml").write_text(
        manifest.replace('labels = ["dark", "bright"]', 'labels_file = "labels.txt"', 1).replace('["dark"]', '["grey"]')
    )

    with pytest.raises(LinesideError, match="'grey' is none of the labels") as refused:
        Pipeline(found._session, package.read_folder(tmp_path / "m"), {"score": 0.5})

    assert refused.value.code == "model.manifest_invalid"
