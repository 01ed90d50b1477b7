"""Gathers the facts a decision needs: what the journal says, what runs, what disk, memory, line and clock allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.clock import Clock
from agent.deploy import headroom, probation
from agent.deploy.attempt import Attempt
from agent.deploy.facts import Facts, Limits
from agent.deploy.journal import Journal
from agent.deploy.logbook import Logbook
from agent.deploy.observed import Observed
from agent.deploy.pauses import Pauses
from agent.deploy.room import Room
from agent.deploy.swap import Activator
from wire import desired
from wire.deployment import DeploymentState as S
from wire.deployment import HoldReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is in force on this device.

    Args:
        limits: after which a deployment is given up.
        probation: what a version must show.
        confirm: a person confirms each swap.
        has_windows: the site has maintenance windows.
        keep_free_memory_mb: must be left beside a second session, in 2**20 bytes.
    """

    limits: Limits = field(default_factory=Limits)
    probation: probation.ProbationLimits = field(default_factory=probation.ProbationLimits)
    confirm: bool = False
    has_windows: bool = False
    keep_free_memory_mb: float = 64.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Where facts come from.

    Args:
        not_now: why no version may be swapped on this line at this moment, None where one may.
        not_now_words: what a person must know beside that.
        available_mb: memory that may still be taken, None where nobody knows.
    """

    journal: Journal
    logbook: Logbook
    activator: Activator
    observed: Observed
    pauses: Pauses
    room: Room
    clock: Clock
    not_now: Callable[[], HoldReason | None]
    rules: Rules
    not_now_words: Callable[[], str] = str
    available_mb: Callable[[], float | None] = headroom.available_mb

    def facts(
        self,
        model: str,
        entry: desired.DesiredModel | None,
        unneeded: Callable[[], tuple[str, ...]],
        *,
        document_known: bool,
    ) -> Facts:
        """Return the facts about one model.

        Args:
            entry: what is desired of it.
            unneeded: looks for what nothing on the disk refers to; asked only where it may be collected.
            document_known: the desired document is.
        """
        remembered = self.journal.of(model)
        attempt = self.logbook.latest(model)
        no_room = entry is not None and self._no_room(attempt, entry)
        may_collect = no_room or attempt is None or attempt.has_ended
        inferring = self.activator.inferring(model)
        not_now = self.not_now() if attempt is not None and attempt.state is S.STAGED else None
        return Facts(
            now=self.clock.now_utc(),
            attempt=attempt,
            document_known=document_known,
            ended_before=entry is not None and remembered.has_ended(entry.deployment_id),
            inferring=inferring,
            waiting=self.pauses.lasts(model),
            unneeded=unneeded() if may_collect else (),
            no_room=no_room,
            not_now=not_now,
            not_now_words=self.not_now_words() if not_now is not None else "",
            confirm=self.rules.confirm,
            has_windows=self.rules.has_windows,
            exclusive=attempt is not None and self._is_exclusive(attempt, inferring),
            finding=self.observed.finding(attempt) if attempt is not None else None,
            limits=self.rules.limits,
        )

    def _no_room(self, attempt: Attempt | None, entry: desired.DesiredModel) -> bool:
        """Tell whether a download is next, and there is no room for it."""
        if attempt is None or attempt.deployment_id != entry.deployment_id:
            return self.room.lacks(entry.active, is_held=False)
        if attempt.state not in (S.QUEUED, S.DOWNLOADING):
            return False
        return self.room.lacks(entry.active, is_held=attempt.hold is not None)

    def _is_exclusive(self, attempt: Attempt, inferring: str | None) -> bool:
        """Tell whether a swap is next, and the two sessions do not fit in memory together."""
        is_next = attempt.state in (S.STAGED, S.ACTIVATING) and inferring not in (None, attempt.digest)
        if not is_next or attempt.tested is None:
            return False
        return not headroom.fits(self.available_mb(), attempt.tested.memory_mb, self.rules.keep_free_memory_mb)
