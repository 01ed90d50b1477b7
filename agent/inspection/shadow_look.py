"""A candidate's look at one part: on a borrowed core, and ended as soon as the active version needs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agent.clock import Clock
from agent.inspection import judge, regions
from agent.inspection.judge import Judgement
from agent.inspection.shadow_candidate import Candidate, Eye
from agent.inspection.shadow_mailbox import Picture
from agent.inspection.shadow_pair import Sight, Skip
from agent.inspection.turns import Turns
from agent.threads import Worker
from agent.vision.candidates import Unusable
from wire.errors import LinesideError
from wire.inspection import Reason, Verdict

CORE_WAIT_S: Final = 2.0
_POLL_S: Final = 0.004


class Looker:
    """Used by one thread; `candidate` and `since_ns` may be read by others.

    Attributes:
        looking: who looks now, and since when (monotonic); None while nobody does.
    """

    def __init__(self, turns: Turns, clock: Clock) -> None:
        self._turns = turns
        self._clock = clock
        self.looking: tuple[Candidate, int] | None = None

    def sights(
        self, candidate: Candidate, eyes: Mapping[str, Eye], pictures: Mapping[str, Picture], worker: Worker
    ) -> dict[str, Sight] | Skip:
        """Look at each view once a core is idle; return why that was not possible within `CORE_WAIT_S`.

        A view without verdict is one of the candidate's: it would have had none on the line either.
        """
        candidate.begin()
        until_ns = self._clock.monotonic_ns() + int(CORE_WAIT_S * 1e9)
        while not self._turns.borrow(candidate.revoke):
            worker.beat()
            if self._clock.wait(worker.stop, _POLL_S) or candidate.stopped:
                return Skip.STOPPED
            if self._clock.monotonic_ns() > until_ns:
                candidate.note_unable(self._clock.monotonic_ns())
                return Skip.NO_CORE
        self.looking = (candidate, self._clock.monotonic_ns())
        try:
            sights = _looked(candidate, eyes, pictures)
        finally:
            self.looking = None
            self._turns.end_borrowing()
        if candidate.stopped:
            return Skip.STOPPED
        if sights is None:
            candidate.note_unable(self._clock.monotonic_ns())
            return Skip.YIELDED
        candidate.note_look()
        return sights


def _looked(candidate: Candidate, eyes: Mapping[str, Eye], pictures: Mapping[str, Picture]) -> dict[str, Sight] | None:
    """Return what each view shows; None where the core was taken back before the end."""
    sights: dict[str, Sight] = {}
    for view, eye in eyes.items():
        if candidate.revoked:
            return None
        picture = pictures[view]
        try:
            findings = eye.pipeline.look(picture).findings
        except LinesideError as error:
            if candidate.revoked:
                return None
            judgement = Judgement(verdict=Verdict.NO_VERDICT, reason=Reason.RUNTIME_ERROR, why=error.message)
            sights[view] = Sight(judgement=judgement)
            continue
        judgement = judge.judge(findings, eye.rules, regions.size_of(picture))
        sights[view] = Sight(judgement=judgement, findings=() if isinstance(findings, Unusable) else findings)
    return sights
