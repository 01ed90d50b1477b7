"""A belt from photo-eye to database: cameras, a PLC, two recipes, an agent that is killed, a camera that is lost.

Every picture carries its part's number in marks that the model reads, so that each record says which part was judged.
At the end the belt's own account, the PLC's, its registers, the device's counters and the fleet's database are held
against each other, part by part. `run.py soak belt --parts 10000 --json` runs it by hand; tests/system/test_belt.py
runs it in the suite. The last line is one JSON object; exit status 1 where the accounts do not agree.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent.simulator.belt import BeltSettings  # noqa: E402
from scripts import belt_accounts  # noqa: E402
from scripts.belt_accounts import MODELS, RECIPES, STATION  # noqa: E402
from scripts.plant import Plant, PlantError, Process, free_port, wait_for  # noqa: E402
from tests.support import belt_books  # noqa: E402
from tests.support.belt_books import Books  # noqa: E402

DEVICE: Final = "belt-1"
LOST_CAMERA: Final = "left"
SECONDS_DOWN: Final = 1.0
# The agent looks at the PLC so often; a part whose moment it knows less well than the tolerance is not judged.
CYCLE_MS: Final = 2.0
SCAN_MS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much of it.

    Args:
        kill_at, lose_from, lose_to: as shares of all parts.
    """

    parts: int = 2000
    least_pitch_ms: float = 8.0
    seed: int = 1
    broker: str = "auto"
    kill_at: float = 0.37
    lose_from: float = 0.6
    lose_to: float = 0.7

    @property
    def lost(self) -> range:
        """The parts that pass while a camera is lost."""
        return range(int(self.parts * self.lose_from), int(self.parts * self.lose_to))

    @property
    def belt(self) -> BeltSettings:
        return BeltSettings(
            seed=self.seed,
            part_count=self.parts,
            least_pitch_ms=self.least_pitch_ms,
            recipes=tuple(RECIPES),
            batch_parts=max(20, min(500, self.parts // 6)),
            touching_share=0.4,
            mean_gap=0.35,
            speeds=(1.0, 0.95, 0.85, 0.6),
            stop_share=0.15,
            stop_s=0.4,
        )

    @property
    def tolerance_ms(self) -> float:
        """How far a picture may be from its part: less than half the least pitch, less the millisecond that an age is
        rounded by, so that two parts never fit into the window, however late the agent read of one."""
        return (self.least_pitch_ms - 2.2) / 2


def run(folder: Path, options: Options) -> tuple[dict[str, Any], Books]:
    """Run the belt to its end and return what the accounts say, in figures and part by part."""
    started = time.monotonic()
    plant = Plant(folder=folder, broker=options.broker)
    processes: list[Process] = []
    try:
        plant.start_fleet()
        belt_accounts.push_models(folder, plant)
        plc_port, cameras_port = free_port(), free_port()
        line = Process("belt", _line_command(folder, options, plc_port, cameras_port), folder / "belt.log")
        processes.append(line)
        line.start()
        config = folder / "agent.toml"
        config.write_text(_agent_toml(folder, plant.url, options, plc_port, cameras_port), encoding="utf-8")
        agent = plant.enrolled_agent(DEVICE, config, folder / "agent.log")
        processes.insert(0, agent)
        agent.start()
        belt_accounts.ask_for_recipes(folder, plant, DEVICE, options.belt.views)
        _watch(line, agent, lambda: belt_accounts.passed(folder) > 0, 60, "the belt moves")
        moving_since = time.monotonic()
        kill_at = int(options.parts * options.kill_at)
        _watch(
            line, agent, lambda: belt_accounts.passed(folder) >= kill_at, 30 + options.parts, f"part {kill_at} passes"
        )
        agent.kill()
        time.sleep(SECONDS_DOWN)
        agent.start()
        _watch(line, agent, lambda: bool(_ends(folder)), 60 + options.parts, "all parts have passed")
        belt_s = time.monotonic() - moving_since
        _watch(line, agent, lambda: _is_drained(folder), 60, "the device has delivered everything")
        registers = belt_accounts.registers_of(plc_port)
        status = belt_accounts.status_of(folder) or {}
        line.stop()
        books = belt_accounts.books_of(folder, plant, options.belt)
        with contextlib.suppress(PlantError):  # then what differs is told below
            wait_for("the counters have come", lambda: not belt_accounts.of_counters(plant, books), 30)
        found = (
            belt_books.discrepancies(books)
            + belt_accounts.of_registers(registers, books)
            + belt_accounts.of_counters(plant, books)
        )
        result = {
            "schema": "lineside.belt/1",
            **belt_books.summary(books),
            "belt_s": round(belt_s, 1),
            "parts_per_s": round(options.parts / belt_s, 1),
            "seconds": round(time.monotonic() - started, 1),
            "latency_ms": belt_accounts.latencies_ms(folder),
            "registers": registers,
            "station": status.get("stations", [{}])[0],
            "discrepancies": len(found),
            "first_discrepancies": found[:20],
        }
        return result, books
    finally:
        for process in processes:
            process.stop()
        plant.close()


def _watch(line: Process, agent: Process, ask: Callable[[], bool], timeout_s: float, what: str) -> None:
    def asked() -> bool:
        for process in (line, agent):
            if not process.running:
                raise PlantError(f"{process.name} ended:\n{process.tail()}")
        return ask()

    try:
        wait_for(what, asked, timeout_s)
    except PlantError as error:
        raise PlantError(f"{error}\n--- belt\n{line.tail()}\n--- agent\n{agent.tail()}") from error


def _ends(folder: Path) -> list[dict[str, Any]]:
    return [event for event in belt_accounts.events(folder / "belt.jsonl") if event["event"] == "end"]


def _is_drained(folder: Path) -> bool:
    """Whether the device has nothing left to send, by a status written after the last part."""
    status = belt_accounts.status_of(folder)
    (end,) = _ends(folder)
    return (
        status is not None
        and datetime.fromisoformat(status["at"]).timestamp() > end["at"] + 1.0
        and status["connected"]
        and status["outbox_unsettled"] == 0
    )


def _line_command(folder: Path, options: Options, plc_port: int, cameras_port: int) -> list[str]:
    belt = options.belt
    file = folder / "belt.toml"
    file.write_text(
        f"""\
account = "{folder / "belt.jsonl"}"
plc_account = "{folder / "plc.jsonl"}"
plc_port = {plc_port}
cameras_port = {cameras_port}
deadline_ms = 500.0
scan_ms = {SCAN_MS}
stays = true

[belt]
seed = {belt.seed}
part_count = {belt.part_count}
batch_parts = {belt.batch_parts}
least_pitch_ms = {belt.least_pitch_ms}
views = {list(belt.views)}
recipes = {list(belt.recipes)}
touching_share = {belt.touching_share}
mean_gap = {belt.mean_gap}
speeds = {list(belt.speeds)}
stop_share = {belt.stop_share}
stop_s = {belt.stop_s}

[[losses]]
camera = "{LOST_CAMERA}"
from_part = {options.lost.start}
to_part = {options.lost.stop}
""".replace("'", '"'),
        encoding="utf-8",
    )
    return [sys.executable, "-m", "agent.cli", "simulate", "--belt", str(file)]


def _agent_toml(folder: Path, url: str, options: Options, plc_port: int, cameras_port: int) -> str:
    views = "".join(
        f"""
[[stations.views]]
id = "{view}"
model = "{MODELS[1]}"
source = {{ kind = "simulated", address = "127.0.0.1:{cameras_port}", camera = "{view}" }}
"""
        for view in options.belt.views
    )
    return f"""\
[device]
id = "{DEVICE}"
data_dir = "{folder / "data"}"

[fleet]
url = "{url}"
poll_interval_s = 5

[mqtt]
resend_after_s = 3

[deploy.probation]
parts = 0
minutes = 0

[local]
enabled = false

[[stations]]
id = "{STATION}"
deadline_ms = 400
frame_wait_ms = {max(20.0, options.least_pitch_ms * 3)}
frame_tolerance_ms = {options.tolerance_ms}
floor_rate = 0.002

[stations.line]
kind = "modbus"
modbus = {{ address = "127.0.0.1:{plc_port}", cycle_ms = {CYCLE_MS} }}
{views}"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="run.py soak belt", description=__doc__.partition("\n")[0] if __doc__ else None
    )
    parser.add_argument("--parts", type=int, default=10_000)
    parser.add_argument("--pitch-ms", type=float, default=8.0, help="least time between two parts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", choices=["auto", "embedded", "mosquitto"], default="auto")
    parser.add_argument("--json", action="store_true", help="only the JSON line on standard output")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep all files and logs in this new folder")
    args = parser.parse_args()
    options = Options(parts=args.parts, least_pitch_ms=args.pitch_ms, seed=args.seed, broker=args.broker)
    folder = args.keep if args.keep is not None else Path(tempfile.mkdtemp(prefix="lineside-belt-"))
    try:
        result, _ = run(folder, options)
    except PlantError as error:
        print(f"error: {error}\nThe logs are in {folder}.", file=sys.stderr)
        return 1
    if not args.json:
        print(json.dumps({key: value for key, value in result.items() if key != "station"}, indent=2))
    print(json.dumps(result))
    if args.keep is None and not result["discrepancies"]:
        shutil.rmtree(folder)
    return 1 if result["discrepancies"] else 0


if __name__ == "__main__":
    sys.exit(main())
