"""The deployment's transition table: ends end, every state can be reached and left, each side moves its own."""

from __future__ import annotations

import itertools

import pytest

from wire.deployment import ENDS, FLEET_OWNED, TRANSITIONS, DeploymentState

S = DeploymentState


def test_the_table_has_a_row_for_every_state() -> None:
    assert set(TRANSITIONS) == set(S)


@pytest.mark.parametrize("state", S)
def test_a_state_is_an_end_exactly_if_nothing_follows(state: DeploymentState) -> None:
    assert (state in ENDS) == (not TRANSITIONS[state])
    assert state not in TRANSITIONS[state]


@pytest.mark.parametrize("state", sorted(set(S) - ENDS))
def test_every_state_on_the_way_can_still_end_well_and_badly_and_be_taken_back(state: DeploymentState) -> None:
    reachable: set[DeploymentState] = set()
    pending = [state]
    while pending:
        for following in TRANSITIONS[pending.pop()] - reachable:
            reachable.add(following)
            pending.append(following)
    assert S.SUCCEEDED in reachable
    assert reachable & {S.FAILED_NO_CHANGE, S.FAILED_REVERTED}
    assert {S.CANCELED, S.TIMED_OUT, S.SUPERSEDED, S.REMOVED} <= TRANSITIONS[state]


def test_the_short_path_of_a_version_that_is_fine() -> None:
    path = [S.SCHEDULED, S.QUEUED, S.DOWNLOADING, S.VERIFYING, S.SELF_TESTING, S.STAGED, S.ACTIVATING, S.PROBATION]
    assert all(after in TRANSITIONS[before] for before, after in itertools.pairwise([*path, S.SUCCEEDED]))


def test_no_version_succeeds_without_probation() -> None:
    assert {state for state in S if S.SUCCEEDED in TRANSITIONS[state]} == {S.PROBATION}


def test_a_version_that_judges_parts_is_never_merely_not_changed() -> None:
    assert S.FAILED_NO_CHANGE not in TRANSITIONS[S.PROBATION]
    assert S.REFUSED not in TRANSITIONS[S.ACTIVATING] | TRANSITIONS[S.PROBATION]


def test_a_refused_version_is_never_tried_again() -> None:
    assert TRANSITIONS[S.REFUSED] == frozenset()


def test_the_fleet_never_leads_back_into_states_it_owns_before_the_end() -> None:
    beginnings = FLEET_OWNED - ENDS
    for state in set(S) - FLEET_OWNED:
        assert not TRANSITIONS[state] & beginnings
