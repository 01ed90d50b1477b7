"""The values behind `explain`: what is gathered of one device and one version, and the chain it becomes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from wire.deployment import DeploymentReport, DeploymentState, Origin

REGISTRY: Final = "registry"
DESIRED: Final = "desired document"
DEVICE: Final = "device"
FLEET: Final = "fleet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that is known.

    Args:
        at: when it was so; None where nobody told.
        source: who says so: `registry`, `desired document`, `device` or `fleet`.
        code: of the error register, where it is a refusal or a failure; then `next_step` says what to do.
    """

    at: datetime | None
    source: str
    text: str
    code: str = ""
    next_step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """All facts, the oldest first, and the answer."""

    device: str
    model: str
    release: int | None
    digest: str
    has_it: bool
    answer: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One report and when it arrived."""

    report: DeploymentReport
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One deployment of the version.

    Args:
        waits: what an open one waits for by the fleet's time-outs, in words.
        behind: a person's deployment of the same model at the device, which goes first; in words.
    """

    id: str
    state: DeploymentState
    origin: Origin
    by: str
    created_at: datetime
    created_by: str
    revision: int | None
    reason: str
    code: str
    ended_at: datetime | None
    reports: Sequence[Told] = ()
    waits: str = ""
    behind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What the fleet knows of one device and one version.

    Args:
        registered_at, registered_by: None where the registry does not know the version.
        desired_release: what the document asks for now; None where it does not name the model.
        desired_revision: of the document in force, which `desired_by` made at `desired_at`.
        read_revision: of the newest document that the device says it has read.
        refusals: what the device says it cannot do of what is desired.
        runs_digest, runs_release, runs_since: what the device infers with.
        runs_registered: whether the registry knows that; else its release is the device's word alone.
        deviation: drift, or that what runs is not what is desired; in words.
        asked: deployments of this version there, the oldest first.
    """

    device: str
    model: str
    release: int | None
    digest: str
    now: datetime
    registered_at: datetime | None = None
    registered_by: str = ""
    desired_digest: str | None = None
    desired_release: int | None = None
    desired_revision: int = 0
    desired_at: datetime | None = None
    desired_by: str = ""
    online: bool = False
    last_seen_at: datetime | None = None
    revoked_at: datetime | None = None
    read_revision: int | None = None
    reported_at: datetime | None = None
    refusals: Sequence[str] = ()
    runs_digest: str | None = None
    runs_release: int | None = None
    runs_since: datetime | None = None
    runs_registered: bool = True
    deviation: str = ""
    asked: Sequence[Asked] = ()
