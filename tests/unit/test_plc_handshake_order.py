"""Whatever the order of parts, acknowledgements, lost exchanges and restarts: each result is for a part that came, in
order, acknowledged once, and no part is lost without being counted."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.line import handshake
from agent.line.handshake_state import (
    Answered,
    Happening,
    Lost,
    RecipeAnswered,
    Rules,
    Seen,
    Shown,
    State,
    Told,
)
from agent.line.register_map import FAIL_SAFE, AgentWords, Fault, PlcWords
from agent.line.trigger import Answer, LinePosition, RecipeRequest, StationState, Trigger
from wire.inspection import Reason, Route, Verdict

NOW_UTC = datetime(2026, 1, 1, tzinfo=UTC)
CYCLE_NS = 10_000_000
MAX_RESULTS = 4
VERDICTS = (Verdict.OK, Verdict.NG, Verdict.UNSURE, Verdict.NO_VERDICT)


class Line(RuleBasedStateMachine):
    """A PLC that behaves, a network that does not, and a station that answers when it likes."""

    @initialize()
    def begin(self) -> None:
        self.now_ns = 1_000_000_000
        self.plc = PlcWords(run=1)
        self.block: AgentWords = FAIL_SAFE  # what stands in the PLC's memory of the agent
        self.taken_by_plc = 0
        self.triggered: list[tuple[int, int]] = []
        self.said: dict[tuple[int, int], Verdict] = {}
        self.agent_run = 0
        self.start_agent()

    def start_agent(self) -> None:
        self.agent_run += 1
        rules = Rules(
            name="s", agent_run=self.agent_run, max_results=MAX_RESULTS, trust_ns=5 * CYCLE_NS, plc_silent_ns=0
        )
        self.state = State(rules=rules)
        self.waiting: list[Trigger] = []
        self.asked: RecipeRequest | None = None
        self.counted = 0
        self.seen_of_run: tuple[int, int] | None = None
        self.handed: list[tuple[int, int]] = []
        self.open_for_plc: list[tuple[int, int]] = []  # answered by this agent, and not yet taken by the PLC
        self.tell(Told(state=StationState(ready=True, recipe_number=1)))

    def tell(self, happening: Happening) -> None:
        after = handshake.step(self.state, happening, self.now_ns)
        self.state = after.state
        for event in after.events:
            if isinstance(event, Trigger):
                assert event.sequence is not None
                key = (self.plc.run, event.sequence)
                assert event.id == f"s-{key[0]}-{key[1]}"
                assert event.sequence <= self.plc.trigger_seq, "a part that never came"
                assert key not in self.triggered, "a part was taken twice"
                assert self.plc.recipe_request in (0, self.state.station.recipe_number), "a part of another recipe"
                self.triggered.append(key)
                self.handed.append(key)
                self.waiting.append(event)
            elif isinstance(event, RecipeRequest):
                self.asked = event
            else:
                assert isinstance(event, LinePosition)
                assert event.sequence == self.plc.trigger_seq

    # The network

    @rule(
        fate=st.sampled_from(["well", "well", "well", "well", "write_lost", "reply_lost"]),
        waits=st.sampled_from([1, 1, 1, 1, 1, 1, 9]),
    )
    def exchange(self, fate: str, waits: int) -> None:
        self.now_ns += CYCLE_NS * waits
        block = handshake.words(self.state, self.now_ns)
        self.tell(Shown())
        if fate != "write_lost":
            self.block = block
        if fate != "well":
            self.tell(Lost())
            return
        if self.seen_of_run is not None:
            run, sequence = self.seen_of_run
            self.counted += self.plc.trigger_seq - (sequence if run == self.plc.run else 0)
        self.seen_of_run = (self.plc.run, self.plc.trigger_seq)
        self.tell(Seen(plc=self.plc, at_utc=NOW_UTC, uncertain_ns=CYCLE_NS * waits))

    # The PLC

    @rule(count=st.sampled_from([1, 1, 1, 2]))
    def parts_pass(self, count: int) -> None:
        sequence = self.plc.trigger_seq + count
        self.plc = dataclasses.replace(self.plc, trigger_seq=sequence, trigger_seq_end=sequence)

    @rule()
    def a_part_is_half_copied(self) -> None:
        whole = self.plc
        self.plc = dataclasses.replace(self.plc, trigger_seq=self.plc.trigger_seq + 65_536)
        seen, counted = self.seen_of_run, self.counted
        self.tell(Seen(plc=self.plc, at_utc=NOW_UTC, uncertain_ns=CYCLE_NS))
        self.plc, self.seen_of_run, self.counted = whole, seen, counted

    @rule()
    def plc_scans(self) -> None:
        if not self.block.result_valid or self.block.result_run != self.plc.run:
            return
        if self.block.result_seq == self.plc.result_ack:
            return
        if self.block.result_seq != self.taken_by_plc:
            key = (self.plc.run, self.block.result_seq)
            assert self.block.result_seq > self.taken_by_plc, "results out of order, or one twice"
            assert key in self.triggered, "a result for a part that was not taken"
            assert VERDICTS[self.block.verdict - 1] is self.said[key], "a verdict on the wrong part"
            self.taken_by_plc = self.block.result_seq
            if key in self.open_for_plc:
                self.open_for_plc.remove(key)
        self.plc = dataclasses.replace(self.plc, result_ack=self.block.result_seq)

    @precondition(lambda self: self.waiting and not self.state.results)
    @rule()
    def plc_acknowledges_what_it_was_not_shown(self) -> None:
        sequence = self.waiting[0].sequence or 0
        if self.waiting[0].run == f"s-{self.plc.run}":
            self.plc = dataclasses.replace(self.plc, result_ack=sequence)
            self.exchange("well", 1)

    @rule()
    def plc_clears_its_acknowledgement(self) -> None:
        self.plc = dataclasses.replace(self.plc, result_ack=0)

    @rule()
    def plc_restarts(self) -> None:
        self.plc = PlcWords(run=self.plc.run + 1, recipe_request=self.plc.recipe_request)
        self.taken_by_plc = 0  # the agent's block stays in its memory, with a result of the old run
        self.open_for_plc = []

    @rule(number=st.sampled_from([0, 1, 1, 1, 2]))
    def plc_asks_for_a_recipe(self, number: int) -> None:
        self.plc = dataclasses.replace(self.plc, recipe_request=number)

    # The station

    @precondition(lambda self: self.waiting)
    @rule(verdict=st.sampled_from(VERDICTS))
    def station_answers(self, verdict: Verdict) -> None:
        trigger = self.waiting.pop(0)
        run, sequence = int(trigger.run.removeprefix("s-")), trigger.sequence or 0
        self.said[run, sequence] = verdict
        if run == self.state.run:
            self.open_for_plc.append((run, sequence))
        self.tell(Answered(answer=answer_to(trigger, verdict)))

    @precondition(lambda self: self.waiting)
    @rule()
    def station_has_that_part_on_record_already(self) -> None:
        self.waiting.pop(0)

    @precondition(lambda self: self.asked)
    @rule(refusal=st.sampled_from(["", "There is no such recipe."]))
    def station_answers_the_recipe(self, refusal: str) -> None:
        assert self.asked is not None
        self.tell(RecipeAnswered(number=self.asked.number or 0, refusal=refusal))
        self.asked = None

    @rule()
    def agent_is_killed_and_comes_back(self) -> None:
        self.start_agent()

    # What is always so

    @invariant()
    def every_part_seen_is_taken_or_counted(self) -> None:
        state = self.state
        assert state.taken + state.missed + state.overrun == self.counted
        assert state.taken == len(self.handed)
        open_parts = len(state.results) + len(state.in_flight)
        assert state.taken == state.acknowledged + open_parts + state.dropped
        assert open_parts <= MAX_RESULTS

    @invariant()
    def ready_means_that_nothing_is_wrong(self) -> None:
        words = handshake.words(self.state, self.now_ns)
        assert not words.trigger_ready or words.fault in (Fault.NONE, Fault.ACK_EARLY)

    def teardown(self) -> None:
        """Let all come to rest: what was answered reaches the PLC."""
        if not hasattr(self, "plc"):
            return
        self.exchange("well", 1)
        while self.waiting:
            self.station_answers(Verdict.OK)
        for _ in range(4 * MAX_RESULTS):
            self.exchange("well", 1)
            if self.block.result_valid and self.block.result_seq == self.plc.result_ack != self.taken_by_plc:
                self.plc_clears_its_acknowledgement()
            else:
                self.plc_scans()
        assert not self.state.results
        assert not [key for key in self.open_for_plc if key[0] == self.plc.run], "a result never reached the PLC"


def answer_to(trigger: Trigger, verdict: Verdict) -> Answer:
    return Answer(
        trigger=trigger,
        inspection_id="x",
        verdict=verdict,
        reason=Reason.NONE,
        route=Route.ACCEPT,
        recipe="default",
        judged_ns=trigger.at_ns + 1,
    )


TestLine = Line.TestCase
TestLine.settings = hypothesis.settings(
    max_examples=100, stateful_step_count=60, derandomize=True, deadline=None, print_blob=False
)
