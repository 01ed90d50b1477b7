"""What a manifest says of a graph's inputs is checked in words, compared with the graph, and filled as it says."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from agent.vision import extra_inputs, geometry, runtime
from agent.vision.extra_inputs import ExtraInputs
from agent.vision.input_fit import extra_mismatch_of, mismatch_of
from agent.vision.pipeline import Pipeline
from wire import package
from wire.errors import LinesideError
from wire.manifest import ExtraInput, Input, Manifest, Resize, parameters_of, problems_of
from wire.model_input import ExtraDtype, ExtraKind, InputRegion

DETR = """
schema = 1
name = "detr"
release = 1
task = "detect"
labels = ["thing"]

[input]
name = "images"
width_px = 32
height_px = 32
{input}

[[extra_inputs]]
name = "orig_target_sizes"
kind = "{kind}"
dtype = "int64"

[decoder]
name = "detections"
boxes_in = "{boxes_in}"
parameters = {{ labels = 0, boxes = 1, scores = 2 }}

[thresholds]
score = {{ default = 0.5, min = 0.1, max = 0.9 }}
"""
ELEMENTS = {"int64": TensorProto.INT64, "float": TensorProto.FLOAT}


def manifest_of(**changes: Any) -> Manifest:
    toml = {
        "schema": 1,
        "name": "m",
        "release": 1,
        "task": "classify",
        "labels": ["a", "b"],
        "decoder": {"name": "classify"},
        "input": {"width_px": 64, "height_px": 32},
    }
    return msgspec.convert({**toml, **changes}, Manifest)


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"input": {"width_px": 64, "height_px": 32, "shorter_side_px": 99}}, "input.shorter_side_px", "crop_center"),
        (
            {"input": {"width_px": 64, "height_px": 32, "resize": "crop_center", "shorter_side_px": 40}},
            "input.shorter_side_px",
            "less than the 64 x 32",
        ),
        ({"input": {"width_px": 65, "height_px": 32, "dynamic": True}}, "input.width_px", "no multiple"),
        (
            {"input": {"width_px": 64, "height_px": 32, "dynamic": True, "resize": "crop_center"}},
            "input.dynamic",
            "crop_center",
        ),
        (
            {"input": {"width_px": 64, "height_px": 32, "region": {"left": 0.6, "width": 0.5}}},
            "input.region.width",
            "over 1",
        ),
        ({"input": {"width_px": 64, "height_px": 32, "region": {"top": 1.0}}}, "input.region.top", "leaves nothing"),
        (
            {"input": {"width_px": 64, "height_px": 32, "region": {"unit": "px", "height": 0.5, "width": 9.0}}},
            "input.region.height",
            "less than one pixel",
        ),
        (
            {"extra_inputs": [{"name": "a", "kind": "scale_hw"}, {"name": "a", "kind": "scale_hw"}]},
            "extra_inputs[1].name",
            "named twice",
        ),
        ({"extra_inputs": [{"name": "a", "kind": "constant"}]}, "extra_inputs[0].values", "needs them"),
        (
            {"extra_inputs": [{"name": "a", "kind": "scale_hw", "dtype": "int64"}]},
            "extra_inputs[0].dtype",
            "no whole numbers",
        ),
        ({"tiling": {"tile_px": 32, "stride_px": 33}}, "tiling.stride_px", "go unseen"),
        ({"tiling": {"tile_px": 32, "stride_px": 16, "of": "resized"}}, "tiling.of", "resized_width_px"),
        ({"tiling": {"tile_px": 32, "stride_px": 16, "resized_width_px": 9}}, "tiling.of", "neither"),
        (
            {"tiling": {"tile_px": 32, "stride_px": 16, "batch": 1024}, "input": {"width_px": 512, "height_px": 512}},
            "tiling.batch",
            "536870912 are allowed",
        ),
        (
            {"tiling": {"tile_px": 32, "stride_px": 16, "background_labels": ["c"]}},
            "tiling.background_labels",
            "'c', which is none",
        ),
        (
            {"tiling": {"tile_px": 32, "stride_px": 16, "background_labels": ["a"]}, "task": "detect"},
            "tiling.background_labels",
            "for a classifier",
        ),
        (
            {
                "tiling": {"tile_px": 32, "stride_px": 16},
                "minimum_score": "sure",
                "thresholds": {"sure": {"default": 0.5, "min": 0.0, "max": 1.0}},
            },
            "minimum_score",
            "background has no score",
        ),
    ],
)
def test_what_makes_no_sense_is_said_in_words_and_with_its_place(changes: dict[str, Any], key: str, words: str) -> None:
    found = problems_of(manifest_of(**changes))

    assert key in [place for place, _ in found], found
    assert any(place == key and words in sentence for place, sentence in found), found


def test_what_makes_sense_is_accepted() -> None:
    assert problems_of(manifest_of()) == []
    assert (
        problems_of(
            manifest_of(
                input={
                    "width_px": 64,
                    "height_px": 64,
                    "resize": "crop_center",
                    "shorter_side_px": 64,
                    "interpolation": "area",
                    "region": {"left": 0.5, "width": 0.5},
                },
                tiling={"tile_px": 32, "stride_px": 32, "background_labels": ["a"]},
                extra_inputs=[{"name": "x", "kind": "constant", "values": [1]}],
            )
        )
        == []
    )


def test_a_demo_manifest_reads_as_before() -> None:
    for folder in sorted((Path(__file__).parents[2] / "models").glob("demo-parts-*")):
        manifest = package.read_manifest(folder / "manifest.toml")
        assert manifest.tiling is None
        assert manifest.extra_inputs == ()
        assert not manifest.input.dynamic
        assert manifest.input.region is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ExtraKind.SOURCE_SIZE_HW, (100, 400)),
        (ExtraKind.SOURCE_SIZE_WH, (400, 100)),
        (ExtraKind.NETWORK_SIZE_HW, (64, 32)),
        (ExtraKind.NETWORK_SIZE_WH, (32, 64)),
        (ExtraKind.SCALE_HW, (0.64, 0.08)),
    ],
)
def test_each_kind_of_input_is_told_what_its_name_says(kind: ExtraKind, expected: tuple[float, float]) -> None:
    rect = geometry.region_of(
        InputRegion(left=0.0, top=0.5, width=1.0, height=0.5), source_width_px=400, source_height_px=200
    )
    placed = geometry.place(
        Resize.STRETCH, source_width_px=400, source_height_px=200, width_px=32, height_px=64, region=rect
    )

    assert extra_inputs.values_of(kind, placed) == pytest.approx(expected)


def test_inputs_take_the_shape_of_the_graph_and_one_row_for_each_picture() -> None:
    specs = (
        ExtraInput(name="rows", kind=ExtraKind.SOURCE_SIZE_HW, dtype=ExtraDtype.INT64),
        ExtraInput(name="flat", kind=ExtraKind.SCALE_HW),
        ExtraInput(name="one", kind=ExtraKind.CONSTANT, values=(0.5,)),
        ExtraInput(name="single", kind=ExtraKind.NETWORK_SIZE_HW, dtype=ExtraDtype.INT32),
    )
    shapes = {"rows": ("n", 2), "flat": (2,), "one": (), "single": (1, 2)}
    placed = geometry.place(Resize.STRETCH, source_width_px=40, source_height_px=20, width_px=80, height_px=80)

    arrays = ExtraInputs(specs, shapes, batch=4).arrays(placed, 3)

    assert arrays["rows"].tolist() == [[20, 40]] * 3
    assert arrays["rows"].dtype == np.int64
    assert arrays["flat"].tolist() == [4.0, 2.0]
    assert (arrays["one"].shape, float(arrays["one"])) == ((), 0.5)
    assert arrays["single"].tolist() == [[80, 80]]
    assert arrays["single"].dtype == np.int32


@pytest.mark.parametrize(
    ("shape", "batch", "dynamic", "fits"),
    [
        ((1, 3, 32, 64), 1, False, True),
        (("n", 3, 32, 64), 128, False, True),
        (("n", 3, "h", "w"), 1, True, True),
        ((1, 3, 32, 64), 1, True, False),
        ((4, 3, 32, 64), 1, False, False),
        ((4, 3, 32, 64), 4, False, True),
        ((1, 3, 64, 32), 1, False, False),
        ((3, 32, 64), 1, False, False),
    ],
)
def test_the_picture_input_is_compared_axis_by_axis(
    shape: tuple[int | str, ...], batch: int, dynamic: bool, fits: bool
) -> None:
    spec = Input(width_px=64, height_px=32, dynamic=dynamic)

    assert (mismatch_of(spec, "x", shape, "tensor(float)", batch=batch) is None) == fits


def test_a_further_input_is_compared_with_the_graphs() -> None:
    size = ExtraInput(name="s", kind=ExtraKind.SOURCE_SIZE_HW, dtype=ExtraDtype.INT64)

    assert extra_mismatch_of(size, ("n", 2), "tensor(int64)") is None
    assert extra_mismatch_of(size, (2,), "tensor(int64)") is None
    assert "int64" in (extra_mismatch_of(size, (1, 2), "tensor(float)") or "")
    assert "[1, 3]" in (extra_mismatch_of(size, (1, 3), "tensor(int64)") or "")
    assert extra_mismatch_of(size, (1, 1, 2), "tensor(int64)") is not None


def two_inputs(folder: Path, *, kind: str, boxes_in: str, extra: str = "") -> package.Package:
    """A graph like RT-DETR's: its one box is the middle quarter of a picture of the size it is told, as (w, h)."""
    folder.mkdir(parents=True)
    constants = [
        numpy_helper.from_array(np.array([[[0.25, 0.25, 0.75, 0.75]]], dtype=np.float32), "box"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "row"),
        numpy_helper.from_array(np.array([[0]], dtype=np.int64), "labels_"),
        numpy_helper.from_array(np.array([[0.9]], dtype=np.float32), "score"),
        numpy_helper.from_array(np.array(0.0, dtype=np.float32), "zero"),
    ]
    nodes = [
        helper.make_node("Cast", ["orig_target_sizes"], ["size"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["size", "size"], ["four"], axis=1),
        helper.make_node("Unsqueeze", ["four", "row"], ["scale"]),
        helper.make_node("Mul", ["box", "scale"], ["boxes"]),
        helper.make_node("Identity", ["labels_"], ["labels"]),
        helper.make_node("ReduceMax", ["images"], ["top"], keepdims=0),
        helper.make_node("Mul", ["top", "zero"], ["nothing"]),
        helper.make_node("Add", ["score", "nothing"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "h", "w"]),
            helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, ["n", 2]),
        ],
        [
            helper.make_tensor_value_info("labels", TensorProto.INT64, [1, 1]),
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 1, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1]),
        ],
        constants,
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx"
    )
    text = DETR.format(kind=kind, boxes_in=boxes_in, input=extra)
    (folder / "manifest.toml").write_text(text, encoding="utf-8")
    return package.read_folder(folder)


