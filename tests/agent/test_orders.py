"""Orders and pins: files that a command writes and the runner's thread takes, whatever ends either of them."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.clock import FakeClock
from agent.deploy.durable import Disk
from agent.deploy.orders import MAX_WAITING, Answer, Order, OrderKind, Orders
from agent.deploy.pins import MAX_PINS, Pins
from wire import codec
from wire.errors import LinesideError
from wire.mint import Mint

MINT = Mint()
AT = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


class Killed(BaseException):
    """Stands for the end of the process at a boundary."""


def order(kind: OrderKind = OrderKind.ROLLBACK, after_s: float = 0.0) -> Order:
    return Order(id=MINT.uuid7(), kind=kind, model="parts", by="anna", at=AT + timedelta(seconds=after_s))


def test_an_order_is_taken_once_and_its_answer_is_read_by_who_gave_it(tmp_path: Path) -> None:
    giver, taker = Orders(tmp_path / "orders"), Orders(tmp_path / "orders")
    given = order()
    assert giver.answer_of(given.id) is None
    assert taker.pending() == ()
    giver.give(given)
    assert giver.is_waiting(given.id)
    assert taker.pending() == (given,)
    taker.answer(given, done=True, text="parts goes back to release 1.")
    assert taker.pending() == ()
    assert not giver.is_waiting(given.id)
    assert giver.answer_of(given.id) == Answer(order_id=given.id, done=True, text="parts goes back to release 1.")


def test_orders_are_taken_oldest_first_whatever_their_ids(tmp_path: Path) -> None:
    orders = Orders(tmp_path)
    third, first, second = order(after_s=3), order(after_s=1), order(after_s=2)
    for given in (third, first, second):
        orders.give(given)
    assert orders.pending() == (first, second, third)


def test_the_first_answer_stands(tmp_path: Path) -> None:
    orders = Orders(tmp_path)
    given = order()
    orders.give(given)
    orders.answer(given, done=True, text="Taken.")
    orders.answer(given, done=False, text="There is nothing to confirm.", code="resource.not_found")
    found = orders.answer_of(given.id)
    assert found is not None
    assert found.done


def boundaries(folder: Path) -> list[str]:
    seen: list[str] = []
    orders = Orders(folder, Disk(seen.append))
    given = order()
    orders.give(given)
    orders.answer(given, done=True, text="Taken.")
    return seen


def test_a_kill_at_any_boundary_leaves_an_order_that_waits_whole_or_is_answered_once(tmp_path: Path) -> None:
    count = len(boundaries(tmp_path / "counted"))
    assert count > 10
    for number in range(count):
        folder = tmp_path / f"killed-{number}"
        left = [number]

        def end_here(_: str, left: list[int] = left) -> None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1

        killed = Orders(folder, Disk(end_here))
        given = order()
        try:
            killed.give(given)
            killed.answer(given, done=True, text="Taken.")
        except Killed:
            pass
        again = Orders(folder, clock=FakeClock(datetime.now(UTC) + timedelta(hours=1)))
        again.sweep()
        waiting, answer = again.pending(), again.answer_of(given.id)
        assert (waiting == (given,)) + (answer is not None) <= 1, f"boundary {number}"
        assert waiting in ((), (given,))
        if waiting:
            again.answer(given, done=True, text="Taken.")
            assert again.answer_of(given.id) is not None
        assert [path.name for path in folder.glob(".tmp-*")] == []
        assert again.pending() == ()


def _fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _link(path: Path, content: bytes) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_bytes(content)
    path.symlink_to(elsewhere)


def _pipe(path: Path, content: bytes) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "content"),
    [
        (_fill, b""),
        (_fill, b"{"),
        (_fill, b"\xff\xfe\x00"),
        (_fill, b"[" * 20_000),
        (_fill, b'{"id": "x"}' + b" " * 20_000),
        (_fill, codec.encode({"id": "../../etc", "kind": "rollback", "at": "2026-01-01T00:00:00Z"})),
        (_fill, codec.encode({"id": MINT.uuid7(), "kind": "rollback", "at": "2026-01-01T00:00:00Z"})),
        (_fill, codec.encode({"id": MINT.uuid7(), "kind": "format the disk", "at": "2026-01-01T00:00:00Z"})),
        (_link, codec.encode(replace(order(), id="00000000-0000-7000-8000-000000000001"))),
        (_pipe, b""),
    ],
    ids=["empty", "cut", "no text", "deep", "long", "a path for an id", "another's id", "unknown", "link", "pipe"],
)
def test_a_hostile_order_is_set_aside_and_said_once(
    tmp_path: Path, make: object, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    orders = Orders(tmp_path)
    good = order()
    orders.give(good)
    make(tmp_path / "00000000-0000-7000-8000-000000000001.order.json", content)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert orders.pending() == (good,)
        assert orders.pending() == (good,)
    assert len(caplog.records) == 1
    assert "is no order and is set aside" in caplog.text
    aside = "00000000-0000-7000-8000-000000000001.order.json.damaged"
    assert [path.name for path in tmp_path.glob("*.damaged")] == [aside]


def _socket(path: Path, content: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _folder(path: Path, content: bytes) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [_socket, _folder])
def test_what_can_never_be_read_as_a_file_is_set_aside_without_holding_anything_open(
    tmp_path: Path, make: Callable[[Path, bytes], None]
) -> None:
    orders = Orders(tmp_path)
    make(tmp_path / "1.order.json", b"")
    open_before = len(list(Path("/dev/fd").iterdir()))
    assert orders.pending() == ()
    assert [path.name for path in tmp_path.iterdir()] == ["1.order.json.damaged"]
    assert len(list(Path("/dev/fd").iterdir())) == open_before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_an_order_that_cannot_be_read_at_this_moment_is_taken_later(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    orders = Orders(tmp_path)
    given = order()
    orders.give(given)
    opened = os.open

    def refuse(path: str, flags: int, *rest: int, **named: int) -> int:
        if str(path).endswith(".order.json"):
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, flags, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert orders.pending() == ()
        assert orders.pending() == ()
    assert orders.is_waiting(given.id)
    assert [record.levelname for record in caplog.records] == ["WARNING"], "said once, and not at every look"
    assert orders.pending() == (given,)


def test_what_cannot_be_removed_stays_and_the_rest_is_swept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The sweep is part of the agent's start: somebody else's file must not keep it from loading its models."""

    def refuse(boundary: str) -> None:
        if boundary == "remove 1.order.json.damaged":
            raise PermissionError(errno.EACCES, "Permission denied")

    orders = Orders(tmp_path, Disk(refuse), FakeClock(datetime.now(UTC) + timedelta(days=3)))
    for name in ("1.order.json.damaged", "2.order.json.damaged"):
        (tmp_path / name).write_bytes(b"{")
    orders.sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["1.order.json.damaged"]
    assert "1.order.json.damaged cannot be tidied" in caplog.text


