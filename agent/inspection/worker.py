"""One station's worker: each of its threads carries a part from its trigger to its record and its verdict.

Taking a trigger with its frames is done by one thread at a time; judging runs side by side; records and verdicts leave
in the order of the triggers. What must not change: judge, record handed to the outbox, then the verdict leaves. A part
whose record cannot be kept gets NO_VERDICT, since a verdict nobody can account for is worth less than a diverted part.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Protocol

from agent.capture.feed import Feed, Lease
from agent.capture.frame import Ended, Frame, TimeClass
from agent.clock import Clock
from agent.inspection import judge, records, regions
from agent.inspection.frames import FrameFinder
from agent.inspection.ledger import Ledger, Outbox
from agent.inspection.records import Place, Seen, TimeQuality
from agent.inspection.setup import StationSetup, ViewSetup
from agent.inspection.tally import Tally
from agent.line.trigger import Answer, Line, LinePosition, StationState, Trigger
from agent.settings import StationSettings
from agent.threads import Worker
from wire import sampling
from wire.errors import LinesideError
from wire.inspection import Inspection, Reason, Route, Timings, Verdict
from wire.mint import Mint
from wire.sampling import Draw

log = logging.getLogger(__name__)

_TAKE_TIMEOUT_S: Final = 0.2
_SWAP_TIMEOUT_S: Final = 10.0


class Pictures(Protocol):
    """Encodes kept pictures beside the judging, and spools them."""

    def keep(self, frame: Frame) -> Future[str | None]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One part on its way: the ticket is its place in the order of records."""

    ticket: int
    id: str
    trigger: Trigger
    setup: StationSetup
    draw: Draw
    frames: tuple[Lease | Reason, ...]
    retrieve_ms: float
    pictures: tuple[Future[str | None] | None, ...]


