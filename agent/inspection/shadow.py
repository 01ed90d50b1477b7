"""Shows candidates the parts that the active versions have judged, whenever a core is idle, and tells what they say.

A candidate never stands in the way of the line: it is shown a part after the verdict has left, on one thread of low
priority for the whole device, with one place for one part. It borrows an idle core and loses it as soon as a look of
the active version needs it. Whatever that leaves out is counted, with the reason.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from dataclasses import dataclass
from typing import Final, Protocol

from agent.capture.encode import Spool
from agent.capture.feed import Lease
from agent.clock import Clock
from agent.inspection import shadow_pair
from agent.inspection.part import Part
from agent.inspection.shadow_account import Account
from agent.inspection.shadow_candidate import Candidate
from agent.inspection.shadow_look import Looker
from agent.inspection.shadow_mailbox import CopiedPart, Mailbox, Meant, Picture
from agent.inspection.shadow_pair import Skip
from agent.inspection.shadow_pictures import ShadowPictures
from agent.inspection.turns import Turns
from agent.threads import Worker
from wire.errors import LinesideError
from wire.inspection import Inspection, Verdict
from wire.messages import Lane, ShadowHealth

log = logging.getLogger(__name__)

NICENESS: Final = 10
FAILURES_MOST: Final = 10
LOOK_LIMIT_S: Final = 10.0
_TAKE_TIMEOUT_S: Final = 0.5
# The wire's own bound (wire.messages.StationHealth).
_ACCOUNTS_MOST: Final = 16


class Outbox(Protocol):
    """What is needed of the outbox."""

    def put(self, lane: Lane, body: object) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a candidate was stopped: a key of the error register, and a sentence."""

    code: str
    reason: str


