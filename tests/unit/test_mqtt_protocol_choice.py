"""MQTT 5 is preferred, 3.1.1 taken where the broker knows no other, and 5 tried again after an hour."""

from __future__ import annotations

import random

from agent.uplink.backoff import Backoff
from agent.uplink.protocol import UPWARD_AFTER_NS, Protocol, ProtocolChoice

V5, V3 = Protocol.MQTT_5, Protocol.MQTT_3_1_1


def test_five_comes_first_and_a_clear_refusal_leads_to_three_at_once() -> None:
    choice = ProtocolChoice("auto", None, 0)
    assert choice.next(0) is V5
    choice.refused(V5, 0, clearly=True)
    assert choice.next(1) is V3


def test_silence_is_believed_at_once_of_a_stranger_and_only_twice_of_an_acquaintance() -> None:
    stranger = ProtocolChoice("auto", None, 0)
    stranger.refused(V5, 0, clearly=False)
    assert stranger.next(0) is V3
    known = ProtocolChoice("auto", "5", 0)
    known.refused(V5, 0, clearly=False)
    assert known.next(0) is V5
    known.refused(V5, 0, clearly=False)
    assert known.next(0) is V3


def test_a_broker_that_answers_to_neither_is_tried_in_turn() -> None:
    choice = ProtocolChoice("auto", None, 0)
    seen = []
    for _ in range(4):
        seen.append(choice.next(0))
        choice.refused(seen[-1], 0, clearly=False)
    assert seen == [V5, V3, V5, V3]


def test_what_was_remembered_is_used_and_five_is_tried_again_once_an_hour() -> None:
    choice = ProtocolChoice("auto", "3.1.1", 0)
    assert choice.next(UPWARD_AFTER_NS - 1) is V3
    assert choice.next(UPWARD_AFTER_NS) is V5
    choice.refused(V5, UPWARD_AFTER_NS, clearly=True)
    assert choice.next(UPWARD_AFTER_NS + 1) is V3
    assert choice.next(2 * UPWARD_AFTER_NS) is V5
    choice.connected(V5)
    assert choice.next(2 * UPWARD_AFTER_NS + 1) is V5


def test_a_version_that_was_ordered_is_kept() -> None:
    choice = ProtocolChoice("3.1.1", "5", 0)
    choice.refused(V3, 0, clearly=True)
    assert choice.next(9 * UPWARD_AFTER_NS) is V3
    assert ProtocolChoice("auto", "nonsense", 0).next(0) is V5


def test_waits_grow_spread_from_zero_and_are_bounded() -> None:
    backoff = Backoff(0.2, 30.0, random.Random(1))
    rounds = [[backoff.next_s() for _ in range(12)] for _ in range(200) if backoff.reset() is None]
    for n in range(12):
        column = [waits[n] for waits in rounds]
        ceiling = min(30.0, 0.2 * 2**n)
        assert max(column) <= ceiling
        assert max(column) > 0.9 * ceiling
        assert min(column) < 0.1 * ceiling
