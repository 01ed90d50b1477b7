"""One device's attempt at one deployment: what the journal keeps of it, and the report it makes."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import Final

from agent.deploy.figures import Figures
from wire.deployment import (
    ENDS,
    DeploymentReport,
    DeploymentState,
    Hold,
    HoldReason,
    Origin,
    ProbationReport,
    SelfTestReport,
)
from wire.ids import Count, Digest, Name, ShortText, Uuid
from wire.inspection import Utc

MAX_PAST: Final = 32
MAX_REASON: Final = 1000
_BAD_ENDS: Final = frozenset(
    {
        DeploymentState.REFUSED,
        DeploymentState.FAILED_NO_CHANGE,
        DeploymentState.FAILED_REVERTED,
        DeploymentState.FAILED_REVERT_FAILED,
    }
)


class FaultKind(enum.StrEnum):
    """What follows from a fault."""

    AWAY = "away"  # nobody answers: waited for, not counted, until the attempt's time is over
    PASSING = "passing"  # an answer that is of no use: worth trying again, a bounded number of times
    FAILURE = "failure"  # this attempt is over; another deployment of the same version may fare better
    REFUSAL = "refusal"  # this version must not run here


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The latest thing that went wrong in an attempt; `code` is a key of the error register."""

    kind: FaultKind
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """What the self-test measured on this device.

    Args:
        latency_p95_ms: of a look.
        memory_mb: the peak with its looks.
        load_ms: until a session has looked a few times.
        memory_limit_mb: of the manifest.
    """

    latency_p95_ms: float
    memory_mb: float
    load_ms: float
    memory_limit_mb: float

    @property
    def report(self) -> SelfTestReport:
        """What the fleet is told of it."""
        return SelfTestReport(latency_p95_ms=self.latency_p95_ms, memory_mb=self.memory_mb, load_ms=self.load_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Where a deployment stands on this device.

    Args:
        origin, by: who asked for it; one asked for at the device is known from the journal only, and wanted until it
            has ended.
        why: it was asked for, in that person's words.
        urgent: a way back: it waits for nobody, and passes its probation at once.
        order: the latest order of a person that was obeyed, so that none is obeyed twice.
        tries: how often the current state's step was begun (while downloading: how many answers in a row were of no
            use).
        begun: `tries` of the state before this one when it was left, for the report.
        mismatches: how often downloaded bytes differed from their digest.
        former: the version to go back to, set on entering `activating`; None where there was none.
        exclusive: its session and the former one's do not fit in memory together.
        tested: set on entering `staged`.
        baseline: what the former version had done when the swap began; None where nothing is known of it.
        evidence: what the version itself has done in probation, up to when this was written.
        watched_s: for how long it has been in probation, holds aside; counted like `spent_s`.
        since_start_s: for how long it has been in probation since the agent's latest start, holds or not; counted
            likewise.
        machine_downs: how often in a row the machine went down soon after a start, while it was in probation.
        confirmed: a person has confirmed what its state awaits; begins anew in probation.
        hold: what it waits for now.
        spent_s: for how long it has been under way, holds aside. Counted while the agent runs, by the monotonic clock:
            a device that was switched off, or whose clock was set, has lost none of its time.
        held_s: for how long it was held in all, by reason; counted likewise.
        sequence: of the report made when `state` was entered, `hold` changed or probation had come further; 0 before
            the first one.
        at, inferring, told: the time, the session's digest and what probation had seen at that moment, so that the same
            report can be made again after a kill.
    """

    deployment_id: Uuid
    model: Name
    digest: Digest
    release: Count
    origin: Origin = Origin.FLEET
    by: ShortText = ""
    why: ShortText = ""
    urgent: bool = False
    order: str = ""
    state: DeploymentState = DeploymentState.QUEUED
    tries: Count = 0
    begun: Count = 1
    mismatches: Count = 0
    former: Digest | None = None
    exclusive: bool = False
    tested: Tested | None = None
    baseline: Figures | None = None
    evidence: Figures | None = None
    watched_s: float = 0.0
    since_start_s: float = 0.0
    machine_downs: Count = 0
    confirmed: bool = False
    fault: Fault | None = None
    hold: Hold | None = None
    spent_s: float = 0.0
    held_s: dict[HoldReason, float] = field(default_factory=dict)
    sequence: Count = 0
    at: Utc
    inferring: Digest | None = None
    told: ProbationReport | None = None

    @property
    def report(self) -> DeploymentReport | None:
        """The report of the state it is in and of what it waits for; None before the first."""
        if self.sequence == 0 or self.state is DeploymentState.QUEUED:
            return None
        fault = self.fault if self.state in _BAD_ENDS else None
        return DeploymentReport(
            deployment_id=self.deployment_id,
            model=self.model,
            digest=self.digest,
            state=self.state,
            sequence=self.sequence,
            attempt=self.begun,
            at=self.at,
            code=fault.code if fault else "",
            reason=fault.reason[:MAX_REASON] if fault else self.why,
            hold=self.hold,
            inferring_digest=self.inferring,
            origin=self.origin,
            by=self.by,
            release=self.release,
            probation=self.told,
            tested=self.tested.report if self.tested is not None else None,
        )

    @property
    def has_ended(self) -> bool:
        """Nothing follows any more."""
        return self.state in ENDS

    def failed(self, code: str, reason: str, kind: FaultKind = FaultKind.FAILURE) -> Attempt:
        """Return it with a fault."""
        return replace(self, fault=Fault(kind=kind, code=code, reason=reason))

    def aged(self, seconds: float) -> Attempt:
        """Return it so much later: the time counts for the hold it is in, else for probation or for the way there."""
        if self.state in ENDS:
            return self
        in_probation = self.state is DeploymentState.PROBATION
        older = replace(self, since_start_s=self.since_start_s + seconds) if in_probation else self
        if self.hold is not None:
            held_s = self.held_s | {self.hold.reason: self.held_s.get(self.hold.reason, 0.0) + seconds}
            return replace(older, held_s=held_s)
        if in_probation:
            return replace(older, watched_s=self.watched_s + seconds)
        return replace(older, spent_s=self.spent_s + seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A deployment that has ended here, remembered so that it is never begun again."""

    deployment_id: Uuid
    digest: Digest
    state: DeploymentState
    code: str = ""
    origin: Origin = Origin.FLEET


def joined(past: tuple[Past, ...], ended: Past) -> tuple[Past, ...]:
    """Return the deployments to remember once another one has ended: at most `MAX_PAST`.

    The device's own are forgotten first, the oldest of them: nobody asks for them again, but the desired document goes
    on naming the fleet's latest, however many a person has begun since.
    """
    if len(past) < MAX_PAST:
        return (*past, ended)
    own = (number for number, one in enumerate(past) if one.origin is Origin.DEVICE)
    forgotten = next(own, 0)
    return (*past[:forgotten], *past[forgotten + 1 :], ended)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelJournal:
    """What the device remembers of one model's deployments.

    Args:
        attempt: the latest one, ended or not.
        past: earlier ones, oldest first, at most `MAX_PAST` (`joined`).
        first_sequence: where the reports of a new attempt begin to count. Above 0 only after a journal was lost, so
            that the fleet does not take the reports of a repeated deployment for stale ones.
    """

    attempt: Attempt | None = None
    past: tuple[Past, ...] = ()
    first_sequence: Count = 0

    def has_ended(self, deployment_id: str) -> bool:
        """Tell whether a deployment other than the latest has ended here."""
        return any(past.deployment_id == deployment_id for past in self.past)