class Shadows:
    """All candidates of the device. Stations call `offer`, one thread runs `run`, the keeper's begins and ends them.

    Args:
        turns: the cores, shared with the stations.
        spool: takes the pictures of parts that the two versions disagree about.
    """

    def __init__(self, *, turns: Turns, outbox: Outbox, spool: Spool, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock
        self._looker = Looker(turns, clock)
        self._pictures = ShadowPictures(spool, clock)
        self._mailbox = Mailbox()
        self._candidates: dict[str, Candidate] = {}
        self._failures: dict[str, Failure] = {}
        self._lock = threading.Lock()  # of the two dicts above, and of the accounts
        self._accounts: dict[tuple[str, str, str], Account] = {}

    # Called by the keeper's thread

    def begin(self, candidate: Candidate) -> None:
        """Have a candidate see the parts from now on, instead of any other of its model."""
        self.end(candidate.model)
        with self._lock:
            self._candidates = {**self._candidates, candidate.model: candidate}

    def set_rate(self, model: str, rate: float) -> None:
        """Change the share of parts a candidate is meant to see."""
        candidate = self._candidates.get(model)
        if candidate is not None:
            candidate.rate = rate

    def end(self, model: str) -> None:
        """Stop a model's candidate, if it has one, and forget why one was stopped."""
        candidate = self._candidates.get(model)
        if candidate is not None:
            self._remove(candidate)
        self._failures.pop(model, None)

    def failure(self, model: str) -> Failure | None:
        """Return why a model's candidate was stopped by itself; None where none was since `begin` or `end`."""
        return self._failures.get(model)

    def watch(self) -> None:
        """Stop a candidate that does not come back from its look; call it now and then."""
        looking = self._looker.looking
        if looking is not None and self._clock.monotonic_ns() - looking[1] > LOOK_LIMIT_S * 1e9:
            self._fail(looking[0], "model.too_slow", f"A look at one part takes over {LOOK_LIMIT_S:g} s.")

    def close(self) -> None:
        """Stop all candidates."""
        for model in self._candidates:
            self.end(model)

    # Called by any thread

    def running(self, model: str) -> tuple[str, float] | None:
        """Return digest and rate of a model's candidate, the digest read from its session; None where none runs."""
        candidate = self._candidates.get(model)
        return (candidate.digest, candidate.rate) if candidate is not None else None

    def refusals(self, model: str) -> tuple[str, ...]:
        """Return which recipes do not fit a model's candidate, and why, in sentences."""
        candidate = self._candidates.get(model)
        return candidate.refusals if candidate is not None else ()

    def health(self, station: str) -> tuple[ShadowHealth, ...]:
        """Return a station's accounts, the latest last; those of candidates that were stopped stay as they ended."""
        with self._lock:
            mine = [account for key, account in self._accounts.items() if key[0] == station]
        return tuple(account.health() for account in mine)

    # Called by the stations' threads, when the verdict has left

    def offer(self, part: Part, inspection: Inspection) -> None:
        """Show candidates a part that was just recorded and answered; its frames are still leased.

        Costs nothing where no candidate runs, a hash where one does, and a copy of the pictures only where the part is
        to be judged next.
        """
        if not self._candidates:
            return
        try:
            self._offer(part, inspection)
        except Exception:  # the line goes on, whatever a candidate comes to
            log.exception("A part could not be shown to a candidate.", extra={"event": "shadow.failed"})

    def _offer(self, part: Part, inspection: Inspection) -> None:
        meant = [
            one
            for candidate in self._candidates.values()
            if (one := self._meant(candidate, part, inspection)) is not None
        ]
        if not meant:
            return
        if not self._mailbox.reserve():
            for one in meant:
                one.account.skip(Skip.BUSY)
            return
        try:
            pictures = self._mailbox.copy(_pictures_of(part, {one.candidate.model for one in meant}))
        except BaseException:
            self._mailbox.free(forget=True)
            for one in meant:
                one.account.skip(Skip.ERROR)
            raise
        recipe = part.setup.recipe
        self._mailbox.put(CopiedPart(inspection=inspection, recipe=recipe, pictures=pictures, meant=tuple(meant)))

    def _meant(self, candidate: Candidate, part: Part, inspection: Inspection) -> Meant | None:
        """Count a part that is chosen for a candidate; return the two where there is nothing against it so far."""
        views = shadow_pair.views_of(inspection, candidate.model)
        if not views or candidate.digest in {view.model_digest for view in views}:
            return None
        rate = candidate.rate
        if not shadow_pair.is_chosen(candidate.digest, inspection.id, rate):
            return None
        account = self._account(inspection.station, candidate)
        account.choose()
        why = shadow_pair.why_not(inspection, candidate.model)
        if why is None and candidate.refuses(inspection.station, part.setup.recipe):
            why = Skip.OUT_OF_BOUNDS
        if why is None and candidate.rests(self._clock.monotonic_ns()):
            why = Skip.NO_CORE
        if why is None:
            return Meant(candidate=candidate, account=account, rate=rate)
        account.skip(why)
        return None

    # Called by the candidates' own thread

    def run(self, worker: Worker) -> None:
        """Judge one part after the other until told to stop."""
        with contextlib.suppress(OSError):  # where threads have no priority of their own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while not worker.stop.is_set():
            worker.beat()
            part = self._mailbox.take(_TAKE_TIMEOUT_S)
            if part is not None:
                try:
                    for one in part.meant:
                        self._see(part, one, worker)
                finally:
                    self._mailbox.free(forget=not self._candidates)

    def _see(self, part: CopiedPart, meant: Meant, worker: Worker) -> None:
        try:
            why = self._compare(part, meant, worker)
        except Exception:  # outputs that nobody foresaw must not cost the other candidates their parts
            log.exception("A candidate failed at a part.", extra={"event": "shadow.failed"})
            self._note_failure(meant.candidate, "the agent could not make sense of what it put out.")
            why = Skip.ERROR
        if why is not None:
            meant.account.skip(why)

    def _compare(self, part: CopiedPart, meant: Meant, worker: Worker) -> Skip | None:
        """Judge a part and tell what came of it; return why not, None where it was told and counted."""
        candidate = meant.candidate
        if candidate.stopped:
            return Skip.STOPPED
        eyes = candidate.eyes(part.inspection.station, part.recipe)
        if eyes is None:
            log.warning("A recipe does not fit: %s", candidate.refusals[-1], extra={"event": "shadow.unfit"})
            return Skip.OUT_OF_BOUNDS
        sights = self._looker.sights(candidate, eyes, part.pictures, worker)
        if isinstance(sights, Skip):
            return sights
        pair = shadow_pair.pair_of(
            part.inspection, model=candidate.model, digest=candidate.digest, rate=meant.rate, sights=sights
        )
        pair = shadow_pair.fitted(shadow_pair.with_pictures(pair, self._pictures.keep(part, pair)))
        try:
            self._outbox.put(Lane.SHADOW, pair)
        except LinesideError as error:
            log.debug("A pair finds no room: %s", error)
            return Skip.NO_ROOM
        meant.account.compare(agreed=pair.verdict is pair.active_verdict)
        failed = [one.judgement for one in sights.values() if one.judgement.verdict is Verdict.NO_VERDICT]
        if failed:
            self._note_failure(candidate, failed[0].why)
        else:
            candidate.failures_in_row = 0
        return None

    def _note_failure(self, candidate: Candidate, why: str) -> None:
        candidate.failures_in_row += 1
        if candidate.failures_in_row >= FAILURES_MOST:
            reason = f"It had no verdict for {FAILURES_MOST} parts in a row, the last time because: {why}"
            self._fail(candidate, "model.unusable_output", reason)

    def _fail(self, candidate: Candidate, code: str, reason: str) -> None:
        if not candidate.stopped:
            self._failures[candidate.model] = Failure(code=code, reason=reason)
            self._remove(candidate)

    def _remove(self, candidate: Candidate) -> None:
        candidate.stopped = True
        with self._lock:
            self._candidates = {model: one for model, one in self._candidates.items() if one is not candidate}
        candidate.revoke()
        candidate.session.close()

    def _account(self, station: str, candidate: Candidate) -> Account:
        key = (station, candidate.model, candidate.digest)
        with self._lock:
            account = self._accounts.get(key)
            if account is None:
                account = self._accounts[key] = Account(candidate.model, candidate.digest)
                mine = [other for other in self._accounts if other[0] == station]
                for old in mine[:-_ACCOUNTS_MOST]:
                    del self._accounts[old]
            return account


def _pictures_of(part: Part, models: set[str]) -> dict[str, Picture]:
    """Return the pictures of the views that name these models; they belong to the feed."""
    return {
        view.view: frame.frame.image_bgr
        for view, frame in zip(part.setup.views, part.frames, strict=True)
        if view.model in models and isinstance(frame, Lease)
    }
