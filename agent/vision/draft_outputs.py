"""Which decoder reads a graph's outputs, by their shapes, their makers and the metadata (pure).

Each guess is a function from what is known to a `Reading` or None; the first that answers is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agent.vision import draft_whole
from agent.vision.draft_metadata import Metadata
from agent.vision.draft_reading import Axes, Known, Reading, Size, ends_in
from agent.vision.onnx_walk import OnnxFacts

_MAX_QUERIES: Final = 1000
_NANODET_BINS: Final = 8


def read(facts: OnnxFacts, size: Size, class_count: int | None, metadata: Metadata) -> Reading:
    """Return how the outputs are read; a reading without a decoder where nothing fits."""
    known = Known(facts=facts, size=size, class_count=class_count, metadata=metadata)
    for guess in _GUESSES:
        reading = guess(known)
        if reading is not None:
            return reading
    shapes = "; ".join(f"{output.name} {list(output.shape)}" for output in facts.outputs[:4])
    return Reading(decoder="", family="", why=f"no decoder is known by these outputs: {shapes}")


def _ultralytics(known: Known) -> Reading | None:
    if not known.metadata.is_ultralytics:
        return None
    task = known.metadata.task
    if task == "classify":
        reading = draft_whole.classifier(known)
        return None if reading is None else _certain(reading, "ultralytics-classify")
    if task not in ("detect", "segment"):
        return Reading(decoder="", family="yolo", why=f"there is no decoder for Ultralytics' task {task[:40]!r}")
    reading = _rows(known) if known.metadata.is_end_to_end else _yolov8_seg(known) or _yolov8(known)
    return None if reading is None else _certain(reading, "yolo")


def _certain(reading: Reading, family: str) -> Reading:
    return Reading(
        decoder=reading.decoder,
        family=family,
        why="Ultralytics' metadata",
        parameters=reading.parameters,
        class_count=reading.class_count,
        is_certain=True,
        merges_overlaps=reading.merges_overlaps,
    )


def _yunet(known: Known) -> Reading | None:
    names = [output.name for output in known.facts.outputs]
    groups = {
        key: [name for name in names if name.startswith(f"{start}_")]
        for key, start in (("classes", "cls"), ("objectness", "obj"), ("boxes", "bbox"))
    }
    if len({len(group) for group in groups.values()}) != 1 or not groups["classes"]:
        return None
    parameters = tuple((key, (group, "by their names")) for key, group in groups.items())
    shape = next(output.shape for output in known.facts.outputs if output.name == groups["classes"][0])
    count = shape[-1] if shape and isinstance(shape[-1], int) else None
    return Reading(
        decoder="yunet", family="yunet", why="outputs cls_*, obj_* and bbox_*", parameters=parameters, class_count=count
    )


def _detections(known: Known) -> Reading | None:
    boxes = [output for output in known.facts.outputs if ends_in(output.shape, 4) and len(output.shape) in (2, 3)]
    flat = [output for output in known.facts.outputs if len(output.shape) == len(boxes[0].shape) - 1] if boxes else []
    if len(boxes) != 1 or len(flat) < 2:
        return None
    labels = [output for output in flat if output.element in ("int64", "int32") or "label" in output.name.lower()]
    scores = [output for output in flat if output.element.startswith("float") and output not in labels]
    if not labels or not scores:
        return None
    parameters = tuple(
        (key, (output.name, "")) for key, output in (("boxes", boxes[0]), ("labels", labels[0]), ("scores", scores[0]))
    )
    return Reading(
        decoder="detections",
        family="detr",
        why="boxes, labels and scores as separate outputs",
        parameters=parameters,
        merges_overlaps=False,
    )


def _yolov8_seg(known: Known) -> Reading | None:
    columns = [output for output in known.facts.outputs if len(output.shape) == 3]
    prototypes = [output for output in known.facts.outputs if len(output.shape) == 4]
    if len(columns) != 1 or len(prototypes) != 1:
        return None
    values, masks = columns[0].shape[1], prototypes[0].shape[1]
    if not isinstance(values, int) or not isinstance(masks, int) or values <= 4 + masks:
        return None
    return Reading(
        decoder="yolov8-seg",
        family="yolo",
        why="boxes with coefficients, and prototypes",
        parameters=(("output", (columns[0].name, "")), ("prototypes", (prototypes[0].name, ""))),
        class_count=values - 4 - masks,
    )


def _scores_and_boxes(known: Known) -> Reading | None:
    """Two outputs: SSD has thousands of rows, DETR some hundred queries."""
    boxes = [output for output in known.facts.outputs if len(output.shape) == 3 and ends_in(output.shape, 4)]
    scores = [output for output in known.facts.outputs if len(output.shape) == 3 and output not in boxes]
    if len(known.facts.outputs) != 2 or len(boxes) != 1 or len(scores) != 1:
        return None
    rows, classes = scores[0].shape[1:]
    if boxes[0].shape[1] != rows or not isinstance(classes, int):
        return None
    maker = known.maker(scores[0])
    if isinstance(rows, int) and rows <= _MAX_QUERIES:
        kind = "softmax" if known.class_count == classes - 1 else "sigmoid"
        activation = "none" if maker in ("Softmax", "Sigmoid") else kind
        return Reading(
            decoder="detr",
            family="detr",
            why=f"{rows} queries with logits and boxes",
            parameters=(
                ("logits", (scores[0].name, "")),
                ("boxes", (boxes[0].name, "")),
                ("activation", (activation, "sigmoid for RT-DETR, softmax for DETR")),
            ),
            class_count=classes - (kind == "softmax"),
            merges_overlaps=False,
        )
    has_background = maker != "Sigmoid"
    activation = "none" if maker in ("Softmax", "Sigmoid") else "softmax"
    return Reading(
        decoder="ssd",
        family="ssd",
        why="class scores and boxes of the same rows",
        parameters=(
            ("scores", (scores[0].name, "")),
            ("boxes", (boxes[0].name, "")),
            ("background", (0 if has_background else -1, "usual where scores are a softmax; -1: none")),
            (
                "activation",
                (activation, "" if activation == "none" else "the scores come out of no softmax or sigmoid"),
            ),
        ),
        class_count=classes,
        has_background=has_background,
    )


def _rows(known: Known) -> Reading | None:
    if len(known.shapes) != 1:
        return None
    shape = known.shapes[0]
    few = len(shape) == 3 and (not isinstance(shape[1], int) or shape[1] <= _MAX_QUERIES)
    # Two axes alone may be a classifier's: rows of seven are put together from parts.
    if (few and ends_in(shape, 6)) or (
        len(shape) == 2 and ends_in(shape, 7) and known.maker(known.facts.outputs[0]) == "Concat"
    ):
        columns = "box_score_class" if ends_in(shape, 6) else "batch_box_class_score"
        return Reading(
            decoder="detection-rows",
            family="yolo",
            why="a few rows of box, score and class",
            parameters=(("columns", (columns, "YOLOv10's and YOLO26's, or YOLOv7's order")),),
            merges_overlaps=False,
        )
    return None


def _yolov8(known: Known) -> Reading | None:
    if len(known.shapes) != 1 or len(known.shapes[0]) != 3:
        return None
    _, values, boxes = known.shapes[0]
    if not isinstance(values, int) or values <= 4:
        return None
    is_known_grid = boxes == known.size.cells((8, 16, 32))
    if not is_known_grid and isinstance(boxes, int) and boxes <= 4 * values:
        return None
    why = f"[1, {values}, n]: 4 of a box and {values - 4} classes in columns"
    return Reading(decoder="yolov8", family="yolo", why=why, class_count=values - 4)


def _grid_rows(known: Known) -> Reading | None:
    """Rows of one box each: their number tells the grid, which tells the family."""
    if len(known.shapes) != 1 or len(known.shapes[0]) != 3:
        return None
    output = known.facts.outputs[0]
    _, rows, values = known.shapes[0]
    if not isinstance(rows, int) or not isinstance(values, int) or values <= 5:
        return None
    cells = known.size.cells
    distances = 4 * _NANODET_BINS
    for strides in ((8, 16, 32, 64), (8, 16, 32)):
        fits = rows == cells(strides) and values > distances
        if fits and (len(strides) == 4 or known.class_count == values - distances):
            return Reading(
                decoder="nanodet",
                family="nanodet",
                why=f"one row for each cell of strides {', '.join(map(str, strides))}, with {distances} of distances",
                parameters=(("strides", (list(strides), "by the number of rows")),),
                class_count=values - distances,
            )
    if rows == cells((8, 16, 32)):
        if known.class_count == values - 4:
            return Reading(
                decoder="yolov8",
                family="yolo",
                why="4 of a box and the classes in rows",
                parameters=(("layout", ("rows", "by the number of labels")),),
                class_count=values - 4,
            )
        boxes = "decoded" if "Exp" in known.facts.operators else "raw"
        why = f"the graph has {'an' if boxes == 'decoded' else 'no'} Exp"
        return Reading(
            decoder="yolox",
            family="yolox",
            why=f"one row for each cell of strides 8, 16, 32, with {values - 5} classes",
            parameters=(("boxes", (boxes, why)), ("strides", ([8, 16, 32], "by the number of rows"))),
            class_count=values - 5,
        )
    anchored = {3 * (cells(strides) or 0) for strides in ((8, 16, 32), (16, 32), (8, 16, 32, 64))}
    if rows in anchored or (known.size.width_px is None and rows > _MAX_QUERIES):
        return Reading(
            decoder="yolov5",
            family="yolo",
            why=f"{output.name}: three rows for each cell, with objectness and {values - 5} classes",
            class_count=values - 5,
        )
    return None


def _single_grid(known: Known) -> Reading | None:
    if len(known.shapes) != 1 or len(known.shapes[0]) != 4:
        return None
    shape = known.shapes[0]
    if not _is_single_grid(shape, known.size) or not isinstance(shape[1], int):
        return None
    why = f"one grid of stride 16 with {shape[1] - 5} classes"
    return Reading(
        decoder="fastestdet",
        family="fastestdet",
        why=why,
        parameters=(("class_agnostic_nms", (True, "as FastestDet's own example does")),),
        class_count=shape[1] - 5,
    )


def _is_single_grid(shape: Axes, size: Size) -> bool:
    rows, columns = shape[2:]
    if not isinstance(rows, int) or not isinstance(columns, int) or not isinstance(shape[1], int) or shape[1] < 6:
        return False
    return (16 * rows, 16 * columns) == (size.height_px, size.width_px)


_GUESSES: Final[tuple[Callable[[Known], Reading | None], ...]] = (
    _ultralytics,
    _yunet,
    draft_whole.anomaly,
    _detections,
    _yolov8_seg,
    _scores_and_boxes,
    _rows,
    _grid_rows,
    _yolov8,
    _single_grid,
    draft_whole.semantic,
    draft_whole.classifier,
)
