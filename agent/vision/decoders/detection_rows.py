"""Graphs that end in rows of what was found: (1, n, 6) as YOLOv10 and YOLO26, or (n, 7) as YOLOv7's end-to-end export.

Things are named once; overlaps are merged only where the manifest has `nms-iou`.
"""

from __future__ import annotations

from typing import Final

from agent.vision.candidates import Candidates, DecoderParams, Outputs, Unusable
from agent.vision.decoders import boxes, reading
from agent.vision.decoders.contract import Choice, Decoder, Output
from agent.vision.decoders.detections import rows_of
from wire.manifest import Task

OUTPUT = Output(name="output", default=0, help="The rows.")
# name: (columns of a row, first of the box's four, that of the score, that of the class)
_COLUMNS: Final = {
    "box_score_class": (6, 0, 4, 5),
    "box_class_score": (6, 0, 5, 4),
    "batch_box_class_score": (7, 1, 6, 5),
}
COLUMNS = Choice(
    name="columns", choices=tuple(_COLUMNS), default="box_score_class", help="What the numbers of a row are."
)
ORDER = Choice(name="box_order", choices=boxes.FORMATS, default="xyxy", help="What the four numbers of a box are.")


@reading.answering
def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the rows whose score reaches the threshold."""
    width, box, score, label = _COLUMNS[COLUMNS.of(params)]
    rows = reading.output(outputs, params, OUTPUT.of(params), (None, width), may_be_empty=True)
    corners = boxes.in_pixels(boxes.corners(rows[:, box : box + 4], ORDER.of(params)), params)
    return rows_of(corners, rows[:, score], rows[:, label], params)


DECODER = Decoder(
    decode=decode,
    task=Task.DETECT,
    summary="YOLOv10, YOLO26 and graphs with their own suppression: rows of box, score and class.",
    options=(OUTPUT, COLUMNS, ORDER, boxes.UNITS),
    makes_boxes=True,
)
