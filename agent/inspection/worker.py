"""One station's worker: one thread carries each part from its trigger to its record and its verdict.

Order that must not change: judge, record handed to the outbox, then the verdict leaves. A part whose record cannot be
kept gets NO_VERDICT, since a verdict nobody can account for is worth less than a diverted part.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from agent.capture import encode
from agent.capture.feed import Feed, Lease
from agent.capture.frame import Ended, Frame, NoFrame, TimeClass
from agent.clock import Clock
from agent.inspection import account, judge, regions
from agent.inspection.pairing import Pairing, pair
from agent.inspection.setup import StationSetup, ViewSetup
from agent.inspection.tally import Tally
from agent.line.trigger import Line, LinePosition, Trigger
from agent.settings import StationSettings
from agent.threads import Worker
from agent.vision.pipeline import Pipeline
from wire import sampling
from wire.errors import LinesideError
from wire.inspection import Inspection, Reason, TimeSource, Timings, Verdict, ViewRecord
from wire.messages import Lane
from wire.mint import Mint

log = logging.getLogger(__name__)

_TAKE_TIMEOUT_S: Final = 0.2
_SWAP_TIMEOUT_S: Final = 10.0
MAX_MISSED_RECORDS: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeQuality:
    """What the wall clock is worth just now."""

    source: TimeSource
    uncertainty_ms: float | None = None


class Outbox(Protocol):
    """What the worker needs of the outbox."""

    def put_inspection(self, inspection: Inspection, *, line_run: str | None) -> int: ...
    def last_trigger(self, station: str) -> tuple[str, int] | None: ...
    def meta_get(self, key: str) -> str | None: ...
    def meta_set(self, key: str, value: str) -> None: ...
    def put(self, lane: Lane, body: object) -> int: ...


class Pictures(Protocol):
    """Where kept pictures go."""

    def offer(self, digest: str, data: bytes) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What one view contributed to the part at hand."""

    record: ViewRecord
    judgement: judge.Judgement
    frame: Frame | None


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
    ) -> None:
        self._device = device
        self._settings = settings
        self._line = line
        self._feeds = feeds
        self._time_classes = time_classes
        self._outbox = outbox
        self._pictures = pictures
        self._mint = mint
        self._clock = clock
        self._time_quality = time_quality
        self._held: dict[str, Lease] = {}
        self._setup = setup
        self._pending: StationSetup | None = None
        self._pending_lock = threading.Lock()
        self._taken = threading.Event()
        self._last_seen = self._last_on_record()
        self.tally = Tally()
        self.ended = threading.Event()

    @property
    def setup(self) -> StationSetup:
        """The setup the next part is judged with."""
        return self._setup

    def replace_setup(self, setup: StationSetup, timeout_s: float = _SWAP_TIMEOUT_S) -> None:
        """Have the worker take a new setup between two parts, and wait until it did.

        Raises:
            LinesideError: `deployment.activation_failed` where the worker does not come back from a part in time.
        """
        with self._pending_lock:
            self._pending = setup
            self._taken.clear()
        if not self._taken.wait(timeout_s) and not self.ended.is_set():
            with self._pending_lock:
                if self._pending is setup:
                    self._pending = None
                    raise LinesideError(
                        "deployment.activation_failed",
                        f"Station {self._settings.id} did not finish its part within {timeout_s:g} s.",
                        "See whether a camera or the model hangs.",
                    )

    def run(self, worker: Worker) -> None:
        """Carry parts until told to stop or the sources have ended."""
        self._take_pending()
        while not worker.stop.is_set() and not self.ended.is_set():
            worker.beat()
            if not self._may_take():
                self._clock.wait(worker.stop, _TAKE_TIMEOUT_S)
                self._take_pending()
                continue
            event = self._line.take(_TAKE_TIMEOUT_S)
            self._take_pending()
            if isinstance(event, LinePosition):
                self._on_position(event, worker)
            elif event is not None:
                self._on_trigger(event, worker)

    def _may_take(self) -> bool:
        """A line with a controller is always heard; a clip waits until there is a model to judge it with."""
        return self._settings.line.kind != "each_frame" or self._setup.ready

    def _take_pending(self) -> None:
        with self._pending_lock:
            pending, self._pending = self._pending, None
            if pending is not None:
                self._setup = pending
                self._taken.set()
        self._line.set_ready(ready=self._setup.ready)

    def _last_on_record(self) -> tuple[str, int] | None:
        """The last trigger with a record, or where this outbox first met the line."""
        last = self._outbox.last_trigger(self._settings.id)
        if last is not None:
            return last
        run, _, sequence = (self._outbox.meta_get(self._first_met_key) or "").rpartition(" ")
        return (run, int(sequence)) if run else None

    @property
    def _first_met_key(self) -> str:
        return f"line_first_met.{self._settings.id}"

    def _on_position(self, position: LinePosition, worker: Worker) -> None:
        if self._last_seen is None:
            # A device that is new to a line has no part of its past to answer for.
            self._last_seen = (position.run, position.sequence)
            self._outbox.meta_set(self._first_met_key, f"{position.run} {position.sequence}")
            return
        self._record_missed(account.missed_before(self._last_seen, position.run, position.sequence + 1), worker)

    def _on_trigger(self, trigger: Trigger, worker: Worker) -> None:
        if trigger.sequence is not None and self._last_seen is not None:
            if account.is_repeat(self._last_seen, trigger.run, trigger.sequence):
                self.tally.repeats += 1
                return
            self._record_missed(account.missed_before(self._last_seen, trigger.run, trigger.sequence), worker)
        self.inspect(trigger)

    def inspect(self, trigger: Trigger) -> Inspection | None:
        """Carry one part; None where the sources ended instead of giving a frame."""
        self.tally.received += 1
        setup = self._setup
        deadline_ns = trigger.at_ns + int(self._settings.deadline_ms * 1e6)
        frames_until_ns = trigger.at_ns + int((self._settings.frame_wait_ms or self._settings.deadline_ms / 2) * 1e6)
        inspection_id = self._mint.uuid7()
        draw = sampling.draw(setup.sampling, inspection_id)
        seen: list[_Seen] = []
        for view in setup.views:
            one = self._look(view, trigger, frames_until_ns)
            if one is None:
                self.tally.received -= 1
                self.ended.set()
                return None
            seen.append(one)
        records, kept = self._keep_pictures(seen, keep=draw.kept)
        joined = judge.join([one.judgement for one in seen])
        if self._clock.monotonic_ns() > deadline_ns and joined.verdict is not Verdict.NO_VERDICT:
            joined = dataclasses.replace(joined, verdict=Verdict.NO_VERDICT, reason=Reason.DEADLINE)
        quality = self._time_quality()
        inspection = Inspection(
            id=inspection_id,
            device=self._device,
            station=self._settings.id,
            recipe=setup.recipe.id,
            recipe_revision=setup.recipe.revision,
            parameters_revision=setup.recipe.revision,
            trigger_id=trigger.id,
            trigger_sequence=trigger.sequence,
            lot=trigger.lot,
            part_id=trigger.part_id,
            mode=trigger.mode,
            triggered_at=trigger.at_utc,
            judged_at=self._clock.now_utc(),
            time_source=quality.source,
            time_uncertainty_ms=quality.uncertainty_ms,
            verdict=joined.verdict,
            score=joined.score,
            reason=joined.reason if joined.verdict is not Verdict.OK else Reason.NONE,
            rule_fired=joined.fired,
            views=records,
            sampling=dataclasses.replace(draw, kept=kept),
            total_ms=(self._clock.monotonic_ns() - trigger.at_ns) / 1e6,
        )
        self._record_and_answer(inspection, trigger)
        return inspection

    def _record_and_answer(self, inspection: Inspection, trigger: Trigger) -> None:
        verdict = inspection.verdict
        try:
            self._outbox.put_inspection(inspection, line_run=trigger.run or None)
        except LinesideError as error:
            verdict = Verdict.NO_VERDICT
            self.tally.unrecorded += 1
            log.error("A verdict could not be recorded, the part is diverted: %s", error)  # noqa: TRY400
        if trigger.sequence is not None:
            self._last_seen = (trigger.run, trigger.sequence)
        self._line.answer(trigger, verdict)
        self.tally.count(verdict, (self._clock.monotonic_ns() - trigger.at_ns) / 1e6)

    def _look(self, view: ViewSetup, trigger: Trigger, until_ns: int) -> _Seen | None:
        """Get the view's frame and judge it; None where its source has ended."""
        started_ns = self._clock.monotonic_ns()
        lease = self._lease_for(view.view, trigger, until_ns)
        if isinstance(lease, Ended):
            return None
        if isinstance(lease, Reason):
            return _Seen(record=self._without_verdict(view, lease), judgement=_none(lease), frame=None)
        with lease:
            frame = lease.frame
            retrieve_ms = (self._clock.monotonic_ns() - started_ns) / 1e6
            height, width = frame.image_bgr.shape[:2]
            blank = dataclasses.replace(
                self._without_verdict(view, Reason.NO_MODEL),
                camera=frame.camera,
                frame_number=frame.number,
                frame_at=frame.exposed_utc,
                width_px=width,
                height_px=height,
            )
            if view.pipeline is None or view.rules is None:
                return _Seen(record=blank, judgement=_none(Reason.NO_MODEL), frame=frame)
            record = dataclasses.replace(blank, model_digest=view.pipeline.digest, deployment_id=view.deployment_id)
            return self._judge(view.pipeline, view.rules, frame, record, retrieve_ms)

    def _judge(
        self, pipeline: Pipeline, rules: judge.JudgeRules, frame: Frame, record: ViewRecord, retrieve_ms: float
    ) -> _Seen:
        try:
            look = pipeline.look(frame.image_bgr)
        except LinesideError as error:
            log.warning("View %s has no verdict: %s", record.view, error, extra={"event": "view.failed"})
            record = dataclasses.replace(record, reason=Reason.RUNTIME_ERROR)
            return _Seen(record=record, judgement=_none(Reason.RUNTIME_ERROR), frame=frame)
        started_ns = self._clock.monotonic_ns()
        judgement = judge.judge(look.findings, rules, regions.size_of(frame.image_bgr))
        timings = Timings(
            retrieve=retrieve_ms,
            preprocess=look.preprocess_ms,
            run=look.run_ms,
            decode=look.decode_ms,
            judge=(self._clock.monotonic_ns() - started_ns) / 1e6,
        )
        record = dataclasses.replace(
            record,
            verdict=judgement.verdict,
            score=judgement.score,
            reason=judgement.reason,
            findings=look.findings if isinstance(look.findings, tuple) else (),
            timings_ms=timings,
        )
        return _Seen(record=record, judgement=judgement, frame=frame)

    def _without_verdict(self, view: ViewSetup, reason: Reason) -> ViewRecord:
        return ViewRecord(view=view.view, camera=view.view, verdict=Verdict.NO_VERDICT, reason=reason, model=view.model)

    def _lease_for(self, view: str, trigger: Trigger, until_ns: int) -> Lease | Reason | Ended:
        """Return the frame that shows the trigger's part, passing over frames of earlier parts."""
        timed = self._time_classes[view] is not TimeClass.RECORDED
        while True:
            left_s = (until_ns - self._clock.monotonic_ns()) / 1e9
            taken = self._held.pop(view, None)
            if taken is None:
                answer = self._feeds[view].take(max(0.0, left_s))
                if isinstance(answer, Ended):
                    return answer
                if isinstance(answer, NoFrame):
                    if timed and left_s > 0:
                        continue
                    return Reason.NO_FRAME
                taken = answer
            pairing = (
                pair(trigger.at_ns, taken.frame.exposed_ns, self._settings.frame_tolerance_ms)
                if timed
                else Pairing.MATCH
            )
            if pairing is Pairing.MATCH:
                return taken
            if pairing is Pairing.LATER:
                self._held[view] = taken
                return Reason.NO_FRAME
            taken.not_used()

    def _keep_pictures(self, seen: list[_Seen], *, keep: bool) -> tuple[tuple[ViewRecord, ...], bool]:
        """Spool the pictures of a drawn part before its record names them; kept only if every picture found room."""
        frames = [one.frame for one in seen if one.frame is not None]
        if not keep or not frames:
            return tuple(one.record for one in seen), False
        records = []
        kept = True
        for one in seen:
            record = one.record
            if one.frame is not None:
                data, digest = encode.jpeg(one.frame.image_bgr)
                if self._pictures.offer(digest, data):
                    record = dataclasses.replace(record, picture_digest=digest)
                else:
                    kept = False
            records.append(record)
        return tuple(records), kept

    def _record_missed(self, missed: account.Missed, worker: Worker) -> None:
        """Write a NO_VERDICT(agent_down) record for each part that passed while nobody was looking."""
        if not missed:
            return
        first = max(missed.first, missed.last - MAX_MISSED_RECORDS + 1)
        log.warning(
            "%d parts passed uninspected (%d to %d); %d are recorded one by one.",
            len(missed),
            missed.first,
            missed.last,
            missed.last - first + 1,
            extra={"event": "parts.missed"},
        )
        for sequence in range(first, missed.last + 1):
            worker.beat()
            self._outbox.put_inspection(self._missed_record(missed.run, sequence), line_run=missed.run)
            self._last_seen = (missed.run, sequence)
            self.tally.missed += 1

    def _missed_record(self, run: str, sequence: int) -> Inspection:
        inspection_id = self._mint.uuid7()
        draw = sampling.draw(self._setup.sampling, inspection_id)
        now: datetime = self._clock.now_utc()
        return Inspection(
            id=inspection_id,
            device=self._device,
            station=self._settings.id,
            recipe=self._setup.recipe.id,
            recipe_revision=self._setup.recipe.revision,
            trigger_id=f"{run}-{sequence}",
            trigger_sequence=sequence,
            triggered_at=now,
            judged_at=now,
            time_source=TimeSource.SUSPECT,  # when the part passed is not known, only that it did
            verdict=Verdict.NO_VERDICT,
            reason=Reason.AGENT_DOWN,
            sampling=dataclasses.replace(draw, kept=False),
        )


def _none(reason: Reason) -> judge.Judgement:
    return judge.Judgement(verdict=Verdict.NO_VERDICT, reason=reason)
