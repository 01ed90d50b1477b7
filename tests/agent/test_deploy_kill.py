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

from tests.support.kill_scenarios import LIMIT, SCENARIOS, Plant
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
    assert {"self-test", "rename parts.json"} <= set(boundaries)
    if name in WAITS:
        assert len([one for one in boundaries if one.startswith(WAITS[name])]) > 1
    first = boundaries.index(SCENARIOS[name].begins) + 1 if SCENARIOS[name].begins else 1
    for at in range(first, len(boundaries) + 1):
        plant.reset()
        passed = plant.run_and_kill(at)
        try:
            plant.restart_and_check(SCENARIOS[name].ends, crashed=True)
        except AssertionError as error:
            raise AssertionError(f"Killed at boundary {at}, before {passed[-1]!r}: {error}") from error
    with capsys.disabled():
        print(f"\n{name}: killed at {len(boundaries) + 1 - first} of {len(boundaries)} boundaries")


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
        plant.run_and_kill(second, crashed=True)
        try:
            plant.restart_and_check(ends, crashed=True)
        except AssertionError as error:
            raise AssertionError(f"Killed at boundaries {first} and {second}: {error}") from error


def test_a_version_that_may_have_ended_the_agent_is_not_loaded_again_before_it_has_passed(folder: Path) -> None:
    """Killed at each boundary from its first moment in use until the journal says `succeeded`, `current` or not."""
    plant = Plant(folder, SCENARIOS["third version"])
    plant.reset()
    boundaries = plant.run_and_kill(at=LIMIT)
    first = boundaries.index("activated") + 1
    last = boundaries.index("report succeeded", first)
    assert last - first > 10
    for at in range(first, last):
        plant.reset()
        plant.run_and_kill(at)
        device = plant._device(plant.root, None)
        device.boot(crashed=True)
        attempt = device.journal.of("parts").attempt
        assert attempt is not None
        if attempt.state is not S.SUCCEEDED:
            assert device.activator.in_use == plant.packages[2].digest, f"killed before {boundaries[at - 1]!r}"
