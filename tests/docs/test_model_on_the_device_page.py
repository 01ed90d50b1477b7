"""The page on the versions of a device shows what the commands say, and names the roles there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.commands import models, ordering
from wire import command_line
from wire.errors import REGISTER

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "how-to" / "model-on-the-device.md").read_text(encoding="utf-8")
SPEAKERS = [
    *(REPO / "agent" / "commands").glob("*.py"),
    *(REPO / "agent" / "deploy").glob("bundle*.py"),
    REPO / "wire" / "package.py",
    REPO / "wire" / "archive.py",
]


def blocks() -> list[str]:
    return re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_table_shown_is_one_the_command_could_print() -> None:
    head, *rows = blocks()[0].splitlines()
    cells = [re.split(r"  +", row.strip()) for row in rows]
    assert command_line.table(models._HEAD, cells) == [head, *rows]


def test_the_rollback_shown_uses_the_words_of_the_command() -> None:
    shown = [line[10:] for line in blocks()[1].splitlines() if re.match(r"\d\d:\d\d:\d\d  ", line)]
    words = [line.partition(": ")[2] for line in shown[:-1]]
    assert words
    assert set(words) <= set(ordering._STEPS.values())
    source = "".join(path.read_text(encoding="utf-8") for path in SPEAKERS)
    assert "from one part to the next; no maintenance window is waited for." in source
    assert "stays here as the previous one." in source


def test_what_an_import_says_is_what_the_page_tells_to_do_something_about() -> None:
    table = PAGE[PAGE.index("| it says | do |") :].split("\n\n")[0]
    sentences = [found for row in table.splitlines()[2:] for found in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(sentences) == 9
    source = "".join(path.read_text(encoding="utf-8") for path in SPEAKERS)
    for sentence in sentences:
        assert sentence in source, f"nobody says {sentence!r}"


@pytest.mark.parametrize("role", ["runs", "current", "previous", "asked for", "shadow", "pinned"])
def test_every_role_is_in_the_table(role: str) -> None:
    assert f"| `{role}` |" in PAGE
    assert f'"{role}"' in (REPO / "agent" / "deploy" / "inventory.py").read_text(encoding="utf-8")


def test_the_exit_status_of_damage_is_the_one_named() -> None:
    assert f"its exit status is {REGISTER['storage.corrupt'].exit_status} then" in PAGE
