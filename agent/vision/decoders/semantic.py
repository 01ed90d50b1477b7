"""Maps of classes: each connected region of a class is a finding, with its mask, area and box.

Output: (1, classes, rows, columns), or (1, rows, columns) of class ids where the graph ends in an argmax. By "argmax"
each cell belongs to its best class; by "threshold" a cell belongs to every class whose probability reaches the
threshold `score`, which also is what one channel for one label needs. One of the labels may be the background.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import Candidates, DecoderParams, Outputs, Unusable
from agent.vision.decoders import reading, region_masks
from agent.vision.decoders.contract import Choice, Decoder, Number, Output
from agent.vision.decoders.region_masks import Layer, Margins
from wire.manifest import Task

OUTPUT = Output(name="output", default=0, help="The map.")
VALUES = Choice(
    name="values",
    choices=("probabilities", "softmax_logits", "sigmoid_logits", "class_ids"),
    default="probabilities",
    help="What the numbers of the map are; logits become probabilities by softmax or sigmoid.",
)
RULE = Choice(
    name="rule",
    choices=("argmax", "threshold"),
    default="argmax",
    help="A cell belongs to its best class, or to every class that reaches the threshold.",
)
BACKGROUND = Number(
    name="background",
    default=-1,
    least=-1,
    whole=True,
    help="Index of the label that means nothing is there; -1: none.",
)


@reading.answering
def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the regions of all classes but the background."""
    background = int(BACKGROUND.of(params))
    wanted = [class_id for class_id in range(params.class_count) if class_id != background]
    if VALUES.of(params) == "class_ids":
        layers, shape = _of_ids(outputs, params, wanted)
    else:
        layers, shape = _of_probabilities(outputs, params, wanted)
    boxes, scores, class_ids, masks = region_masks.gathered(
        layers, params, shape, peak=region_masks.SCORE.of(params) == "max"
    )
    return reading.found(boxes, scores, class_ids, masks)


def _of_ids(outputs: Outputs, params: DecoderParams, wanted: list[int]) -> tuple[list[Layer], tuple[int, int]]:
    ids = reading.output(outputs, params, OUTPUT.of(params), (None, None))
    if ids.min() < 0 or ids.max() >= params.class_count or (ids != np.floor(ids)).any():
        raise reading.UnreadableError(f"The map holds class ids that are none of 0 to {params.class_count - 1}.")
    layers = []
    for class_id in wanted:
        inside = ids == class_id
        if inside.any():
            sure = inside.astype(np.float32)
            layers.append(region_masks.layer(class_id, inside, sure, _around(sure, 0.5)))
    return layers, (ids.shape[0], ids.shape[1])


def _of_probabilities(
    outputs: Outputs, params: DecoderParams, wanted: list[int]
) -> tuple[list[Layer], tuple[int, int]]:
    maps = reading.output(outputs, params, OUTPUT.of(params), (params.class_count, None, None))
    values = VALUES.of(params)
    if values == "softmax_logits":
        maps = reading.softmax(maps, axis=0)
    elif values == "sigmoid_logits":
        maps = reading.sigmoid(maps)
    else:
        reading.probabilities(maps, "Probabilities")
    by_threshold = RULE.of(params) == "threshold"
    best = None if by_threshold else maps.argmax(axis=0)
    layers = []
    for class_id in wanted:
        inside = maps[class_id] >= params.score_threshold if best is None else best == class_id
        if inside.any():
            margins = _around(maps[class_id], params.score_threshold) if best is None else _lead(maps, class_id)
            layers.append(region_masks.layer(class_id, inside, maps[class_id], margins))
    return layers, (maps.shape[1], maps.shape[2])


def _around(values: NDArray[np.float32], threshold: float) -> Margins:
    """Return the margins over a threshold; a value that just reaches it is inside."""
    least = np.float32(np.nextafter(np.float32(threshold), np.float32(-np.inf)))
    return lambda rows, columns: values[rows, columns] - least


def _lead(maps: NDArray[np.float32], class_id: int) -> Margins:
    """Return the lead of one class over the best other one."""

    def margins(rows: slice, columns: slice) -> NDArray[np.float32]:
        window = maps[:, rows, columns]
        if len(window) == 1:
            return np.ones_like(window[0])
        others = np.delete(window, class_id, axis=0).max(axis=0)
        lead: NDArray[np.float32] = window[class_id] - others
        # Where two classes are level, the first one has the cell.
        lead[(lead == 0.0) & (window.argmax(axis=0) == class_id)] = np.finfo(np.float32).tiny
        return lead

    return margins


DECODER = Decoder(
    decode=decode,
    task=Task.MAP,
    summary="Maps of class probabilities, logits or class ids: one finding for each connected region.",
    options=(OUTPUT, VALUES, RULE, BACKGROUND, region_masks.SCORE),
    makes_boxes=True,
    makes_masks=True,
)
