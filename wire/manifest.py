"""The manifest: everything needed to run a model version without code, and the bounds it may be run within."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from wire.ids import Count, Fraction, Name
from wire.inspection import Finding, LabelText, Utc, Verdict
from wire.model_input import (
    BoxSpace,
    Color,
    Dtype,
    ExtraInput,
    Input,
    Layout,
    Resize,
    Tiling,
    problems_of_extra_inputs,
    problems_of_input,
    problems_of_tiling,
)
from wire.rules import Region, RegionName, Rule, Threshold, ThresholdName, problems_of_rules

# Offered here too, so that who reads a manifest needs one module.
__all__ = [
    "BoxSpace",
    "Color",
    "Dtype",
    "ExtraInput",
    "Input",
    "Layout",
    "Region",
    "Resize",
    "Rule",
    "Threshold",
    "ThresholdName",
    "Tiling",
]

FILE_NAME: Final = "manifest.toml"
MODEL_NAME: Final = "model.onnx"
GOLDEN_NAME: Final = "golden/expected.json"


class Task(enum.StrEnum):
    """What kind of question the model answers."""

    CLASSIFY = "classify"
    DETECT = "detect"
    SEGMENT = "segment"
    MAP = "map"
    ANOMALY = "anomaly"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSpec:
    """Which decoder reads the outputs, with parameters of its own.

    Args:
        boxes_in: `source` where the graph was told the source's size by an extra input and answers in its pixels.
    """

    name: str
    boxes_in: BoxSpace = BoxSpace.NETWORK
    parameters: dict[str, float | int | str | bool | tuple[float | int | str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the model may cost on the device; the self-test refuses more."""

    latency_p95_ms: Annotated[float, msgspec.Meta(gt=0.0)] = 1000.0
    memory_mb: Annotated[float, msgspec.Meta(gt=0.0)] = 1024.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Requires:
    """What the device must offer."""

    opset: Count | None = None
    runtime: str | None = None
    providers: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One model version's manifest.

    Args:
        release: the release counter; a later version of the model has a higher one.
        labels: index = class id of the network.
        label_scores: label to the name of the threshold that stands in for `score` where findings of that label are
            dropped.
        minimum_score: name of the threshold under which a classifier's best label makes the part UNSURE.
        regions: parts of the picture that rules name.
        thresholds: `score` (findings below are dropped) and `nms-iou` (overlap from which boxes are one) have a
            meaning of their own for detectors; rules name the others.
    """

    schema: Annotated[int, msgspec.Meta(ge=1, le=1)]
    name: Name
    release: Annotated[int, msgspec.Meta(ge=1)]
    task: Task
    input: Input
    decoder: DecoderSpec
    extra_inputs: Annotated[tuple[ExtraInput, ...], msgspec.Meta(max_length=16)] = ()
    tiling: Tiling | None = None
    labels: tuple[LabelText, ...] | None = None
    labels_file: str | None = None
    description: str = ""
    thresholds: dict[ThresholdName, Threshold] = field(default_factory=dict)
    label_scores: dict[LabelText, ThresholdName] = field(default_factory=dict)
    minimum_score: ThresholdName | None = None
    regions: Annotated[dict[RegionName, Region], msgspec.Meta(max_length=64)] = field(default_factory=dict)
    rules: Annotated[tuple[Rule, ...], msgspec.Meta(max_length=100)] = ()
    max_findings: Annotated[int, msgspec.Meta(ge=1, le=300)] = 100
    limits: Limits = Limits()
    requires: Requires = Requires()
    created_at: Utc | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far a device's result on a golden sample may be from the expected one."""

    score: Fraction = 0.05
    box_px: Annotated[float, msgspec.Meta(ge=0.0)] = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSample:
    """One picture of the golden set, a path inside the package, and what the model finds in it."""

    picture: str
    verdict: Verdict
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSet:
    """`golden/expected.json`: what every device must reproduce before the version may judge parts."""

    schema: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    tolerance: Tolerance = Tolerance()
    samples: tuple[GoldenSample, ...] = ()


def problems_of(manifest: Manifest) -> list[tuple[str, str]]:
    """Return what is wrong with a manifest beyond its types, as (key, sentence); empty where nothing is."""
    found = problems_of_input(manifest.input)
    found += problems_of_extra_inputs(manifest.input, manifest.extra_inputs)
    if manifest.tiling is not None:
        found += problems_of_tiling(manifest.input, manifest.tiling)
        found += _problems_of_background(manifest, manifest.tiling)
    if (manifest.labels is None) == (manifest.labels_file is None):
        found.append(("labels", "give either `labels` or `labels_file`."))
    found += problems_of_rules(manifest.rules, manifest.regions, manifest.thresholds)
    for index, rule in enumerate(manifest.rules):
        if rule.region is not None and manifest.task is Task.CLASSIFY and manifest.tiling is None:
            found.append((f"rules[{index}].region", "is for findings that have a place; a classifier's have none."))
        unknown = [label for label in rule.labels if manifest.labels is not None and label not in manifest.labels]
        found.extend((f"rules[{index}].labels", f"names {label!r}, which is none of the labels.") for label in unknown)
    for label, at in manifest.label_scores.items():
        if at not in manifest.thresholds:
            found.append((f"label_scores.{label}", f"names the threshold {at!r}, which [thresholds] lacks."))
        if manifest.labels is not None and label not in manifest.labels:
            found.append((f"label_scores.{label}", "is none of the labels."))
    if manifest.minimum_score is not None and manifest.minimum_score not in manifest.thresholds:
        found.append(("minimum_score", f"names the threshold {manifest.minimum_score!r}, which [thresholds] lacks."))
    return found


def _problems_of_background(manifest: Manifest, tiling: Tiling) -> list[tuple[str, str]]:
    """Return what is wrong with the labels of a tiled model that are no finding."""
    key = "tiling.background_labels"
    found: list[tuple[str, str]] = []
    if manifest.task is not Task.CLASSIFY and tiling.background_labels:
        found.append((key, "are for a classifier; a detector finds things only."))
    known = manifest.labels if manifest.labels is not None else tiling.background_labels
    found += [
        (key, f"names {label!r}, which is none of the labels.")
        for label in tiling.background_labels
        if label not in known
    ]
    if manifest.task is Task.CLASSIFY and manifest.minimum_score is not None:
        found.append(("minimum_score", "does not go with [tiling]: a picture of nothing but background has no score."))
    return found


def parameters_of(manifest: Manifest, overrides: dict[str, float]) -> tuple[dict[str, float], list[str]]:
    """Return the thresholds in force under a recipe, and a sentence for each override that is not allowed."""
    values = {name: threshold.default for name, threshold in manifest.thresholds.items()}
    refused: list[str] = []
    for name, value in overrides.items():
        threshold = manifest.thresholds.get(name)
        if threshold is None:
            known = ", ".join(sorted(manifest.thresholds)) or "none"
            refused.append(f"{name} is no threshold of {manifest.name} (known: {known}).")
        elif not threshold.min <= value <= threshold.max:
            refused.append(
                f"{name} = {value} is outside {threshold.min} to {threshold.max}, which {manifest.name} allows."
            )
        else:
            values[name] = value
    return values, refused
