"""The compiled requirements: hashes, no index addresses, and the same versions in every file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "requirements"
FILES = sorted(FOLDER.glob("*.txt"))
PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==(\S+?)(?: ; (.+?))? \\$")


def pins(path: Path) -> dict[tuple[str, str], str]:
    """Return version by (package, marker)."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            match = PIN.match(line)
            assert match, f"{path.name}: {line!r} is no pinned package"
            found[match[1], match[3] or ""] = match[2]
    return found


def names(path: Path) -> set[str]:
    return {name for name, _ in pins(path)}


def test_the_four_sets_are_there() -> None:
    assert [path.name for path in FILES] == ["agent.txt", "demo.txt", "dev.txt", "fleet.txt"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_holds_no_address_and_no_option(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash=sha256:[0-9a-f]{64})", text, re.MULTILINE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_package_has_a_hash(path: Path) -> None:
    blocks = re.split(r"^(?=[a-z0-9])", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert all("--hash=sha256:" in block for block in blocks if block)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_agrees_with_the_development_set(path: Path) -> None:
    whole = {}
    for (name, _), version in pins(FOLDER / "dev.txt").items():
        whole.setdefault(name, set()).add(version)
    for (name, _), version in pins(path).items():
        assert version in whole[name], f"{path.name} pins {name} {version}"


def test_the_development_set_holds_all_of_the_demo() -> None:
    assert names(FOLDER / "demo.txt") <= names(FOLDER / "dev.txt")


def test_each_side_gets_only_its_own() -> None:
    assert names(FOLDER / "agent.txt").isdisjoint({"fastapi", "pydantic", "sqlmodel", "uvicorn", "amqtt", "pytest"})
    assert names(FOLDER / "fleet.txt").isdisjoint({"opencv-python-headless", "onnxruntime", "amqtt", "pytest"})
    assert "hatchling" in names(FOLDER / "demo.txt")
