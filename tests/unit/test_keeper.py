"""The keeper: the desired document survives restarts and outages, and a lost hint costs only time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import identity
from agent.clock import SystemClock
from agent.desired import DesiredKeeper
from agent.keeper import Keeper
from agent.threads import Worker
from agent.uplink.ending import Ending
from wire.desired import Desired
from wire.enrolment import Enrolment
from wire.errors import LinesideError

FIRST = Desired(device="press-1", revision=1)


class Api:
    """Answers with what it is told; counts the questions."""

    def __init__(self, document: Desired | None) -> None:
        self.document = document
        self.asked_with: list[str | None] = []
        self.away = False

    def desired(self, etag: str | None) -> tuple[Desired, str] | None:
        self.asked_with.append(etag)
        if self.away:
            raise LinesideError("network.unreachable", "Nobody answers.")
        if self.document is None or etag == f'"{self.document.revision}"':
            return None
        return self.document, f'"{self.document.revision}"'


class Runner:
    def __init__(self, steps: int = 0) -> None:
        self.calls: list[str] = []
        self.steps = steps
        self.fails = False
        self.accidents: list[Exception] = []  # of the next steps and recoveries, oldest first

    def recover(self, *, ended: Ending) -> None:
        self.calls.append(f"recover after {ended.value}")
        if self.accidents and isinstance(self.accidents[0], LinesideError):
            raise self.accidents.pop(0)

    def step(self, wanted: Desired | None, go_on: Callable[[], bool]) -> bool:
        self.calls.append(f"step {wanted.revision if wanted else None}")
        if self.fails:
            raise LinesideError("storage.full", "No room.")
        if self.accidents:
            raise self.accidents.pop(0)
        self.steps -= 1
        return self.steps >= 0

    def boot_choices(self, model: str) -> Iterator[Any]:
        yield from ("damaged", "sound", "never asked for")


class Stations:
    models = ("demo-parts",)

    def __init__(self) -> None:
        self.activated: list[str] = []
        self.applied: list[int] = []

    def apply(self, desired: Desired) -> list[str]:
        self.applied.append(desired.revision)
        return ["Too bold."] if desired.revision == 2 else []

    def inferring(self, model: str) -> str | None:
        return "a" * 64 if self.activated and model == "demo-parts" else None

    def tidy(self) -> bool:
        return False

    def activate(self, package: Any) -> str:
        if package == "damaged":
            raise LinesideError("model.unloadable", "It is damaged.")
        self.activated.append(package)
        return "a" * 64


def keeper_of(
    folder: Path,
    api: Api,
    runner: Runner,
    stations: Stations,
    poll_interval_s: float = 60.0,
    former_end: Ending = Ending.CLEAN,
) -> Keeper:
    return Keeper(
        desired=DesiredKeeper(folder, "press-1", api),
        runner=runner,
        stations=stations,
        on_change=lambda: None,
        clock=SystemClock(),
        poll_interval_s=poll_interval_s,
        former_end=former_end,
    )


@pytest.fixture
def run() -> Iterator[Callable[[Keeper], None]]:
    threads: list[Worker] = []

    def start(keeper: Keeper) -> None:
        threads.append(Worker("keeper-test", keeper.run))
        threads[-1].start()

    yield start
    for thread in threads:
        assert thread.join(3)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)


def test_the_document_is_kept_on_disk_and_read_at_the_next_start(tmp_path: Path) -> None:
    api = Api(FIRST)
    assert DesiredKeeper(tmp_path, "press-1", api).refresh() is True
    api.away = True
    assert DesiredKeeper(tmp_path, "press-1", api).current == FIRST


def test_an_unchanged_document_is_asked_for_with_its_etag(tmp_path: Path) -> None:
    api = Api(FIRST)
    keeper = DesiredKeeper(tmp_path, "press-1", api)
    keeper.refresh()
    assert keeper.refresh() is False
    assert api.asked_with == [None, '"1"']


def test_another_devices_document_is_refused(tmp_path: Path) -> None:
    keeper = DesiredKeeper(tmp_path, "press-1", Api(replace(FIRST, device="press-2")))
    with pytest.raises(LinesideError) as caught:
        keeper.refresh()
    assert caught.value.code == "network.bad_answer"
    assert keeper.current is None


def test_a_damaged_document_on_disk_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "desired.json").write_bytes(b'{"schema":1,"dev')
    assert DesiredKeeper(tmp_path, "press-1", Api(None)).current is None


def test_at_boot_the_first_version_that_loads_is_activated_before_anything_else(
    tmp_path: Path, run: Callable[[Keeper], None]
) -> None:
    runner, stations = Runner(), Stations()
    keeper = keeper_of(tmp_path, Api(FIRST), runner, stations)
    run(keeper)
    until(lambda: "step 1" in runner.calls)
    assert runner.calls[0] == "recover after clean"
    assert stations.activated == ["sound"]


def test_a_wake_reads_the_document_without_waiting_for_the_interval(
    tmp_path: Path, run: Callable[[Keeper], None]
) -> None:
    api, runner, stations = Api(FIRST), Runner(), Stations()
    keeper = keeper_of(tmp_path, api, runner, stations)
    run(keeper)
    until(lambda: keeper.desired_revision == 1)
    api.document = replace(FIRST, revision=2)
    keeper.wake()
    until(lambda: keeper.desired_revision == 2)
    until(lambda: keeper.refusals == ("Too bold.",))


def test_without_a_wake_the_interval_finds_the_change(tmp_path: Path, run: Callable[[Keeper], None]) -> None:
    api, runner = Api(FIRST), Runner()
    keeper = keeper_of(tmp_path, api, runner, Stations(), poll_interval_s=0.1)
    run(keeper)
    until(lambda: keeper.desired_revision == 1)
    api.document = replace(FIRST, revision=3)
    until(lambda: keeper.desired_revision == 3)


def test_an_unreachable_fleet_and_a_full_disk_only_delay(tmp_path: Path, run: Callable[[Keeper], None]) -> None:
    api, runner = Api(FIRST), Runner()
    api.away = runner.fails = True
    keeper = keeper_of(tmp_path, api, runner, Stations(), poll_interval_s=0.1)
    run(keeper)
    until(lambda: len(api.asked_with) > 1 and len(runner.calls) > 2)
    api.away = runner.fails = False
    until(lambda: keeper.desired_revision == 1)


def test_a_document_the_disk_does_not_take_leaves_the_one_in_force_and_costs_no_restart(
    tmp_path: Path, run: Callable[[Keeper], None]
) -> None:
    api, runner = Api(FIRST), Runner()
    obstacle = tmp_path / "desired.json" / "obstacle"
    obstacle.mkdir(parents=True)
    keeper = keeper_of(tmp_path, api, runner, Stations(), poll_interval_s=0.1)
    run(keeper)
    until(lambda: len(api.asked_with) > 2)
    assert keeper.desired_revision == 0
    assert runner.calls.count("recover after clean") == 1
    obstacle.rmdir()
    obstacle.parent.rmdir()
    until(lambda: keeper.desired_revision == 1)


def test_a_device_that_is_not_enrolled_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(LinesideError) as caught:
        identity.read(tmp_path, "press-1")
    assert "lineside enroll" in caught.value.next_step


def test_the_credential_is_readable_by_its_owner_only_and_bound_to_the_device(tmp_path: Path) -> None:
    enrolment = Enrolment(device="press-1", credential="c" * 40, mqtt_host="127.0.0.1", mqtt_port=1883)
    path = identity.write(tmp_path, enrolment)
    assert path.stat().st_mode & 0o077 == 0
    assert identity.read(tmp_path, "press-1") == enrolment
    with pytest.raises(LinesideError) as caught:
        identity.read(tmp_path, "press-2")
    assert "belongs to press-1" in caught.value.message


def test_a_thread_that_fails_is_started_again_and_counted() -> None:
    done = threading.Event()

    def body(worker: Worker) -> None:
        if worker.failures < 2:
            raise RuntimeError("the first two tries fail")
        done.set()

    worker = Worker("test", body)
    worker.start()
    assert done.wait(5)
    assert worker.failures == 2
    assert worker.join(1)


def test_a_thread_that_is_started_again_does_not_go_through_the_start_of_the_agent_once_more(
    tmp_path: Path, run: Callable[[Keeper], None]
) -> None:
    """How the last run ended is no word on the versions that came into use in this one."""
    runner, stations = Runner(), Stations()
    runner.accidents = [OSError(5, "Input/output error")]
    run(keeper_of(tmp_path, Api(FIRST), runner, stations, former_end=Ending.KILLED))
    until(lambda: runner.calls.count("step 1") > 1)
    assert [call for call in runner.calls if call.startswith("recover")] == ["recover after killed"]
    assert stations.activated == ["sound"], "what judges parts is left alone"


def test_a_start_that_went_wrong_is_gone_through_again(tmp_path: Path, run: Callable[[Keeper], None]) -> None:
    runner, stations = Runner(), Stations()
    runner.accidents = [LinesideError("storage.corrupt", "The disk refused.")]
    run(keeper_of(tmp_path, Api(FIRST), runner, stations, former_end=Ending.KILLED))
    until(lambda: "step 1" in runner.calls)
    assert [call for call in runner.calls if call.startswith("recover")] == ["recover after killed"] * 2
    assert stations.activated == ["sound"]


def test_a_model_file_that_cannot_be_read_keeps_no_other_version_from_being_loaded(
    tmp_path: Path, run: Callable[[Keeper], None]
) -> None:
    class Unreadable(Stations):
        def activate(self, package: Any) -> str:
            if package == "damaged":
                raise OSError(5, "Input/output error")
            return super().activate(package)

    runner, stations = Runner(), Unreadable()
    run(keeper_of(tmp_path, Api(FIRST), runner, stations))
    until(lambda: "step 1" in runner.calls)
    assert stations.activated == ["sound"]


def test_a_long_deployment_does_not_keep_the_document_from_being_read(
    tmp_path: Path, run: Callable[[Keeper], None]
) -> None:
    """A version that was taken back is not downloaded to its end: each hint is heeded between two steps."""
    api, runner = Api(FIRST), Runner(steps=10**9)
    keeper = keeper_of(tmp_path, api, runner, Stations())
    run(keeper)
    until(lambda: "step 1" in runner.calls)
    api.document = replace(FIRST, revision=3)
    keeper.wake()
    until(lambda: "step 3" in runner.calls)


def test_a_model_that_only_a_later_recipe_needs_is_loaded_when_that_recipe_comes(
    tmp_path: Path, run: Callable[[Keeper], None]
) -> None:
    """It is installed, but no recipe looked with it when the agent started; no deployment brings it again."""

    class Growing(Stations):
        def apply(self, desired: Desired) -> list[str]:
            if desired.revision >= 2:
                self.models = ("demo-parts", "late-parts")
            return super().apply(desired)

    api, runner, stations = Api(FIRST), Runner(), Growing()
    keeper = keeper_of(tmp_path, api, runner, stations, poll_interval_s=0.05)
    run(keeper)
    until(lambda: stations.applied != [])
    assert stations.activated == ["sound"]
    api.document = replace(FIRST, revision=2)
    until(lambda: len(stations.activated) == 2)
    until(lambda: stations.applied[-2:] == [2, 2])


def test_recipes_are_applied_anew_where_another_version_is_in_use_though_its_deployment_waits(
    tmp_path: Path, run: Callable[[Keeper], None]
) -> None:
    """A faulty version is taken back while nothing can be written; a recipe that it was refused for may fit now."""
    stations, runner = Stations(), Runner()

    def takes_back(_wanted: Desired | None, _go_on: Callable[[], bool]) -> bool:
        runner.calls.append("takes back")
        stations.activated.append("former")
        raise LinesideError("storage.full", "No room.")

    runner.boot_choices = lambda _model: iter(())  # type: ignore[method-assign]
    runner.step = takes_back  # type: ignore[method-assign]
    run(keeper_of(tmp_path, Api(FIRST), runner, stations))
    until(lambda: len(runner.calls) >= 4)
    assert len(stations.applied) == 2, "after the document had come, and after the change; not at each failure"
