"""Takes down where each attempt stands and how long it has taken, then reports it: the journal first, always."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from agent.clock import Clock
from agent.deploy.attempt import Attempt
from agent.deploy.figures import Figures
from agent.deploy.journal import Journal
from agent.deploy.probation import is_worth_telling
from wire import deployment
from wire.deployment import DeploymentReport, HoldReason, ProbationReport
from wire.deployment import DeploymentState as S
from wire.errors import LinesideError
from wire.messages import Severity

log = logging.getLogger(__name__)

KEEP_EVERY_S: Final = 600.0
# What a version has done in probation would have to be done again.
KEEP_PROBATION_EVERY_S: Final = 60.0
_OTHERWISE: Final = frozenset({"deployment.overruled", "deployment.withdrawn"})
Tell = Callable[[str, Severity, str], None]


def tell_nobody(_name: str, _severity: Severity, _text: str) -> None:
    """Tell nobody."""


class Logbook:
    """The way of every attempt into the journal and to the fleet.

    Args:
        reports: takes each report for good (the outbox); raising makes it be offered again.
        inferring: the digest of the session in use for a model, None where none is.
        probation: what an attempt's report says of its probation, None before it.
        tell: takes events for people.
    """

    def __init__(
        self,
        journal: Journal,
        reports: Callable[[DeploymentReport], None],
        clock: Clock,
        inferring: Callable[[str], str | None],
        probation: Callable[[Attempt], ProbationReport | None],
        tell: Tell = tell_nobody,
    ) -> None:
        self._journal = journal
        self._reports = reports
        self._clock = clock
        self._inferring = inferring
        self._probation = probation
        self._tell = tell
        self._reported: dict[str, tuple[str, int]] = {}
        self._since_ns = dict.fromkeys(journal.models(), clock.monotonic_ns())  # up to when time is counted

    def latest(self, model: str) -> Attempt | None:
        """Return a model's latest attempt with its time counted up to now."""
        attempt = self._journal.of(model).attempt
        return attempt.aged(self._elapsed_s(model)) if attempt is not None else None

    def count_time(self, model: str, seen: Callable[[Attempt], Figures | None]) -> None:
        """Take down now and then how long an attempt has taken, and what was seen, so that a kill forgets little.

        Where probation has come a good part further by then, that is reported, too.
        """
        attempt = self._journal.of(model).attempt
        if attempt is None or attempt.has_ended:
            return
        every_s = KEEP_PROBATION_EVERY_S if attempt.state is S.PROBATION else KEEP_EVERY_S
        if self._elapsed_s(model) > every_s:
            attempt = replace(attempt, evidence=seen(attempt))
            goes_on = attempt.state is S.PROBATION and attempt.hold is None and attempt.fault is None
            told = self._probation(attempt) if goes_on else None
            if told is not None and is_worth_telling(attempt.told, told):
                self._say(attempt)
                self.report(model)
            else:
                self.keep(attempt)

    def keep(self, attempt: Attempt) -> Attempt:
        """Journal an attempt without a report; the time up to now is counted for what it was in until now."""
        before = self._journal.of(attempt.model).attempt
        if before is not None and before.deployment_id == attempt.deployment_id:
            counted = before.aged(self._elapsed_s(attempt.model))
            entered = attempt.state is S.PROBATION and before.state is not S.PROBATION
            held_s = {} if entered else counted.held_s  # what probation awaits has a time of its own
            attempt = replace(
                attempt,
                spent_s=counted.spent_s,
                held_s=held_s,
                watched_s=counted.watched_s,
                since_start_s=counted.since_start_s,
            )
        self._journal.write(attempt)
        self._since_ns[attempt.model] = self._clock.monotonic_ns()
        return attempt

    def note(self, attempt: Attempt) -> None:
        """Hold what is known of an attempt by now in memory, for the next word that the journal takes."""
        self._journal.remember(attempt)

    def begin(self, attempt: Attempt) -> Attempt:
        """Journal that the state's step is begun once more."""
        return self.keep(replace(attempt, tries=attempt.tries + 1))

    def enter(self, attempt: Attempt, state: S, tries: int = 0) -> Attempt:
        """Journal a new state, then report it.

        Raises:
            LinesideError: `deployment.illegal_transition`, or what journal and `reports` raise.
        """
        if state not in deployment.TRANSITIONS[attempt.state]:
            raise LinesideError(
                "deployment.illegal_transition", f"{attempt.model}: from {attempt.state} to {state} there is no way."
            )
        begun = max(1, attempt.tries)
        attempt = self._say(replace(attempt, state=state, tries=tries, begun=begun, hold=None))
        log.info("%s %s: %s.", attempt.model, attempt.digest[:12], state, extra={"event": "deployment.moved"})
        self.report(attempt.model)
        self._tell_of_revert(attempt)
        return attempt

    def hold(self, attempt: Attempt, hold: deployment.Hold | None) -> Attempt:
        """Journal what an attempt waits for, or that it no longer does, then report it."""
        attempt = self._say(replace(attempt, hold=hold))
        if hold is not None:
            log.warning(
                "%s %s waits: %s, at most until %s.",
                attempt.model,
                attempt.digest[:12],
                hold.reason.replace("_", " "),
                hold.deadline.isoformat(timespec="minutes"),
                extra={"event": "deployment.waits"},
            )
        else:
            log.info("%s %s goes on.", attempt.model, attempt.digest[:12], extra={"event": "deployment.goes_on"})
        self.report(attempt.model)
        self._tell_of_question(attempt)
        return attempt

    def report(self, model: str) -> None:
        """Hand over the report of the journal's latest word on a model, unless that was done since boot.

        After a boot it is made again, the same in every byte; the fleet takes an equal sequence for a duplicate.
        """
        attempt = self._journal.of(model).attempt
        if attempt is None or attempt.report is None:
            return
        key = (attempt.deployment_id, attempt.sequence)
        if self._reported.get(model) != key:
            self._reports(attempt.report)
            self._reported[model] = key

    def _say(self, attempt: Attempt) -> Attempt:
        return self.keep(
            replace(
                attempt,
                sequence=attempt.sequence + 1,
                at=self._clock.now_utc(),
                inferring=self._inferring(attempt.model),
                told=self._probation(attempt),
            )
        )

    def _tell_of_question(self, attempt: Attempt) -> None:
        if attempt.hold is None or attempt.hold.reason is not HoldReason.AWAITING_CONFIRMATION:
            return
        if attempt.state is S.PROBATION:
            self._tell("deployment.shifted", Severity.ALARM, f"{_name(attempt)}: {attempt.hold.text}")
        else:
            self._tell("deployment.awaits_confirmation", Severity.WARNING, f"{_name(attempt)}: {attempt.hold.text}")

    def _tell_of_revert(self, attempt: Attempt) -> None:
        reason = attempt.fault.reason if attempt.fault is not None else ""
        if attempt.former is None and attempt.fault is not None and attempt.fault.code in _OTHERWISE:
            return  # a first version makes room for what somebody asked for instead, and judges parts until then
        if attempt.state is S.FAILED_REVERT_FAILED or (attempt.state is S.FAILED_REVERTED and attempt.former is None):
            self._tell("deployment.revert_failed", Severity.ALARM, f"{_name(attempt)}: {reason}")
        elif attempt.state is S.FAILED_REVERTED:
            self._tell(
                "deployment.reverted",
                Severity.WARNING,
                f"{_name(attempt)} was taken back; {(attempt.former or '')[:12]} is active again. {reason}",
            )

    def _elapsed_s(self, model: str) -> float:
        now_ns = self._clock.monotonic_ns()
        return max(0.0, (now_ns - self._since_ns.setdefault(model, now_ns)) / 1e9)


def _name(attempt: Attempt) -> str:
    return f"Release {attempt.release} of {attempt.model} ({attempt.digest[:12]})"
