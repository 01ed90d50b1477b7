"""The documents are true: generated pages are current, links lead somewhere, and the commands shown exist."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
DOCUMENTS = [REPO / "README.md", REPO / "CHANGELOG.md", *sorted((REPO / "docs").rglob("*.md"))]
ADRS = sorted((REPO / "docs" / "adr").glob("*.md"))
LINK = re.compile(r"\[[^\]]+\]\(([^)#]+)?(#[^)]+)?\)")


def shown_commands() -> list[str]:
    """Return each distinct command line that stands in a code block or between backticks."""
    found = set()
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", text)
        found |= {line.strip().removeprefix(".venv/bin/") for line in lines}
    return sorted(line for line in found if re.match(r"lineside(-fleet)? [a-z]", line))


def test_the_generated_pages_are_current() -> None:
    ran = subprocess.run(
        [sys.executable, str(REPO / "scripts" / "reference.py"), "--check"], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPO)))
def test_links_lead_somewhere(path: Path) -> None:
    for target, anchor in LINK.findall(path.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{target} does not exist"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor[1:] in slugs, f"{anchor} is no heading"


def test_every_document_that_the_source_points_to_exists() -> None:
    for room in ("wire", "agent", "fleet", "scripts", "models"):
        for path in (REPO / room).rglob("*.py"):
            for name in re.findall(r"docs/[a-z0-9/_-]+\.md", path.read_text(encoding="utf-8")):
                assert (REPO / name).is_file(), f"{path.relative_to(REPO)} points to {name}"


@pytest.mark.parametrize("line", shown_commands())
def test_a_command_that_is_shown_exists_with_its_flags(line: str) -> None:
    words = line.split()
    program = {"lineside": "agent.cli", "lineside-fleet": "fleet.cli"}[words[0]]
    verbs = []
    for word in words[1:3]:
        if not re.fullmatch(r"[a-z]+", word):
            break
        verbs.append(word)
    ran = subprocess.run([sys.executable, "-m", program, *verbs, "--help"], capture_output=True, text=True, cwd=REPO)
    assert ran.returncode == 0, ran.stderr
    for flag in re.findall(r"--[a-z-]+", line):
        assert flag in ran.stdout, f"{flag} is not a flag of {' '.join(words[:1] + verbs)}"


def test_commands_are_found_in_the_documents() -> None:
    shown = shown_commands()
    assert "lineside run --config agent.toml" in shown
    assert "lineside-fleet claim create --device press-7" in shown


def test_the_readmes_two_commands_are_what_ci_runs() -> None:
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    ci = (REPO / ".ci" / "run").read_text(encoding="utf-8")
    assert "python3 scripts/run.py demo\npython3 scripts/run.py test\n" in readme
    assert "python3 scripts/run.py check" in readme
    for command in ("python3 scripts/run.py check", "python3 scripts/run.py test"):
        assert re.search(rf"^{command}$", ci, re.MULTILINE)


def test_the_settings_shown_in_the_quickstart_are_accepted(tmp_path: Path) -> None:
    from agent import settings

    text = (REPO / "docs" / "quickstart.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "clip.mp4").touch()
    path = tmp_path / "agent.toml"
    path.write_text(block.replace("clip.mp4", str(tmp_path / "clip.mp4")))
    assert settings.load(path, {}).device.id == "press-7"


@pytest.mark.parametrize("path", ADRS, ids=lambda path: path.name)
def test_a_decision_has_its_parts_and_its_number(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {path.name[:4]} ")
    assert re.search(r"^\*\*Status:\*\* (proposed|accepted|superseded)", text, re.MULTILINE)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences", "Negative consequences"]


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(path.name[:4]) for path in ADRS] == list(range(1, len(ADRS) + 1))


def test_the_changelog_has_an_unreleased_section() -> None:
    assert "\n## [Unreleased]\n" in (REPO / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_direct_dependency_is_explained() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = list(project["project"]["dependencies"])
    for group in (*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()):
        wanted += [entry for entry in group if isinstance(entry, str)]
    page = (REPO / "docs" / "reference" / "dependencies.md").read_text(encoding="utf-8")
    for requirement in wanted:
        name = re.match(r"[A-Za-z0-9-]+", requirement)
        assert name is not None
        assert f"\n| {name[0]} |" in page, f"{name[0]} is not explained"


def test_the_versions_explained_are_those_pinned() -> None:
    page = (REPO / "docs" / "reference" / "dependencies.md").read_text(encoding="utf-8")
    pins: dict[str, set[str]] = {}
    for line in (REPO / "requirements" / "dev.txt").read_text(encoding="utf-8").splitlines():
        pin = re.match(r"([a-z0-9-]+)==(\S+)", line)
        if pin:
            pins.setdefault(pin[1], set()).add(pin[2])
    for name, versions in re.findall(r"^\| ([a-z0-9-]+) \| ([0-9., ]+) \|", page, re.MULTILINE):
        assert set(versions.split(", ")) == pins[name], name


def test_every_setting_of_the_agent_is_explained() -> None:
    page = (REPO / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.endswith("|  |")] == []
