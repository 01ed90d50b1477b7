"""The steps of a deployment: what `plan` decides and the runner carries out, one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from wire import ids
from wire.deployment import DeploymentState, HoldReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Wait, and say for what; the deployment is given up, or undone, at the deadline."""

    reason: HoldReason
    deadline: datetime
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """Fetch the next blob that is missing."""

    digest: ids.Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Check every byte, the manifest, and that the version suits this device."""

    digest: ids.Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """Run the golden samples in a child process."""

    digest: ids.Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Activate:
    """Build the session beside the old one and swap; `former` is what to go back to.

    Args:
        exclusive: both do not fit in memory: the old one is closed first.
    """

    digest: ids.Digest
    former: ids.Digest | None
    exclusive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Enter probation: the version is the one being inferred with."""

    digest: ids.Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Make the version that is being inferred with the one loaded at boot, and end well."""

    digest: ids.Digest
    end: DeploymentState


@dataclass(frozen=True, slots=True, kw_only=True)
class Revert:
    """Go back to the former version, for the reason given."""

    former: ids.Digest
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """End the deployment: the version must not run here."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """End the deployment badly without doing anything: nothing was changed, or there is nothing to go back to."""

    end: DeploymentState
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Collect:
    """Remove packages and blobs that nothing refers to."""

    digests: tuple[ids.Digest, ...]


Step: TypeAlias = Download | Verify | SelfTest | Hold | Activate | Watch | Commit | Revert | Refuse | Fail | Collect
