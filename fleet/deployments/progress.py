"""Decides what a device's report does to a deployment. Pure.

The device owns the states between queued and the ends, so its word is taken even where the table of transitions does
not know the step (it is then marked irregular: seen, never lost). An end stays an end: what was superseded or canceled
by the fleet, or has succeeded, is not opened again by a late report. A report about what the fleet has ended is
expected, since the device learns of that later: it is kept, and nothing is irregular about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wire.deployment import ENDS, FLEET_OWNED, TRANSITIONS, DeploymentState

FLEET_ENDS: Final = ENDS & FLEET_OWNED


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What becomes of a deployment.

    Args:
        state: after the report.
        moved: whether the report is newer than the last one taken, so that its sequence and words count.
        irregular: the transition table does not allow the step.
        late: it came after the fleet had ended the deployment.
    """

    state: DeploymentState
    moved: bool
    irregular: bool
    late: bool = False


def after(state: DeploymentState, sequence: int, reported: DeploymentState, reported_sequence: int) -> Progress | None:
    """Return what a report does; None where a device may not report such a state at all.

    Args:
        state: of the deployment, with the `sequence` of the newest report taken, 0 before the first.
        reported: the state in the report, with its `reported_sequence`.
    """
    if reported in FLEET_OWNED:
        return None
    if reported_sequence <= sequence:
        return Progress(state=state, moved=False, irregular=False)
    if state in FLEET_ENDS:
        return Progress(state=state, moved=False, irregular=False, late=True)
    if state is reported:
        return Progress(state=state, moved=True, irregular=False)
    allowed = reported in TRANSITIONS[state]
    if state in ENDS:
        return Progress(state=state, moved=False, irregular=True)
    return Progress(state=reported, moved=True, irregular=not allowed)
