"""Which decoder reads outputs that speak of the whole picture, or of each of its pixels (pure)."""

from __future__ import annotations

from agent.vision.draft_reading import Known, Reading, elements, is_map


def anomaly(known: Known) -> Reading | None:
    """A map of one channel, with a score beside it or a name that says so."""
    maps = [output for output in known.facts.outputs if is_map(output.shape, known.size) and output.shape[-3] == 1]
    scores = [output for output in known.facts.outputs if elements(output.shape) == 1]
    said = "anomal" in f"{known.facts.producer} {known.facts.metadata} {[o.name for o in known.facts.outputs]}".lower()
    if not maps or not (scores or said):
        return None
    parameters: list[tuple[str, tuple[object, str]]] = [("map", (maps[0].name, "one channel of the picture's size"))]
    if scores:
        parameters.append(("picture_score", (scores[0].name, "a single number")))
    parameters.append(("normalization", ("none", "fill in min_max or mean_std unless scores are 0 to 1 already")))
    return Reading(
        decoder="anomaly", family="map", why="a map and a score", parameters=tuple(parameters), class_count=1
    )


def semantic(known: Known) -> Reading | None:
    """A map of classes, or of class ids."""
    if len(known.shapes) != 1:
        return None
    output, shape = known.facts.outputs[0], known.shapes[0]
    maker = known.maker(output)
    if maker == "ArgMax" and len(shape) in (3, 4):
        return _semantic(None, "class_ids", "argmax", "the graph ends in an argmax", background=True)
    if len(shape) != 4 or not isinstance(shape[1], int):
        return None
    if elements(shape[2:]) == 1:
        return None  # a classifier that kept its last two axes
    if not is_map(shape, known.size):
        return None
    if shape[1] == 1:
        values = "probabilities" if maker == "Sigmoid" else "sigmoid_logits"
        return _semantic(1, values, "threshold", f"one channel, out of {maker or 'nothing known'}", background=False)
    values = "probabilities" if maker == "Softmax" else "softmax_logits"
    return _semantic(
        shape[1], values, "argmax", f"{shape[1]} channels, out of {maker or 'nothing known'}", background=True
    )


def classifier(known: Known) -> Reading | None:
    """One row of scores."""
    if len(known.shapes) != 1:
        return None
    output, shape = known.facts.outputs[0], known.shapes[0]
    is_flat = len(shape) == 2 or (len(shape) == 4 and elements(shape[2:]) == 1)
    if not is_flat or not isinstance(shape[1], int):
        return None
    maker, count = known.maker(output), shape[1]
    if count == 1:
        scores = "binary" if maker == "Sigmoid" else "binary_logit"
    else:
        scores = {"Softmax": "softmax", "Sigmoid": "multi_label"}.get(maker, "logits")
    why = (
        "" if maker in ("Softmax", "Sigmoid") else f"the output comes out of {maker or 'nothing known'}, not a softmax"
    )
    return Reading(
        decoder="classify",
        family="classify",
        why=f"one row of {count} scores",
        parameters=(("scores", (scores, why)),),
        class_count=2 if count == 1 else count,
    )


def _semantic(count: int | None, values: str, rule: str, why: str, *, background: bool) -> Reading:
    return Reading(
        decoder="semantic",
        family="map",
        why=why,
        parameters=(
            ("values", (values, why)),
            ("rule", (rule, "usual for one channel" if count == 1 else "usual for classes that exclude each other")),
            ("background", (0 if background else -1, "usual; -1: none")),
        ),
        class_count=count,
        has_background=background,
        merges_overlaps=False,
    )
