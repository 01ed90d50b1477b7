"""A command that a test runs sets the log up on that test's standard error; the tests after it must not write there.

Else what they log ends in `--- Logging error ---` on their own standard error, in an order of files that nobody chose.
"""

from __future__ import annotations

import logging

from agent import log as agent_log
from fleet import log as fleet_log


def _streams() -> list[logging.Handler]:
    return [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]


def test_the_agents_log_goes_to_standard_error() -> None:
    agent_log.start()
    assert len(_streams()) == 1


def test_the_fleets_log_goes_to_standard_error_and_the_agents_is_gone() -> None:
    assert _streams() == []
    fleet_log.set_up()
    assert len(_streams()) == 1


def test_nothing_of_both_is_left() -> None:
    assert _streams() == []
