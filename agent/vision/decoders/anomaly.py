"""Anomaly maps and scores: how unlike the good parts a picture and its places are.

Outputs: a map, (1, 1, rows, columns), a score of the whole picture, (1,), or both. The manifest declares how raw
values become scores from 0 to 1: "min_max" takes (value - low) / (high - low), "mean_std" the share of good parts
below it if those are normally distributed. Each connected region of the map that reaches the threshold `score` is a
finding whose score is its greatest value. The picture's own score is a finding without a box where there is no map,
otherwise one over the whole picture if it reaches the threshold. The last label is what is found.
anomalib's min-max with an image threshold t maps t to 0.5: low = t - (max - min) / 2, high = t + (max - min) / 2.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from agent.vision.candidates import Candidates, DecoderParams, Field, Masks, Outputs, Unusable
from agent.vision.decoders import reading, region_masks
from agent.vision.decoders.contract import Choice, Decoder, Number, Output
from wire.manifest import Task

MAP = Output(name="map", default=None, help="The map of raw values.")
SCORE = Output(name="picture_score", default=None, help="The raw value of the whole picture.")
NORMALIZATION = Choice(
    name="normalization",
    choices=("none", "min_max", "mean_std"),
    default="none",
    help="How raw values become scores.",
)
LOW = Number(name="low", default=0.0, help='Raw value that scores 0 ("min_max").')
HIGH = Number(name="high", default=1.0, help='Raw value that scores 1 ("min_max").')
MEAN = Number(name="mean", default=0.0, help='Mean of the raw values of good parts ("mean_std").')
STD = Number(name="std", default=1.0, help='Standard deviation of the raw values of good parts ("mean_std").')


@reading.answering
def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the regions that reach the threshold, and the picture's own score."""
    if params.class_count < 1:
        return Unusable(reason="There is no label for what is found.")
    which_map, which_score = MAP.of(params), SCORE.of(params)
    if which_map is None and which_score is None:
        which_map = 0
    kind = NORMALIZATION.of(params)
    if (kind == "min_max" and HIGH.of(params) <= LOW.of(params)) or (kind == "mean_std" and STD.of(params) <= 0):
        return Unusable(reason="The normalization needs `high` above `low`, and a positive `std`.")
    label = params.class_count - 1
    picture = None
    if which_score is not None:
        picture = _score(float(reading.output(outputs, params, which_score, (1,))[0]), params)
        if which_map is None:
            return Candidates(
                boxes_xyxy=None,
                scores=np.array([picture], dtype=np.float32),
                class_ids=np.array([label], dtype=np.int64),
            )
    raw = reading.output(outputs, params, which_map, (None, None))
    if kind == "none":
        reading.probabilities(raw, "Values")
    threshold = np.float32(_raw_of(params.score_threshold, params))
    inside = raw >= threshold
    layers = []
    if inside.any():
        below = np.nextafter(threshold, np.float32(-np.inf))
        base = below if np.isfinite(below) else np.float32(raw.min() - 1.0)
        layers.append(region_masks.layer(label, inside, raw, lambda rows, columns: raw[rows, columns] - base))
    boxes, peaks, class_ids, masks = region_masks.gathered(layers, params, (raw.shape[0], raw.shape[1]), peak=True)
    scores = np.array([_score(value, params) for value in peaks.tolist()], dtype=np.float32)
    if picture is not None and picture >= params.score_threshold:
        return _with_picture(boxes, scores, class_ids, masks, picture, label, params)
    return reading.found(boxes, scores, class_ids, masks)


def _with_picture(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int64],
    masks: Masks,
    picture: float,
    label: int,
    params: DecoderParams,
) -> Candidates:
    whole = np.array([[0, 0, params.width_px, params.height_px]], dtype=np.float32)
    return reading.found(
        np.concatenate([boxes, whole]),
        np.append(scores, np.float32(picture)),
        np.append(class_ids, label),
        _ButTheLast(masks, len(scores)),
    )


class _ButTheLast:
    """Masks of all candidates but the whole picture."""

    def __init__(self, masks: Masks, count: int) -> None:
        self._masks, self._count = masks, count

    def at(self, index: int) -> Field | None:
        return self._masks.at(index) if index < self._count else None


def _score(raw: float, params: DecoderParams) -> float:
    kind = NORMALIZATION.of(params)
    if kind == "min_max":
        raw = (raw - LOW.of(params)) / (HIGH.of(params) - LOW.of(params))
    elif kind == "mean_std":
        raw = 0.5 * (1.0 + math.erf((raw - MEAN.of(params)) / STD.of(params) / math.sqrt(2.0)))
    elif not -1e-3 <= raw <= 1.0 + 1e-3:
        raise reading.UnreadableError(f"A score of {raw:.3g} is no number from 0 to 1; the manifest must normalize it.")
    return min(max(raw, 0.0), 1.0)


def _raw_of(score: float, params: DecoderParams) -> float:
    """Return the raw value that has a score: where regions end is decided once, not for each cell."""
    kind = NORMALIZATION.of(params)
    if kind == "min_max":
        return -math.inf if score <= 0 else LOW.of(params) + score * (HIGH.of(params) - LOW.of(params))
    if kind == "mean_std":
        if not 0.0 < score < 1.0:
            return -math.inf if score <= 0 else math.inf
        return MEAN.of(params) + STD.of(params) * NormalDist().inv_cdf(score)
    return score


DECODER = Decoder(
    decode=decode,
    task=Task.ANOMALY,
    summary="Anomaly maps and picture scores, normalized as the manifest declares.",
    options=(MAP, SCORE, NORMALIZATION, LOW, HIGH, MEAN, STD),
    makes_boxes=True,
    makes_masks=True,
)
