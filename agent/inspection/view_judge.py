"""One view of a part: is its picture fit to be judged, what does the model see, what do the rules say."""

from __future__ import annotations

import dataclasses
import logging

from agent.capture.feed import Lease
from agent.clock import Clock
from agent.inspection import core_wait, frames, judge, records, regions
from agent.inspection.records import Seen
from agent.inspection.setup import ViewSetup
from agent.inspection.tally import Tally
from agent.inspection.turns import Turns
from agent.vision.pipeline import Look, Pipeline
from wire.errors import LinesideError
from wire.inspection import Reason, Timings

log = logging.getLogger(__name__)


class ViewJudge:
    """Used by all threads of a station at once; each brings the number of its own pipelines."""

    def __init__(self, turns: Turns, tally: Tally, clock: Clock) -> None:
        self._turns = turns
        self._tally = tally
        self._clock = clock

    def see(self, view: ViewSetup, frame: Lease | Reason, *, number: int, due_ns: int, retrieve_ms: float) -> Seen:
        """Return the view's record and judgement; every reason why there is none stands in them.

        Args:
            number: which of the view's pipelines is this thread's.
            due_ns: monotonic; no model is run for a verdict that nobody could use any more.
            retrieve_ms: how long the part's frames were waited for.
        """
        if isinstance(frame, Reason):
            return _without_verdict(view, frame)
        reason = frames.reason_of(frame.frame.vitals)
        if reason is not Reason.NONE:
            return _without_verdict(view, reason, frame)
        if not view.pipelines or view.rules is None:
            return _without_verdict(view, Reason.NO_MODEL, frame)
        asked_ns = self._clock.monotonic_ns()
        with self._turns.turn(due_ns) as granted:
            turn_ms = (self._clock.monotonic_ns() - asked_ns) / 1e6
            waited_ns = core_wait.waited_ns()
            look = self._look(view, view.pipelines[number], frame) if granted else Reason.DEADLINE
            waited_ms = (core_wait.waited_ns() - waited_ns) / 1e6
        if isinstance(look, Reason):
            return _without_verdict(view, look, frame)
        started_ns = self._clock.monotonic_ns()
        judgement = judge.judge(look.findings, view.rules, regions.size_of(frame.frame.image_bgr))
        timings = Timings(
            retrieve=retrieve_ms,
            preprocess=look.preprocess_ms,
            run=look.run_ms,
            decode=look.decode_ms,
            judge=(self._clock.monotonic_ns() - started_ns) / 1e6,
        )
        self._tally.time(view.view, timings, turn_ms)
        record = dataclasses.replace(
            records.view_without_verdict(view, judgement.reason, frame.frame),
            verdict=judgement.verdict,
            score=judgement.score,
            findings=look.findings if isinstance(look.findings, tuple) else (),
            timings_ms=timings,
            sizes_mm=look.sizes_mm,
        )
        return Seen(record=record, judgement=judgement, waited_ms=waited_ms)

    def _look(self, view: ViewSetup, pipeline: Pipeline, frame: Lease) -> Look | Reason:
        try:
            return pipeline.look(frame.frame.image_bgr)
        except LinesideError as error:
            log.warning("View %s has no verdict: %s", view.view, error, extra={"event": "view.failed"})
            return Reason.RUNTIME_ERROR


def _without_verdict(view: ViewSetup, reason: Reason, frame: Lease | None = None) -> Seen:
    record = records.view_without_verdict(view, reason, frame.frame if frame is not None else None)
    return Seen(record=record, judgement=records.nothing(reason))
