"""The topic table: paths that never move, and topics that are refused."""

from __future__ import annotations

import pytest

from wire import ids, topics
from wire.errors import LinesideError

# Fixed for ever: a device whose shard moved would publish where nobody listens.
SHARDS = {
    "press-7": "2b",
    "press-8": "15",
    "line-1-device-1": "33",
    "line-1-device-2": "23",
    "a": "0a",
    "0": "1f",
    "edge-0001": "16",
}


@pytest.mark.parametrize(("device", "shard"), SHARDS.items())
def test_a_devices_shard_never_changes(device: str, shard: str) -> None:
    assert ids.shard_of(device) == shard


def test_shards_are_spread_evenly() -> None:
    counts = dict.fromkeys((f"{number:02x}" for number in range(ids.SHARDS)), 0)
    for number in range(6400):
        counts[ids.shard_of(f"device-{number}")] += 1
    assert min(counts.values()) > 60
    assert max(counts.values()) < 145


def test_the_paths_are_the_ones_devices_in_the_field_use() -> None:
    assert {name: topics.path(name, "press-7") for name in topics.TABLE} == {
        "inspections": "lineside/v1/2b/press-7/up/inspections",
        "counters": "lineside/v1/2b/press-7/up/counters",
        "deployments": "lineside/v1/2b/press-7/up/deployments",
        "events": "lineside/v1/2b/press-7/up/events",
        "health": "lineside/v1/2b/press-7/up/health",
        "shadow": "lineside/v1/2b/press-7/up/shadow",
        "state": "lineside/v1/2b/press-7/up/state",
        "ack": "lineside/v1/2b/press-7/down/ack",
        "wake": "lineside/v1/2b/press-7/down/wake",
        "command": "lineside/v1/2b/press-7/down/command",
        "host": "lineside/v1/host",
    }


@pytest.mark.parametrize(
    "name", [name for name, row in topics.TABLE.items() if row.direction is not topics.Direction.HOST]
)
def test_a_path_parses_back_to_its_device_and_row(name: str) -> None:
    address = topics.parse(topics.path(name, "press-7"))
    assert (address.device, address.shard, address.topic) == ("press-7", ids.shard_of("press-7"), topics.TABLE[name])


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "lineside/v1/host",
        "lineside/v2/2b/press-7/up/health",
        "lineside/v1/2b/press-7/up/unknown",
        "lineside/v1/2b/press-7/down/health",
        "lineside/v1/2b/press-7/up/ack",
        "lineside/v1/2b/press-7/up/health/more",
        "lineside/v1/2b/Press-7/up/health",
        "lineside/v1/2b//up/health",
        "lineside/v1/2b/+/up/health",
        "lineside/v1/15/press-7/up/health",
        "$SYS/broker/uptime",
    ],
)
def test_a_topic_that_is_not_in_the_table_is_refused(topic: str) -> None:
    with pytest.raises(LinesideError) as caught:
        topics.parse(topic)
    assert caught.value.code == "message.undecodable"


def test_subscriptions_cover_exactly_what_they_should() -> None:
    def matches(pattern: str, topic: str) -> bool:
        levels, given = pattern.split("/"), topic.split("/")
        return len(levels) == len(given) and all(p in ("+", g) for p, g in zip(levels, given, strict=True))

    for name, row in topics.TABLE.items():
        topic = topics.path(name, "press-7")
        assert matches(topics.ALL_UP, topic) == (row.direction is topics.Direction.UP)
        assert matches(topics.all_down("press-7"), topic) == (row.direction is topics.Direction.DOWN)
        assert not matches(topics.all_down("press-8"), topic)


@pytest.mark.parametrize("name", ["a", "press-7", "0", "a" * 64, "a-b-c"])
def test_names_that_are_allowed(name: str) -> None:
    assert ids.is_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a b", "a/b", "a.b", "a_b", "é", "a" * 65, "a\n", "+", "#"])
def test_names_that_are_refused(name: str) -> None:
    assert not ids.is_name(name)
