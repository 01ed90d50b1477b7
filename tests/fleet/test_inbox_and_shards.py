"""The bounds of what waits for the database, and how workers share the devices."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime

import pytest

from fleet.ingest import shards
from fleet.ingest.inbox import Delivery, Inbox
from wire import codec, ids, topics
from wire.errors import LinesideError

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def _delivery(payload: bytes) -> Delivery:
    return Delivery(connection=1, mid=1, topic="t", payload=payload, received_at=NOW)


def test_an_inbox_is_full_by_number_or_by_bytes() -> None:
    inbox = Inbox(capacity=3, capacity_bytes=1000)
    inbox.put(_delivery(b"x" * 999))
    assert not inbox.full
    inbox.put(_delivery(b"x"))
    assert (inbox.full, inbox.waiting_bytes) == (True, 1000)
    assert [len(one.payload) for one in inbox.take(5, 0, 0)] == [999, 1]
    assert (inbox.full, inbox.waiting_bytes) == (False, 0)
    for _ in range(3):
        inbox.put(_delivery(b""))
    assert inbox.full


def test_a_small_compressed_message_weighs_what_it_is_when_inflated() -> None:
    inbox = Inbox(capacity_bytes=1_000_000)
    inbox.put(_delivery(zlib.compress(b" " * 2_000_000)))
    assert (inbox.full, inbox.waiting_bytes) == (True, 2_000_000)
    assert codec.plain_bytes(zlib.compress(b" " * 50_000_000)) < 5_000_000, "no more is looked at than is ever read"
    assert codec.plain_bytes(b"\x78\x9cgarbage") == 9


def test_one_transaction_takes_so_many_bytes_and_at_least_one_message() -> None:
    inbox = Inbox()
    for size in (600, 600, 5000, 10):
        inbox.put(_delivery(b"x" * size))
    sizes = [[len(one.payload) for one in inbox.take(10, 0, 0, limit_bytes=1200)] for _ in range(3)]
    assert sizes == [[600, 600], [5000], [10]]


@pytest.mark.parametrize("of", [1, 2, 3, 7, 64])
def test_the_shares_of_all_workers_are_all_shards_each_once(of: int) -> None:
    taken = [shard for number in range(1, of + 1) for shard in shards.Share(number=number, of=of).shards]
    assert sorted(taken) == list(range(ids.SHARDS))


def test_a_device_is_under_one_subscription_of_one_worker() -> None:
    workers = [shards.parse(text) for text in ("1/3", "2/3", "3/3")]
    for number in range(100):
        topic = topics.path("inspections", f"cell-{number}")
        hits = [
            pattern
            for worker in workers
            for pattern in worker.subscriptions
            if topic.split("/")[2] == pattern.split("/")[2]
        ]
        assert len(hits) == 1
    assert shards.WHOLE.subscriptions == (topics.ALL_UP,)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/65", "1", "a/b", "1/2/3", "-1/2", ""])
def test_what_is_no_share_is_named(text: str) -> None:
    with pytest.raises(LinesideError) as refusal:
        shards.parse(text)
    assert refusal.value.code == "usage.invalid"
