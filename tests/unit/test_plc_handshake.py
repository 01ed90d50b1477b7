"""The handshake with a PLC, rule by rule, and the registers as they are documented."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from agent.line import handshake, register_map
from agent.line.handshake_state import (
    Answered,
    Lost,
    RecipeAnswered,
    Rules,
    Seen,
    Shown,
    State,
    Stopping,
    Told,
)
from agent.line.register_map import FAIL_SAFE, AgentWords, Fault, PlcWords
from agent.line.trigger import (
    Answer,
    LineCount,
    LineEvent,
    LinePosition,
    RecipeRequest,
    StationState,
    Trigger,
)
from wire.inspection import Mode, Reason, Route, Verdict

NOW_UTC = datetime(2026, 1, 1, tzinfo=UTC)
MS = 1_000_000
RULES = Rules(name="press", agent_run=77, max_results=2, trust_ns=50 * MS, plc_silent_ns=2000 * MS)
READY = StationState(ready=True, recipe_number=1)


class Talk:
    """A handshake under way, with a clock of its own."""

    def __init__(self, rules: Rules = RULES, station: StationState = READY) -> None:
        self.state = State(rules=rules)
        self.now_ns = 1_000_000 * MS
        self.plc = PlcWords(run=5)
        self.events: list[LineEvent] = []
        self.tell(Told(state=station))

    def tell(self, happening: handshake.Happening) -> list[LineEvent]:
        after = handshake.step(self.state, happening, self.now_ns)
        self.state = after.state
        self.events += after.events
        return list(after.events)

    def see(self, *, uncertain_ms: float = 10, **changes: object) -> list[LineEvent]:
        """Let 10 ms pass, show the agent's block and see the PLC's, with a heartbeat that beats."""
        self.now_ns += 10 * MS
        self.plc = dataclasses.replace(self.plc, heartbeat=(self.plc.heartbeat + 1) & 0xFFFF, **changes)  # type: ignore[arg-type]
        self.tell(Shown())
        return self.tell(Seen(plc=self.plc, at_utc=NOW_UTC, uncertain_ns=int(uncertain_ms * MS)))

    def part(self, sequence: int, **changes: object) -> list[LineEvent]:
        return self.see(trigger_seq=sequence, trigger_seq_end=sequence, **changes)

    def answer(self, trigger: LineEvent, verdict: Verdict = Verdict.OK, route: Route = Route.ACCEPT) -> None:
        assert isinstance(trigger, Trigger)
        self.tell(Answered(answer=answer_to(trigger, verdict, route)))

    @property
    def words(self) -> AgentWords:
        return handshake.words(self.state, self.now_ns)

    @property
    def fault(self) -> Fault:
        return Fault(self.words.fault)


def answer_to(trigger: Trigger, verdict: Verdict = Verdict.OK, route: Route = Route.ACCEPT) -> Answer:
    return Answer(
        trigger=trigger,
        inspection_id="x",
        verdict=verdict,
        reason=Reason.RULE_FIRED if verdict is Verdict.NG else Reason.NONE,
        route=route,
        recipe="default",
        score=0.91234,
        judged_ns=trigger.at_ns + 42 * MS,
    )


def test_a_station_that_is_new_to_a_plc_learns_where_it_stands_and_takes_what_comes_then() -> None:
    talk = Talk()
    assert talk.fault is Fault.NO_BLOCK
    assert talk.part(7) == [LinePosition(run="press-5", sequence=7)]
    assert talk.words.trigger_ready == 1
    (trigger,) = talk.part(8, part_id="A-8", lot="L1", mode=2)
    assert trigger == Trigger(
        id="press-5-8",
        run="press-5",
        sequence=8,
        at_ns=talk.now_ns,
        at_utc=NOW_UTC,
        part_id="A-8",
        lot="L1",
        mode=Mode.CHALLENGE,
    )
    words = talk.words
    assert (words.trigger_ack, words.busy, words.missed_trigger, words.result_valid) == (8, 1, 0, 0)


def test_a_trigger_that_stays_or_is_written_again_is_one_part() -> None:
    talk = Talk()
    talk.see()
    assert len(talk.part(1)) == 1
    assert talk.part(1) == []
    assert talk.see() == []
    assert talk.words.trigger_ack == 1


def test_a_result_is_shown_until_its_number_is_acknowledged_and_only_then_the_next() -> None:
    talk = Talk()
    talk.see()
    (first,), (second,) = talk.part(1), talk.part(2)
    talk.answer(first, Verdict.NG, Route.REJECT)
    talk.answer(second)
    for _ in range(3):
        talk.see()
        words = talk.words
        assert (words.result_valid, words.result_run, words.result_seq, words.result_seq_end) == (1, 5, 1, 1)
        assert (words.verdict, words.route, words.reason, words.score, words.result_ms) == (2, 2, 12, 9123, 42)
        assert (words.results_waiting, words.busy) == (2, 0)
    talk.see(result_ack=1)
    assert (talk.words.result_seq, talk.words.verdict, talk.words.route) == (2, 1, 1)
    talk.see(result_ack=1)
    assert talk.words.result_seq == 2
    talk.see(result_ack=2)
    assert (talk.words.result_valid, talk.words.result_seq, talk.words.verdict) == (0, 0, 0)
    assert talk.state.acknowledged == 2


def test_an_acknowledgement_that_stood_there_before_the_result_is_none() -> None:
    talk = Talk()
    talk.see(result_ack=1)
    (trigger,) = talk.part(1)
    talk.answer(trigger)
    talk.see()
    assert talk.words.result_seq == 1
    assert talk.fault is Fault.ACK_EARLY
    assert talk.words.trigger_ready == 1
    talk.see(result_ack=0)
    assert talk.fault is Fault.NONE
    talk.see(result_ack=1)
    assert talk.words.result_valid == 0


def test_parts_beyond_the_results_that_may_wait_are_overrun() -> None:
    talk = Talk()
    talk.see()
    (first,), (second,) = talk.part(1), talk.part(2)
    talk.answer(first)
    assert (talk.fault, talk.words.trigger_ready) == (Fault.NO_ROOM, 0)
    assert talk.part(3) == []
    assert (talk.words.overrun, talk.words.missed_trigger, talk.words.trigger_ack) == (1, 0, 3)
    talk.answer(second)
    talk.see(result_ack=1)
    assert talk.words.trigger_ready == 1
    assert [event.sequence for event in talk.part(4) if isinstance(event, Trigger)] == [4]


def test_parts_that_came_between_two_looks_are_missed_but_the_newest_is_taken() -> None:
    talk = Talk()
    talk.see()
    (trigger,) = talk.part(3)
    assert isinstance(trigger, Trigger)
    assert trigger.sequence == 3
    assert talk.words.missed_trigger == 2


def test_a_trigger_of_an_uncertain_moment_is_missed_unless_the_plc_tells_its_age() -> None:
    talk = Talk()
    talk.see()
    assert talk.part(1, uncertain_ms=60) == []
    assert talk.words.missed_trigger == 1
    (trigger,) = talk.part(2, uncertain_ms=60, trigger_age_ms=35)
    assert isinstance(trigger, Trigger)
    assert trigger.at_ns == talk.now_ns - 35 * MS
    assert (NOW_UTC - trigger.at_utc).total_seconds() == 0.035


def test_what_passed_while_the_connection_was_away_is_missed_and_open_results_are_kept() -> None:
    talk = Talk()
    talk.see()
    (trigger,) = talk.part(1)
    talk.tell(Lost())
    assert talk.fault is Fault.NO_BLOCK
    talk.answer(trigger)
    assert talk.part(4) == [LinePosition(run="press-5", sequence=4)]
    words = talk.words
    assert (words.missed_trigger, words.result_seq, words.result_valid) == (3, 1, 1)
    talk.see(result_ack=1)
    assert talk.words.result_valid == 0


def test_a_new_run_of_the_plc_ends_all_that_was_open() -> None:
    talk = Talk()
    talk.see()
    (first,), (second,) = talk.part(1), talk.part(2)
    talk.answer(first)
    assert talk.part(0, run=6) == [LinePosition(run="press-6", sequence=0)]
    assert (talk.words.result_valid, talk.words.dropped_results) == (0, 2)
    talk.answer(second)  # too late: its part belongs to the old run
    assert talk.words.results_waiting == 0
    (trigger,) = talk.part(1)
    assert isinstance(trigger, Trigger)
    assert trigger.id == "press-6-1"


def test_a_result_of_the_new_run_needs_to_be_shown_before_it_can_be_acknowledged() -> None:
    talk = Talk()
    talk.see()
    (old,) = talk.part(1)
    talk.answer(old)
    talk.see()
    talk.part(0, run=6)
    (new,) = talk.part(1)
    talk.answer(new)
    seen = Seen(plc=dataclasses.replace(talk.plc, result_ack=1), at_utc=NOW_UTC, uncertain_ns=0)
    talk.tell(seen)  # nothing was shown in between
    assert (talk.words.result_valid, talk.fault) == (1, Fault.ACK_EARLY)


def test_an_acknowledgement_left_over_from_the_old_run_is_none_in_the_new_one() -> None:
    talk = Talk()
    talk.see()
    talk.see(run=6, trigger_seq=0, trigger_seq_end=0, result_ack=1)
    (trigger,) = talk.part(1)
    talk.answer(trigger)
    talk.see()
    assert (talk.words.result_valid, talk.fault) == (1, Fault.ACK_EARLY)


def test_a_result_of_an_old_run_is_not_acknowledged_by_a_new_one() -> None:
    talk = Talk()
    talk.see()
    (trigger,) = talk.part(1)
    talk.answer(trigger)
    talk.see()
    assert talk.words.result_run == 5
    talk.see(run=6, trigger_seq=0, trigger_seq_end=0, result_ack=1)
    assert (talk.state.acknowledged, talk.state.dropped) == (0, 1)


def test_a_sequence_that_goes_back_within_a_run_stops_the_station_until_it_is_past_again() -> None:
    talk = Talk()
    talk.part(10)
    assert talk.part(3) == []
    assert (talk.fault, talk.words.trigger_ready, talk.words.trigger_ack) == (Fault.SEQUENCE_BACK, 0, 10)
    assert len(talk.part(11)) == 1
    assert talk.fault is Fault.NONE


def test_a_sequence_that_went_back_while_away_is_seen_too() -> None:
    talk = Talk()
    talk.part(10)
    talk.tell(Lost())
    assert talk.part(3) == [LinePosition(run="press-5", sequence=10)]
    assert talk.fault is Fault.SEQUENCE_BACK


def test_a_half_copied_block_gives_no_trigger_and_becomes_a_fault_when_it_stays() -> None:
    talk = Talk()
    talk.see()
    assert talk.see(trigger_seq=1) == []
    assert talk.fault is Fault.NONE
    for _ in range(101):
        assert talk.see() == []
    assert talk.fault is Fault.TORN_BLOCK
    assert len(talk.see(trigger_seq_end=1)) == 1
    assert talk.fault is Fault.NONE


def test_a_plc_without_a_run_gets_no_ready() -> None:
    talk = Talk()
    assert talk.part(3, run=0) == []
    assert (talk.fault, talk.words.trigger_ready) == (Fault.NO_RUN, 0)
    assert talk.see(run=9) == [LinePosition(run="press-9", sequence=3)]
    assert talk.see(run=0) == []
    assert talk.fault is Fault.NO_RUN


def test_a_plc_whose_heartbeat_stands_still_is_silent() -> None:
    talk = Talk()
    talk.see()
    talk.now_ns += 2001 * MS
    assert (talk.fault, talk.words.trigger_ready) == (Fault.PLC_SILENT, 0)
    talk.see()
    assert talk.fault is Fault.NONE
    without = Talk(dataclasses.replace(RULES, plc_silent_ns=0))
    without.see()
    without.now_ns += 5000 * MS
    assert without.fault is Fault.NONE


def test_a_station_whose_thread_hangs_is_not_ready() -> None:
    talk = Talk(dataclasses.replace(RULES, plc_silent_ns=0))
    talk.see()
    talk.now_ns += handshake.STATION_SILENT_NS + MS
    assert (talk.fault, talk.words.trigger_ready) == (Fault.STATION_SILENT, 0)
    talk.tell(Told(state=READY))
    assert talk.fault is Fault.NONE


def test_a_station_that_is_not_ready_is_given_the_parts_all_the_same() -> None:
    talk = Talk(station=StationState(ready=False, not_ready="A view has no model."))
    talk.see()
    assert (talk.fault, talk.words.trigger_ready) == (Fault.NOT_READY, 0)
    assert len(talk.part(1)) == 1


def test_a_recipe_is_asked_for_once_and_ready_only_when_it_is_in_force() -> None:
    talk = Talk()
    talk.see()
    assert talk.see(recipe_request=2) == [RecipeRequest(number=2, source="plc")]
    assert talk.see() == []
    assert (talk.fault, talk.words.trigger_ready, talk.words.recipe_active) == (Fault.RECIPE_SWITCH, 0, 1)
    assert talk.part(1) == []  # a part that comes in between belongs to neither recipe
    assert talk.words.missed_trigger == 1
    talk.tell(RecipeAnswered(number=2, refusal=""))
    assert (talk.fault, talk.words.trigger_ready, talk.words.recipe_active) == (Fault.NONE, 1, 2)


def test_a_refused_recipe_is_told_and_asked_for_again_after_five_seconds() -> None:
    talk = Talk(dataclasses.replace(RULES, plc_silent_ns=0))
    talk.see()
    talk.see(recipe_request=9)
    talk.tell(RecipeAnswered(number=9, refusal="There is no recipe 9."))
    assert (talk.fault, talk.words.recipe_fault, talk.words.recipe_active) == (Fault.RECIPE_REFUSED, 9, 1)
    assert talk.see() == []
    talk.now_ns += 5000 * MS
    assert talk.see() == [RecipeRequest(number=9, source="plc")]
    talk.see(recipe_request=1)
    assert (talk.fault, talk.words.recipe_fault) == (Fault.NONE, 0)


def test_a_person_who_selects_another_recipe_than_the_plc_is_overruled() -> None:
    talk = Talk()
    talk.see(recipe_request=1)
    talk.tell(Told(state=StationState(ready=True, recipe_number=4)))
    assert talk.words.trigger_ready == 0
    assert talk.see() == [RecipeRequest(number=1, source="plc")]


def test_parts_that_have_their_record_already_leave_no_hole_in_the_row_of_results() -> None:
    talk = Talk()
    talk.see()
    _, (second,) = talk.part(1), talk.part(2)
    talk.answer(second)
    assert (talk.words.result_seq, talk.words.busy, talk.words.dropped_results) == (2, 0, 1)


def test_as_a_counter_only_the_count_is_used() -> None:
    talk = Talk(dataclasses.replace(RULES, counter=True), StationState(ready=False))
    assert talk.part(3, part_count=3) == [LineCount(run="press-5", count=3)]
    assert talk.part(4, part_count=4) == []  # at most five times a second
    talk.now_ns += 200 * MS
    assert talk.see() == [LineCount(run="press-5", count=4)]
    assert (talk.fault, talk.words.trigger_ready) == (Fault.NONE, 0)


def test_the_heartbeat_grows_with_time_and_all_is_zero_when_the_agent_leaves() -> None:
    talk = Talk()
    talk.see()
    (trigger,) = talk.part(1)
    talk.answer(trigger)
    before = talk.words.heartbeat
    talk.now_ns += register_map.HEARTBEAT_MS * MS
    assert talk.words.heartbeat == (before + 1) & 0xFFFF
    talk.tell(Stopping())
    assert talk.words == FAIL_SAFE
    assert set(register_map.encode_agent(talk.words)) == {0}


def test_each_reason_verdict_and_route_has_a_code_of_its_own() -> None:
    for codes, values in (
        (register_map.REASON_CODES, Reason),
        (register_map.VERDICT_CODES, Verdict),
        (register_map.ROUTE_CODES, Route),
    ):
        assert set(codes) == set(values)
        assert len(set(codes.values())) == len(codes)
    assert set(register_map.FAULTS) == set(Fault)
    assert register_map.ROUTE_CODES[Route.DIVERT] == 0, "zero must be the safe route"
    assert 0 not in register_map.VERDICT_CODES.values(), "zero must be no verdict"


def test_the_registers_stay_where_they_are_documented() -> None:
    """Programs of PLCs in the field hold these numbers: a change needs another map version."""
    assert {one.name: one.offset for one in register_map.PLC_BLOCK} == {
        "TriggerSeq": 0,
        "Run": 2,
        "PlcHeartbeat": 4,
        "Mode": 5,
        "TriggerAgeMs": 6,
        "RecipeRequest": 7,
        "ResultAck": 8,
        "PartCount": 10,
        "PartId": 12,
        "Lot": 28,
        "TriggerSeqEnd": 44,
    }
    assert {one.name: one.offset for one in register_map.AGENT_BLOCK} == {
        "MapVersion": 64,
        "AgentRun": 65,
        "HeartbeatCount": 66,
        "TriggerReady": 67,
        "Busy": 68,
        "Fault": 69,
        "TriggerAck": 70,
        "MissedTrigger": 72,
        "Overrun": 74,
        "DroppedResults": 76,
        "RecipeActive": 78,
        "RecipeFault": 79,
        "ResultsWaiting": 80,
        "ResultSeq": 81,
        "ResultRun": 83,
        "ResultValid": 85,
        "Verdict": 86,
        "Route": 87,
        "Reason": 88,
        "Score": 89,
        "ResultMs": 90,
        "ResultSeqEnd": 91,
    }
    assert (register_map.PLC_REGISTERS, register_map.AGENT_REGISTERS) == (46, 29)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", ""),
        ("A-1", "A-1"),
        ("x" * 40, "x" * 32),
        ("ä" * 20, "ä" * 16),
        ("two\nlines", "two lines"),
        ("pad  ", "pad"),
    ],
)
def test_texts_survive_their_registers(text: str, read: str) -> None:
    words = PlcWords(trigger_seq=70_000, run=4_000_000_000, part_id=text, lot="L", trigger_seq_end=70_000)
    registers = register_map.encode_plc(words)
    assert registers[:4] == [1, 4464, 61035, 10240]
    assert register_map.decode_plc(registers) == dataclasses.replace(words, part_id=read)


def test_what_is_no_text_is_replaced() -> None:
    registers = register_map.encode_plc(PlcWords())
    registers[12] = 0xFFFE
    assert register_map.decode_plc(registers).part_id == "\N{REPLACEMENT CHARACTER}" * 2


def test_the_agents_block_survives_its_registers_and_counters_wrap() -> None:
    words = AgentWords(map_version=1, missed_trigger=2**32 + 5, result_seq=70_000, result_seq_end=70_000, verdict=4)
    read = register_map.decode_agent(register_map.encode_agent(words))
    assert read == dataclasses.replace(words, missed_trigger=5)
