"""What happens before any model is loaded: the store is put in order, and the versions to load are chosen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from agent.deploy import plan_swapped
from agent.deploy.attempt import Attempt
from agent.deploy.durable import tidying
from agent.deploy.facts import Installed
from agent.deploy.journal import Journal
from agent.deploy.store import Store
from agent.uplink.ending import Ending
from wire import package
from wire.deployment import DeploymentState as S
from wire.errors import LinesideError

log = logging.getLogger(__name__)

# What a start costs of an attempt's time, so that one whose agent is killed again and again ends as well.
BOOT_COSTS_S: Final = 60.0
GOOD_ENDS: Final = (S.SUCCEEDED, S.ALREADY_INSTALLED)
_BEGUN: Final = (S.ACTIVATING, S.PROBATION)
# A version may take the machine down with it, by a driver or for want of memory, and looks like the weather then. Three
# times in a row, each soon after a start, is no weather.
MACHINE_DOWNS: Final = 3
SOON_S: Final = 600.0
_CRASHED: Final = "The agent ended without notice while this version was in probation."
_WENT_DOWN: Final = (
    f"The machine went down {MACHINE_DOWNS} times in a row, each time within {SOON_S / 60:.0f} minutes of a start with "
    "this version in probation."
)


def recover(store: Store, journal: Journal, *, ended: Ending) -> None:
    """Bring store and journal in order; call it once, at start, before any model is loaded.

    Leftovers of interrupted writes go; a lost record of what is installed is made anew from the journal. An attempt
    pays for the start with some of its time. One crash in probation is a fault: going back for nothing costs another
    deployment, a version that ends the agent again and again costs the line. So is the machine's going down again and
    again. A disk that takes nothing, being full say, changes none of that: what cannot be written is held in memory.

    Args:
        ended: how the agent's last run ended.
    """
    store.sweep()
    for model in journal.models():
        attempt = journal.of(model).attempt
        installed = _installed(store, journal, model)
        if installed.current is not None and store.installed(model).current is None:
            log.warning(
                "%s: %s is made current again.", model, installed.current[:12], extra={"event": "store.repaired"}
            )
            with tidying(store.root):  # `choices` looks in the journal likewise
                store.commit(model, installed.current, installed.previous)
        if attempt is None or attempt.has_ended:
            continue
        if attempt.state is S.ACTIVATING:
            if installed.current == attempt.digest and attempt.tries <= plan_swapped.ACTIVATE_TRIES:
                _note(journal, replace(attempt, tries=attempt.tries + 1))  # it will be loaded now
            continue
        attempt = _started_anew(attempt, ended)
        crash = _crash(attempt, ended)
        if crash and attempt.fault is None and not _is_all_there_is(installed, attempt):
            log.error("%s: %s", model, crash, extra={"event": "deployment.crashed"})
            attempt = attempt.failed("deployment.crashed", crash)
        _note(journal, attempt)


def _note(journal: Journal, attempt: Attempt) -> None:
    """Journal an attempt; where the disk refuses, only remember it: it decides which version is loaded now."""
    try:
        journal.write(attempt)
    except LinesideError as error:
        log.warning("%s: the start is not written down: %s", attempt.model, error, extra={"event": "journal.held"})
        journal.remember(attempt)


def _installed(store: Store, journal: Journal, model: str) -> Installed:
    """Return what is installed of a model; where no record of that is left, the journal says which was good."""
    installed = store.installed(model)
    good = _last_good(journal, model)
    if installed.current is not None or good is None:
        return installed
    return Installed(current=good, previous=_good_before(journal, model, good))


def _started_anew(attempt: Attempt, ended: Ending) -> Attempt:
    """Return an attempt as the start leaves it: how often the machine went down early is counted, and the time anew."""
    downs = attempt.machine_downs
    if attempt.state is S.PROBATION and ended is Ending.POWER_CUT:
        downs = downs + 1 if attempt.since_start_s < SOON_S else 0
    elif ended is Ending.CLEAN:
        downs = 0
    return replace(attempt.aged(BOOT_COSTS_S), machine_downs=downs, since_start_s=0.0)


def _crash(attempt: Attempt, ended: Ending) -> str:
    """Return what the version in probation is blamed for, as a sentence; nothing where it is not."""
    if attempt.state is not S.PROBATION:
        return ""
    if ended is Ending.KILLED:
        return _CRASHED
    return _WENT_DOWN if attempt.machine_downs >= MACHINE_DOWNS else ""


def _is_all_there_is(installed: Installed, attempt: Attempt) -> bool:
    """Tell whether the version in probation is the current one by now, and there is none before it.

    It has passed, or was current before and is being repaired: taking it away would stop the line for one crash.
    """
    return installed.current == attempt.digest and attempt.former is None


def loadable(installed: Installed, attempt: Attempt | None) -> tuple[str, ...]:
    """Return the versions that may be loaded at boot, the one to prefer first (pure).

    `current` before `previous`; before both the version in probation, which is made current at its end only. A version
    that went wrong in probation, or ended the agent while it was activated as often as is allowed, is none of them.
    """
    kept = [digest for digest in (installed.current, installed.previous) if digest is not None]
    if attempt is None or attempt.state not in _BEGUN:
        return tuple(kept)
    others = tuple(digest for digest in kept if digest != attempt.digest)
    if attempt.state is S.PROBATION:
        return (attempt.digest, *others) if attempt.fault is None else others
    may_try = attempt.fault is None and attempt.tries <= plan_swapped.ACTIVATE_TRIES  # this start is counted
    return tuple(kept) if may_try else others


def choices(store: Store, journal: Journal, model: str) -> Iterator[package.Package]:
    """Yield the versions of a model that may be loaded at boot, the one to prefer first.

    A version whose bytes are not what they were when it was verified, neither in its folder nor as blobs, is left out
    and logged.
    """
    for digest in loadable(_installed(store, journal, model), journal.of(model).attempt):
        try:
            yield store.mended_package(digest)
        except LinesideError:
            log.exception("%s: %s cannot be used.", model, digest[:12], extra={"event": "package.damaged"})


def deployment_of(journal: Journal, model: str, digest: str) -> str | None:
    """Return the deployment that brought a version here; None where it is not remembered."""
    remembered = journal.of(model)
    latest = remembered.attempt
    if latest is not None and latest.digest == digest and latest.state in (*_BEGUN, *GOOD_ENDS):
        return latest.deployment_id
    ids = [past.deployment_id for past in remembered.past if past.digest == digest and past.state in GOOD_ENDS]
    return ids[-1] if ids else None


def _last_good(journal: Journal, model: str) -> str | None:
    """Return the version that was the last to end well, but none that an attempt is about or has failed with since."""
    remembered = journal.of(model)
    latest = remembered.attempt
    if latest is not None and latest.state in GOOD_ENDS:
        return latest.digest
    if latest is not None and latest.state in _BEGUN and latest.former is not None:
        return latest.former
    digests = [past.digest for past in remembered.past if past.state in GOOD_ENDS]
    return next((digest for digest in reversed(digests) if latest is None or digest != latest.digest), None)


def _good_before(journal: Journal, model: str, current: str) -> str | None:
    """Return the version that ended well before the current one, and has not failed since."""
    remembered = journal.of(model)
    words = {past.digest: past.state for past in remembered.past}
    if remembered.attempt is not None:
        words[remembered.attempt.digest] = remembered.attempt.state
    digests = [past.digest for past in remembered.past if words[past.digest] in GOOD_ENDS and past.digest != current]
    return digests[-1] if digests else None
