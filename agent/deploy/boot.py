"""What happens before any model is loaded: the store is put in order, and the versions to load are chosen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from agent.deploy import plan
from agent.deploy.journal import Journal
from agent.deploy.store import Store
from wire import deployment, package
from wire.deployment import DeploymentState as S
from wire.errors import LinesideError

log = logging.getLogger(__name__)

# What a start costs of an attempt's time, so that one whose agent is killed again and again ends as well.
BOOT_COSTS_S: Final = 60.0
GOOD_ENDS: Final = (S.SUCCEEDED, S.ALREADY_INSTALLED)


def recover(store: Store, journal: Journal) -> None:
    """Bring the store in order; call it once, at start, before any model is loaded.

    Leftovers of interrupted writes go; a lost record of what is installed is made anew from the journal. A version
    found current in an attempt that never ended well counts one more try: after the last one the former version
    becomes current again before anything is loaded, so that a version that ends the agent cannot do so for ever. Any
    other attempt pays for the start with some of its time.
    """
    store.sweep()
    for model in journal.models():
        attempt = journal.of(model).attempt
        installed = store.installed(model)
        if attempt is not None and attempt.state not in (S.ACTIVATING, *deployment.ENDS):
            journal.write(attempt.aged(BOOT_COSTS_S))
        if attempt is None or attempt.state is not S.ACTIVATING:
            good = _last_good(journal, model)
            if installed.current is None and good is not None:
                log.warning("%s: %s is made current again.", model, good[:12], extra={"event": "store.repaired"})
                store.commit(model, good)
        elif installed.current == attempt.digest:
            if attempt.tries < plan.ACTIVATE_TRIES:
                journal.write(replace(attempt, tries=attempt.tries + 1))
            else:
                store.restore(model, attempt.former)


def choices(store: Store, model: str) -> Iterator[package.Package]:
    """Yield the versions of a model that may be loaded at boot, `current` before `previous`.

    A version whose bytes are not what they were when it was verified is left out and logged.
    """
    installed = store.installed(model)
    for digest in (installed.current, installed.previous):
        if digest is None:
            continue
        try:
            yield store.package(digest)
        except LinesideError:
            log.exception("%s: %s cannot be used.", model, digest[:12], extra={"event": "package.damaged"})


def deployment_of(journal: Journal, model: str, digest: str) -> str | None:
    """Return the deployment that brought a version here; None where it is not remembered."""
    remembered = journal.of(model)
    latest = remembered.attempt
    if latest is not None and latest.digest == digest and latest.state in (S.ACTIVATING, *GOOD_ENDS):
        return latest.deployment_id
    ids = [past.deployment_id for past in remembered.past if past.digest == digest and past.state in GOOD_ENDS]
    return ids[-1] if ids else None


def _last_good(journal: Journal, model: str) -> str | None:
    remembered = journal.of(model)
    latest = remembered.attempt
    if latest is not None and latest.state in GOOD_ENDS:
        return latest.digest
    digests = [past.digest for past in remembered.past if past.state in GOOD_ENDS]
    return digests[-1] if digests else None
