"""Tests side by side: the order in which processes take up files, and the turns of tests that must be alone."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.turns import Turns

# The longest file, and it forks some thousand times: that is slower the more a process has in memory.
FIRST = "test_deploy_kill.py"
# What waits longest begins first; many short tests at the end keep every process busy.
FOLDERS = ("system", "agent", "browser", "fleet", "docs", "unit", "contract")


class SideBySide:
    """A plugin for a process that runs tests beside others of the same run."""

    def __init__(self, turns: Path) -> None:
        self._turns = Turns(turns)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put the files in order; each file's tests stay together and in their own order."""
        alone = {item.path for item in items if _is_alone(item)}
        items.sort(key=lambda item: rank(item.path, alone=item.path in alone))

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # around pytest-timeout: waiting for a turn is not the test's time
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Run a test with its fixtures in its turn."""
        with self._turns.turn(alone=_is_alone(item)):
            return (yield)


def rank(path: Path, *, alone: bool) -> tuple[bool, bool, int]:
    """Return where a file belongs: those with tests that must be alone come last, when the other processes are done."""
    places = [FOLDERS.index(part) for part in path.parent.parts if part in FOLDERS]
    return alone, path.name != FIRST, places[-1] if places else len(FOLDERS)


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None
