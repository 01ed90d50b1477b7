"""Where what a device runs is not what it should be. Pure.

Two things are told apart. **Drift**: another version runs than the newest successful deployment put there, whoever
asked for that; nobody has an account of it. **Not desired**: what runs is accounted for, but it is not what the
desired document names, and nothing is on its way that would change that.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from wire.deployment import ENDS, DeploymentState, Origin
from wire.desired import DesiredModel

SWAPPING: Final = frozenset({DeploymentState.ACTIVATING, DeploymentState.PROBATION})


class Kind(enum.StrEnum):
    """What kind of deviation."""

    DRIFT = "drift"  # another version runs than the newest successful deployment put there
    NOT_DESIRED = "not_desired"  # what runs is accounted for, and not what is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """One model of one device that is not as it should be, in words."""

    model: str
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A deployment as far as it matters here."""

    digest: str
    release: int | None
    state: DeploymentState
    origin: Origin = Origin.FLEET
    by: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the fleet knows of one model on one device.

    Args:
        runs: the digest the device reports, None where it runs nothing.
        installed: the newest deployment that put a version there, None where none has.
        on_the_way: deployments that have not ended.
        desired: what the document asks for, with its deployment where that is known.
        releases: of digests that the registry knows.
    """

    model: str
    runs: str | None
    installed: Placed | None
    on_the_way: Collection[Placed]
    desired: DesiredModel | None
    deployment: Placed | None
    releases: Mapping[str, int]


def of(account: Account) -> Deviation | None:
    """Return how a model deviates, None where it does not, or where a change just now may explain it."""
    if any(one.state in SWAPPING for one in account.on_the_way):
        return None
    if account.installed is not None and account.runs != account.installed.digest:
        if account.runs in {one.digest for one in account.on_the_way}:
            return None  # its report is on its way, too
        return Deviation(
            model=account.model,
            kind=Kind.DRIFT,
            text=f"runs {_version(account, account.runs)}, but the newest deployment that succeeded put "
            f"{_version(account, account.installed.digest)} there",
        )
    return _not_desired(account)


def words_of(digest: str | None, release: int | None, *, registered: bool = True) -> str:
    """Return a version as people name it.

    Args:
        registered: whether the registry knows the digest; else the release is the device's word alone, and the registry
            may have another version under it.
    """
    if digest is None:
        return "nothing"
    if release is None:
        return f"an unknown release ({digest[:12]})"
    return f"release {release}" if registered else f"release {release} ({digest[:12]})"


def asked_by(origin: Origin, by: str) -> str:
    """Return who asked for a deployment at the device, empty where the fleet did."""
    return f"asked for at the device by {by or 'somebody'}" if origin is Origin.DEVICE else ""


def _not_desired(account: Account) -> Deviation | None:
    desired, deployment = account.desired, account.deployment
    if desired is None or account.runs is None or account.runs == desired.active:
        return None
    if deployment is None or deployment.state not in ENDS:
        return None
    placed = account.installed
    local = f", {asked_by(placed.origin, placed.by)}" if placed and placed.origin is Origin.DEVICE else ""
    way = ""
    if deployment.state not in (DeploymentState.SUCCEEDED, DeploymentState.ALREADY_INSTALLED):
        code = f" ({deployment.code})" if deployment.code else ""
        way = f", whose deployment ended as {deployment.state.replace('_', ' ')}{code}"
    return Deviation(
        model=account.model,
        kind=Kind.NOT_DESIRED,
        text=f"runs {_version(account, account.runs)}{local}; desired is release {desired.release}{way}",
    )


def _version(account: Account, digest: str | None) -> str:
    placed = account.installed
    told = placed.release if placed is not None and placed.digest == digest else None
    known = account.releases.get(digest or "")
    return words_of(digest, told if known is None else known, registered=known is not None)
