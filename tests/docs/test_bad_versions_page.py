"""The table of bad versions has one row for each test, and each row names a test, a code and a setting that exist."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

from agent.deploy import probation
from agent.deploy.settings import ProbationSettings
from agent.inspection import growth, version_watch
from wire.deployment import DeploymentState
from wire.errors import REGISTER

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explanation" / "bad-versions.md").read_text(encoding="utf-8")
PROBATION = (ROOT / "docs" / "explanation" / "probation.md").read_text(encoding="utf-8")
CODE = re.compile(r"`((?:deployment|model)\.\w+)`")


def test_each_row_is_a_test_and_each_test_a_row() -> None:
    module = ast.parse((ROOT / "tests" / "agent" / "test_bad_versions.py").read_text(encoding="utf-8"))
    tests = [node.name for node in module.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    rows = re.findall(r"\| `(test_\w+)` \|$", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(tests)
    assert len(rows) == len(set(rows))


def test_only_states_and_codes_that_exist_are_named() -> None:
    assert set(CODE.findall(PAGE + PROBATION)) <= set(REGISTER)
    states = {state.value for state in DeploymentState}
    assert set(re.findall(r"`(refused|failed_\w+|succeeded)`", PAGE)) <= states


def test_the_page_about_probation_names_every_code_it_ends_with_and_every_setting() -> None:
    ends = {"deployment.no_verdicts", "deployment.too_slow", "deployment.grew", "deployment.crashed"}
    assert ends <= set(CODE.findall(PROBATION))
    for field in dataclasses.fields(ProbationSettings):
        assert f"`{field.name}`" in PROBATION or field.name == "shift_odds", field.name


def test_the_page_about_probation_gives_the_numbers_of_the_code() -> None:
    for words in (
        f"they count as {probation.WEIGHT_MAX:.0f}",
        f"at least {probation.LEAST_FAULTS} parts",
        f"at least {probation.SLOWER_FLOOR_MS:.0f} ms more",
        f"at least {probation.LEAST_LOOKS} looks",
        f"after the first {growth.SETTLED_LOOKS} looks",
        f"{version_watch.WINDOW_PARTS} to {2 * version_watch.WINDOW_PARTS} parts",
        f"with fewer than {probation.LEAST_MIX_PARTS}",
        f"{probation.LEAST_MIX_PARTS} parts are the least",
        f"{ProbationSettings().shift_odds:.0f} times better",
    ):
        assert words in PROBATION, words
