"""A station's report is made while parts pass: its counts agree with each other all the same."""

from __future__ import annotations

from agent.health import station_report
from agent.health.rates import FrameRates
from agent.health.station_report import Surroundings
from agent.inspection.tally import Tally
from agent.inspection.worker import StationWorker
from tests.support.station import ScriptedLine, worker_of
from wire.inspection import Verdict


class BusyTally(Tally):
    """A part is taken and answered whenever its verdicts are looked at."""

    @property
    def verdicts(self) -> dict[str, int]:
        found = super().verdicts
        self.received += 1
        self.count(Verdict.OK, 1.0)
        return found


class MissingWorker(StationWorker):
    """One more part is missed whenever somebody asks how many were."""

    so_far = 0

    @property
    def missed_count(self) -> int:
        self.so_far += 1
        return self.so_far


def test_triggers_are_verdicts_and_what_is_in_work_while_parts_pass() -> None:
    worker = worker_of(ScriptedLine(), {"top": []})
    worker.__class__ = MissingWorker
    worker.tally = BusyTally()
    around = Surroundings(line="", line_trouble=lambda: "", sources={}, outputs=())
    for _ in range(3):
        report = station_report.look("gauge", worker, {}, around, FrameRates(), 0)
        health = report.status.health
        assert health.verdicts == sum(report.status.verdicts.values()) + report.status.missed
        assert 0 <= health.triggers - health.verdicts <= 1
