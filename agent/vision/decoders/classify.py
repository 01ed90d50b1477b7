"""Classifiers: one score per label; the best label is the one finding, with no box.

Output: (1, n) or anything that has n elements, n = number of labels. Option `scores`: "logits" (a softmax is taken)
or "softmax" (they are probabilities already).
"""

from __future__ import annotations

import numpy as np

from agent.vision.candidates import Candidates, DecoderParams, Outputs, Unusable

OPTIONS = {"scores": ("logits", "softmax")}
_ROUNDING = 1e-3


def decode(outputs: Outputs, params: DecoderParams) -> Candidates | Unusable:
    """Return the best label with its probability."""
    values = outputs[0].reshape(-1).astype(np.float32)
    if values.size != params.class_count:
        return Unusable(
            reason=f"The output {outputs[0].shape} does not have one score for each of {params.class_count} labels."
        )
    if not np.isfinite(values).all():
        return Unusable(reason="The output holds values that are no numbers.")
    if params.options.get("scores", "logits") == "logits":
        powers = np.exp(values - values.max())
        values = powers / powers.sum()
    elif values.min() < -_ROUNDING or values.max() > 1.0 + _ROUNDING:
        return Unusable(reason=f"Scores from {values.min():.3g} to {values.max():.3g} are no probabilities.")
    best = int(values.argmax())
    score = np.clip(values[best : best + 1], np.float32(0.0), np.float32(1.0))
    return Candidates(boxes_xyxy=None, scores=score, class_ids=np.array([best], dtype=np.int64))
