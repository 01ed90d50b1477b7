"""The network between device, broker and fleet is cut, doubles, reorders, or lies: rows stay the lines' own count."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.plant import wait_for
from scripts.small_plant import Accounts, SmallPlant
from tests.support import mqtt_spoilers, require
from tests.support.mqtt_spoilers import Forgetter, Shuffler
from tests.support.proxy import Filter, Proxy, Way

SEED = 20261124
QUICK = ("--keepalive-s", "2", "--resend-after-s", "1")
Network = dict[str, Proxy]


@contextlib.contextmanager
def plant_over(
    folder: Path, filters: Callable[[], Filter] | None = None, *, devices: int = 2, rate: float = 25.0
) -> Iterator[tuple[SmallPlant, Network]]:
    """A plant whose devices and ingest each reach the broker through a network of their own."""
    require.program("mosquitto")
    network: Network = {}
    with contextlib.ExitStack() as stack:

        def wire(who: str, port: int) -> int:
            proxy = Proxy(port, filters) if filters else Proxy(port)
            network[who] = stack.enter_context(proxy)
            return proxy.port

        plant = SmallPlant(folder, devices=devices, rate=rate, seed=SEED, device_options=QUICK, wire=wire)
        stack.enter_context(plant)
        yield plant, network


def settled(plant: SmallPlant, at_least: int) -> Accounts:
    """Stop the belts, wait for all rows, and hold them against the lines' files."""
    plant.halt_lines()
    plant.settle(60)
    accounts = plant.accounts()
    assert accounts.faults() == {}, accounts
    assert accounts.triggers >= at_least, "the belts hardly moved"
    assert accounts.uninspected == 0, "nothing was killed: each part was inspected, network or not"
    assert accounts.by_reason == {}
    return accounts


@pytest.mark.timeout(180)
def test_a_network_cut_in_either_direction_loses_nothing_and_never_stops_the_line(tmp_path: Path) -> None:
    """Black holes of each direction on either side of the broker; some heal, others end in a reset."""
    rng = random.Random(SEED)
    cuts = [(who, ways) for who in ("devices", "ingest") for ways in ((Way.UP,), (Way.DOWN,), (Way.UP, Way.DOWN))]
    rng.shuffle(cuts)
    with plant_over(tmp_path / "plant") as (plant, network):
        for number, (who, ways) in enumerate(cuts):
            network[who].hold(*ways)
            time.sleep(rng.uniform(2.0, 4.5))
            if number % 2:
                network[who].reset()
            network[who].release()
            time.sleep(rng.uniform(0.2, 1.0))
        accounts = settled(plant, at_least=500)
        assert accounts.answered > 0.9 * accounts.triggers, "the network is no reason to keep the line waiting"
        sent = sum(device.status()["records_sent"] for device in plant.devices)
    assert sent > accounts.triggers, "nothing was ever sent again: the cuts were none"


@pytest.mark.timeout(120)
def test_messages_that_come_twice_and_out_of_order_make_one_row_each(tmp_path: Path) -> None:
    shuffler = Shuffler(random.Random(SEED))
    with plant_over(tmp_path / "plant", lambda: mqtt_spoilers.filter_of(shuffler)) as (plant, _):
        wait_for("much is shuffled", lambda: min(shuffler.doubled, shuffler.overtaken) > 40, 60)
        settled(plant, at_least=100)


@pytest.mark.timeout(120)
def test_a_broker_that_acknowledges_and_forgets_loses_nothing(tmp_path: Path) -> None:
    """Records on their way up and acknowledgements on their way down are forgotten, each with its PUBACK given."""
    forgetter = Forgetter(random.Random(SEED))
    with plant_over(tmp_path / "plant", lambda: mqtt_spoilers.filter_of(forgetter)) as (plant, _):
        wait_for("much is forgotten", lambda: forgetter.forgotten > 40, 60)
        forgetter.chance = 0.15  # a batch and its answer must both come through for it to end
        settled(plant, at_least=100)