@pytest.mark.parametrize(
    ("kind", "boxes_in"), [("source_size_wh", "source"), ("network_size_wh", "network")], ids=["source", "network"]
)
@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("", (50, 25, 150, 75)),
        ("region = { left = 0.5, width = 0.5 }", (125, 25, 175, 75)),
    ],
    ids=["whole", "region"],
)
def test_a_graph_that_is_told_the_size_answers_in_the_pixels_the_manifest_names(
    kind: str, boxes_in: str, extra: str, expected: tuple[float, ...], tmp_path: Path
) -> None:
    found = two_inputs(tmp_path / "m", kind=kind, boxes_in=boxes_in, extra=extra)
    pipeline = Pipeline(runtime.load(found, runtime.RuntimeOptions()), found, parameters_of(found.manifest, {})[0])

    look = pipeline.look(np.zeros((100, 200, 3), dtype=np.uint8))

    assert isinstance(look.findings, tuple)
    (finding,) = look.findings
    assert finding.box is not None
    box = (finding.box.x1_px, finding.box.y1_px, finding.box.x2_px, finding.box.y2_px)
    assert box == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("size", [(100, 200), (40, 20)])
def test_a_network_whose_size_follows_the_picture_leads_back_to_it(size: tuple[int, int], tmp_path: Path) -> None:
    extra = 'resize = "letterbox_center"\ndynamic = true\nmultiple_px = 8'
    found = two_inputs(tmp_path / "m", kind="network_size_wh", boxes_in="network", extra=extra)
    pipeline = Pipeline(runtime.load(found, runtime.RuntimeOptions()), found, parameters_of(found.manifest, {})[0])
    height, width = size

    look = pipeline.look(np.zeros((height, width, 3), dtype=np.uint8))

    assert isinstance(look.findings, tuple)
    box = look.findings[0].box
    assert box is not None
    # 32 x 16 for both shapes: no border is left, so the middle quarter is the source's.
    assert (box.x1_px, box.y1_px, box.x2_px, box.y2_px) == pytest.approx(
        (width / 4, height / 4, 3 * width / 4, 3 * height / 4), abs=1e-3
    )


