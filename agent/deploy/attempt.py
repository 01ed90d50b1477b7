"""One device's attempt at one deployment: what the journal keeps of it, and the report it makes."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from wire.deployment import DeploymentReport, DeploymentState
from wire.ids import Count, Digest, Name, Uuid
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

    PASSING = "passing"  # worth trying again, a bounded number of times
    FAILURE = "failure"  # this attempt is over; another deployment of the same version may fare better
    REFUSAL = "refusal"  # this version must not run here


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The latest thing that went wrong in an attempt; `code` is a key of the error register."""

    kind: FaultKind
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Where a deployment stands on this device.

    Args:
        tries: how often the current state's step was begun (while downloading: how often it failed in a row).
        mismatches: how often downloaded bytes differed from their digest.
        former: the version to go back to, set on entering `activating`; None where there was none.
        sequence: of the report made on entering `state`; 0 before the first one.
        at, inferring: the time and the session's digest when `state` was entered, so that the same report can be made
            again after a kill.
    """

    deployment_id: Uuid
    model: Name
    digest: Digest
    release: Count
    state: DeploymentState = DeploymentState.QUEUED
    tries: Count = 0
    mismatches: Count = 0
    former: Digest | None = None
    fault: Fault | None = None
    sequence: Count = 0
    at: Utc
    inferring: Digest | None = None

    @property
    def report(self) -> DeploymentReport | None:
        """The report of the state it is in; None before the first."""
        if self.sequence == 0 or self.state is DeploymentState.QUEUED:
            return None
        fault = self.fault if self.state in _BAD_ENDS else None
        return DeploymentReport(
            deployment_id=self.deployment_id,
            model=self.model,
            digest=self.digest,
            state=self.state,
            sequence=self.sequence,
            at=self.at,
            code=fault.code if fault else "",
            reason=fault.reason[:MAX_REASON] if fault else "",
            inferring_digest=self.inferring,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A deployment that has ended here, remembered so that it is never begun again."""

    deployment_id: Uuid
    digest: Digest
    state: DeploymentState
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelJournal:
    """What the device remembers of one model's deployments.

    Args:
        attempt: the latest one, ended or not.
        past: earlier ones, oldest first, at most `MAX_PAST`.
        first_sequence: where the reports of a new attempt begin to count. Above 0 only after a journal was lost, so
            that the fleet does not take the reports of a repeated deployment for stale ones.
    """

    attempt: Attempt | None = None
    past: tuple[Past, ...] = ()
    first_sequence: Count = 0

    def has_ended(self, deployment_id: str) -> bool:
        """Tell whether a deployment other than the latest has ended here."""
        return any(past.deployment_id == deployment_id for past in self.past)
