"""A PLC and a network at their worst, over real Modbus/TCP, both roles: each part accounted, states as documented."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pymodbus", reason="the extra modbus is not installed")

from agent.line import register_map
from agent.line.register_map import Fault
from tests.support.plc_stand import Role, Stand, line_at, until
from tests.support.ports import free_port

pytestmark = pytest.mark.alone(
    "parts come every 50 ms, and each is counted: none may be missed but where a test says so"
)

REPO = Path(__file__).resolve().parents[2]
WATCHDOG_MS = 500
Start = Callable[..., Stand]


@pytest.fixture(params=["client", "server"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    stands: list[Stand] = []

    def begin(**settings: Any) -> Stand:
        stands.append(Stand(request.param, tmp_path, **settings))
        return stands[-1]

    yield begin
    for stand in stands:
        stand.end()


def is_accounted(stand: Stand) -> bool:
    """Each part has one end in the PLC's account, and the two accounts agree."""
    assert stand.station is not None
    account = stand.station.line.account()
    counted = stand.plc.program.agent.trigger_ack
    assert account.taken + account.missed + account.overrun == counted, account
    assert account.taken == account.acknowledged + account.waiting + account.busy + account.dropped, account
    parts = [line["sequence"] for line in stand.lines("part")]
    ended = [line["sequence"] for line in stand.lines("result", "no_answer")]
    assert sorted(ended) == parts
    for line in stand.lines("result", "late_result"):
        expected = ("NG", "reject", "rule_fired") if line["sequence"] % 3 == 0 else ("OK", "accept", "none")
        assert (line["verdict"], line["route"], line["reason"]) == expected, "a verdict on the wrong part"
    acknowledged = [line["sequence"] for line in stand.lines("result", "late_result")]
    assert acknowledged == sorted(set(acknowledged)), "a result came twice or out of order"
    return True


def test_each_part_gets_its_own_verdict_in_order(start: Start) -> None:
    stand = start()
    station = stand.start_agent()
    sequences = stand.pass_parts(30, 0.05)
    assert stand.plc.wait_until_settled()
    assert station.sequences == sequences
    assert set(stand.ends().values()) == {"result"}
    assert is_accounted(stand)


def test_missed_acknowledgements_hold_results_and_then_refuse_parts_as_overrun(start: Start) -> None:
    stand = start(max_results=3)
    stand.start_agent()
    stand.plc.program.holds_acks = True
    stand.pass_parts(3, 0.05)
    assert stand.plc.wait_for(lambda agent: agent.fault == Fault.NO_ROOM and agent.results_waiting == 3)
    assert stand.plc.program.agent.trigger_ready == 0
    assert stand.plc.program.agent.result_seq == 1
    stand.pass_parts(2, 0.05)
    assert stand.plc.wait_for(lambda agent: agent.overrun == 2)
    time.sleep(0.5)  # until the deadline of all five is over
    stand.plc.program.holds_acks = False
    assert stand.plc.wait_until_settled()
    assert [line["sequence"] for line in stand.lines("late_result")] == [1, 2, 3]
    assert {line["sequence"]: line["route"] for line in stand.lines("no_answer")} == dict.fromkeys(
        range(1, 6), "divert"
    )
    stand.pass_parts(1, 0.05)
    assert stand.plc.wait_until_settled()
    assert stand.ends()[6] == "result"
    assert is_accounted(stand)


def test_triggers_faster_than_the_answers_wait_their_turn_or_are_counted(start: Start) -> None:
    stand = start(plc={"deadline_ms": 2000}, max_results=8)
    station = stand.start_agent(delay_s=0.06)
    stand.pass_parts(40, 0.025)
    assert stand.plc.wait_until_settled()
    agent = stand.plc.program.agent
    assert agent.overrun > 0
    assert len(station.sequences) + agent.overrun + agent.missed_trigger == 40
    answered = [line["sequence"] for line in stand.lines("result")]
    assert answered == station.sequences
    assert is_accounted(stand)


def test_triggers_faster_than_the_cycle_are_missed_and_counted(start: Start) -> None:
    stand = start(cycle_ms=40, plc={"scan_ms": 20})
    station = stand.start_agent()
    stand.pass_parts(30, 0.002)
    time.sleep(0.2)
    assert stand.plc.wait_until_settled()
    agent = stand.plc.program.agent
    assert agent.missed_trigger > 10
    assert len(station.sequences) + agent.missed_trigger == 30
    assert is_accounted(stand)


