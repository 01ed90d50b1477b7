"""The rules of `fleet.ingest.route`, one case each."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime

import pytest

from fleet.ingest import acks, route
from tests.support import records
from wire import codec, topics
from wire.messages import Lane, SeqRange, State

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TOPIC = topics.path("inspections", "cell-1")


def _known(_device: str) -> route.Standing:
    return route.Standing.KNOWN


def _route(payload: bytes, topic: str = TOPIC, standing: route.Standing = route.Standing.KNOWN) -> route.Routed:
    return route.route(topic, payload, lambda _: standing, NOW)


def test_a_good_batch_becomes_records_in_their_places() -> None:
    first, second = records.inspection(sequence=1), records.inspection(sequence=2)
    routed = _route(records.batch(records.entry(7, first), records.entry(8, second)))
    assert [(one.seq, one.body, one.device, one.epoch) for one in routed.records] == [
        (7, first, "cell-1", records.EPOCH),
        (8, second, "cell-1", records.EPOCH),
    ]
    assert routed.rejects == ()


def test_a_compressed_batch_is_read_like_a_plain_one() -> None:
    routed = _route(zlib.compress(records.batch(records.entry(1, records.inspection()))))
    assert len(routed.records) == 1


def test_one_bad_entry_harms_no_other() -> None:
    good = records.inspection()
    routed = _route(
        records.batch(
            records.entry(1, good),
            records.entry(2, b'{"id": 5}'),
            records.entry(3, b"[]"),
            records.entry(4, records.inspection(device="cell-2")),
            records.entry(5, records.inspection(sequence=5)),
        )
    )
    assert [one.seq for one in routed.records] == [1, 5]
    assert [(one.seqs, one.code) for one in routed.rejects] == [
        (SeqRange(first=2, last=3), "message.undecodable"),
        (SeqRange(first=4, last=4), "message.foreign_id"),
    ]


@pytest.mark.parametrize(
    ("payload", "topic", "standing", "code"),
    [
        (records.batch(records.entry(1, records.inspection())), TOPIC, route.Standing.REVOKED, "device.revoked"),
        (
            records.batch(records.entry(1, records.inspection()), device="cell-2"),
            TOPIC,
            route.Standing.KNOWN,
            "message.foreign_id",
        ),
        (
            records.batch(records.entry(1, records.counter(1)), lane=Lane.COUNTERS),
            TOPIC,
            route.Standing.KNOWN,
            "message.invalid_value",
        ),
        (
            records.batch(records.entry(1, b'"' + b"x" * 300_000 + b'"')),
            TOPIC,
            route.Standing.KNOWN,
            "message.too_large",
        ),
    ],
)
def test_a_readable_batch_that_may_not_be_taken_is_refused_in_its_places(
    payload: bytes, topic: str, standing: route.Standing, code: str
) -> None:
    routed = _route(payload, topic, standing)
    assert routed.records == ()
    assert [(one.code, one.seqs) for one in routed.rejects] == [(code, SeqRange(first=1, last=1))]
    assert all(len(one.excerpt) <= route.EXCERPT_BYTES for one in routed.rejects)
    (device, ack), *rest = acks.of((), routed.rejects)
    assert rest == []
    assert device == "cell-1", "the refusal goes to whoever sent it, not to whom it names"
    assert [one.code for one in ack.refused] == [code]


def test_a_batch_of_an_unknown_device_is_held_and_nobody_settles_it() -> None:
    payload = records.batch(*(records.entry(seq, records.inspection()) for seq in (9, 7, 8)))
    routed = _route(payload, standing=route.Standing.UNKNOWN)
    assert routed.records == ()
    assert [(one.code, one.held, one.seqs) for one in routed.rejects] == [
        ("message.unknown_device", True, SeqRange(first=7, last=9))
    ]
    assert acks.of((), routed.rejects) == []


@pytest.mark.parametrize(
    ("payload", "topic", "code"),
    [
        (b"", TOPIC, None),
        (b"not json", TOPIC, "message.undecodable"),
        (b"\x78\x9cgarbage", TOPIC, "message.undecodable"),
        (b'{"schema":2}', TOPIC, "message.undecodable"),
        (b"{}", "lineside/v1/00/cell-1/up/inspections", "message.undecodable"),
        (b"{}", topics.path("ack", "cell-1"), "message.undecodable"),
        (b"{}", "someone/else", "message.undecodable"),
        (records.batch(records.entry(2**60, records.inspection())), TOPIC, "message.invalid_value"),
    ],
)
def test_what_has_no_readable_place_is_only_quarantined(payload: bytes, topic: str, code: str | None) -> None:
    routed = _route(payload, topic)
    assert routed.records == ()
    assert [one.code for one in routed.rejects] == ([] if code is None else [code])
    assert acks.of((), routed.rejects) == []


def test_a_state_is_taken_from_its_own_device_only() -> None:
    topic = topics.path("state", "cell-1")
    own = State(device="cell-1", boot=1, revision=1, online=True)
    assert _route(codec.encode(own), topic).state == own
    other = _route(codec.encode(State(device="cell-2", boot=1, revision=1, online=True)), topic)
    assert other.state is None
    assert [one.code for one in other.rejects] == ["message.foreign_id"]


def test_ranges_join_neighbours_and_count_each_number_once() -> None:
    assert route.ranges_of([5, 1, 2, 2, 3, 9]) == (
        SeqRange(first=1, last=3),
        SeqRange(first=5, last=5),
        SeqRange(first=9, last=9),
    )
    assert route.ranges_of([]) == ()


def test_acks_of_any_commit_stay_within_the_budget_of_their_topic() -> None:
    place = route.Place(device="cell-1", epoch=records.EPOCH, lane=Lane.INSPECTIONS)
    far = 2**53 - 10_000
    rejects = [
        route.Reject(
            topic=TOPIC,
            device="cell-1",
            place=place,
            seqs=SeqRange(first=far + 2 * index, last=far + 2 * index),
            code="deployment." + "x" * 53,
            text="",
            excerpt=b"",
            payload_bytes=0,
        )
        for index in range(1000)
    ]
    accepted = route.route(
        TOPIC,
        records.batch(*(records.entry(far + 2 * index, records.inspection()) for index in range(1000))),
        _known,
        NOW,
    ).rejects  # over the budget of the topic, so refused: the worst case for the acknowledgement
    said = acks.of((), [*rejects, *accepted])
    assert all(len(codec.encode(ack)) <= topics.TABLE["ack"].max_bytes for _, ack in said)
    assert sum(len(ack.refused) for _, ack in said) == 2000
