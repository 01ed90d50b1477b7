"""The status file: what the running agent tells `lineside status`, written every second, replaced as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.deploy.attempt import Attempt
from wire import codec
from wire.deployment import Hold, Origin, ProbationReport
from wire.errors import LinesideError
from wire.inspection import Utc
from wire.messages import Health, RunningModel, StationHealth

SCHEMA_ID: Final = "lineside.status/1"
_FILE_NAME: Final = "status.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewStatus:
    """Where a view's frames come from.

    Args:
        source: kind and address in words; never a password.
        time_class: what the source knows about when a frame was exposed (agent/capture/frame.py).
        process_id: of the camera's own process, None where it has none.
    """

    view: str
    source: str
    time_class: str
    process_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeStatus:
    """One recipe of a station.

    Args:
        loaded: every model it needs is ready to run.
        refusal: why it cannot be chosen, empty where it can.
    """

    id: str
    revision: int
    number: int | None = None
    codes: tuple[str, ...] = ()
    active: bool = False
    loaded: bool = False
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputStatus:
    """Somebody who is told the station's verdicts."""

    name: str
    sent: int
    dropped: int
    failed: int
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StationStatus:
    """One station since the agent started.

    Args:
        without_verdict: parts with NO_VERDICT, by reason.
        steps_ms: p50 and p99 of each pipeline step.
        missed: parts recorded as passed uninspected.
        unrecorded: parts whose record found no room; they had no verdict.
        line: what triggers it, in words.
        line_trouble: why the line cannot be reached, empty where it can.
    """

    health: StationHealth
    ready: bool
    verdicts: dict[str, int] = field(default_factory=dict)
    without_verdict: dict[str, int] = field(default_factory=dict)
    steps_ms: dict[str, tuple[float, float]] = field(default_factory=dict)
    missed: int = 0
    unrecorded: int = 0
    line: str = ""
    line_trouble: str = ""
    views: tuple[ViewStatus, ...] = ()
    recipes: tuple[RecipeStatus, ...] = ()
    outputs: tuple[OutputStatus, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentStatus:
    """A deployment that has not ended.

    Args:
        by: the person at the device who asked for it; empty where the fleet did.
        hold: what it waits for, and until when at most.
        probation: what it has shown so far; None before it judges parts.
        trouble: what went wrong last, empty where nothing did.
    """

    model: str
    digest: str
    state: str
    by: str = ""
    hold: Hold | None = None
    probation: ProbationReport | None = None
    trouble: str = ""


def deployment_status(attempt: Attempt) -> DeploymentStatus:
    """Return what a technician should know of an attempt."""
    return DeploymentStatus(
        model=attempt.model,
        digest=attempt.digest,
        state=attempt.state.value,
        by=(attempt.by or "somebody") if attempt.origin is Origin.DEVICE else "",
        hold=attempt.hold,
        probation=attempt.told,
        trouble=attempt.fault.reason if attempt.fault is not None else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The running agent as a technician sees it.

    Args:
        local_address: host:port of the agent's own address, None where it has none.
        health: of the device and its processes, as it was last sent; the stations stand in `stations`.
    """

    schema: str = SCHEMA_ID
    device: str
    pid: int
    at: Utc
    agent_version: str
    connected: bool
    mqtt_protocol: str | None
    desired_revision: int
    outbox_unsettled: int
    outbox_dropped: int
    pictures_waiting: int
    models: tuple[RunningModel, ...] = ()
    refusals: tuple[str, ...] = ()
    deployments: tuple[DeploymentStatus, ...] = ()
    stations: tuple[StationStatus, ...] = ()
    threads_stalled: tuple[str, ...] = ()
    local_address: str | None = None
    health: Health | None = None


def write(data_dir: Path, status: Status) -> None:
    """Replace the file; no fsync, since after a power cut nobody runs."""
    path = data_dir / _FILE_NAME
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(codec.encode(status))
    temporary.replace(path)


def read(data_dir: Path) -> Status:
    """Return the last status.

    Raises:
        LinesideError: `resource.not_found` where no agent has run here, `storage.corrupt` where the file is damaged.
    """
    path = data_dir / _FILE_NAME
    try:
        return codec.decode(path.read_bytes(), Status)
    except OSError as error:
        raise LinesideError(
            "resource.not_found",
            f"{path}: no agent has run with this data folder.",
            "Start one: lineside run --config FILE.",
        ) from error
    except LinesideError as error:
        raise LinesideError(
            "storage.corrupt",
            f"{path} is damaged: {error.message}",
            "An agent that runs replaces it within a second; see whether one does.",
        ) from error