def test_a_late_result_is_shown_all_the_same_and_the_plc_has_diverted_the_part(start: Start) -> None:
    stand = start(plc={"deadline_ms": 100})
    stand.start_agent(delay_s=0.25)
    stand.pass_parts(1)
    assert until(lambda: stand.lines("late_result"))
    (end,) = stand.lines("no_answer")
    assert (end["sequence"], end["route"], end["why"]) == (1, "divert", "no_result_in_time")
    assert is_accounted(stand)


def test_after_a_lost_connection_open_results_are_shown_and_parts_of_the_gap_are_missed(start: Start) -> None:
    stand = start(plc={"deadline_ms": 400})
    station = stand.start_agent()
    stand.pass_parts(5, 0.05)
    assert stand.plc.wait_until_settled()
    stand.plc.program.holds_acks = True
    stand.pass_parts(1, 0.1)
    stand.relay.refuses.set()
    stand.relay.cut()
    assert until(lambda: not station.line.account().connected)
    assert "away" in station.line.account().trouble or "left" in station.line.account().trouble
    stand.pass_parts(4, 0.05)
    stand.plc.program.holds_acks = False
    stand.relay.refuses.clear()
    assert stand.plc.wait_for(lambda agent: agent.trigger_ack == 10 and agent.trigger_ready == 1)
    stand.pass_parts(3, 0.05)
    assert stand.plc.wait_until_settled()
    time.sleep(0.4)
    ends = stand.ends()
    assert [sequence for sequence, end in ends.items() if end == "no_answer" and sequence != 6] == [7, 8, 9, 10]
    assert {line["sequence"] for line in stand.lines("result", "late_result")} == {1, 2, 3, 4, 5, 6, 11, 12, 13}
    assert station.positions == [0, 10]
    assert stand.plc.program.agent.missed_trigger == 4
    assert is_accounted(stand)


def test_a_network_that_swallows_everything_is_seen_by_both_and_they_find_each_other_again(start: Start) -> None:
    stand = start(timeout_ms=300, fail_safe_ms=400)
    station = stand.start_agent()
    stand.relay.swallows.set()
    started = time.monotonic()
    assert until(lambda: stand.lines("agent_lost"))
    assert time.monotonic() - started < WATCHDOG_MS / 1e3 + 0.4
    assert until(lambda: station.line.account().trouble), "the agent sees nothing wrong"
    stand.pass_parts(2, 0.02)
    stand.relay.swallows.clear()
    stand.relay.cut()
    assert stand.plc.wait_until_ready()
    stand.pass_parts(1)
    assert stand.plc.wait_until_settled()
    assert station.sequences[-1] == 3
    assert is_accounted(stand)


def test_many_lost_connections_lose_no_result_and_count_every_part(start: Start) -> None:
    stand = start(plc={"deadline_ms": 3000})
    stand.start_agent()
    for _ in range(6):
        stand.pass_parts(4, 0.02)
        stand.relay.cut()
        assert stand.plc.wait_for(lambda agent: agent.trigger_ready == 1)
    stand.pass_parts(1, 0.1)
    assert stand.plc.wait_for(
        lambda agent: agent.trigger_ack == 25 and agent.results_waiting == 0 and agent.busy == 0 and agent.fault == 0
    )
    assert stand.plc.wait_until_settled()
    assert is_accounted(stand)
    assert len(stand.lines("result")) == stand.station.line.account().acknowledged if stand.station else False


def test_a_plc_that_starts_anew_begins_a_new_run_and_old_results_are_dropped(start: Start) -> None:
    stand = start()
    station = stand.start_agent()
    stand.plc.program.holds_acks = True
    stand.pass_parts(2, 0.05)
    assert stand.plc.wait_for(lambda agent: agent.results_waiting == 2)
    old = stand.plc.program.run
    stand.plc.program.restart()
    stand.plc.program.holds_acks = False
    assert stand.plc.wait_for(lambda agent: agent.dropped_results == 2 and agent.trigger_ack == 0)
    stand.pass_parts(2, 0.05)
    assert stand.plc.wait_until_settled()
    new = [line for line in stand.lines("result") if line["run"] != old]
    assert [line["sequence"] for line in new] == [1, 2]
    assert station.sequences == [1, 2, 1, 2]


