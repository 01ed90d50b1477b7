"""What follows from an order of a person beside the machine (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from agent.deploy.attempt import Attempt, ModelJournal
from agent.deploy.facts import Installed
from agent.deploy.orders import Order, OrderKind
from wire.deployment import DeploymentState as S
from wire.deployment import HoldReason
from wire.ids import Digest

_CONFLICT: Final = "resource.conflict"
_NOT_FOUND: Final = "resource.not_found"
_BEGUN: Final = (S.ACTIVATING, S.PROBATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Nothing is done; `code` is a key of the error register."""

    code: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Obeyed:
    """It was done before a kill came between the journal and the answer."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirms:
    """The attempt goes on."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class TakesBack:
    """The attempt, whose swap has begun, is undone."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploys:
    """A deployment of this device's own begins; an attempt that is on its way to its swap is overruled."""

    model: str
    digest: str
    release: int | None
    urgent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Collects:
    """What nothing refers to is removed."""


Outcome: TypeAlias = Refused | Obeyed | Confirms | TakesBack | Deploys | Collects


def decide(order: Order, remembered: ModelJournal, installed: Installed) -> Outcome:
    """Return what follows from an order; one that was obeyed before is not obeyed again.

    Args:
        remembered: of the order's model; anything where it names none.
        installed: of the order's model.
    """
    if order.kind is OrderKind.COLLECT:
        return Collects()
    if order.model is None:
        return Refused(code="usage.invalid", text="The order names no model.")
    attempt = remembered.attempt
    is_known = attempt is not None and order.id in (attempt.deployment_id, attempt.order)
    if is_known or remembered.has_ended(order.id):
        return Obeyed(text="This was done already; `lineside models list` tells how it went on.")
    match order.kind:
        case OrderKind.CONFIRM:
            return _confirm(order, attempt)
        case OrderKind.ROLLBACK:
            return _roll_back(order, order.model, attempt, installed)
        case OrderKind.IMPORT:
            return _import(order, order.model, attempt)
        case _:
            assert_never(order.kind)


def way_back(attempt: Attempt | None, installed: Installed) -> Digest | None:
    """Return the version that a rollback brings back.

    `previous`, but while a swap has begun the version before it, and `current` where going back to it has failed: the
    version at fault still judges parts then.
    """
    if attempt is None:
        return installed.previous
    if attempt.state in _BEGUN:
        return attempt.former
    was_way_back = attempt.urgent and attempt.digest == installed.current
    if attempt.state is S.FAILED_REVERT_FAILED or (was_way_back and attempt.state is S.FAILED_NO_CHANGE):
        return installed.current
    return installed.previous


def keeps_others_out(attempt: Attempt) -> bool:
    """Tell whether no version may be imported now, for one of that model is being swapped in or watched.

    A first version in probation keeps none out: there is nothing to go back to, and a line may stand still for days.
    """
    return attempt.state is S.ACTIVATING or (attempt.state is S.PROBATION and attempt.former is not None)


def _confirm(order: Order, attempt: Attempt | None) -> Outcome:
    waits = attempt is not None and attempt.hold is not None
    if attempt is None or not waits or attempt.hold is None:
        return Refused(code=_CONFLICT, text=f"No version of {order.model} awaits a confirmation.")
    if attempt.hold.reason is not HoldReason.AWAITING_CONFIRMATION:
        why = attempt.hold.reason.replace("_", " ")
        return Refused(code=_CONFLICT, text=f"{order.model} awaits no confirmation; it waits for this: {why}.")
    if order.digest not in (None, attempt.digest):
        return Refused(code=_CONFLICT, text=f"By now it is version {attempt.digest[:12]} that awaits a confirmation.")
    return Confirms(attempt=attempt)


def _roll_back(order: Order, model: str, attempt: Attempt | None, installed: Installed) -> Outcome:
    is_begun = attempt is not None and attempt.state in _BEGUN
    target = way_back(attempt, installed)
    if target is None:
        return Refused(code=_NOT_FOUND, text=f"There is no former version of {model} on this device to go back to.")
    if order.digest not in (None, target):
        return Refused(code=_CONFLICT, text=f"By now it is version {target[:12]} that would come back.")
    if attempt is not None and is_begun:
        if attempt.fault is not None:
            return Obeyed(text=f"Version {attempt.digest[:12]} is being taken back already.")
        return TakesBack(attempt=attempt)
    return Deploys(model=model, digest=target, release=None, urgent=True)


def _import(order: Order, model: str, attempt: Attempt | None) -> Outcome:
    if order.digest is None or order.release is None:
        return Refused(code="usage.invalid", text="The order does not say which version.")
    if attempt is not None and keeps_others_out(attempt):
        return Refused(
            code=_CONFLICT,
            text=f"Version {attempt.digest[:12]} of {model} is in {attempt.state.value}. Let it pass, confirm it, or "
            f"roll it back first: `lineside models rollback {model}`.",
        )
    return Deploys(model=model, digest=order.digest, release=order.release, urgent=False)
