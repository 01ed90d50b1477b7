"""The manifest: everything needed to run a model version without code, and the bounds it may be run within."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from wire.ids import Count, Fraction, Name
from wire.inspection import Finding, LabelText, Utc, Verdict

FILE_NAME: Final = "manifest.toml"
MODEL_NAME: Final = "model.onnx"
GOLDEN_NAME: Final = "golden/expected.json"

Pixels = Annotated[int, msgspec.Meta(ge=1, le=16384)]
ThresholdName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,62}$(?!\n)")]


class Task(enum.StrEnum):
    """What kind of question the model answers."""

    CLASSIFY = "classify"
    DETECT = "detect"
    SEGMENT = "segment"
    MAP = "map"
    ANOMALY = "anomaly"


class Layout(enum.StrEnum):
    """Order of the input's axes."""

    NCHW = "NCHW"
    NHWC = "NHWC"


class Color(enum.StrEnum):
    """Order of the input's channels."""

    BGR = "BGR"
    RGB = "RGB"
    GRAY = "GRAY"


class Dtype(enum.StrEnum):
    """Element type of the input."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    UINT8 = "uint8"


class Resize(enum.StrEnum):
    """How a picture of any size becomes the network's size."""

    STRETCH = "stretch"
    LETTERBOX_CENTER = "letterbox_center"
    LETTERBOX_TOP_LEFT = "letterbox_top_left"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """The picture input: element = (pixel * scale - mean) / std, per channel, in the channel order of `color`.

    Args:
        name: of the graph's input; empty means the only one.
        pad_value: grey level of the border a letterbox leaves, before scaling.
    """

    width_px: Pixels
    height_px: Pixels
    name: str = ""
    dtype: Dtype = Dtype.FLOAT32
    layout: Layout = Layout.NCHW
    color: Color = Color.BGR
    resize: Resize = Resize.STRETCH
    pad_value: Annotated[int, msgspec.Meta(ge=0, le=255)] = 114
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSpec:
    """Which decoder reads the outputs, with parameters of its own."""

    name: str
    parameters: dict[str, float | int | str | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A number a recipe may change, within bounds."""

    default: float
    min: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When a finding with one of `labels` makes a part NG or UNSURE.

    Args:
        ng_at: name of the threshold from which a finding's score makes the part NG; empty: never.
        unsure_at: name of the threshold from which it makes the part UNSURE; empty: no such band.
    """

    name: Name
    labels: Annotated[tuple[LabelText, ...], msgspec.Meta(min_length=1)]
    ng_at: ThresholdName | None = None
    unsure_at: ThresholdName | None = None


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
        minimum_score: name of the threshold under which a classifier's best label makes the part UNSURE.
        thresholds: `score` (findings below are dropped) and `nms-iou` (overlap from which boxes are one) have a
            meaning of their own for detectors; rules name the others.
    """

    schema: Annotated[int, msgspec.Meta(ge=1, le=1)]
    name: Name
    release: Annotated[int, msgspec.Meta(ge=1)]
    task: Task
    input: Input
    decoder: DecoderSpec
    labels: tuple[LabelText, ...] | None = None
    labels_file: str | None = None
    description: str = ""
    thresholds: dict[ThresholdName, Threshold] = field(default_factory=dict)
    minimum_score: ThresholdName | None = None
    rules: tuple[Rule, ...] = ()
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
    found: list[tuple[str, str]] = []
    channels = 1 if manifest.input.color is Color.GRAY else 3
    for key, values in (("input.mean", manifest.input.mean), ("input.std", manifest.input.std)):
        if len(values) not in (1, channels):
            found.append((key, f"needs 1 or {channels} numbers, has {len(values)}."))
    if any(value == 0 for value in manifest.input.std):
        found.append(("input.std", "holds a zero, and the picture is divided by it."))
    if (manifest.labels is None) == (manifest.labels_file is None):
        found.append(("labels", "give either `labels` or `labels_file`."))
    for name, threshold in manifest.thresholds.items():
        if not threshold.min <= threshold.default <= threshold.max:
            found.append((f"thresholds.{name}.default", f"is outside {threshold.min} to {threshold.max}."))
    for index, rule in enumerate(manifest.rules):
        if rule.ng_at is None and rule.unsure_at is None:
            found.append((f"rules[{index}].name", "needs `ng_at` or `unsure_at`."))
        for key, at in (("ng_at", rule.ng_at), ("unsure_at", rule.unsure_at)):
            if at is not None and at not in manifest.thresholds:
                found.append((f"rules[{index}].{key}", f"names the threshold {at!r}, which [thresholds] lacks."))
        unknown = [label for label in rule.labels if manifest.labels is not None and label not in manifest.labels]
        found.extend((f"rules[{index}].labels", f"names {label!r}, which is none of the labels.") for label in unknown)
    if manifest.minimum_score is not None and manifest.minimum_score not in manifest.thresholds:
        found.append(("minimum_score", f"names the threshold {manifest.minimum_score!r}, which [thresholds] lacks."))
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
