"""From a package on disk to findings: what is loaded is what the index lists, and outputs are never taken on trust."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from agent.vision import pipeline, runtime
from agent.vision.candidates import Unusable
from agent.vision.graph_cache import MAX_GRAPHS, GraphCache
from wire import package
from wire.errors import LinesideError

PICTURE = np.full((20, 40, 3), 200, dtype=np.uint8)
MANIFEST = """
schema = 1
name = "m"
release = 1
task = "detect"
labels = ["scratch", "dent"]
max_findings = {max_findings}

[input]
width_px = 16
height_px = 16

[decoder]
name = "fastestdet"

[thresholds]
score = {{ default = 0.5, min = 0.1, max = 0.9 }}
"""


def build(folder: Path, grid: np.ndarray, *, max_findings: int = 10) -> package.Package:
    """A package whose model answers `grid`, (1, 7, rows, columns), whatever it is shown."""
    folder.mkdir(exist_ok=True)
    nodes = [
        helper.make_node("ReduceMin", ["x"], ["least"], keepdims=1),
        helper.make_node("Mul", ["least", "zero"], ["nothing"]),
        helper.make_node("Add", ["grid", "nothing"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 16, 16))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, grid.shape)],
        [
            numpy_helper.from_array(grid.astype(np.float32), "grid"),
            numpy_helper.from_array(np.zeros(1, dtype=np.float32), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    (folder / "manifest.toml").write_text(MANIFEST.format(max_findings=max_findings), encoding="utf-8")
    return package.read_folder(folder)


def grid_with(*cells: tuple[int, int, float]) -> np.ndarray:
    """A 4 x 4 grid of scratches, each a quarter of the picture wide and high, with the given class scores."""
    grid = np.zeros((1, 7, 4, 4), dtype=np.float32)
    grid[:, 3:5] = -np.log(3.0)
    for row, column, score in cells:
        grid[0, 0, row, column] = 1.0
        grid[0, 5, row, column] = score ** (1 / 0.4)
    return grid


def pipeline_of(found: package.Package) -> pipeline.Pipeline:
    session = runtime.load(found, runtime.RuntimeOptions())
    return pipeline.Pipeline(session, found, {"score": 0.5})


def test_findings_are_in_source_pixels_clipped_and_the_best_first(tmp_path: Path) -> None:
    found = build(tmp_path / "m", grid_with((0, 0, 0.6), (2, 2, 0.9)))

    look = pipeline_of(found).look(PICTURE)

    assert isinstance(look.findings, tuple)
    assert [finding.label for finding in look.findings] == ["scratch", "scratch"]
    assert [finding.score for finding in look.findings] == pytest.approx([0.9, 0.6])
    boxes = [(box.x1_px, box.y1_px, box.x2_px, box.y2_px) for box in (f.box for f in look.findings) if box]
    assert boxes == [pytest.approx((15, 7.5, 25, 12.5)), pytest.approx((0, 0, 5, 2.5))]


def test_only_so_many_findings_are_kept_as_the_manifest_allows(tmp_path: Path) -> None:
    cells = tuple((row, column, 0.6 + 0.02 * (4 * row + column)) for row in range(4) for column in range(4))

    look = pipeline_of(build(tmp_path / "m", grid_with(*cells), max_findings=3)).look(PICTURE)

    assert isinstance(look.findings, tuple)
    assert [finding.score for finding in look.findings] == pytest.approx([0.9, 0.88, 0.86])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_unusable(bad: float, tmp_path: Path) -> None:
    grid = grid_with((1, 1, 0.9))
    grid[0, 6, 3, 3] = bad

    assert isinstance(pipeline_of(build(tmp_path / "m", grid)).look(PICTURE).findings, Unusable)


def test_the_digest_comes_from_the_session(tmp_path: Path) -> None:
    found = build(tmp_path / "m", grid_with())

    running = pipeline_of(found)

    assert (running.digest, running.provider) == (found.digest, "CPUExecutionProvider")


def test_a_closed_session_says_so(tmp_path: Path) -> None:
    running = pipeline_of(build(tmp_path / "m", grid_with()))
    running.close()
    running.close()

    with pytest.raises(LinesideError) as refused:
        running.look(PICTURE)

    assert refused.value.code == "model.run_failed"


def test_bytes_that_are_not_the_listed_ones_are_not_loaded(tmp_path: Path) -> None:
    found = build(tmp_path / "m", grid_with((0, 0, 0.6)))
    other = build(tmp_path / "other", grid_with((0, 0, 0.7)))
    assert found.model_path.stat().st_size == other.model_path.stat().st_size
    other.model_path.replace(found.model_path)

    with pytest.raises(LinesideError) as refused:
        runtime.load(found, runtime.RuntimeOptions())

    assert refused.value.code == "model.truncated"


def test_a_provider_this_runtime_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LinesideError) as refused:
        runtime.load(build(tmp_path / "m", grid_with()), runtime.RuntimeOptions(provider="NoSuchProvider"))

    assert refused.value.code == "model.provider_unavailable"


def test_a_detector_without_a_score_threshold_is_refused(tmp_path: Path) -> None:
    found = build(tmp_path / "m", grid_with())
    session = runtime.load(found, runtime.RuntimeOptions())

    with pytest.raises(LinesideError) as refused:
        pipeline.Pipeline(session, found, {})

    assert refused.value.code == "model.manifest_invalid"


@pytest.mark.parametrize("damage", ["none", "graph", "note"])
def test_a_kept_graph_is_used_only_whole(damage: str, tmp_path: Path) -> None:
    found = build(tmp_path / "m", grid_with((1, 1, 0.8)))
    options = runtime.RuntimeOptions(cache_dir=tmp_path / "cache")
    runtime.load(found, options).close()
    (graph,) = (tmp_path / "cache").glob("*.onnx")
    first = graph.stat().st_mtime_ns
    if damage == "graph":
        graph.write_bytes(graph.read_bytes()[:-20])
    elif damage == "note":
        graph.with_suffix(".sha256").unlink()

    session = runtime.load(found, options)

    look = pipeline.Pipeline(session, found, {"score": 0.5}).look(PICTURE)
    assert isinstance(look.findings, tuple)
    assert [finding.score for finding in look.findings] == pytest.approx([0.8])
    assert (graph.stat().st_mtime_ns == first) == (damage == "none")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    found = build(tmp_path / "m", grid_with())
    (tmp_path / "cache").write_text("a file where the folder should be", encoding="utf-8")

    session = runtime.load(found, runtime.RuntimeOptions(cache_dir=tmp_path / "cache"))

    assert session.digest == found.digest


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    for number in range(MAX_GRAPHS + 3):
        with GraphCache(tmp_path, f"model {number}").place(17) as draft:
            draft.write_bytes(b"graph")

    assert len(list(tmp_path.glob("*.onnx"))) == len(list(tmp_path.glob("*.sha256"))) == MAX_GRAPHS
    assert GraphCache(tmp_path, f"model {MAX_GRAPHS + 2}").find() is not None


def test_a_kept_graph_that_was_changed_is_not_found_and_removed(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path, "model")
    with cache.place(17) as draft:
        draft.write_bytes(b"graph")
    (graph,) = tmp_path.glob("*.onnx")
    graph.write_bytes(b"grape")

    assert cache.find() is None
    assert list(tmp_path.iterdir()) == []
