"""A first manifest for a bare ONNX file: what it says, what can be guessed, what a person must fill in (pure).

Shapes alone do not decide how an output is read, nor what pixels a network was trained on; so every guess is kept apart
from what was read, and says why. Conventions are those of each family's own exporter.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.vision import draft_input, draft_metadata, draft_outputs
from agent.vision.decoders import registry
from agent.vision.draft_reading import Reading
from agent.vision.onnx_picture import picture_input
from agent.vision.onnx_walk import OnnxFacts
from wire import ids

MAX_LABELS: Final = 2000


class Origin(enum.StrEnum):
    """Where a value comes from."""

    READ = "read"
    GUESS = "guess"
    FILL_IN = "fill_in"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One key of the manifest.

    Args:
        table: empty for the top.
        value: None where it must be filled in.
        why: of a guess; of what must be filled in, what is allowed.
    """

    table: str
    key: str
    value: object
    origin: Origin = Origin.READ
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A drafted manifest, key by key in the order they are written."""

    lines: tuple[Line, ...]

    def of(self, origin: Origin) -> tuple[Line, ...]:
        """Return the lines of one origin."""
        return tuple(line for line in self.lines if line.origin is origin)

    def value(self, table: str, key: str) -> object:
        """Return a value; None where it is not there."""
        return next((line.value for line in self.lines if (line.table, line.key) == (table, key)), None)


def draft(facts: OnnxFacts, stem: str, labels: Sequence[str] | None = None) -> Draft:
    """Draft a manifest.

    Args:
        facts: of a file that `onnx_file.refuse` lets pass.
        stem: of the file's name, which names the model.
        labels: what the caller knows better than the file.
    """
    metadata = draft_metadata.read(facts.metadata)
    known = tuple(labels) if labels is not None else metadata.names
    picture = picture_input(facts)
    size = draft_input.size_of(picture, metadata)
    reading = draft_outputs.read(facts, size, None if known is None else len(known), metadata)
    lines = [
        Line(table="", key="schema", value=1),
        Line(table="", key="name", value=_name(stem)),
        Line(table="", key="release", value=1),
        *_task(reading),
        *_labels(reading, known, given=labels is not None),
        *_minimum_score(reading),
        *(_found("", found) for found in draft_input.extra_inputs(facts, picture)),
    ]
    lines += [_found("input", found) for found in draft_input.read(facts, picture, size, reading.family, metadata)]
    lines += _decoder(reading)
    lines += _thresholds(reading)
    lines.append(Line(table="requires", key="opset", value=facts.opset))
    return Draft(lines=tuple(lines))


def _found(table: str, found: draft_input.Found) -> Line:
    return Line(table=table, key=found.key, value=found.value, origin=Origin(found.origin), why=found.why)


def _task(reading: Reading) -> list[Line]:
    if reading.decoder == "":
        allowed = "classify | detect | segment | map | anomaly"
        return [Line(table="", key="task", value=None, origin=Origin.FILL_IN, why=allowed)]
    origin = Origin.READ if reading.is_certain else Origin.GUESS
    return [Line(table="", key="task", value=str(registry.get(reading.decoder).task), origin=origin, why=reading.why)]


def _labels(reading: Reading, known: Sequence[str] | None, *, given: bool) -> list[Line]:
    if known is not None:
        return [Line(table="", key="labels", value=list(known))] if not given else [_file_of_labels()]
    if reading.class_count is None:
        why = "one for each class id of the network, in order; or labels_file"
        return [Line(table="", key="labels", value=None, origin=Origin.FILL_IN, why=why)]
    names = [f"class-{index}" for index in range(min(reading.class_count, MAX_LABELS))]
    if reading.has_background:
        names[0] = "background"
    why = f"the file names none; the output has {reading.class_count}"
    return [Line(table="", key="labels", value=names, origin=Origin.GUESS, why=why)]


def _file_of_labels() -> Line:
    return Line(table="", key="labels_file", value="labels.txt")


def _minimum_score(reading: Reading) -> list[Line]:
    if reading.decoder != "classify" or dict(reading.parameters).get("scores", ("", ""))[0] not in _ONE_OF_SEVERAL:
        return []
    why = "a part whose best label is below it is UNSURE"
    return [Line(table="", key="minimum_score", value="sure", origin=Origin.GUESS, why=why)]


_ONE_OF_SEVERAL: Final = ("logits", "softmax", "binary", "binary_logit")


def _decoder(reading: Reading) -> list[Line]:
    if reading.decoder == "":
        return [
            Line(
                table="decoder",
                key="name",
                value=None,
                origin=Origin.FILL_IN,
                why=f"{' | '.join(sorted(registry.DECODERS))} ({reading.why})",
            )
        ]
    origin = Origin.READ if reading.is_certain else Origin.GUESS
    lines = [Line(table="decoder", key="name", value=reading.decoder, origin=origin, why=reading.why)]
    for name, (value, why) in reading.parameters:
        lines.append(
            Line(
                table="decoder.parameters",
                key=name,
                value=value,
                origin=Origin.GUESS if why else Origin.READ,
                why=why,
            )
        )
    return lines


def _thresholds(reading: Reading) -> list[Line]:
    if reading.decoder == "":
        return []
    decoder = registry.get(reading.decoder)
    lines = []
    is_multi = str(dict(reading.parameters).get("scores", ("", ""))[0]).startswith("multi_label")
    if decoder.makes_boxes or is_multi:
        why = "findings below it are dropped; set it on your own pictures"
        lines.append(_threshold("score", {"default": 0.5, "min": 0.1, "max": 0.95}, why))
    if decoder.makes_boxes and reading.merges_overlaps:
        why = "boxes that overlap by so much are one"
        lines.append(_threshold("nms-iou", {"default": 0.45, "min": 0.1, "max": 0.9}, why))
    if _minimum_score(reading):
        lines.append(_threshold("sure", {"default": 0.5, "min": 0.0, "max": 1.0}, "set it on your own pictures"))
    return lines


def _threshold(name: str, value: dict[str, float], why: str) -> Line:
    return Line(table="thresholds", key=name, value=value, origin=Origin.GUESS, why=why)


def _name(stem: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:64].strip("-")
    return name if ids.is_name(name) else "model"
