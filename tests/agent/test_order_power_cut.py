"""The power goes while a person beside the machine leaves orders, pins versions and brings packages in."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.deploy import bundle
from agent.deploy.bundle_search import search
from agent.deploy.orders import Order, OrderKind, Orders
from agent.deploy.pins import Pins
from tests.support.deploying import make_package
from tests.support.losing_disk import Cut, Watch, cuts_of, memory_folder, write_image
from wire import package
from wire.mint import Mint

SEED = 20261121
ORDER = Order(id=Mint().uuid7(), kind=OrderKind.ROLLBACK, model="parts", at=datetime(2026, 3, 1, tzinfo=UTC))


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as made:
        (made / "models").mkdir()
        yield made


def each_cut(folder: Path, action: Callable[[Path, Watch], object]) -> Iterator[tuple[Cut, Path]]:
    """Yield each thing that a cut may leave, written to a folder of its own."""
    root = folder / "models"
    left = folder / "left"
    for cut in cuts_of(root, random.Random(SEED), lambda watch: action(root, watch)):
        write_image(cut.image, left)
        yield cut, left
        shutil.rmtree(left)


def test_an_order_is_there_whole_or_not_at_all_and_for_good_once_it_was_given(folder: Path) -> None:
    def give(root: Path, watch: Watch) -> None:
        Orders(root / "orders").give(ORDER)
        watch.say()

    seen = set()
    for cut, left in each_cut(folder, give):
        pending = Orders(left / "orders").pending()
        assert pending in ((), (ORDER,)), cut
        assert pending or not cut.said, cut
        assert not list(left.rglob("*.damaged")), cut
        seen.add(pending)
    assert len(seen) == 2


def test_an_order_that_was_answered_or_taken_back_is_not_taken_again(folder: Path) -> None:
    def give_and_answer(root: Path, watch: Watch) -> None:
        orders = Orders(root / "orders")
        orders.give(ORDER)
        orders.answer(ORDER, done=True, text="Taken.")
        watch.say()

    for cut, left in each_cut(folder, give_and_answer):
        orders = Orders(left / "orders")
        answer = orders.answer_of(ORDER.id)
        assert answer is None or answer.text == "Taken.", cut
        assert not cut.said or (answer and orders.pending() == ()), cut

    def give_and_withdraw(root: Path, watch: Watch) -> None:
        orders = Orders(root / "others")
        orders.give(ORDER)
        orders.withdraw(ORDER.id)
        watch.say()

    for cut, left in each_cut(folder, give_and_withdraw):
        assert not cut.said or Orders(left / "others").pending() == (), cut


def test_pins_are_the_old_or_the_new_ones_and_the_new_ones_once_that_was_said(folder: Path) -> None:
    first, second = "a" * 64, "b" * 64

    def pin(root: Path, watch: Watch) -> None:
        pins = Pins(root)
        pins.pin(first)
        watch.say()
        pins.pin(second)
        watch.say()
        pins.unpin(first)
        watch.say()

    states: list[set[str]] = [set(), {first}, {first, second}, {second}]
    for cut, left in each_cut(folder, pin):
        assert Pins(left).read() in states[cut.said : cut.said + 2], cut


@pytest.mark.parametrize("again", [False, True])
def test_a_package_from_a_stick_is_there_whole_or_not_at_all(folder: Path, *, again: bool) -> None:
    made = make_package(folder / "stick" / "parts", 1)
    (found,), _ = search(folder / "stick")
    if again:
        bundle.stage(found, folder / "models")

    def stage(root: Path, watch: Watch) -> None:
        bundle.stage(found, root)
        watch.say()

    seen = set()
    for cut, left in each_cut(folder, stage):
        is_staged = bundle.is_staged(left, made.digest)
        assert is_staged or not cut.said, cut
        seen.add(is_staged)
        if is_staged:
            holds = {path.name for path in bundle.imports_folder(left, made.digest).iterdir()}
            assert holds == {made.digest, *(file.digest for file in made.index.files)}, cut
            assert all(package.digest_of_file(bundle.imports_folder(left, made.digest) / one) == one for one in holds)
    assert True in seen
