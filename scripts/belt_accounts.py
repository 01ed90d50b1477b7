"""Reads every account of a belt: its own, the PLC's and its registers, the device's, and the fleet's database."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from agent.line import register_map
from agent.simulator.belt import BeltSettings
from scripts.plant import Plant, PlantError
from tests.support import marks_models
from tests.support.belt_books import Books, Told

STATION: Final = "belt"
RECIPES: Final = {1: "round", 2: "square"}
MODELS: Final = {1: "marks-round", 2: "marks-square"}


def books_of(folder: Path, plant: Plant, settings: BeltSettings, *, stopped: bool = False) -> Books:
    """Read every account of the belt.

    Args:
        stopped: the belt did not run to its end.
    """
    parts = [event for event in events(folder / "belt.jsonl") if event["event"] == "part"]
    told = {
        event["sequence"]: Told(verdict=event.get("verdict", ""), route=event["route"])
        for event in events(folder / "plc.jsonl")
        if event["event"] in ("result", "no_answer")
    }
    with sqlite3.connect(f"file:{plant.fleet_dir / 'fleet.db'}?mode=ro", uri=True) as database:
        rows = [json.loads(row[0]) for row in database.execute("SELECT record FROM inspection")]
    return Books(
        settings=settings,
        seen={part["number"]: frozenset(part["seen"]) for part in parts},
        count_of={part["number"]: part["count"] for part in parts},
        told=told,
        rows=rows,
        recipe_ids=RECIPES,
        passed=parts[-1]["number"] if stopped and parts else None,
    )


def events(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines; none where it is not there yet."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines[:-1]]  # the last one may be half written


def registers_of(plc_port: int) -> dict[str, int]:
    """Read both blocks of the PLC's registers as any Modbus client would."""
    from pymodbus.client import ModbusTcpClient

    client = ModbusTcpClient("127.0.0.1", port=plc_port, timeout=3)
    try:
        if not client.connect():
            raise PlantError("the PLC's registers cannot be read")
        count = register_map.PLC_REGISTERS
        plc = register_map.decode_plc(client.read_holding_registers(0, count=count).registers)
        offset, count = register_map.AGENT_OFFSET, register_map.AGENT_REGISTERS
        agent = register_map.decode_agent(client.read_holding_registers(offset, count=count).registers)
    finally:
        client.close()
    return {
        "trigger_seq": plc.trigger_seq,
        "part_count": plc.part_count,
        "result_ack": plc.result_ack,
        "trigger_ack": agent.trigger_ack,
        "missed_trigger": agent.missed_trigger,
        "overrun": agent.overrun,
        "results_waiting": agent.results_waiting,
        "recipe_active": agent.recipe_active,
        "fault": agent.fault,
    }


def of_registers(registers: dict[str, int], books: Books) -> list[str]:
    """Compare the registers at the end with the parts that passed."""
    count = len(books.count_of)
    wanted = {"trigger_seq": count, "part_count": count, "trigger_ack": count, "results_waiting": 0, "fault": 0}
    wrong = {name: value for name, value in wanted.items() if registers[name] != value}
    return [f"register {name} is {registers[name]}, not {value}" for name, value in wrong.items()]


def of_counters(plant: Plant, books: Books) -> list[str]:
    """Compare the device's exact counters, which travel by themselves, with the rows."""
    with sqlite3.connect(f"file:{plant.fleet_dir / 'fleet.db'}?mode=ro", uri=True) as database:
        cells = database.execute("SELECT recipe, verdict, SUM(count) FROM counter_cell GROUP BY recipe, verdict")
        counted = Counter({(recipe, verdict): int(count) for recipe, verdict, count in cells})
    rows = Counter((row["recipe"], row["verdict"]) for row in books.rows)
    return [] if counted == rows else [f"the device counted {dict(counted)}, the rows are {dict(rows)}"]


def latencies_ms(folder: Path) -> dict[str, float]:
    """From the photo-eye to the result in the PLC."""
    after = sorted(event["after_ms"] for event in events(folder / "plc.jsonl") if event["event"] == "result")
    if not after:
        return {}
    return {"p50": after[len(after) // 2], "p99": after[int(len(after) * 0.99)], "max": after[-1]}


def passed(folder: Path) -> int:
    """How many parts have passed, from the end of the belt's account."""
    try:
        with (folder / "belt.jsonl").open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - 2000))
            lines = stream.read().split(b"\n")[1:-1]
    except FileNotFoundError:
        return 0
    numbers = [event["number"] for event in map(json.loads, lines) if event["event"] == "part"]
    return int(numbers[-1]) if numbers else 0


def status_of(folder: Path) -> dict[str, Any] | None:
    """What the agent's own status file says; None before there is one."""
    try:
        found: dict[str, Any] = json.loads((folder / "data" / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def ask_for_recipes(folder: Path, plant: Plant, device: str, views: Sequence[str]) -> None:
    """Ask the fleet to have a device run both recipes and their models."""
    plant.fleet_cli(
        *("desired", "set", device, "--url", plant.url, "--recipes", str(_recipes_file(folder, views))),
        *(word for model in MODELS.values() for word in ("--model", f"{model}=1")),
    )


def push_models(folder: Path, plant: Plant) -> None:
    """Make the model of each recipe and push it to the registry."""
    for index, name in enumerate(MODELS.values()):
        marks_models.make(folder / name, name, recipe_index=index)
        plant.push(folder / name)


def _recipes_file(folder: Path, views: Sequence[str]) -> Path:
    """Write two recipes, each with its own model in every view."""
    path = folder / "recipes.toml"
    text = f'[[stations]]\nstation = "{STATION}"\n'
    for number, recipe in RECIPES.items():
        text += f'\n[[stations.recipes]]\nid = "{recipe}"\nnumber = {number}\n'
        for view in views:
            text += f'views.{view} = {{ model = "{MODELS[number]}" }}\n'
    path.write_text(text, encoding="utf-8")
    return path
