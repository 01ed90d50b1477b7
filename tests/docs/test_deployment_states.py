"""The page about deployment states names every state, every way between them, and only codes that exist."""

from __future__ import annotations

import re
from pathlib import Path

from agent.deploy import plan, plan_swapped
from wire import deployment
from wire.deployment import DeploymentState
from wire.errors import REGISTER

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "deployment-states.md").read_text(encoding="utf-8")
EVENTS = {
    "journal.damaged",
    "journal.held",
    "store.repaired",
    "deployment.shifted",
    "deployment.awaits_confirmation",
    "deployment.reverted",
    "deployment.revert_failed",
}
FLEET_ENDS = {state for state in deployment.ENDS if state in deployment.FLEET_OWNED}


def test_every_state_has_a_row_with_its_owner_in_the_order_of_the_enum() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (fleet|device) \|", PAGE, re.MULTILINE)
    assert rows == [
        (state.value, "fleet" if state in deployment.FLEET_OWNED else "device") for state in DeploymentState
    ]


def test_the_diagram_has_every_transition_of_the_table_but_those_to_the_fleets_ends() -> None:
    drawn = set(re.findall(r"^ +(\w+) --> (\w+)$", PAGE, re.MULTILINE))
    table = {
        (old.value, new.value)
        for old, nexts in deployment.TRANSITIONS.items()
        for new in nexts
        if new not in FLEET_ENDS
    }
    assert drawn == table


def test_the_fleets_ends_are_reached_from_every_state_that_is_no_end() -> None:
    for state in DeploymentState:
        reached = FLEET_ENDS & deployment.TRANSITIONS[state]
        assert reached == (set() if state in deployment.ENDS else FLEET_ENDS)
    sentence = PAGE[PAGE.index("From every state that is not an end") :].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == {end.value for end in FLEET_ENDS}


def test_every_code_on_the_page_is_registered() -> None:
    codes = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", PAGE)) - EVENTS
    assert codes
    assert codes <= set(REGISTER)


def test_the_numbers_of_tries_are_those_of_the_code() -> None:
    assert plan.DOWNLOAD_TRIES == 10
    assert (plan.VERIFY_TRIES, plan.SELF_TEST_TRIES, plan_swapped.ACTIVATE_TRIES) == (3, 2, 2)
    assert PAGE.count(f"{plan.DOWNLOAD_TRIES} tries in a row") == 2
    assert "ended in mid-activation twice" in PAGE
    assert "ended 3 times while verifying, or twice in the self-test" in PAGE
