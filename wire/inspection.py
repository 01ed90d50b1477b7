"""The inspection record: what is kept about one part judged at one station (it cannot be completed later)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import msgspec

from wire.ids import Count, Digest, Fraction, Name, ShortText, Uuid
from wire.sampling import Draw

Utc = Annotated[datetime, msgspec.Meta(tz=True)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0.0)]
LabelText = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
MAX_FINDINGS = 300


class Verdict(enum.StrEnum):
    """What the station says about a part."""

    OK = "OK"
    NG = "NG"
    UNSURE = "UNSURE"
    NO_VERDICT = "NO_VERDICT"


class Route(enum.StrEnum):
    """Where the line is told to send a part: OK accept, NG reject, NO_VERDICT divert, UNSURE as the recipe says."""

    ACCEPT = "accept"
    REJECT = "reject"
    DIVERT = "divert"


class Mode(enum.StrEnum):
    """Why the part was shown; only production enters statistics."""

    PRODUCTION = "production"
    SETUP = "setup"
    CHALLENGE = "challenge"
    REPLAY = "replay"


class TimeSource(enum.StrEnum):
    """What the device's wall clock is worth."""

    SYNCHRONISED = "synchronised"
    FREE_RUNNING = "free_running"
    SUSPECT = "suspect"


class Reason(enum.StrEnum):
    """Why a part has no verdict, or an unsure one."""

    NONE = "none"
    AGENT_DOWN = "agent_down"
    NO_FRAME = "no_frame"
    LATE_FRAME = "late_frame"
    DEADLINE = "deadline"
    NO_MODEL = "no_model"
    UNUSABLE_OUTPUT = "unusable_output"
    RUNTIME_ERROR = "runtime_error"
    MISSING_VIEW = "missing_view"
    NOT_RECORDED = "not_recorded"
    IN_UNSURE_BAND = "in_unsure_band"
    LOW_SCORE = "low_score"
    RULE_FIRED = "rule_fired"
    COUNT_UNSURE = "count_unsure"
    COUNT_WRONG = "count_wrong"
    NOT_CALIBRATED = "not_calibrated"
    # The part passed, and the station saw no trigger of its own for it.
    MISSED_TRIGGER = "missed_trigger"  # the line triggered while the agent ran and could not take it
    NOT_GATED = "not_gated"  # the line's counter counted a part that the part gate did not see
    # What is wrong with the picture or the camera, told before any model is blamed.
    FRAME_FROZEN = "frame_frozen"
    FRAME_BLACK = "frame_black"
    FRAME_SATURATED = "frame_saturated"
    FRAME_BLURRED = "frame_blurred"
    FRAME_WRONG_SIZE = "frame_wrong_size"
    FRAME_CORRUPT = "frame_corrupt"
    CAMERA_MOVED = "camera_moved"
    CAMERA_SETTINGS = "camera_settings"  # exposure, gain or white balance read back differ from the recipe's
    TIME_CLASS = "time_class"  # the source cannot tell which part a frame shows, and the recipe declares no standstill


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle in source pixels; x to the right, y down, from the outer corner of the first pixel."""

    x1_px: float
    y1_px: float
    x2_px: float
    y2_px: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing a model saw in one view.

    Args:
        label: one of the manifest's labels.
        score: 0 to 1, as the manifest's decoder defines it.
        box: where, in source pixels; None where the finding speaks of the whole picture.
        mask_rle: run lengths of the mask inside the box, widened to whole pixels, row by row, starting with a run of
            zeros.
        polygon_px: the outline of the mask's largest part, at most 64 corners (x, y) in source pixels.
        area_px: in source pixels.
        area_mm2: where the view is calibrated.
    """

    label: LabelText
    score: Fraction
    box: Box | None = None
    mask_rle: tuple[Count, ...] | None = None
    polygon_px: Annotated[tuple[tuple[float, float], ...], msgspec.Meta(max_length=64)] | None = None
    area_px: float | None = None
    area_mm2: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Milliseconds one view spent in each pipeline step."""

    retrieve: Milliseconds = 0.0
    preprocess: Milliseconds = 0.0
    run: Milliseconds = 0.0
    decode: Milliseconds = 0.0
    judge: Milliseconds = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRecord:
    """What one view contributed to an inspection; `model` and the digest are None where no model ran.

    Args:
        sizes_mm: width and height on the part of each finding's box, in the order of the findings, where the view is
            calibrated.
    """

    view: Name
    camera: ShortText
    verdict: Verdict
    score: Fraction = 0.0
    reason: Reason = Reason.NONE
    frame_number: Count | None = None
    frame_at: Utc | None = None
    width_px: Count | None = None
    height_px: Count | None = None
    model: Name | None = None
    model_digest: Digest | None = None
    deployment_id: Uuid | None = None
    findings: Annotated[tuple[Finding, ...], msgspec.Meta(max_length=MAX_FINDINGS)] = ()
    picture_digest: Digest | None = None
    timings_ms: Timings = Timings()
    sizes_mm: Annotated[tuple[tuple[float, float], ...], msgspec.Meta(max_length=MAX_FINDINGS)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """One part judged at one station.

    Args:
        id: UUIDv7, made once on the device.
        recipe_revision: 0 is the recipe of the device's own settings.
        trigger_id: unique for the line; `<run of the line's controller>-<sequence>` or made by the agent.
        trigger_sequence: the line's own count, None where the trigger has none.
        time_uncertainty_ms: how far the wall clock may be off, None where unknown.
        rule_fired: the rule that decided, empty where none did.
        route: where the line was told to send the part; None where nobody was told.
        parameters_revision: revision of the parameters the verdict was judged with (the recipe's).
    """

    id: Uuid
    device: Name
    station: Name
    recipe: Name
    recipe_revision: Count
    trigger_id: ShortText
    trigger_sequence: Count | None = None
    lot: ShortText | None = None
    part_id: ShortText | None = None
    mode: Mode = Mode.PRODUCTION
    triggered_at: Utc
    judged_at: Utc
    time_source: TimeSource
    time_uncertainty_ms: Milliseconds | None = None
    verdict: Verdict
    score: Fraction = 0.0
    reason: Reason = Reason.NONE
    rule_fired: ShortText = ""
    parameters_revision: Count = 0
    views: Annotated[tuple[ViewRecord, ...], msgspec.Meta(max_length=16)] = ()
    sampling: Draw
    total_ms: Milliseconds = 0.0
    disposition: ShortText | None = None
    route: Route | None = None
