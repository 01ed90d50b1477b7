"""Anything may happen to a device in any order; no step is illegal, nothing is lost, and every deployment ends.

LINESIDE_MACHINE_RUNS=2000 goes through so many stories, in a new order each time.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.deploy.orders import OrderKind
from tests.support.deploy_machine import Device
from tests.support.deploying import make_package
from wire import package
from wire.deployment import HoldReason

RUNS = int(os.environ.get("LINESIDE_MACHINE_RUNS", "0"))
MEMORY = Path("/dev/shm")
RELEASES = st.sampled_from([1, 2, 3, 3, 4])


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Return the packages' folder; it goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="lineside-packages-")


@functools.cache
def packages() -> dict[int, package.Package]:
    """Return four releases, the last of which fails its self-test."""
    return {release: make_package(Path(_folder().name) / f"v{release}", release) for release in (1, 2, 3, 4)}


class Deployments(RuleBasedStateMachine):
    """The rules are what may happen; `Device` knows how, and what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="lineside-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self.device: Any = None

    @initialize(
        seed=st.integers(0, 1 << 30),
        history=st.lists(st.sampled_from([1, 2]), max_size=2, unique=True),
        is_pinned=st.booleans(),
    )
    def begin(self, seed: int, history: list[int], *, is_pinned: bool) -> None:
        self.device = Device(self.folder, packages(), seed)
        for release in history:
            self.device.desire(release)
            self.device.steps(20)
            self.device.judge("good", 30)
            self.device.device.clock.advance(700.0)
            self.device.steps(3)
        if is_pinned:
            self.device.pin(wanted_on=True)

    @rule(release=RELEASES)
    def desire(self, release: int) -> None:
        self.device.desire(release)

    @rule()
    def cancel(self) -> None:
        self.device.desire(None)

    @rule(count=st.integers(1, 15))
    def steps(self, count: int) -> None:
        self.device.steps(count)

    @rule(seconds=st.sampled_from([1.0, 130.0, 700.0, 3600.0, 86400.0, 3 * 86400.0]))
    def time_passes(self, seconds: float) -> None:
        self.device.device.clock.advance(seconds)
        self.device.step()

    @rule(seconds=st.sampled_from([-86400.0, -600.0, 600.0, 400 * 86400.0, -400 * 86400.0]))
    def the_clock_is_set(self, seconds: float) -> None:
        self.device.device.clock.jump(seconds)
        self.device.step()

    @rule(faults=st.lists(st.sampled_from(["", "cut", "deployment.digest_mismatch", "resource.not_found"]), max_size=4))
    def the_fleet_fails(self, faults: list[str]) -> None:
        self.device.fleet.faults.extend(faults)

    @rule(is_away=st.booleans())
    def the_fleet_goes_or_comes(self, is_away: bool) -> None:
        self.device.is_away = is_away

    @rule(is_full=st.booleans())
    def the_disk_fills_or_empties(self, is_full: bool) -> None:
        self.device.is_full = is_full

    @rule(at=st.integers(1, 40))
    def a_write_meets_a_full_disk(self, at: int) -> None:
        self.device._boundaries, self.device.full_at = 0, at
        self.device.steps(4)
        self.device.full_at = 0

    @rule(
        release=st.sampled_from([None, 1, 2, 3]),
        what=st.sampled_from(["good", "faults", "faults", "slow", "shift"]),
        count=st.integers(1, 8),
    )
    def the_disk_takes_nothing_while_parts_are_judged(self, release: int | None, what: str, count: int) -> None:
        if release is not None:
            self.device.desire(release)
            self.device.steps(15)
        self.device.judge(what, 60)
        self.device.steps_without_room(count)

    @rule(busy=st.sampled_from([None, HoldReason.LINE_BUSY, HoldReason.MAINTENANCE_WINDOW]))
    def the_line_is_busy_or_free(self, busy: HoldReason | None) -> None:
        self.device.busy = busy

    @rule(memory_mb=st.sampled_from([None, 10.0, 4000.0]))
    def memory_is_scarce_or_not(self, memory_mb: float | None) -> None:
        self.device.memory_mb = memory_mb

    @rule(outcome=st.sampled_from(["", "broken", "untouched", "other", "idle"]))
    def a_swap_will_go_so(self, outcome: str) -> None:
        self.device.device.activator.outcomes.append(outcome)

    @rule(what=st.sampled_from(["good", "good", "faults", "slow", "shift"]), parts=st.sampled_from([1, 15, 60]))
    def parts_are_judged(self, what: str, parts: int) -> None:
        self.device.judge(what, parts)
        self.device.step()

    @rule(releases=st.lists(st.sampled_from([1, 2, 3]), max_size=3), is_pinned=st.booleans())
    def it_goes_well_for_a_while(self, releases: list[int], *, is_pinned: bool) -> None:
        """Without it few stories get past a probation, and fewer past two."""
        if is_pinned:
            self.device.pin(wanted_on=True)
        for release in releases or [None]:
            if release is not None:
                self.device.desire(release)
            self.device.steps(15)
            self.device.judge("good", 30)
            self.device.device.clock.advance(700.0)
            self.device.steps(15)

    @rule(what=st.sampled_from(["good", "faults", "slow", "shift", "crash", "restart", "power", "order"]))
    def something_happens_in_probation(self, what: str) -> None:
        """Without it few stories have much to do with one."""
        self.device.steps(15)
        if what in ("crash", "restart"):
            self.device.judge("good", 15)
            self.device.boot(crashed=what == "crash")
        elif what == "power":
            self.device.die(3, power=True)
        elif what == "order":
            self.device.judge("shift", 60)
            self.device.steps(2)
            self.device.order(OrderKind.CONFIRM)
        else:
            self.device.judge(what, 60)
        self.device.steps(3)

    @rule(kind=st.sampled_from([OrderKind.ROLLBACK, OrderKind.CONFIRM, OrderKind.COLLECT]))
    def a_person_orders(self, kind: OrderKind) -> None:
        self.device.order(kind)

    @rule(release=RELEASES)
    def a_person_imports(self, release: int) -> None:
        self.device.order(OrderKind.IMPORT, release)

    @rule(wanted_on=st.booleans())
    def a_person_pins_or_not(self, wanted_on: bool) -> None:
        self.device.pin(wanted_on=wanted_on)

    @rule(place=st.integers(0, 60))
    def a_file_is_damaged_on_disk(self, place: int) -> None:
        self.device.spoil(place)

    @rule()
    def the_record_of_what_is_installed_is_damaged(self) -> None:
        self.device.lose_the_record()

    @rule(at=st.integers(1, 60))
    def the_process_is_killed(self, at: int) -> None:
        self.device.die(at, power=False)

    @rule(at=st.integers(1, 60))
    def the_power_goes(self, at: int) -> None:
        self.device.die(at, power=True)

    @rule(crashed=st.booleans())
    def the_agent_is_started_again(self, crashed: bool) -> None:
        self.device.boot(crashed=crashed)

    @precondition(lambda self: self.device is not None)
    @invariant()
    def all_is_as_it_must_be(self) -> None:
        self.device.check()

    def teardown(self) -> None:
        try:
            if self.device is not None and not self.device.is_dead:  # dead: what went wrong has been raised
                self.device.bring_to_an_end()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


TestDeployments = Deployments.TestCase
TestDeployments.settings = settings(
    max_examples=RUNS or 100,
    stateful_step_count=25,
    deadline=None,
    derandomize=RUNS == 0,
    phases=[Phase.generate, Phase.shrink] if RUNS else [Phase.generate],  # shrinking a story takes minutes
    print_blob=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
