"""What a decision about a deployment rests on: what is installed, the limits in force, and the facts of the moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from agent.deploy.attempt import Attempt
from agent.deploy.probation import Finding
from wire import ids
from wire.deployment import HoldReason

_DAY_S: Final = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The two versions of a model kept on this device; `current` is loaded at boot."""

    current: ids.Digest | None = None
    previous: ids.Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a deployment may take before it is given up, in seconds of a running agent.

    Args:
        attempt_s: from its start until it is tested and ready, holds aside; so long an absent fleet is waited for.
        no_space_s, maintenance_window_s, line_busy_s, awaiting_confirmation_s: in all, in each hold.
    """

    attempt_s: float = _DAY_S
    no_space_s: float = _DAY_S
    maintenance_window_s: float = 8 * _DAY_S
    line_busy_s: float = _DAY_S
    awaiting_confirmation_s: float = 7 * _DAY_S

    def of(self, reason: HoldReason) -> float:
        """Return the limit of a hold."""
        return {
            HoldReason.NO_SPACE: self.no_space_s,
            HoldReason.MAINTENANCE_WINDOW: self.maintenance_window_s,
            HoldReason.LINE_BUSY: self.line_busy_s,
            HoldReason.AWAITING_CONFIRMATION: self.awaiting_confirmation_s,
        }[reason]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What else a decision needs to know.

    Args:
        now: for the deadlines of holds.
        attempt: the latest attempt in the journal, ended or not.
        document_known: the desired document is; where it names no version, none is desired.
        ended_before: the desired deployment has ended here, and another one came after it.
        inferring: the digest of the session in use; None where none is.
        waiting: a pause between two tries is not over.
        unneeded: packages, blobs and downloads on disk that nothing refers to.
        no_room: what is still to be downloaded does not fit on the disk.
        not_now: why no version may be swapped on this line at this moment.
        not_now_words: what a person must know beside that.
        confirm: a person confirms each swap of this device.
        has_windows: this site has maintenance windows.
        exclusive: the new session does not fit in memory beside the one in use.
        finding: what probation makes of the version so far; None where it is not in probation.
        limits: in force here.
    """

    now: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    attempt: Attempt | None = None
    document_known: bool = True
    ended_before: bool = False
    inferring: ids.Digest | None = None
    waiting: bool = False
    unneeded: tuple[ids.Digest, ...] = ()
    no_room: bool = False
    not_now: HoldReason | None = None
    not_now_words: str = ""
    confirm: bool = False
    has_windows: bool = False
    exclusive: bool = False
    finding: Finding | None = None
    limits: Limits = Limits()
