"""The messages that go up from a device and down to it, other than the desired document."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from wire.deployment import DeploymentReport
from wire.ids import Count, Digest, Fraction, Name, ShortText, Uuid
from wire.inspection import Finding, Inspection, Reason, Utc, Verdict
from wire.sampling import Rate

SCHEMA = 1
SchemaVersion = Annotated[int, msgspec.Meta(ge=1, le=SCHEMA)]
EpochId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$(?!\n)")]
LongText = Annotated[str, msgspec.Meta(max_length=1000)]
ErrorText = Annotated[str, msgspec.Meta(pattern=r"^[a-z_]+\.[a-z_]+$(?!\n)", max_length=64)]


class Lane(enum.StrEnum):
    """The outbox's lanes that travel by MQTT, the most precious first."""

    INSPECTIONS = "inspections"
    COUNTERS = "counters"
    DEPLOYMENTS = "deployments"
    EVENTS = "events"
    HEALTH = "health"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One record of a lane and its place in it; decoded on its own, so that one bad record harms no other."""

    seq: Annotated[int, msgspec.Meta(ge=1)]
    body: msgspec.Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records of one lane on their way up; every lane's topic carries this form.

    Args:
        epoch: random id of the outbox file the sequence numbers belong to.
    """

    schema: SchemaVersion = SCHEMA
    device: Name
    epoch: EpochId
    lane: Lane
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(min_length=1, max_length=1000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """How many inspections fell into one cell in one minute, so far: an absolute figure that only grows.

    Args:
        minute: start of the minute, by the device's clock, of the verdict.
        model_digest: the version of the first view's model, None where none ran.
        count: inspections of this cell in this outbox epoch; sending it again is harmless.
    """

    minute: Utc
    station: Name
    recipe: Name
    model_digest: Digest | None
    verdict: Verdict
    stratum: Name
    count: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewHealth:
    """One view since the agent started: frames in = used + not triggered + dropped + those on their way.

    Args:
        connected: frames come, or could come at any moment.
        trouble: why none come, empty where nothing is wrong.
        fps_in, fps_used: frames a second over the last ten seconds.
        frame_age_ms: of the newest frame.
        frames_dropped: per reason.
        restarts: of the camera's process or connection.
        vitals: what is wrong with the picture now.
        steps_ms: p50 and p99 of each pipeline step.
    """

    view: Name
    connected: bool
    trouble: ShortText = ""
    frames_in: Count
    frames_used: Count
    frames_not_triggered: Count
    frames_dropped: dict[str, Count] = field(default_factory=dict)
    fps_in: float | None = None
    fps_used: float | None = None
    frame_age_ms: float | None = None
    restarts: Count = 0
    vitals: Annotated[tuple[ShortText, ...], msgspec.Meta(max_length=16)] = ()
    steps_ms: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessHealth:
    """One process of the agent: the main one, or a camera's; private memory is what ends with it."""

    name: ShortText
    rss_bytes: Count
    private_bytes: Count | None = None
    cpu_fraction: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureWindow:
    """One hour in which kept pictures found no room: an estimate takes min(1, pi * tau) as inclusion probability.

    Args:
        start: of the hour of the parts' triggers.
        tau: smallest u/pi of a picture that was dropped; pictures with a smaller one are all there.
        dropped: pictures.
        gate_trimmed: pictures of the gate's sample went too: a gate must not use this hour.
    """

    start: Utc
    tau: Annotated[float, msgspec.Meta(ge=0.0)]
    dropped: Count
    gate_trimmed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowHealth:
    """One candidate's account at a station since it began there: chosen = compared + skipped + those on their way.

    Args:
        chosen: parts meant for it, by hash, before anything was known of them.
        disagreed: parts it gave another verdict than the active version.
        skipped: by reason; it yields to the active version.
    """

    model: Name
    digest: Digest
    chosen: Count
    compared: Count
    disagreed: Count
    skipped: dict[str, Count] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StationHealth:
    """One station's accounts since the agent started: frames in = used + not triggered + dropped.

    Args:
        not_ready: why the station cannot judge parts, empty where it can.
        deadline_misses: parts without verdict because it came too late.
        repeats: triggers that came twice and were judged once.
    """

    station: Name
    triggers: Count
    verdicts: Count
    frames_in: Count
    frames_used: Count
    frames_not_triggered: Count
    frames_dropped: Count
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    recipe: Name | None = None
    not_ready: ShortText = ""
    deadline_misses: Count = 0
    repeats: Count = 0
    views: Annotated[tuple[ViewHealth, ...], msgspec.Meta(max_length=16)] = ()
    shadows: Annotated[tuple[ShadowHealth, ...], msgspec.Meta(max_length=16)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a device is; sent every 10 s.

    Args:
        throttled: the processor runs below its speed because of heat or voltage; None where the device does not tell.
        clock_offset_ms: of the wall clock, where a time service tells it.
    """

    at: Utc
    uptime_s: Annotated[float, msgspec.Meta(ge=0.0)]
    cpu_fraction: Annotated[float, msgspec.Meta(ge=0.0)]
    rss_bytes: Count
    disk_free_bytes: Count
    disk_free_fraction: Fraction
    temperature_c: float | None = None
    outbox_unsettled: Count
    outbox_bytes: Count
    outbox_dropped: Count
    threads_stalled: Annotated[tuple[ShortText, ...], msgspec.Meta(max_length=50)] = ()
    stations: Annotated[tuple[StationHealth, ...], msgspec.Meta(max_length=32)] = ()
    processes: Annotated[tuple[ProcessHealth, ...], msgspec.Meta(max_length=64)] = ()
    throttled: bool | None = None
    clock_offset_ms: float | None = None
    outbox_dropped_by_lane: dict[str, Count] = field(default_factory=dict)
    pictures_waiting: Count = 0
    pictures_dropped: Annotated[tuple[PictureWindow, ...], msgspec.Meta(max_length=24)] = ()


class Severity(enum.StrEnum):
    """How soon a person should look."""

    NOTE = "note"
    WARNING = "warning"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A change of state on the device that a person may want to know.

    Args:
        name: dotted, past tense, as in the log: `model.activated`.
    """

    at: Utc
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z_]+\.[a-z_]+$(?!\n)", max_length=64)]
    severity: Severity
    text: LongText


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningModel:
    """What a device infers with: `digest` is read from the session in use, not from what was asked for.

    Args:
        shadow_digest: the candidate beside it, read from its session; None where none runs.
        shadow_trouble: why the candidate that is asked for does not run, empty where nothing is wrong.
    """

    model: Name
    digest: Digest | None
    previous_digest: Digest | None = None
    provider: ShortText | None = None
    deployment_id: Uuid | None = None
    shadow_digest: Digest | None = None
    shadow_trouble: ShortText = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """The reported document: the device's answer to the desired one."""

    desired_revision: Count
    agent_version: ShortText
    runtime_version: ShortText
    architecture: ShortText
    models: Annotated[tuple[RunningModel, ...], msgspec.Meta(max_length=64)] = ()
    refusals: Annotated[tuple[LongText, ...], msgspec.Meta(max_length=32)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Birth (online) and will (offline) of a device.

    Args:
        boot: counts the agent's starts; a will of an earlier boot never overrules a later birth.
        revision: counts the states sent in this boot, so that an old retained one is known as old.
        reported: absent in the will.
    """

    schema: SchemaVersion = SCHEMA
    device: Name
    boot: Count
    revision: Count
    online: bool
    at: Utc | None = None
    reported: Reported | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeqRange:
    """Sequence numbers from `first` to `last`, both included."""

    first: Annotated[int, msgspec.Meta(ge=1)]
    last: Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Sequence numbers that the fleet will never take, and why; they are settled and kept in quarantine."""

    first: Annotated[int, msgspec.Meta(ge=1)]
    last: Annotated[int, msgspec.Meta(ge=1)]
    code: ErrorText


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeAck:
    """The fleet's word that these records are rows in its database; nothing else settles the outbox."""

    schema: SchemaVersion = SCHEMA
    epoch: EpochId
    lane: Lane
    ranges: Annotated[tuple[SeqRange, ...], msgspec.Meta(max_length=1000)] = ()
    refused: Annotated[tuple[Refusal, ...], msgspec.Meta(max_length=1000)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """A hint to read the desired document now; losing it costs only time."""

    schema: SchemaVersion = SCHEMA
    desired_revision: Count


class CommandName(enum.StrEnum):
    """Momentary acts a device can be asked for."""

    SEND_HEALTH = "send_health"
    SEND_STATE = "send_state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Asks for a momentary act; ignored after `expires_at`. Its result comes back as an event `command.finished`."""

    schema: SchemaVersion = SCHEMA
    id: Uuid
    name: CommandName
    expires_at: Utc


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """Tells devices that ingest has started anew, so that they send again what it may have lost."""

    schema: SchemaVersion = SCHEMA
    boot: Uuid
    online: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowView:
    """One view of a part, as both versions saw it.

    Args:
        reason: why the candidate has no verdict; empty where it has one.
        findings: the candidate's, where the two disagree; at most the 20 with the highest scores.
        picture_digest: of the picture, where the two disagree and it found room.
    """

    view: Name
    active_verdict: Verdict
    verdict: Verdict
    active_score: float | None = None
    score: float | None = None
    reason: Reason = Reason.NONE
    findings: Annotated[tuple[Finding, ...], msgspec.Meta(max_length=20)] = ()
    picture_digest: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPair:
    """One part judged by two versions: the active one, whose verdict the line got, and a candidate.

    Args:
        inspection_id: of the active version's record.
        digest: the candidate's, read from its session; `active_digest` likewise.
        rate: of the parts chosen; the part's draw was below it.
        views: those that name the model; the others count as they were.
    """

    inspection_id: Uuid
    at: Utc
    station: Name
    recipe: Name
    model: Name
    active_digest: Digest
    digest: Digest
    rate: Rate
    active_verdict: Verdict
    verdict: Verdict
    views: Annotated[tuple[ShadowView, ...], msgspec.Meta(min_length=1, max_length=16)]


BODY_OF_LANE: Final[dict[Lane, type]] = {
    Lane.INSPECTIONS: Inspection,
    Lane.COUNTERS: Counter,
    Lane.DEPLOYMENTS: DeploymentReport,
    Lane.EVENTS: Event,
    Lane.HEALTH: Health,
    Lane.SHADOW: ShadowPair,
}