def test_a_graph_with_an_input_the_manifest_does_not_name_is_refused(tmp_path: Path) -> None:
    found = two_inputs(tmp_path / "m", kind="source_size_wh", boxes_in="source")
    path = tmp_path / "m" / "manifest.toml"
    start, end = path.read_text().split("[[extra_inputs]]")
    path.write_text(start + end[end.index("[decoder]") :])

    with pytest.raises(LinesideError) as refused:
        runtime.load(package.read_folder(found.folder), runtime.RuntimeOptions())

    assert refused.value.code == "model.manifest_mismatch"
    assert "orig_target_sizes" in refused.value.message


def test_a_picture_the_region_reaches_beyond_has_no_verdict(tmp_path: Path) -> None:
    extra = 'region = { left = 150.0, top = 0.0, width = 100.0, height = 50.0, unit = "px" }'
    found = two_inputs(tmp_path / "m", kind="source_size_wh", boxes_in="source", extra=extra)
    pipeline = Pipeline(runtime.load(found, runtime.RuntimeOptions()), found, parameters_of(found.manifest, {})[0])

    with pytest.raises(LinesideError) as refused:
        pipeline.look(np.zeros((100, 200, 3), dtype=np.uint8))

    assert refused.value.code == "source.region_outside"


def test_only_a_provider_the_package_allows_is_used_and_it_is_reported(tmp_path: Path) -> None:
    found = two_inputs(tmp_path / "m", kind="source_size_wh", boxes_in="source")
    path = tmp_path / "m" / "manifest.toml"
    path.write_text(path.read_text() + '\n[requires]\nproviders = ["CUDAExecutionProvider"]\n')
    wanting = package.read_folder(found.folder)

    with pytest.raises(LinesideError, match="CUDAExecutionProvider") as refused:
        runtime.load(wanting, runtime.RuntimeOptions())

    assert refused.value.code == "model.provider_unavailable"
    path.write_text(path.read_text().replace('["CUDA', '["CPUExecutionProvider", "CUDA'))
    session = runtime.load(package.read_folder(found.folder), runtime.RuntimeOptions())
    assert session.provider == "CPUExecutionProvider"
    assert session.provider in onnxruntime.get_available_providers()


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
def test_what_a_closed_session_held_goes_back_to_the_system(shared_data: Path) -> None:
    picture = np.zeros((1, 3, 416, 416), dtype=np.float32)
    model = shared_data / "models" / "yolox_nano_weeds_416.onnx"
    runtime.trim()
    before = resident_mb()
    sessions = [runtime.build(model, runtime.RuntimeOptions()) for _ in range(4)]
    for session in sessions:
        session.run(None, {"images": picture})
    loaded = resident_mb()

    del session, sessions
    runtime.trim()

    assert loaded - before > 20
    assert resident_mb() - before < 0.4 * (loaded - before)


@pytest.mark.skipif(sys.platform != "linux", reason="page faults of one thread are Linux's")
def test_a_look_waits_for_no_memory_after_another_session_was_built_looked_and_went(shared_data: Path) -> None:
    model = shared_data / "models" / "yolox_nano_weeds_416.onnx"
    picture = np.zeros((1, 3, 416, 416), dtype=np.float32)
    serving = runtime.build(model, runtime.RuntimeOptions())
    for _ in range(4):
        serving.run(None, {"images": picture})
    other = runtime.build(model, runtime.RuntimeOptions())
    other.run(None, {"images": picture})
    del other
    runtime.trim()

    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    serving.run(None, {"images": picture})
    faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

    assert faults < 300, "pages of 4 KiB; a look of this model takes some 5 MB"


@pytest.mark.parametrize("words", ["std::bad_alloc", "Failed to allocate memory for requested buffer of size 1024"])
def test_a_model_that_gets_no_memory_is_too_large_and_not_unloadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    found = two_inputs(tmp_path / "m", kind="source_size_wh", boxes_in="source")

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(LinesideError) as refused:
        runtime.load(found, runtime.RuntimeOptions())

    assert refused.value.code == "model.too_large"


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
