"""Swaps versions: activates, commits and reverts, each journaled before it is done."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Protocol

from agent.deploy import plan
from agent.deploy.attempt import Attempt, Fault, FaultKind
from agent.deploy.logbook import Logbook
from agent.deploy.store import Store
from wire import package
from wire.deployment import DeploymentState as S
from wire.errors import LinesideError

log = logging.getLogger(__name__)


class Activator(Protocol):
    """What swaps models on this device's stations."""

    def activate(self, package: package.Package) -> str:
        """Build the session beside the old one, swap between two parts, and return the digest the session now in use
        holds. Raises LinesideError where it could not; the old session then goes on wherever possible.
        """

    def inferring(self, model: str) -> str | None:
        """Return the digest of the session in use, read from the session; None where none is."""


class Swap:
    """The steps that change which version judges parts, and which one is loaded at boot."""

    def __init__(self, store: Store, activator: Activator, logbook: Logbook) -> None:
        self._store = store
        self._activator = activator
        self._logbook = logbook

    def commit(self, attempt: Attempt, step: plan.Commit) -> None:
        """Make the version in use the one loaded at boot, and end well."""
        self._store.commit(attempt.model, step.digest)
        self._logbook.enter(replace(attempt, fault=None), step.end)

    def fail(self, attempt: Attempt, step: plan.Fail) -> None:
        """End without the version."""
        if attempt.state is S.ACTIVATING and self._store.installed(attempt.model).current == attempt.digest:
            self._store.restore(attempt.model, attempt.former)
        self._logbook.enter(attempt.failed(step.code, step.reason), step.end)

    def activate(self, attempt: Attempt, step: plan.Activate) -> None:
        """Build the session beside the old one and swap."""
        if attempt.state is not S.ACTIVATING:
            attempt = self._logbook.enter(replace(attempt, former=step.former), S.ACTIVATING, tries=1)
        else:
            attempt = self._logbook.begin(attempt)
        try:
            active = self._activator.activate(self._store.package(attempt.digest))
            if active != attempt.digest:
                raise LinesideError("deployment.activation_failed", f"The session holds {active[:12]} instead.")  # noqa: TRY301
        except LinesideError as error:
            fault = Fault(kind=FaultKind.FAILURE, code="deployment.activation_failed", reason=str(error))
            self._logbook.keep(replace(attempt, fault=fault))

    def revert(self, attempt: Attempt, step: plan.Revert) -> None:
        """Go back to the former version."""
        attempt = self._logbook.begin(attempt.failed(step.code, step.reason))
        self._store.restore(attempt.model, step.former)
        try:
            if self._activator.inferring(attempt.model) != step.former:
                self._activator.activate(self._store.package(step.former))
        except LinesideError as error:
            log.exception("%s: going back failed.", attempt.model, extra={"event": "revert.failed"})
            reason = f"{step.reason} Going back to {step.former[:12]} failed: {error}"
            attempt = attempt.failed("deployment.revert_failed", reason)
            self._logbook.enter(attempt, S.FAILED_REVERT_FAILED)
            return
        if self._activator.inferring(attempt.model) == step.former:
            self._logbook.enter(attempt, S.FAILED_REVERTED)
