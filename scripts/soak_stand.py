"""What the soak of the line runs against: fleet, belt, PLC, cameras and one agent; and all that befalls the cameras."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import psutil

from agent.simulator.belt import BeltSettings
from agent.simulator.belt_cameras import BeltCameras
from agent.simulator.belt_line import BeltLine
from agent.simulator.belt_process import PlcController
from agent.simulator.line import CountFile
from agent.simulator.plc import PlcSettings, SimulatedPlc
from scripts import belt_accounts, soak_cameras
from scripts.belt_accounts import MODELS, STATION
from scripts.plant import ROOT, Plant, PlantError, Process, wait_for
from scripts.soak_cameras import Fault
from tests.support import rtsp

DEVICE: Final = "soak-1"
VIEWS: Final = ("top", "left", "right")
NETWORK: Final = "network"  # the RTSP camera's station and view
SCALES: Final = (4, 8)  # 256 x 192 and 512 x 384 pixels
LEAST_PITCH_MS: Final = 40.0
RECOVER_S: Final = 60.0
MOST_WAITING: Final = 16  # frames that a view may have on their way


class Stand:
    """Fleet, belt, PLC, cameras and one agent."""

    def __init__(self, folder: Path, broker: str, seed: int) -> None:
        self.folder = folder
        self.plant = Plant(folder=folder, broker=broker)
        self.settings = BeltSettings(
            seed=seed, part_count=60_000, least_pitch_ms=LEAST_PITCH_MS, views=VIEWS, batch_parts=400
        )
        self.account = CountFile(folder / "belt.jsonl")
        self.cameras = BeltCameras("127.0.0.1", 0, VIEWS)
        self.plc = SimulatedPlc(PlcSettings(count_file=folder / "plc.jsonl", scan_ms=5.0))
        self.plc.start()
        self.belt = BeltLine(self.settings, PlcController(self.plc), self.cameras, self.account, scale=SCALES[0])
        self.rtsp = rtsp.RtspServer(fps=10).start() if _has_rtsp() else None
        self.stop = threading.Event()
        self._belt_thread = threading.Thread(target=self.belt.run, args=(self.stop,), name="belt")
        self._agent: Process | None = None

    @property
    def agent(self) -> Process:
        if self._agent is None:
            raise PlantError("the agent has not been made yet")
        return self._agent

    def start(self) -> None:
        """Start everything, and wait until parts are judged."""
        self.plant.start_fleet()
        belt_accounts.push_models(self.folder, self.plant)
        plugins = self.folder / "plugins"
        soak_cameras.install(plugins)
        config = self.folder / "agent.toml"
        config.write_text(self._agent_toml(), encoding="utf-8")
        environment = {"PYTHONPATH": f"{plugins}:{ROOT}"}
        self._agent = self.plant.enrolled_agent(DEVICE, config, self.folder / "agent.log", environment)
        self.agent.start()
        belt_accounts.ask_for_recipes(self.folder, self.plant, DEVICE, VIEWS)
        self._belt_thread.start()
        wait_for("parts are judged", self.is_well, RECOVER_S * 2)

    def close(self) -> None:
        self.stop.set()
        for end in (self._stop_agent, self._join_belt, self.plc.stop, self.cameras.close, self.account.close):
            with contextlib.suppress(PlantError, RuntimeError):
                end()
        if self.rtsp is not None:
            self.rtsp.thaw()
            self.rtsp.kill()
        self.plant.close()

    def end_belt(self) -> int:
        """Let the belt stand for good; return how many parts have passed."""
        self.stop.set()
        self._join_belt()
        self.plc.wait_until_settled()
        self.plc.cut()  # whoever connects anew learns where the count stands: no part is left out at the end
        return belt_accounts.passed(self.folder)

    def views(self) -> dict[str, dict[str, Any]]:
        """How each view is, by the agent's status."""
        status = belt_accounts.status_of(self.folder)
        if status is None or status["pid"] != self.agent.pid:
            return {}
        return {
            view["view"]: {**view, "process_id": process.get("process_id")}
            for station in status["stations"]
            for view, process in zip(station["health"]["views"], station["views"], strict=True)
        }

    def process_of(self, view: str) -> int | None:
        found: int | None = self.views().get(view, {}).get("process_id")
        return found

    def is_well(self) -> bool:
        """Whether every view gives frames, through a process that lives, and the PLC may send parts."""
        views = self.views()
        expected = {*VIEWS, *([NETWORK] if self.rtsp is not None else [])}
        return (
            views.keys() == expected
            and all(view["connected"] and not view["trouble"] and view["process_id"] for view in views.values())
            and all(psutil.pid_exists(view["process_id"]) for view in views.values())
            and all(view["frames_in"] > 0 for view in views.values())
            and bool(self.plc.program.agent.trigger_ready)
        )

    def troubles(self) -> str:
        """What is wrong with the views, in words."""
        found = {view: one["trouble"] or "no frames" for view, one in self.views().items() if not one["connected"]}
        return f"{found or 'the station is not ready'}"

    def accounts(self) -> list[str]:
        """Return a sentence for each view whose frames, and each station whose triggers, do not add up."""
        status = belt_accounts.status_of(self.folder) or {"stations": []}
        found = []
        for station in status["stations"]:
            health = station["health"]
            if not 0 <= health["triggers"] - health["verdicts"] <= 1:
                found.append(f"{health['station']}: {health['triggers']} triggers, {health['verdicts']} verdicts")
            for view in health["views"]:
                gone = view["frames_used"] + view["frames_not_triggered"] + sum(view["frames_dropped"].values())
                if not 0 <= view["frames_in"] - gone <= MOST_WAITING:
                    found.append(f"{view['view']}: {view['frames_in']} frames came, {gone} went")
        return found

    def has_delivered(self, passed: int) -> bool:
        """Whether the fleet has a row for every part."""
        status = belt_accounts.status_of(self.folder)
        if status is None or status["outbox_unsettled"]:
            return False
        rows = belt_accounts.books_of(self.folder, self.plant, self.settings, stopped=True).rows
        return sum(row["station"] == STATION for row in rows) >= passed

    def flows(self) -> bool:
        """Whether all is well and every view has got new frames while somebody looked."""
        before = self.views()
        if not self.is_well():
            return False
        time.sleep(1.2)  # the status is written once a second
        after = self.views()
        return self.is_well() and all(after[view]["frames_in"] > before[view]["frames_in"] for view in before)

    def _stop_agent(self) -> None:
        if self._agent is not None:
            self._agent.stop()

    def _join_belt(self) -> None:
        if self._belt_thread.is_alive():
            self._belt_thread.join(30)

    def _agent_toml(self) -> str:
        views = "".join(
            f"""
[[stations.views]]
id = "{view}"
model = "{MODELS[1]}"
source = {{ kind = "plugin", plugin = "belt", options = {{ port = {self.cameras.port} }}, read_timeout_s = 2 }}
"""
            for view in VIEWS
        )
        network = (
            f"""
[[stations]]
id = "{NETWORK}"
line = {{ kind = "interval", interval_s = 0.2, mode = "setup" }}

[[stations.views]]
id = "{NETWORK}"
model = "{MODELS[1]}"
source = {{ kind = "rtsp", url = "{self.rtsp.url}", policy = "latest", read_timeout_s = 2, open_timeout_s = 2 }}
"""
            if self.rtsp is not None
            else ""
        )
        return f"""\
[device]
id = "{DEVICE}"
data_dir = "{self.folder / "data"}"

[fleet]
url = "{self.plant.url}"
poll_interval_s = 5

[mqtt]
resend_after_s = 3

[deploy.probation]
parts = 0
minutes = 0

[local]
port = 0

[[stations]]
id = "{STATION}"
deadline_ms = 400
frame_wait_ms = 120
frame_tolerance_ms = 15
floor_rate = 0.002

[stations.line]
kind = "modbus"
modbus = {{ address = "127.0.0.1:{self.plc.port}", cycle_ms = 5 }}
{views}{network}"""


