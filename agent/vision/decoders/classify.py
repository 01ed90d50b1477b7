"""Classifiers: one score per label, of the whole picture; findings have no box.

Output: (1, n) or anything that has n elements, n = number of labels; for two labels one element is enough ("binary"),
which speaks for the second label. "logits" and "softmax" say that labels exclude each other: the best `top` labels are
findings, whatever their score. "multi_label" and "multi_label_logits" say that each label holds or not: those that
reach the threshold `score` are findings.
"""

from __future__ import annotations

import numpy as np

from agent.vision.candidates import Candidates, DecoderParams, Outputs, Unusable
from agent.vision.decoders import reading
from agent.vision.decoders.contract import Choice, Decoder, Number, Output
from wire.manifest import Task

SCORES = Choice(
    name="scores",
    choices=("logits", "softmax", "multi_label_logits", "multi_label", "binary_logit", "binary"),
    default="logits",
    help="What the numbers are: before or after the softmax or sigmoid, one choice or several, one number for two.",
)
OUTPUT = Output(name="output", default=0, help="The scores.")
TOP = Number(name="top", default=1, least=1, most=100, whole=True, help="How many of the labels are findings.")


@reading.answering
def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the best labels, or those that hold, with their probabilities."""
    kind = SCORES.of(params)
    count = 1 if kind.startswith("binary") else params.class_count
    if kind.startswith("binary") and params.class_count != 2:
        return Unusable(reason=f"One number tells two labels apart; the manifest has {params.class_count}.")
    output = reading.raw(outputs, params, OUTPUT.of(params))
    if output.size != count:
        return Unusable(reason=f"The output {output.shape} does not have {count} scores, as the manifest's labels do.")
    values = reading.output([output.reshape(-1)], params, 0, (count,))
    if kind == "logits":
        values = reading.softmax(values)
    elif kind.endswith(("logits", "logit")):
        values = reading.sigmoid(values)
    else:
        reading.probabilities(values, "Scores")
    if kind.startswith("binary"):
        values = np.array([np.float32(1.0) - values[0], values[0]], dtype=np.float32)
    if kind.startswith("multi_label"):
        chosen = np.flatnonzero(values >= params.score_threshold)
    else:
        chosen = np.argsort(-values, kind="stable")[: int(TOP.of(params))]
    return Candidates(boxes_xyxy=None, scores=reading.clipped(values[chosen]), class_ids=chosen.astype(np.int64))


DECODER = Decoder(
    decode=decode,
    task=Task.CLASSIFY,
    summary="One score per label, of the whole picture.",
    options=(SCORES, OUTPUT, TOP),
)
