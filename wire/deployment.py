"""The states of a deployment (one device, one model, one version) and the report about it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from wire.ids import Count, Digest, Name, ShortText, Uuid
from wire.inspection import Utc


class DeploymentState(enum.StrEnum):
    """Where a deployment stands; docs/reference/deployment-states.md has the diagram."""

    SCHEDULED = "scheduled"  # the fleet means to ask for it later
    QUEUED = "queued"  # it stands in the device's desired document
    DOWNLOADING = "downloading"  # the device fetches the package
    VERIFYING = "verifying"  # digests, manifest and compatibility are checked
    SELF_TESTING = "self_testing"  # a child process runs the golden samples on this device
    STAGED = "staged"  # ready on disk, waiting for its turn
    ACTIVATING = "activating"  # the session is built beside the old one and swapped in between two parts
    PROBATION = "probation"  # it judges parts and is watched
    SUCCEEDED = "succeeded"  # its digest is the one being inferred with
    ALREADY_INSTALLED = "already_installed"  # it was active when asked for
    REFUSED = "refused"  # it must not run here; never tried again
    FAILED_NO_CHANGE = "failed_no_change"  # it could not be installed; the old version never stopped
    FAILED_REVERTED = "failed_reverted"  # it was active and the old version is active again
    FAILED_REVERT_FAILED = "failed_revert_failed"  # neither version could be made active
    TIMED_OUT = "timed_out"  # the fleet gave up waiting
    CANCELED = "canceled"  # a person took it back
    SUPERSEDED = "superseded"  # another version was asked for meanwhile
    REMOVED = "removed"  # the device is gone


S = DeploymentState
ENDS: Final = frozenset(
    {
        S.SUCCEEDED,
        S.ALREADY_INSTALLED,
        S.REFUSED,
        S.FAILED_NO_CHANGE,
        S.FAILED_REVERTED,
        S.FAILED_REVERT_FAILED,
        S.TIMED_OUT,
        S.CANCELED,
        S.SUPERSEDED,
        S.REMOVED,
    }
)
FLEET_OWNED: Final = frozenset({S.SCHEDULED, S.QUEUED, S.TIMED_OUT, S.CANCELED, S.SUPERSEDED, S.REMOVED})

_FLEET_ENDS = frozenset({S.TIMED_OUT, S.CANCELED, S.SUPERSEDED, S.REMOVED})
TRANSITIONS: Final[dict[DeploymentState, frozenset[DeploymentState]]] = {
    S.SCHEDULED: frozenset({S.QUEUED}) | _FLEET_ENDS,
    S.QUEUED: frozenset({S.DOWNLOADING, S.ALREADY_INSTALLED, S.REFUSED, S.FAILED_NO_CHANGE}) | _FLEET_ENDS,
    S.DOWNLOADING: frozenset({S.VERIFYING, S.REFUSED, S.FAILED_NO_CHANGE}) | _FLEET_ENDS,
    S.VERIFYING: frozenset({S.SELF_TESTING, S.DOWNLOADING, S.REFUSED, S.FAILED_NO_CHANGE}) | _FLEET_ENDS,
    S.SELF_TESTING: frozenset({S.STAGED, S.REFUSED, S.FAILED_NO_CHANGE}) | _FLEET_ENDS,
    S.STAGED: frozenset({S.ACTIVATING, S.REFUSED, S.FAILED_NO_CHANGE}) | _FLEET_ENDS,
    S.ACTIVATING: frozenset({S.PROBATION, S.FAILED_NO_CHANGE, S.FAILED_REVERTED, S.FAILED_REVERT_FAILED}) | _FLEET_ENDS,
    S.PROBATION: frozenset({S.SUCCEEDED, S.FAILED_REVERTED, S.FAILED_REVERT_FAILED}) | _FLEET_ENDS,
    **{end: frozenset() for end in ENDS},
}


class HoldReason(enum.StrEnum):
    """Why a deployment waits."""

    NO_SPACE = "no_space"
    MAINTENANCE_WINDOW = "maintenance_window"
    LINE_BUSY = "line_busy"
    AWAITING_CONFIRMATION = "awaiting_confirmation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A wait with its reason and the time at which it ends by itself.

    Args:
        text: what a person should know before they end it: how long the line will stand, what has shifted.
    """

    reason: HoldReason
    deadline: Utc
    text: Annotated[str, msgspec.Meta(max_length=500)] = ""


class Origin(enum.StrEnum):
    """Who asked for a deployment."""

    FLEET = "fleet"  # it stands in the desired document
    DEVICE = "device"  # a person beside the machine: an import from a folder, or a rollback


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbationReport:
    """What probation has seen of a version.

    Args:
        parts: judged with it; `faults` of them have no verdict for reasons the version may be blamed for.
        parts_needed: after which it may pass.
        look_p95_ms: 95th percentile of what a look at a picture took, and of the former version's before the swap.
        shift: how the mix of verdicts differs from the former version's, in words; empty where it does not.
    """

    parts: Count
    faults: Count = 0
    parts_needed: Count = 0
    look_p95_ms: float | None = None
    former_look_p95_ms: float | None = None
    shift: Annotated[str, msgspec.Meta(max_length=500)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTestReport:
    """What the self-test measured on this device.

    Args:
        latency_p95_ms: of a look.
        memory_mb: the peak of the process that tested it, in 2**20 bytes.
        load_ms: until a session has looked a few times.
    """

    latency_p95_ms: Annotated[float, msgspec.Meta(ge=0.0)]
    memory_mb: Annotated[float, msgspec.Meta(ge=0.0)]
    load_ms: Annotated[float, msgspec.Meta(ge=0.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentReport:
    """A device's word on one deployment.

    Args:
        attempt: how often the work that led to this state was begun.
        sequence: counts the reports of this deployment; the fleet moves the deployment by a higher one only. An equal
            one is a duplicate and a lower one stale: both are kept and acknowledged, and change nothing.
        code: a key of the error register where the state is a refusal or a failure.
        reason: of a refusal or a failure; otherwise why it was asked for, where a person at the device said so.
        inferring_digest: the digest of the session in use when this was written.
        origin, by: who asked for it; `by` names the person where that was on the device.
        release: of the version, where the device knows it.
        probation: so far; None before probation.
        tested: once it is staged.
    """

    deployment_id: Uuid
    model: Name
    digest: Digest
    state: DeploymentState
    sequence: Annotated[int, msgspec.Meta(ge=1)]
    attempt: Count = 1
    at: Utc
    code: Annotated[str, msgspec.Meta(max_length=64)] = ""
    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    hold: Hold | None = None
    inferring_digest: Digest | None = None
    origin: Origin = Origin.FLEET
    by: ShortText = ""
    release: Count | None = None
    probation: ProbationReport | None = None
    tested: SelfTestReport | None = None
