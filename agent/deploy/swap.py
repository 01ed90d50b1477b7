"""Swaps versions: activates, watches, commits and reverts, each journaled before it is done."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Protocol

from agent.deploy import plan_swapped
from agent.deploy.attempt import Attempt
from agent.deploy.figures import Figures
from agent.deploy.logbook import Logbook
from agent.deploy.pauses import Pauses
from agent.deploy.steps import Activate, Commit, Fail, Revert, Watch
from agent.deploy.store import Store
from wire import package
from wire.deployment import DeploymentState as S
from wire.errors import LinesideError

log = logging.getLogger(__name__)


class Activator(Protocol):
    """What swaps models on this device's stations."""

    def activate(self, package: package.Package, *, exclusive: bool = False, going_back: bool = False) -> str:
        """Build the session beside the old one, swap between two parts, and return the digest the session now in use
        holds. Raises LinesideError where it could not; the old session then goes on wherever possible.

        Args:
            exclusive: close the old session first, for the two do not fit in memory.
            going_back: to a version that was in use before; a recipe that does not fit it is refused and stops nothing.
        """

    def inferring(self, model: str) -> str | None:
        """Return the digest of the session in use, read from the session; None where none is."""

    def figures(self, model: str) -> Figures | None:
        """Return what the version in use has done since its session came into use; None where none is."""

    def recent_figures(self, model: str) -> Figures | None:
        """Return what the version in use did lately, which the one after it is compared with; None where none is."""


class Swap:
    """The steps that change which version judges parts, and which one is loaded at boot."""

    def __init__(self, store: Store, activator: Activator, logbook: Logbook, pauses: Pauses) -> None:
        self._store = store
        self._activator = activator
        self._logbook = logbook
        self._pauses = pauses

    def activate(self, attempt: Attempt, step: Activate) -> None:
        """Build the session beside the old one and swap; which version is loaded at boot does not change."""
        self._pauses.end(attempt.model)  # those of going back begin anew
        if attempt.state is not S.ACTIVATING:
            begun = replace(
                attempt,
                former=step.former,
                exclusive=step.exclusive,
                baseline=self._figures_of(attempt.model, step.former),
                fault=None,
            )
            attempt = self._logbook.enter(begun, S.ACTIVATING, tries=1)
        else:
            attempt = self._logbook.begin(replace(attempt, exclusive=step.exclusive))
        try:
            active = self._activator.activate(
                self._store.package(attempt.digest), exclusive=step.exclusive, going_back=attempt.urgent
            )
            if active != attempt.digest:
                raise LinesideError("deployment.activation_failed", f"The session holds {active[:12]} instead.")  # noqa: TRY301
            if self._activator.inferring(attempt.model) is None:
                raise LinesideError(  # noqa: TRY301
                    "deployment.activation_failed",
                    f"No recipe in force on this device looks with {attempt.model}. Give a station one that does, then "
                    "ask for it again; `lineside status` names the recipes that are refused.",
                )
        except LinesideError as error:
            failed = attempt.failed("deployment.activation_failed", str(error))
            self._logbook.note(failed)  # also where it cannot be written now: the line may stand without a version
            self._logbook.keep(failed)

    def watch(self, attempt: Attempt, step: Watch) -> None:
        """Begin the probation of the version in use; what a person confirmed before it counts no longer."""
        self._logbook.enter(
            replace(attempt, confirmed=False, evidence=Figures(digest=step.digest), watched_s=0.0), S.PROBATION
        )

    def commit(self, attempt: Attempt, step: Commit) -> None:
        """Make the version in use the one loaded at boot, and end well."""
        self._store.commit(attempt.model, step.digest, attempt.former)
        self._logbook.enter(replace(attempt, fault=None), step.end)

    def fail(self, attempt: Attempt, step: Fail) -> None:
        """End without the version."""
        self._forget(attempt)
        self._logbook.enter(attempt.failed(step.code, step.reason), step.end)

    def revert(self, attempt: Attempt, step: Revert) -> None:
        """Go back to the former version; where that fails, it is tried again after a pause, but not for ever."""
        attempt = attempt.failed(step.code, step.reason)
        try:
            attempt = self._logbook.begin(attempt)
            self._forget(attempt)
        except LinesideError:
            self.go_back_unwritten(attempt, step)
            raise
        try:
            active = self._back_in_use(attempt, step.former)
        except LinesideError as error:
            log.exception("%s: going back failed.", attempt.model, extra={"event": "revert.failed"})
            if plan_swapped.reverts_used_up(attempt):
                reason = f"{step.reason} Going back to {step.former[:12]} failed: {error}"
                self._logbook.enter(attempt.failed("deployment.revert_failed", reason), S.FAILED_REVERT_FAILED)
            else:
                self._pauses.begin(attempt.model)
            return
        # None: no station looks with this model at the moment.
        if active == step.former and self._activator.inferring(attempt.model) in (step.former, None):
            self._logbook.enter(attempt, S.FAILED_REVERTED)
        else:
            self._pauses.begin(attempt.model)

    def go_back_unwritten(self, attempt: Attempt, step: Revert) -> None:
        """Go back in memory only, where nothing can be written now: no part is judged by a bad version for that.

        The attempt goes on, with its fault; the first step that can be written finds the former version in use.
        """
        self._logbook.note(attempt.failed(step.code, step.reason))
        try:
            self._back_in_use(attempt, step.former)
        except LinesideError:
            log.exception("%s: going back failed.", attempt.model, extra={"event": "revert.failed"})
        if self._activator.inferring(attempt.model) != step.former:
            self._pauses.begin(attempt.model)

    def _back_in_use(self, attempt: Attempt, former: str) -> str:
        """Build the former version's session unless it is in use; return the digest that is then."""
        active = self._activator.inferring(attempt.model)
        if active == former:
            return active
        return self._activator.activate(
            self._store.mended_package(former), exclusive=attempt.exclusive, going_back=True
        )

    def _forget(self, attempt: Attempt) -> None:
        """Have the former version loaded at boot, where this one is by now.

        It is where a kill came between its commit and the journal's word on it, and where it was the current one all
        along, and damaged. A version that a person wanted back stays at hand. The only version there is stays, once
        it judges parts: nothing else could be loaded.
        """
        is_only = attempt.state is S.PROBATION and attempt.former is None
        begun = attempt.state in (S.ACTIVATING, S.PROBATION) and not is_only
        if not begun or self._store.installed(attempt.model).current != attempt.digest:
            return
        if attempt.urgent and attempt.former is not None:
            self._store.commit(attempt.model, attempt.former)
        else:
            self._store.restore(attempt.model, attempt.former)

    def _figures_of(self, model: str, digest: str | None) -> Figures | None:
        figures = self._activator.recent_figures(model)
        return figures if figures is not None and figures.digest == digest else None
