"""How the last run ended is told from its marks: only a power cut may have cost records."""

from __future__ import annotations

from agent.uplink import ending
from agent.uplink.ending import Ending


class Marks:
    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def meta_get(self, key: str) -> str | None:
        return self.kept.get(key)

    def meta_set(self, key: str, value: str) -> None:
        self.kept[key] = value


def test_first_clean_killed_and_power_cut_are_told_apart() -> None:
    marks = Marks()
    assert ending.begin(marks, "boot-1") is Ending.FIRST
    assert ending.begin(marks, "boot-1") is Ending.KILLED
    ending.end(marks)
    assert ending.begin(marks, "boot-1") is Ending.CLEAN
    assert ending.begin(marks, "boot-2") is Ending.POWER_CUT
    ending.end(marks)
    assert ending.begin(marks, "boot-3") is Ending.CLEAN


def test_where_the_machine_tells_no_boot_a_crash_counts_as_a_power_cut() -> None:
    marks = Marks()
    ending.begin(marks, "unknown")
    assert ending.begin(marks, "unknown") is Ending.POWER_CUT


def test_this_machine_tells_its_boot() -> None:
    marks = Marks()
    ending.begin(marks)
    assert ending.begin(marks) is Ending.KILLED