def faults_of(stand: Stand) -> list[Fault]:
    """Return everything that happens to cameras and line, once each."""

    def lose(view: str) -> None:
        stand.cameras.lose(view)
        time.sleep(2)
        stand.cameras.restore(view)

    def resize() -> None:
        stand.belt.scale = SCALES[stand.belt.scale == SCALES[0]]

    found = [
        Fault(name="camera process killed", strike=lambda: soak_cameras.kill_process(stand.process_of("top"))),
        Fault(name="camera process stopped", strike=lambda: soak_cameras.stop_process(stand.process_of("left"))),
        Fault(name="camera away", strike=lambda: lose("right")),
        Fault(name="picture size changed", strike=resize),
        Fault(name="PLC cut off", strike=stand.plc.cut),
    ]
    server = stand.rtsp
    if server is not None:

        def restart() -> None:
            server.kill()
            time.sleep(2)
            server.start()

        def freeze() -> None:
            server.freeze()
            time.sleep(6)
            server.thaw()

        sizes = itertools.cycle([(640, 480), (320, 240)])
        found += [
            Fault(name="RTSP server killed", strike=restart),
            Fault(name="RTSP server frozen", strike=freeze),
            Fault(name="RTSP size changed", strike=lambda: server.switch_size(*next(sizes))),
            Fault(name="RTSP process killed", strike=lambda: soak_cameras.kill_process(stand.process_of(NETWORK))),
        ]
    return found


def _has_rtsp() -> bool:
    """Whether GStreamer's RTSP server is installed."""
    try:
        rtsp.needed()
    except BaseException as error:  # noqa: BLE001  (pytest's way to skip a test)
        print(f"No RTSP camera: {error}", file=sys.stderr)
        return False
    return True