def test_answers_are_kept_for_a_day_and_what_a_command_writes_now_is_left_to_it(tmp_path: Path) -> None:
    clock = FakeClock(datetime.now(UTC))
    orders = Orders(tmp_path, clock=clock)
    given = order()
    orders.give(given)
    orders.answer(given, done=True, text="Taken.")
    (tmp_path / ".tmp-other.order.json").write_bytes(b"{")
    orders.sweep()
    assert orders.answer_of(given.id) is not None
    assert (tmp_path / ".tmp-other.order.json").exists()
    clock.advance(2 * 3600)
    orders.sweep()
    assert orders.answer_of(given.id) is not None
    assert not (tmp_path / ".tmp-other.order.json").exists()
    clock.advance(24 * 3600)
    orders.sweep()
    assert list(tmp_path.iterdir()) == []


def test_an_answer_stays_as_long_as_a_kill_has_kept_its_order(tmp_path: Path) -> None:
    orders = Orders(tmp_path, clock=FakeClock(datetime.now(UTC) + timedelta(days=3)))
    given = order()
    orders.give(given)
    kept = (tmp_path / f"{given.id}.order.json").read_bytes()
    orders.answer(given, done=True, text="Taken.")
    (tmp_path / f"{given.id}.order.json").write_bytes(kept)
    orders.sweep()
    assert orders.pending() == (), "it must not be taken a second time"


def test_a_device_on_which_nobody_takes_orders_does_not_collect_them_without_end(tmp_path: Path) -> None:
    orders = Orders(tmp_path)
    for _ in range(MAX_WAITING):
        orders.give(order())
    with pytest.raises(LinesideError, match="32 orders wait already") as raised:
        orders.give(order())
    assert raised.value.code == "resource.conflict"


def test_a_pin_outlives_the_process_and_is_taken_back(tmp_path: Path) -> None:
    assert Pins(tmp_path).read() == frozenset()
    assert Pins(tmp_path).pin("a" * 64)
    assert not Pins(tmp_path).pin("a" * 64)
    assert Pins(tmp_path).pin("b" * 64)
    assert Pins(tmp_path).read() == {"a" * 64, "b" * 64}
    assert Pins(tmp_path).unpin("a" * 64)
    assert not Pins(tmp_path).unpin("a" * 64)
    assert Pins(tmp_path).read() == {"b" * 64}


def test_pins_given_at_the_same_moment_are_all_kept(tmp_path: Path) -> None:
    digests = [f"{number:064x}" for number in range(24)]
    threads = [threading.Thread(target=lambda digest=digest: Pins(tmp_path).pin(digest)) for digest in digests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Pins(tmp_path).read() == set(digests)


@pytest.mark.parametrize("content", [b"", b'{"pins": ["x"]}', b'{"pins": "all"}', b"\x00" * 100])
def test_pins_that_cannot_be_read_are_not_taken_for_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pins.json").write_bytes(content)
    with pytest.raises(LinesideError, match="Nothing is collected until it is whole") as raised:
        Pins(tmp_path).read()
    assert raised.value.code == "storage.corrupt"
    with pytest.raises(LinesideError):
        Pins(tmp_path).pin("a" * 64)
    assert (tmp_path / "pins.json").read_bytes() == content


def test_there_is_an_end_to_pins(tmp_path: Path) -> None:
    (tmp_path / "pins.json").write_bytes(codec.encode({"pins": [f"{number:064x}" for number in range(MAX_PINS)]}))
    with pytest.raises(LinesideError, match="64 versions are pinned already"):
        Pins(tmp_path).pin("f" * 64)
