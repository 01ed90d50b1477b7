"""Tests side by side: who is alone has the machine, nobody waits for ever, and the long ones begin first."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.side_by_side import rank

REPO = Path(__file__).resolve().parents[2]
# Waits for its turn, says that it has it, and ends it when a line comes in.
TURN = """
import sys
from pathlib import Path
from tests.support.turns import Turns
turns = Turns(Path(sys.argv[1]))
print("waits", flush=True)
with turns.turn(alone=sys.argv[2] == "alone"):
    print("in", flush=True)
    input()
print("out", flush=True)
"""


class Taker:
    """A process that takes one turn."""

    def __init__(self, file: Path, kind: str) -> None:
        self.log = file.with_name(f"{time.monotonic_ns()}.log")
        self.process = subprocess.Popen(
            [sys.executable, "-c", TURN, str(file), kind], cwd=REPO, stdin=subprocess.PIPE, stdout=self.log.open("w")
        )
        self.until("waits")

    def said(self) -> list[str]:
        return self.log.read_text().split()

    def until(self, word: str) -> None:
        deadline = time.monotonic() + 20
        while word not in self.said():
            assert time.monotonic() < deadline, f"never {word}: {self.said()}"
            time.sleep(0.01)

    def waits(self) -> bool:
        """Whether it still waits after a moment in which it could have come in."""
        time.sleep(0.3)
        return self.said() == ["waits"]

    def end(self) -> None:
        self.process.communicate(b"\n", timeout=20)


@pytest.fixture
def take(tmp_path: Path) -> Iterator[Callable[[str], Taker]]:
    takers: list[Taker] = []
    (tmp_path / "turns").touch()

    def begin(kind: str) -> Taker:
        takers.append(Taker(tmp_path / "turns", kind))
        return takers[-1]

    yield begin
    for taker in takers:
        taker.process.kill()
        taker.process.communicate()


def test_tests_share_the_machine(take: Callable[[str], Taker]) -> None:
    for taker in [take("shared"), take("shared"), take("shared")]:
        taker.until("in")


def test_a_test_that_must_be_alone_waits_for_the_others_and_they_for_it(take: Callable[[str], Taker]) -> None:
    first = take("shared")
    first.until("in")
    alone = take("alone")
    assert alone.waits()
    later = take("shared")
    assert later.waits(), "who comes later must not overtake: the one that is alone would wait for ever"
    first.end()
    alone.until("in")
    assert later.waits()
    alone.end()
    later.until("in")


def test_two_that_must_be_alone_come_one_after_the_other(take: Callable[[str], Taker]) -> None:
    one = take("alone")
    one.until("in")
    other = take("alone")
    assert other.waits()
    one.end()
    other.until("in")


@pytest.mark.parametrize("kind", ["shared", "alone"])
def test_the_turn_of_a_process_that_was_killed_is_over(take: Callable[[str], Taker], kind: str) -> None:
    killed = take(kind)
    killed.until("in")
    alone = take("alone")
    assert alone.waits()
    killed.process.kill()
    alone.until("in")


def test_long_waits_begin_first_and_who_must_be_alone_comes_last() -> None:
    tests = REPO / "tests"
    files = {
        tests / "system" / "test_belt.py": True,
        tests / "agent" / "test_deploy_kill.py": False,
        tests / "contract" / "test_topics.py": False,
        tests / "agent" / "test_outputs.py": False,
        tests / "system" / "test_kills.py": False,
        tests / "agent" / "test_link_pace.py": True,
    }
    ordered = sorted(files, key=lambda path: rank(path, alone=files[path]))
    assert [path.stem for path in ordered] == [
        "test_deploy_kill", "test_kills", "test_outputs", "test_topics", "test_belt", "test_link_pace",
    ]  # fmt: skip
    assert rank(tests / "bench" / "test_new.py", alone=False) > rank(tests / "contract" / "test_a.py", alone=False)