def test_a_recipe_is_in_force_before_ready_and_a_refused_one_keeps_the_station_from_parts(start: Start) -> None:
    stand = start()
    stand.start_agent()
    stand.plc.program.request_recipe(2)
    assert stand.plc.wait_for(lambda agent: agent.recipe_active == 2 and agent.trigger_ready == 1)
    stand.plc.program.request_recipe(9)
    assert stand.plc.wait_for(lambda agent: agent.recipe_fault == 9)
    assert (stand.plc.program.agent.trigger_ready, stand.plc.program.agent.recipe_active) == (0, 2)
    stand.pass_parts(1)
    assert stand.plc.wait_for(lambda agent: agent.missed_trigger == 1)
    stand.plc.program.request_recipe(2)
    assert stand.plc.wait_for(lambda agent: agent.recipe_fault == 0 and agent.trigger_ready == 1)


def test_a_plc_whose_program_stands_still_is_noticed(start: Start) -> None:
    stand = start(fail_safe_ms=300, plc={"watchdog_ms": 5000})
    station = stand.start_agent()
    stand.plc.program.is_frozen = True
    assert until(lambda: "PlcHeartbeat" in station.line.account().trouble.replace("Plcheartbeat", "PlcHeartbeat"))
    stand.plc.program.is_frozen = False
    assert until(lambda: not station.line.account().trouble)


def test_an_agent_that_leaves_says_goodbye_with_its_fail_safe_state(start: Start) -> None:
    stand = start(plc={"watchdog_ms": 60_000})
    stand.start_agent()
    stand.pass_parts(2, 0.05)
    assert stand.plc.wait_until_settled()
    stand.stop_agent()
    if stand.role == "client":  # as server its registers go with it: the PLC's requests fail at once
        assert until(lambda: stand.lines("agent_lost"), 1)
        (lost,) = stand.lines("agent_lost")
        assert lost["said_goodbye"]
        assert stand.plc.program.agent == register_map.FAIL_SAFE


AGENT = """
import sys, time
from tests.support.plc_stand import Station, line_at
Station(line_at(sys.argv[1], int(sys.argv[2])))
time.sleep(600)
"""


def agent_process(role: Role, port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", AGENT, role, str(port)], cwd=REPO, env={**os.environ})


def test_a_killed_agent_is_seen_in_time_its_parts_are_diverted_and_the_next_one_takes_over(start: Start) -> None:
    stand = start(plc={"watchdog_ms": WATCHDOG_MS})
    agent = agent_process(stand.role, stand.agent_port)
    try:
        assert stand.plc.wait_until_ready(30)
        stand.plc.program.holds_acks = True
        stand.pass_parts(2, 0.05)
        assert stand.plc.wait_for(lambda words: words.results_waiting == 2)
        agent.send_signal(signal.SIGKILL)
        killed_ns = time.monotonic_ns()
        stand.plc.program.holds_acks = False
        agent.wait(10)
        assert until(lambda: stand.lines("agent_lost"))
        (lost,) = stand.lines("agent_lost")
        # As documented: the watchdog's time, a heartbeat that was on its way, and a scan (of a busy machine).
        assert (lost["at_ns"] - killed_ns) / 1e6 < WATCHDOG_MS + 2 * register_map.HEARTBEAT_MS + 100
        before = len(stand.lines("result", "late_result"))
        stand.pass_parts(3, 0.05)
        assert until(lambda: not stand.plc.program.open_count)
        assert len(stand.lines("result", "late_result")) == before, "a dead agent's register was believed"
        assert [line["route"] for line in stand.lines("no_answer") if line["sequence"] > 2] == ["divert"] * 3
    finally:
        agent.kill()
        agent.wait(10)
    successor = agent_process(stand.role, stand.agent_port)
    try:
        assert stand.plc.wait_until_ready(30)
        words = stand.plc.program.agent
        assert (words.result_valid, words.trigger_ack, words.missed_trigger) == (0, 5, 0)
        stand.pass_parts(2, 0.05)
        assert stand.plc.wait_until_settled()
        assert [stand.ends()[sequence] for sequence in (6, 7)] == ["result", "result"]
    finally:
        successor.kill()
        successor.wait(10)


def test_an_agent_whose_plc_is_absent_waits_for_it_and_says_so() -> None:
    line = line_at("client", free_port(), timeout_ms=200)
    assert until(lambda: "is away" in line.account().trouble)
    assert not line.account().connected
    line.close()
    assert not line.worker.alive


def test_two_agents_cannot_listen_at_one_port_and_the_second_says_so() -> None:
    port = free_port()
    first = line_at("server", port)
    second = None
    try:
        assert until(lambda: "not connected" in first.account().trouble)
        time.sleep(0.2)
        second = line_at("server", port)
        assert until(lambda: second is not None and "cannot be listened on" in second.account().trouble)
    finally:
        for line in (first, second):
            if line is not None:
                line.close()
