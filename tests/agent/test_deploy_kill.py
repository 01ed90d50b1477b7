"""kill -9 of a process that runs the runner, at every boundary it passes; after a restart all is whole and ends.

Each kill of a download stands for a power cut, too: what was not made durable of an unfinished file comes to nothing.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploying import wanted
from tests.support.kill_scenarios import LIMIT, SCENARIOS, Plant
from wire import package
from wire.deployment import DeploymentState as S

PAIRS = 40


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: each case copies a device and syncs files some hundred times."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(prefix="lineside-", dir=memory if usable else None) as made:
        yield Path(made)


WAITS = {"interrupted again and again": "sync ", "no room, then a busy line": "report staged"}


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_any_boundary_the_device_restarts_on_a_whole_model_and_the_deployment_ends(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant = Plant(folder, SCENARIOS[name])
    plant.reset()
    boundaries = plant.run_and_kill(at=LIMIT)
    assert {"self-test", "fetch half", "rename parts.json"} <= set(boundaries)
    if name in WAITS:
        assert len([one for one in boundaries if one.startswith(WAITS[name])]) > 1
    for at in range(1, len(boundaries) + 1):
        plant.reset()
        passed = plant.run_and_kill(at)
        try:
            plant.restart_and_check(SCENARIOS[name].ends)
        except AssertionError as error:
            raise AssertionError(f"Killed at boundary {at}, before {passed[-1]!r}: {error}") from error
    with capsys.disabled():
        print(f"\n{name}: killed at {len(boundaries)} boundaries")


@pytest.mark.parametrize("name", ["third version", "interrupted again and again"])
def test_killed_again_while_it_recovers_the_device_still_ends_on_a_whole_model(folder: Path, name: str) -> None:
    scenario = SCENARIOS[name]
    ends = frozenset({S.SUCCEEDED, S.FAILED_REVERTED, S.FAILED_NO_CHANGE})
    plant = Plant(folder, scenario)
    plant.reset()
    boundaries = len(plant.run_and_kill(at=LIMIT))
    rng = random.Random(20261121)
    for _ in range(PAIRS):
        plant.reset()
        first, second = rng.randint(1, boundaries), rng.randint(1, boundaries // 3)
        plant.run_and_kill(first)
        plant.run_and_kill(second)
        try:
            plant.restart_and_check(ends)
        except AssertionError as error:
            raise AssertionError(f"Killed at boundaries {first} and {second}: {error}") from error


def test_a_version_that_kills_the_agent_at_each_boot_is_taken_back(folder: Path) -> None:
    """Killed between `current` and the journal's last entry, then each time the new version is loaded."""
    plant = Plant(folder, SCENARIOS["third version"])
    plant.reset()
    boundaries = plant.run_and_kill(at=LIMIT)
    moved = next(number for number, name in enumerate(boundaries) if name == "activated") + 1
    switched = next(number for number in range(moved, LIMIT) if boundaries[number] == "write parts.json") + 5
    plant.reset()
    plant.run_and_kill(switched + 1)
    third = plant.packages[3].digest
    for _ in range(4):
        device = plant._device(plant.root, None)
        device.boot()
        if device.activator.in_use != third:
            break
        # The version ends the agent while it is loaded: nothing more is done in this boot.
    assert device.activator.in_use == plant.packages[2].digest
    device.run(wanted(plant.packages[3]))
    assert device.reports[-1].state is S.FAILED_REVERTED
    assert device.reports[-1].code == "deployment.attempts_exhausted"
    assert isinstance(device.store.package(plant.packages[2].digest), package.Package)
