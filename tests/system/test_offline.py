"""A device whose fleet is gone: versions come by stick, a person goes back, reports are carried out in a file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.plant import Device, Plant, wait_for

pytestmark = pytest.mark.system

REPO = Path(__file__).resolve().parents[2]
PARTS = 20


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path / "plant")
    yield made
    made.close()


def lineside(device: Device, *arguments: object) -> tuple[int, str, str]:
    """Run a command beside the device, as the technician does."""
    ran = subprocess.run(
        [sys.executable, "-m", "agent.cli", *map(str, arguments), "--config", str(device.config)],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ran.returncode, ran.stdout, ran.stderr


def rows(device: Device) -> list[dict[str, Any]]:
    code, out, err = lineside(device, "models", "list", "--json")
    assert code == 0, err
    found: list[dict[str, Any]] = json.loads(out)["versions"]
    return found


def roles(device: Device) -> dict[int, list[str]]:
    return {row["release"]: row["roles"] for row in rows(device)}


def test_a_device_without_a_fleet_gets_versions_by_stick_goes_back_and_tells_the_fleet_later(
    plant: Plant, tmp_path: Path
) -> None:
    plant.start_fleet()
    device = plant.add_device("press-7", seed=7, parts_per_s=8.0, probation_parts=PARTS)
    plant.fleet.stop()
    device.agent.start()
    wait_for("the agent has a status", device.status, 30)
    stick = tmp_path / "stick"
    stick.mkdir()
    for number in (1, 2):
        code, _, err = lineside_plain("model", "pack", f"models/demo-parts-{number}", stick / f"demo-{number}.tar")
        assert code == 0, err

    code, out, err = lineside(device, "import", stick, "--release", 1, "--yes", "--by", "anna")
    assert code == 0, f"{err}\n{device.agent.tail()}"
    assert out.startswith("demo-parts release 1 (")
    assert "tested on this device, beside the line" in err
    wait_for("release 1 has passed its probation", lambda: roles(device).get(1) == ["runs", "current"], 60)

    code, _, err = lineside(device, "import", stick, "--release", 2, "--yes", "--by", "anna")
    assert code == 0, f"{err}\n{device.agent.tail()}"
    code, out, _ = lineside(device, "models", "show", "demo-parts")
    assert (code, out.splitlines()[0].split(":")[0]) == (0, "model       demo-parts, release 2")
    wait_for("release 2 has passed its probation", lambda: roles(device).get(2) == ["runs", "current"], 60)
    assert roles(device)[1] == ["previous"]

    code, out, err = lineside(device, "models", "rollback", "demo-parts", "--yes", "--by", "bert")
    assert code == 0, f"{err}\n{device.agent.tail()}"
    assert out.startswith("demo-parts release 1 (")
    assert out.endswith(" runs.\n")
    assert roles(device) == {2: ["previous"], 1: ["runs", "current"]}
    assert lineside(device, "models", "verify")[0] == 0

    code, out, err = lineside(device, "export", stick / "press-7.export", "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["entries_by_lane"]["inspections"] > 2 * PARTS
    device.agent.stop()

    plant.fleet.start()
    plant.wait_until_served()
    assert list(plant.pages("/api/v1/deployments?device=press-7")) == []
    absorbed = json.loads(
        plant.fleet_cli("devices", "absorb", str(stick / "press-7.export"), "--url", plant.url, "--json")
    )
    assert absorbed["trouble"] == ""
    assert absorbed["lanes"]["inspections"]["new"] == summary["entries_by_lane"]["inspections"]
    found = sorted(plant.pages("/api/v1/deployments?device=press-7"), key=lambda row: str(row["id"]))
    assert [(row["release"], row["state"], row["origin"]) for row in found] == [
        (1, "succeeded", "device"),
        (2, "succeeded", "device"),
        (1, "succeeded", "device"),
    ]
    device.line.stop()  # which would bring parts for ever, and never is everything delivered
    device.agent.start()
    plant.wait_until_drained(device)
    again = json.loads(
        plant.fleet_cli("devices", "absorb", str(stick / "press-7.export"), "--url", plant.url, "--json")
    )
    assert again["lanes"]["inspections"]["new"] == 0, "what came twice is counted once"


def lineside_plain(*arguments: object) -> tuple[int, str, str]:
    """Run a command that needs no device."""
    ran = subprocess.run(
        [sys.executable, "-m", "agent.cli", *map(str, arguments)],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ran.returncode, ran.stdout, ran.stderr
