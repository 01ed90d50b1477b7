"""One station's worker: each of its threads carries a part from its trigger to its record and its verdict.

Taking a trigger with its frames is done by one thread at a time; judging runs side by side; records and verdicts leave
in the order of the triggers. What must not change: judge, record handed to the outbox, then the verdict leaves. A part
whose record cannot be kept gets NO_VERDICT, since a verdict nobody can account for is worth less than a diverted part.

Models and recipes change between two parts only, and each part keeps the setup it was taken with to its record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Final, Protocol

from agent.capture.encode import PictureOfPart
from agent.capture.feed import Feed, Lease
from agent.capture.frame import Ended, Frame, TimeClass
from agent.clock import Clock
from agent.inspection import part as parts
from agent.inspection import readiness, records
from agent.inspection.catalogue import Catalogue, RecipeListing
from agent.inspection.changeover import SWAP_TIMEOUT_S, Changeover, Tell, tell_nobody
from agent.inspection.count_watch import CountWatch
from agent.inspection.frames import FrameFinder
from agent.inspection.ledger import MAX_MISSED_RECORDS, Ledger, Outbox
from agent.inspection.part import Part
from agent.inspection.records import Place, Seen, TimeQuality
from agent.inspection.setup import StationSetup
from agent.inspection.tally import Tally
from agent.inspection.turns import Turns
from agent.inspection.version_watch import VersionWatch
from agent.inspection.view_judge import ViewJudge
from agent.line.trigger import (
    Line,
    LineCount,
    LineEvent,
    LinePosition,
    Output,
    RecipeRequest,
    StationState,
    Trigger,
    TriggerKind,
)
from agent.settings import StationSettings
from agent.threads import Worker
from wire import sampling
from wire.errors import LinesideError
from wire.inspection import Inspection, Reason
from wire.mint import Mint

log = logging.getLogger(__name__)

_TAKE_TIMEOUT_S: Final = 0.2


class Pictures(Protocol):
    """Encodes kept pictures beside the judging, and spools them."""

    def keep(self, frame: Frame, part: PictureOfPart) -> Future[str | None]: ...


class Candidates(Protocol):
    """Versions that are shown the parts beside the active ones (agent/inspection/shadow.py)."""

    def offer(self, part: Part, inspection: Inspection) -> None: ...


class StationWorker:
    """Judges parts at one station for ever, with the recipe in force between two parts.

    Args:
        setup: the device's own recipe; the fleet's come with `replace_catalogue`.
        thread_count: threads that will call `run`, each with its number.
        outputs: who else is told each verdict; none of them may block.
        turns: the cores, shared with the device's other stations; without them each thread has a core of its own.
        tell: makes an event for people of its name, severity and text.
        shadows: shown each part when its verdict has left.
    """

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
        outputs: Sequence[Output] = (),
        turns: Turns | None = None,
        tell: Tell | None = None,
        shadows: Candidates | None = None,
    ) -> None:
        self.thread_count = thread_count
        self._place = Place(device=device, station=settings.id)
        self._settings = settings
        self._line = line
        self._outputs = tuple(outputs)
        latencies_ms = {view.id: view.source.stream_latency_ms for view in settings.views}
        self._finder = FrameFinder(feeds, time_classes, settings.frame_tolerance_ms, clock, latencies_ms)
        self._timeless = readiness.timeless_views(settings.line, time_classes)
        self._arrival_only = tuple(view for view, known in time_classes.items() if known is TimeClass.ARRIVAL_ONLY)
        self._pictures = pictures
        self._mint = mint
        self._clock = clock
        self._time_quality = time_quality
        self._take_lock = threading.Lock()
        self._order = threading.Condition()
        self._next_ticket = 0
        self._turn = 0
        self._told: StationState | None = None
        told = settings.line.kind in {"modbus", "simulated"}
        self._ledger = Ledger(settings.id, outbox, self._missed, records.as_unrecorded, line_tells_position=told)
        self._tell = tell or tell_nobody
        self._shadows = shadows
        gated = settings.line.kind == "part_gate"
        self._counts = CountWatch(settings.id, outbox, clock, self._record_missing, self._tell) if gated else None
        self._not_gated = 0
        self._last_trigger: tuple[str, int] | None = None
        self.tally = Tally()
        self.watch = VersionWatch()
        self.ended = threading.Event()
        self._turns = turns or Turns(thread_count, clock)
        self._judge = ViewJudge(self._turns, self.tally, clock)
        # A file that nothing paces is read as fast as its parts are carried.
        self._is_paced = settings.line.kind != "each_frame" or any(feed.is_live for feed in feeds.values())
        self._changeover = Changeover(
            station=settings.id,
            own=setup,
            feeds=feeds,
            marks=outbox,
            clock=clock,
            await_parts=self._await_all,
            announce=self._announce,
            tell=self._tell,
        )

    @property
    def own(self) -> StationSetup:
        """What the device's own file says of this station."""
        return self._changeover.own

    @property
    def catalogue(self) -> Catalogue:
        """All recipes, and which is in force."""
        return self._changeover.catalogue

    @property
    def setup(self) -> StationSetup:
        """The setup the next part is judged with."""
        return self._changeover.catalogue.current

    @property
    def missed_count(self) -> int:
        """Parts recorded as passed uninspected since the agent started."""
        return self._ledger.missed_count + self._not_gated

    @property
    def is_idle(self) -> bool:
        """Whether no part is in work at this moment."""
        return self._turn >= self._next_ticket

    def size_px(self, view: str) -> tuple[int, int] | None:
        """Return width and height of a view's newest picture; None before the first."""
        return self._finder.size_px(view)

    def state(self) -> StationState:
        """Return what the line is told of the station."""
        trouble = self._changeover.changing
        if self.ended.is_set():
            trouble = "The sources have ended."
        return readiness.state_of(self._changeover.catalogue, self._timeless, trouble)

    def recipes(self) -> tuple[RecipeListing, ...]:
        """Return the station's recipes, those that were refused included."""
        return self._changeover.catalogue.listing()

    def replace_catalogue(self, catalogue: Catalogue, timeout_s: float = SWAP_TIMEOUT_S) -> None:
        """Have the worker take new setups between two parts, and wait until it did. The recipe in force stays.

        Raises:
            LinesideError: `deployment.activation_failed` where the worker does not come back from a part in time.
        """
        if not self.ended.is_set():
            try:
                self._changeover.want(catalogue, timeout_s)
            except LinesideError:
                if not self.ended.is_set():
                    raise
            else:
                return
        self._changeover.install(catalogue)

    def restore_catalogue(self, catalogue: Catalogue, timeout_s: float = SWAP_TIMEOUT_S) -> None:
        """Have the worker go back to a former catalogue: now, or as soon as it comes between two parts."""
        if self.ended.is_set():
            self._changeover.install(catalogue)
        elif not self._changeover.want_back(catalogue, timeout_s):
            log.error(
                "Station %s goes back when it has finished its part.",
                self._settings.id,
                extra={"event": "station.not_back"},
            )

    def replace_setup(self, setup: StationSetup, timeout_s: float = SWAP_TIMEOUT_S) -> None:
        """Replace one recipe's setup; see `replace_catalogue`."""
        catalogue = self._changeover.catalogue
        setups = {**catalogue.setups, setup.recipe.id: setup}
        self.replace_catalogue(dataclasses.replace(catalogue, setups=setups), timeout_s)

    def request_recipe(self, request: RecipeRequest, timeout_s: float = SWAP_TIMEOUT_S) -> str:
        """Have the worker take a recipe between two parts, and wait; return why not, empty where it is in force."""
        if self.ended.is_set():
            return "The sources have ended."
        return self._changeover.ask(request, timeout_s)

    def run(self, worker: Worker, number: int = 0) -> None:
        """Carry parts on one of the station's threads until told to stop or the sources have ended.

        Args:
            number: of this thread, below `thread_count`; it uses the pipelines of that number.
        """
        with contextlib.nullcontext() if self._is_paced else self._turns.at_full_speed():
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

    def _take(self, worker: Worker) -> Part | None:
        self._take_wishes()
        if self.ended.is_set():
            return None
        if self._settings.line.kind == "each_frame" and not self.setup.ready:
            self._changeover.take_asked(None)
            self._clock.wait(worker.stop, _TAKE_TIMEOUT_S)  # a clip waits until there is a model to judge it with
            return None
        if self._counts is not None:
            self._counts.settle()
        event = self._line.take(_TAKE_TIMEOUT_S)
        self._take_wishes()
        self._changeover.take_asked(event)
        return self._part_from(event)

    def _take_wishes(self) -> None:
        again = self._changeover.take_catalogue()
        if again is not None:
            self._obey(again)
        self._announce()

    def _part_from(self, event: LineEvent | None) -> Part | None:
        match event:
            case Trigger():
                return None if self._is_repeat(event) else self._part_of(event)
            case LineCount():
                if self._counts is not None:
                    self._counts.note_line(event)
            case LinePosition():
                self._await_all()
                self._ledger.meet(event.run, event.sequence)
            case RecipeRequest():
                self._obey(event)
        return None

    def _obey(self, request: RecipeRequest) -> None:
        """Whoever asked learns of it before the station says that it is ready again."""
        self._line.answer_recipe(request, self._changeover.obey(request))
        self._announce()

    def _announce(self) -> None:
        state = self.state()
        self._line.set_state(state)
        if state != self._told:
            self._told = state
            for output in self._outputs:
                output.set_state(state)

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

    def _part_of(self, trigger: Trigger) -> Part | None:
        """Find the part's frames; None where the sources have ended."""
        setup = self._changeover.setup_for(trigger)
        started_ns = self._clock.monotonic_ns()
        views = [view.view for view in setup.views]
        until_ns = self._frames_until_ns(trigger, standstill=setup.recipe.standstill)
        found = self._finder.find(views, trigger, until_ns, standstill=setup.recipe.standstill)
        if isinstance(found, Ended):
            self.ended.set()
            self._announce()
            return None
        frames = tuple(found[view] for view in views)
        self.tally.received += 1
        if self._counts is not None:
            self._counts.note_part()
        inspection_id = self._mint.uuid7()
        draw = sampling.draw(setup.sampling, inspection_id)
        picture = PictureOfPart(draw=draw, at=trigger.at_utc, gate_rate=setup.sampling.gate_rate)
        part = Part(
            ticket=self._next_ticket,
            id=inspection_id,
            trigger=trigger,
            due_ns=trigger.at_ns + int(self._settings.deadline_ms * 1e6),
            setup=setup,
            draw=draw,
            frames=frames,
            retrieve_ms=(self._clock.monotonic_ns() - started_ns) / 1e6,
            pictures=tuple(
                self._pictures.keep(frame.frame, picture) if draw.kept and isinstance(frame, Lease) else None
                for frame in frames
            ),
        )
        self._next_ticket += 1
        return part

    def _frames_until_ns(self, trigger: Trigger, *, standstill: bool) -> int:
        """Up to when a part's frames are waited for: the same instant for all views, so that the verdict of those that
        have theirs is still in time. A picture of a part that stands still comes through a stream, which takes longer.
        """
        wait_ms = self._settings.frame_wait_ms or self._settings.deadline_ms / 2
        if standstill and trigger.kind is TriggerKind.PART:
            wait_ms += max((self._finder.latency_ms(view) for view in self._arrival_only), default=0.0)
        return trigger.at_ns + int(min(wait_ms, self._settings.deadline_ms) * 1e6)

    # Judging: side by side

    def _carry(self, part: Part, number: int) -> None:
        answered = False
        try:
            seen = [
                self._judge.see(view, frame, number=number, due_ns=part.due_ns, retrieve_ms=part.retrieve_ms)
                for view, frame in zip(part.setup.views, part.frames, strict=True)
            ]
            seen, kept = parts.with_pictures(seen, part)
            self._await_turn(part.ticket)
            answered = True
            self._record_and_answer(part, seen, kept=kept)
        finally:
            parts.release(part)
            self._await_turn(part.ticket)
            try:
                if not answered:  # a fault of ours: the thread starts anew, the part has its record all the same
                    self._record_and_answer(part, parts.without_verdict(part), kept=False)
            finally:
                with self._order:
                    self._turn = part.ticket + 1
                    self._order.notify_all()

    # Recording: in the order of the triggers

    def _record_and_answer(self, part: Part, seen: list[Seen], *, kept: bool) -> None:
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
            late=now_ns > part.due_ns,
        )
        recorded = self._ledger.write(inspection, trigger.run)
        if not recorded:
            inspection = records.as_unrecorded(inspection)
            self.tally.unrecorded += 1
        answer = records.answer_of(inspection, trigger, part.setup, recorded=recorded, judged_ns=now_ns)
        self._line.answer(answer)
        for output in self._outputs:
            output.answer(answer)
        latency_ms = (self._clock.monotonic_ns() - trigger.at_ns) / 1e6
        self.tally.count(inspection.verdict, latency_ms, inspection.reason)
        self.watch.note(part.setup, inspection, [one.waited_ms for one in seen])
        if self._shadows is not None:
            self._shadows.offer(part, inspection)

    def _record_missing(self, run: str, count: int, reason: Reason) -> None:
        """Parts that only the line counted have their records too."""
        self._await_all()
        for _ in range(min(count, MAX_MISSED_RECORDS)):
            self._ledger.write(self._missed(run, None, reason), "")
            self._not_gated += 1

    def _missed(self, run: str, sequence: int | None, reason: Reason) -> Inspection:
        inspection_id = self._mint.uuid7()
        return records.missed_inspection(
            inspection_id=inspection_id,
            place=self._place,
            setup=self.setup,
            trigger_id=f"{run}-{sequence if sequence is not None else inspection_id}",
            sequence=sequence,
            reason=reason,
            draw=sampling.draw(self.setup.sampling, inspection_id),
            now=self._clock.now_utc(),
        )

    def _await_turn(self, ticket: int) -> None:
        with self._order:
            self._order.wait_for(lambda: self._turn >= ticket)

    def _await_all(self) -> None:
        """Wait until every part that was taken has left; called with the take lock held, so none is added."""
        self._await_turn(self._next_ticket)