class StationWorker:
    """Judges parts at one station for ever, with the setup in force between two parts."""

    def __init__(
        self,
        *,
        device: str,
        settings: StationSettings,
        line: Line,
        feeds: Mapping[str, Feed],
        time_classes: Mapping[str, TimeClass],
        setup: StationSetup,
        outbox: Outbox,
        pictures: Pictures,
        mint: Mint,
        clock: Clock,
        time_quality: Callable[[], TimeQuality],
        thread_count: int = 1,
    ) -> None:
        self.thread_count = thread_count
        self._place = Place(device=device, station=settings.id)
        self._settings = settings
        self._line = line
        self._finder = FrameFinder(feeds, time_classes, settings.frame_tolerance_ms, clock)
        self._pictures = pictures
        self._mint = mint
        self._clock = clock
        self._time_quality = time_quality
        self._setup = setup
        self._pending: StationSetup | None = None
        self._taken = threading.Event()
        self._take_lock = threading.Lock()
        self._order = threading.Condition()
        self._next_ticket = 0
        self._turn = 0
        self._ledger = Ledger(settings.id, outbox, self._missed, records.as_unrecorded)
        self._last_trigger: tuple[str, int] | None = None
        self.tally = Tally()
        self.ended = threading.Event()

    @property
    def setup(self) -> StationSetup:
        """The setup the next part is judged with."""
        return self._setup

    @property
    def missed_count(self) -> int:
        """Parts recorded as passed uninspected since the agent started."""
        return self._ledger.missed_count

    def replace_setup(self, setup: StationSetup, timeout_s: float = _SWAP_TIMEOUT_S) -> None:
        """Have the worker take a new setup between two parts, and wait until it did.

        Raises:
            LinesideError: `deployment.activation_failed` where the worker does not come back from a part in time.
        """
        if self.ended.is_set():
            self._setup = setup
            return
        with self._order:
            self._pending = setup
            self._taken.clear()
        if not self._taken.wait(timeout_s) and not self.ended.is_set():
            with self._order:
                if self._pending is setup:
                    self._pending = None
                    raise LinesideError(
                        "deployment.activation_failed",
                        f"Station {self._settings.id} did not finish its part within {timeout_s:g} s.",
                        "See whether a camera or the model hangs.",
                    )

    def run(self, worker: Worker, number: int = 0) -> None:
        """Carry parts on one of the station's threads until told to stop or the sources have ended.

        Args:
            number: of this thread, below `thread_count`; it uses the pipelines of that number.
        """
        while not worker.stop.is_set() and not self.ended.is_set():
            worker.beat()
            with self._take_lock:
                part = self._take(worker)
            if part is not None:
                self._carry(part, number)

    def inspect(self, trigger: Trigger) -> None:
        """Carry one part on the calling thread."""
        with self._take_lock:
            part = self._part_of(trigger)
        if part is not None:
            self._carry(part, 0)

    # Taking: one thread at a time

    def _take(self, worker: Worker) -> _Part | None:
        self._take_pending()
        if self.ended.is_set():
            return None
        if self._settings.line.kind == "each_frame" and not self._setup.ready:
            self._clock.wait(worker.stop, _TAKE_TIMEOUT_S)  # a clip waits until there is a model to judge it with
            return None
        event = self._line.take(_TAKE_TIMEOUT_S)
        self._take_pending()
        if isinstance(event, LinePosition):
            self._await_all()
            self._ledger.meet(event.run, event.sequence)
            return None
        return self._part_of(event) if isinstance(event, Trigger) and not self._is_repeat(event) else None

    def _take_pending(self) -> None:
        """Between two parts is where no part is on its way: only then the old setup is used by nobody."""
        if self._pending is not None:
            self._await_all()
            with self._order:
                if self._pending is not None:
                    self._setup, self._pending = self._pending, None
                    self._taken.set()
        self._line.set_state(
            StationState(
                ready=self._setup.ready,
                not_ready="" if self._setup.ready else "A view has no model.",
                recipe=self._setup.recipe.id,
                recipe_number=self._setup.recipe.number or 0,
            )
        )

    def _is_repeat(self, trigger: Trigger) -> bool:
        if trigger.sequence is None:
            return False
        last = self._last_trigger
        repeated = (last is not None and last[0] == trigger.run and trigger.sequence <= last[1]) or (
            self._ledger.is_repeat(trigger.run, trigger.sequence)
        )
        if repeated:
            self.tally.repeats += 1
        else:
            self._last_trigger = (trigger.run, trigger.sequence)
        return repeated

    def _part_of(self, trigger: Trigger) -> _Part | None:
        """Find the part's frames; None where the sources have ended."""
        setup = self._setup
        wait_ms = self._settings.frame_wait_ms or self._settings.deadline_ms / 2
        until_ns = trigger.at_ns + int(wait_ms * 1e6)
        started_ns = self._clock.monotonic_ns()
        frames: list[Lease | Reason] = []
        for view in setup.views:
            found = self._finder.find(view.view, trigger, until_ns)
            if isinstance(found, Ended):
                for frame in frames:
                    if isinstance(frame, Lease):
                        frame.not_used()
                self.ended.set()
                return None
            frames.append(found)
        self.tally.received += 1
        inspection_id = self._mint.uuid7()
        draw = sampling.draw(setup.sampling, inspection_id)
        part = _Part(
            ticket=self._next_ticket,
            id=inspection_id,
            trigger=trigger,
            setup=setup,
            draw=draw,
            frames=tuple(frames),
            retrieve_ms=(self._clock.monotonic_ns() - started_ns) / 1e6,
            pictures=tuple(
                self._pictures.keep(frame.frame) if draw.kept and isinstance(frame, Lease) else None for frame in frames
            ),
        )
        self._next_ticket += 1
        return part

    # Judging: side by side

    def _carry(self, part: _Part, number: int) -> None:
        try:
            seen = [
                self._see(view, frame, part, number) for view, frame in zip(part.setup.views, part.frames, strict=True)
            ]
            seen, kept = _with_pictures(seen, part)
            self._await_turn(part.ticket)
            self._record_and_answer(part, seen, kept=kept)
        finally:
            for frame in part.frames:
                if isinstance(frame, Lease):
                    frame.release()
            self._await_turn(part.ticket)
            with self._order:
                self._turn = part.ticket + 1
                self._order.notify_all()

    def _see(self, view: ViewSetup, frame: Lease | Reason, part: _Part, number: int) -> Seen:
        if isinstance(frame, Reason):
            return Seen(record=records.view_without_verdict(view, frame), judgement=records.nothing(frame))
        picture = frame.frame
        if not view.pipelines or view.rules is None:
            record = records.view_without_verdict(view, Reason.NO_MODEL, picture)
            return Seen(record=record, judgement=records.nothing(Reason.NO_MODEL))
        record = records.view_without_verdict(view, Reason.RUNTIME_ERROR, picture)
        try:
            look = view.pipelines[number].look(picture.image_bgr)
        except LinesideError as error:
            log.warning("View %s has no verdict: %s", view.view, error, extra={"event": "view.failed"})
            return Seen(record=record, judgement=records.nothing(Reason.RUNTIME_ERROR))
        started_ns = self._clock.monotonic_ns()
        judgement = judge.judge(look.findings, view.rules, regions.size_of(picture.image_bgr))
        timings = Timings(
            retrieve=part.retrieve_ms,
            preprocess=look.preprocess_ms,
            run=look.run_ms,
            decode=look.decode_ms,
            judge=(self._clock.monotonic_ns() - started_ns) / 1e6,
        )
        self.tally.time(timings)
        record = dataclasses.replace(
            record,
            verdict=judgement.verdict,
            score=judgement.score,
            reason=judgement.reason,
            findings=look.findings if isinstance(look.findings, tuple) else (),
            timings_ms=timings,
        )
        return Seen(record=record, judgement=judgement)

    # Recording: in the order of the triggers

    def _record_and_answer(self, part: _Part, seen: list[Seen], *, kept: bool) -> None:
        trigger = part.trigger
        now_ns = self._clock.monotonic_ns()
        inspection = records.inspection_of(
            inspection_id=part.id,
            place=self._place,
            setup=part.setup,
            trigger=trigger,
            seen=seen,
            draw=dataclasses.replace(part.draw, kept=kept),
            quality=self._time_quality(),
            now=self._clock.now_utc(),
            total_ms=(now_ns - trigger.at_ns) / 1e6,
            late=now_ns > trigger.at_ns + int(self._settings.deadline_ms * 1e6),
        )
        recorded = self._ledger.write(inspection, trigger.run)
        verdict = inspection.verdict if recorded else Verdict.NO_VERDICT
        self._line.answer(
            Answer(
                trigger=trigger,
                inspection_id=inspection.id if recorded else "",
                verdict=verdict,
                reason=inspection.reason if recorded else Reason.NOT_RECORDED,
                route=route_of(verdict, part.setup.recipe.unsure),
                recipe=inspection.recipe,
                score=inspection.score,
                rule_fired=inspection.rule_fired,
                judged_ns=now_ns,
            )
        )
        if not recorded:
            self.tally.unrecorded += 1
        self.tally.count(verdict, (self._clock.monotonic_ns() - trigger.at_ns) / 1e6)

    def _missed(self, run: str, sequence: int) -> Inspection:
        inspection_id = self._mint.uuid7()
        return records.missed_inspection(
            inspection_id=inspection_id,
            place=self._place,
            setup=self._setup,
            run=run,
            sequence=sequence,
            draw=sampling.draw(self._setup.sampling, inspection_id),
            now=self._clock.now_utc(),
        )

    def _await_turn(self, ticket: int) -> None:
        with self._order:
            self._order.wait_for(lambda: self._turn >= ticket)

    def _await_all(self) -> None:
        """Wait until every part that was taken has left; called with the take lock held, so none is added."""
        self._await_turn(self._next_ticket)


def route_of(verdict: Verdict, unsure: Route) -> Route:
    """Return where the line shall send a part; without a verdict it is diverted, never accepted."""
    if verdict is Verdict.UNSURE:
        return unsure
    return {Verdict.OK: Route.ACCEPT, Verdict.NG: Route.REJECT}.get(verdict, Route.DIVERT)


def _with_pictures(seen: list[Seen], part: _Part) -> tuple[list[Seen], bool]:
    """Name the kept pictures in their records; a part counts as kept only if each of its pictures found room."""
    if not any(picture is not None for picture in part.pictures):
        return seen, False
    digests = [picture.result() if picture is not None else None for picture in part.pictures]
    kept = all(
        digest is not None for digest, frame in zip(digests, part.frames, strict=True) if isinstance(frame, Lease)
    )
    named = [
        dataclasses.replace(one, record=dataclasses.replace(one.record, picture_digest=digest))
        for one, digest in zip(seen, digests, strict=True)
    ]
    return named, kept
