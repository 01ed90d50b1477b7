"""A simulated PLC, a relay, the agent's line in either role, and a station that answers as told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from agent.clock import SystemClock
from agent.line.modbus_client import ModbusClientLine
from agent.line.modbus_line import ModbusLine
from agent.line.modbus_server import ModbusServerLine
from agent.line.settings import ModbusSettings
from agent.line.trigger import Answer, LineEvent, LinePosition, RecipeRequest, StationState, Trigger
from agent.simulator.plc import PlcSettings, SimulatedPlc
from tests.support.ports import free_port
from tests.support.relay import Relay
from wire.inspection import Reason, Route, Verdict

Role = Literal["client", "server"]


def line_at(role: Role, port: int, **settings: Any) -> ModbusLine:
    """Start the agent's line in a role, at a port of this machine."""
    kind = ModbusClientLine if role == "client" else ModbusServerLine
    return kind(ModbusSettings(role=role, address=f"127.0.0.1:{port}", **settings), SystemClock(), "press")


def verdict_of(trigger: Trigger) -> tuple[Verdict, Route]:
    """What the station of the tests says of a part: every third one is NG, so that a swap shows."""
    return (Verdict.NG, Route.REJECT) if (trigger.sequence or 0) % 3 == 0 else (Verdict.OK, Route.ACCEPT)


class Station:
    """Takes triggers on a thread of its own and answers after `delay_s`; recipe 9 is refused."""

    def __init__(self, line: ModbusLine, delay_s: float = 0.004) -> None:
        self.line = line
        self.delay_s = delay_s
        self.events: list[LineEvent] = []
        self.latencies_ns: list[int] = []
        self.recipe = 1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="station", daemon=True)
        self._thread.start()

    @property
    def sequences(self) -> list[int]:
        return [event.sequence or 0 for event in self.events if isinstance(event, Trigger)]

    @property
    def positions(self) -> list[int]:
        return [event.sequence for event in self.events if isinstance(event, LinePosition)]

    def end(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _work(self) -> None:
        while not self._stop.is_set():
            self.line.set_state(StationState(ready=True, recipe_number=self.recipe))
            event = self.line.take(0.1)
            if event is None:
                continue
            self.events.append(event)
            if isinstance(event, RecipeRequest):
                refusal = "There is no recipe 9." if event.number == 9 else ""
                self.recipe = self.recipe if refusal else event.number or 0
                self.line.answer_recipe(event, refusal)
            elif isinstance(event, Trigger):
                self.latencies_ns.append(time.monotonic_ns() - event.at_ns)
                self._stop.wait(self.delay_s)
                self.line.answer(answer_to(event))


def answer_to(trigger: Trigger) -> Answer:
    verdict, route = verdict_of(trigger)
    return Answer(
        trigger=trigger,
        inspection_id="x",
        verdict=verdict,
        reason=Reason.RULE_FIRED if verdict is Verdict.NG else Reason.NONE,
        route=route,
        recipe="default",
        judged_ns=time.monotonic_ns(),
    )


class Stand:
    """All of it together; the line's role decides who holds the registers."""

    def __init__(self, role: Role, folder: Path, *, plc: dict[str, Any] | None = None, **settings: Any) -> None:
        self.role = role
        self.count_file = folder / "plc.jsonl"
        self._settings = settings
        facts = {"count_file": self.count_file, **(plc or {})}
        if role == "client":
            self.plc = SimulatedPlc(PlcSettings(role="server", **facts))
            self.plc.start()
            self.relay = Relay(("127.0.0.1", self.plc.port))
            self.agent_port = self.relay.port
        else:
            self.agent_port = free_port()
            self.relay = Relay(("127.0.0.1", self.agent_port))
            self.plc = SimulatedPlc(PlcSettings(role="client", port=self.relay.port, **facts))
            self.plc.start()
        self.station: Station | None = None

    def start_agent(self, delay_s: float = 0.004) -> Station:
        self.station = Station(line_at(self.role, self.agent_port, **self._settings), delay_s)
        assert self.plc.wait_until_ready(), self.station.line.account()
        return self.station

    def stop_agent(self) -> None:
        if self.station is not None:
            self.station.end()
            self.station.line.close()
            self.station = None

    def end(self) -> None:
        self.stop_agent()
        self.relay.close()
        self.plc.stop()

    def pass_parts(self, count: int, pitch_s: float = 0.03) -> list[int]:
        sequences = []
        for _ in range(count):
            sequences.append(self.plc.photo_eye(part_id=f"p{self.plc.program.open_count}"))
            time.sleep(pitch_s)
        return sequences

    def lines(self, *kinds: str) -> list[dict[str, Any]]:
        """What the PLC wrote of these kinds."""
        read = [json.loads(line) for line in self.count_file.read_text(encoding="utf-8").splitlines()]
        return [line for line in read if not kinds or line["event"] in kinds]

    def ends(self) -> dict[int, str]:
        """How each part of the PLC's account ended, by sequence (of one run)."""
        return {line["sequence"]: line["event"] for line in self.lines("result", "no_answer")}


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> bool:
    """Wait until it is so."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
