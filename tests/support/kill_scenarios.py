"""The deployments that are killed, or whose power goes, at every boundary: one table for both, and a device for each.

test_deploy_kill.py kills processes, test_deploy_power_cut.py loses what was not synced.
"""

from __future__ import annotations

import os
import shutil
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from agent.deploy import bundle, bundle_search
from agent.deploy.facts import Limits
from agent.deploy.figures import Figures
from agent.deploy.orders import Order, OrderKind, Orders
from agent.deploy.outlook import Rules
from agent.deploy.part import SUFFIX, SYNC_BYTES
from agent.deploy.pins import Pins
from agent.deploy.probation import ProbationLimits
from agent.deploy.selftest import SelfTestResult
from tests.support.deploying import AT_ONCE, FakeActivator, MemoryFleet, TestDevice, check_reports, make_package, wanted
from wire import codec, deployment, package
from wire.deployment import DeploymentReport, HoldReason
from wire.deployment import DeploymentState as S
from wire.desired import Desired

LIMIT = 1000
PATIENCE = 6
ORDER_ID = "00000000-0000-7000-9000-000000000001"


PASSES = Rules(probation=AT_ONCE)


@dataclass(frozen=True)
class Scenario:
    """A deployment of release 3, unless an order asks for another, on a device that has had the releases of `history`.

    Args:
        swaps: outcomes of the activator in the process that is killed.
        faults: of the fleet in that process.
        model_bytes: of release 3.
        busy_s, full_s: so long after each start the line is busy, and the disk full.
        rules: in force on the device.
        judges: what release 3 does each time somebody looks, once it is in use.
        order: what a person asks for beside the machine, once: at the start, or as soon as the state of `ordered_in` is
            reached and there is nothing else to do. An import is of release 3.
        pinned: a release that must stay.
        begins: the first boundary that is a case of its own; those before are in other scenarios.
        ends: where the deployment may end after one power cut and a restart. After a kill in probation it is undone.
    """

    history: tuple[int, ...]
    ends: frozenset[S]
    swaps: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    self_test: str = ""
    model_bytes: int | None = None
    busy_s: float = 0.0
    full_s: float = 0.0
    rules: Rules = PASSES
    judges: Figures | None = None
    order: OrderKind | None = None
    ordered_in: S | None = None
    pinned: int | None = None
    begins: str = ""

    @property
    def release(self) -> int:
        """The release the attempt is about."""
        return self.history[-2] if self.is_local_rollback else 3

    @property
    def is_local_rollback(self) -> bool:
        """A way back of the device's own, not the end of a probation."""
        return self.order is OrderKind.ROLLBACK and self.ordered_in is None


WATCHED = ProbationLimits(parts=30, watch_s=300.0)
ANY = "0" * 64  # in figures: of whichever version it is


def judging(**counts: int) -> Figures:
    """Return what a version does at each look."""
    faults = {"inference_failed": counts.pop("failed", 0)}
    return Figures(digest=ANY, verdicts=dict(counts), faults=faults)


SCENARIOS = {
    "first version": Scenario(history=(), ends=frozenset({S.SUCCEEDED})),
    "third version": Scenario(history=(1, 2), ends=frozenset({S.SUCCEEDED})),
    "bytes damaged on the way": Scenario(
        history=(1,), faults=("", "deployment.digest_mismatch"), ends=frozenset({S.SUCCEEDED})
    ),
    "refused by its self-test": Scenario(history=(1,), self_test="model.golden_mismatch", ends=frozenset({S.REFUSED})),
    "interrupted again and again": Scenario(
        history=(1,),
        faults=("", "cut", "cut", "network.unreachable", "cut", "resource.not_found", "cut"),
        model_bytes=2 * SYNC_BYTES + 345_678,
        ends=frozenset({S.SUCCEEDED}),
    ),
    "other bytes after an interruption": Scenario(
        history=(1,),
        faults=("", "", "", "cut", "deployment.digest_mismatch", "cut"),
        model_bytes=SYNC_BYTES + 1,
        ends=frozenset({S.SUCCEEDED}),
    ),
    "other bytes of a long file": Scenario(
        history=(1,),
        faults=("", "", "", "deployment.digest_mismatch"),
        model_bytes=2 * SYNC_BYTES + 1,
        ends=frozenset({S.SUCCEEDED}),
    ),
    "no room, then a busy line": Scenario(history=(1, 2), full_s=200.0, busy_s=500.0, ends=frozenset({S.SUCCEEDED})),
    # A kill between the broken swap and its entry in the journal lets the next process try again, and succeed.
    "broken swap": Scenario(
        history=(1, 2), swaps=("broken",), ends=frozenset({S.FAILED_REVERTED, S.SUCCEEDED, S.FAILED_NO_CHANGE})
    ),
    "judges parts on probation": Scenario(
        history=(1, 2),
        rules=Rules(probation=WATCHED),
        judges=judging(OK=3),
        begins="report activating",
        ends=frozenset({S.SUCCEEDED}),
    ),
    "fails on probation": Scenario(
        history=(1, 2),
        rules=Rules(probation=WATCHED),
        judges=judging(OK=1, failed=2),
        begins="report activating",
        ends=frozenset({S.FAILED_REVERTED}),
    ),
    "fails on probation, and going back fails at first": Scenario(
        history=(1, 2),
        swaps=("", "broken"),
        rules=Rules(probation=WATCHED),
        judges=judging(OK=1, failed=2),
        begins="report probation",
        ends=frozenset({S.FAILED_REVERTED}),
    ),
    "the first version fails, and a person confirms it": Scenario(
        history=(),
        rules=Rules(probation=WATCHED),
        judges=judging(OK=1, failed=2),
        order=OrderKind.CONFIRM,
        ordered_in=S.PROBATION,
        begins="report activating",
        ends=frozenset({S.SUCCEEDED}),
    ),
    "its verdicts shift, and a person confirms them": Scenario(
        history=(1, 2),
        rules=Rules(probation=WATCHED),
        judges=judging(OK=1, NG=2),
        order=OrderKind.CONFIRM,
        ordered_in=S.PROBATION,
        begins="report activating",
        ends=frozenset({S.SUCCEEDED}),
    ),
    "its verdicts shift, and nobody answers": Scenario(
        history=(1, 2),
        rules=Rules(probation=WATCHED, limits=Limits(awaiting_confirmation_s=400.0)),
        judges=judging(OK=1, NG=2),
        begins="report activating",
        ends=frozenset({S.FAILED_REVERTED}),
    ),
    "taken back on probation by a person": Scenario(
        history=(1, 2),
        rules=Rules(probation=WATCHED),
        order=OrderKind.ROLLBACK,
        ordered_in=S.PROBATION,
        begins="report activating",
        ends=frozenset({S.FAILED_REVERTED}),
    ),
    "confirmed before its swap": Scenario(
        history=(1, 2),
        rules=Rules(probation=AT_ONCE, confirm=True),
        order=OrderKind.CONFIRM,
        ordered_in=S.STAGED,
        begins="report staged",
        ends=frozenset({S.SUCCEEDED}),
    ),
    "rolled back by a person": Scenario(
        history=(1, 2), rules=Rules(probation=WATCHED), order=OrderKind.ROLLBACK, ends=frozenset({S.SUCCEEDED})
    ),
    "imported from a stick": Scenario(history=(1, 2), order=OrderKind.IMPORT, ends=frozenset({S.SUCCEEDED})),
    "the version before is pinned": Scenario(
        history=(1, 2), pinned=1, begins="report activating", ends=frozenset({S.SUCCEEDED})
    ),
}


def cut_power(incoming: Path, durable: dict[str, int]) -> None:
    """Leave of each unfinished file its length, as a journal of sizes may, but only the bytes made durable."""
    for part in incoming.glob(f"*{SUFFIX}"):
        length, kept = part.stat().st_size, durable.get(part.name, 0)
        with part.open("r+b") as stream:
            stream.seek(min(kept, length))
            stream.write(bytes(max(0, length - kept)))


class Plant:
    """One scenario's files: a device with its history, copied afresh for each case."""

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self.scenario = scenario
        self.packages = {release: make_package(folder / f"v{release}", release) for release in (1, 2)}
        self.packages[3] = make_package(folder / "v3", 3, model_bytes=scenario.model_bytes)
        self.template = folder / "template"
        self.log = folder / "reports.jsonl"
        self.root = folder / "device"
        device = self._device(self.template, None)
        device.boot()
        for release in scenario.history:
            device.run(wanted(self.packages[release]))
        if scenario.pinned is not None:
            Pins(device.store.root).pin(self.packages[scenario.pinned].digest)
        if scenario.order is OrderKind.IMPORT:
            (found,), _ = bundle_search.search(self.packages[3].folder)
            bundle.stage(found, device.store.root)
        self.before = device.reports

    @property
    def desired(self) -> Desired:
        """What the fleet asks for."""
        is_local = self.scenario.order is OrderKind.IMPORT or self.scenario.is_local_rollback
        return wanted(self.packages[self.scenario.history[-1] if is_local else 3])

    def _device(self, root: Path, before: Callable[[str], None] | None) -> TestDevice:
        fleet = MemoryFleet(list(self.scenario.faults) if before else None, before)
        for found in self.packages.values():
            fleet.publish(found)

        def tester(tested: package.Package, _go_on: Callable[[], bool]) -> SelfTestResult:
            if before:
                before("self-test")
            code = self.scenario.self_test if tested.manifest.release == 3 else ""
            return SelfTestResult(ok=code == "", code=code, reason="Injected.")

        device = TestDevice(
            root=root,
            fleet=fleet,
            activator=FakeActivator(list(self.scenario.swaps) if before else None, before),
            tester=tester,
            before=before,
        )
        if root == self.root:
            device.options = replace(device.options, rules=self.scenario.rules)
            device.person = lambda: self._give_order(device)
            if self.scenario.judges is not None:
                third = self.packages[3].digest
                device.activator.judges = {third: replace(self.scenario.judges, digest=third)}
            if self.scenario.history:
                former = self.packages[self.scenario.history[-1]].digest
                device.activator.lately = Figures(digest=former, verdicts={"OK": 500})
            start_ns = device.clock.monotonic_ns()

            def since_start_s() -> float:
                return (device.clock.monotonic_ns() - start_ns) / 1e9

            device.not_now = lambda: HoldReason.LINE_BUSY if since_start_s() < self.scenario.busy_s else None
            device.room_bytes = lambda: 0 if since_start_s() < self.scenario.full_s else 1 << 40
        return device

    def _give_order(self, device: TestDevice) -> bool:
        """Have the person beside the machine ask for what they want, once; tell whether they just did."""
        scenario = self.scenario
        orders = Orders(device.store.root / "orders")
        attempt = device.journal.of("parts").attempt
        if scenario.order is None or orders.answer_of(ORDER_ID) is not None or orders.is_waiting(ORDER_ID):
            return False
        if scenario.ordered_in is not None and (attempt is None or attempt.state is not scenario.ordered_in):
            return False
        if scenario.order is OrderKind.CONFIRM and (attempt is None or attempt.hold is None):
            return False
        orders.give(
            Order(
                id=ORDER_ID,
                kind=scenario.order,
                model="parts",
                digest=self.packages[3].digest if scenario.order is OrderKind.IMPORT else None,
                release=3 if scenario.order is OrderKind.IMPORT else None,
                at=device.clock.now_utc(),
            )
        )
        return True

    def reset(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.template, self.root)
        self.log.write_bytes(b"")

    def run_and_kill(self, at: int, *, crashed: bool = False) -> list[str]:
        """Run release 3 in a child process that ends itself at boundary number `at`; return the boundaries passed.

        Args:
            crashed: a process before it was killed as well.
        """
        trace = self.log.with_suffix(".trace")
        trace.write_text("")
        child = os.fork()
        if child == 0:
            try:
                self._child(at, trace, crashed=crashed)
            except BaseException:  # noqa: BLE001 - the child must never come back into pytest
                traceback.print_exc()
                os._exit(3)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        passed = trace.read_text().splitlines()
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            assert len(passed) == at
        else:
            assert os.WEXITSTATUS(status) == 0
            assert len(passed) < at
        return passed

    def _child(self, at: int, trace: Path, *, crashed: bool) -> None:
        count = 0
        incoming = self.root / "store" / "incoming"
        durable = {part.name: part.stat().st_size for part in incoming.iterdir()}  # a power cut came before
        being_synced: dict[str, int] = {}

        def boundary(name: str) -> None:
            nonlocal count
            count += 1
            with trace.open("a") as stream:
                stream.write(f"{name}\n")
            durable.update(being_synced)
            being_synced.clear()
            if count == at:
                cut_power(incoming, durable)
                os.kill(os.getpid(), signal.SIGKILL)
            if name.startswith("sync ") and name.endswith(SUFFIX):
                file = name.removeprefix("sync ")
                being_synced[file] = (incoming / file).stat().st_size

        def take(report: DeploymentReport) -> None:
            boundary(f"report {report.state}")
            with self.log.open("ab") as stream:
                stream.write(codec.encode(report) + b"\n")
            boundary(f"reported {report.state}")

        device = self._device(self.root, boundary)
        device.take = take
        device.boot(crashed=crashed)
        device.run(self.desired, patience=PATIENCE)

    def restart_and_check(self, ends: frozenset[S], *, crashed: bool = False) -> None:
        """Boot on what a kill or a power cut left; the device must be on a whole version, and the deployment must end.

        Args:
            crashed: the process alone was killed: what was in probation then must be undone.
        """
        scenario = self.scenario
        known = {found.digest for found in self.packages.values()}
        device = self._device(self.root, None)
        device.boot(crashed=crashed)
        if scenario.history:
            assert device.activator.in_use in known, "no model after the restart"
        attempt = device.journal.of("parts").attempt
        if crashed and attempt is not None and attempt.state is S.PROBATION:
            if attempt.former is None and device.store.installed("parts").current == attempt.digest:
                # It has passed, and there is nothing before it: one crash must not leave the line without a model.
                assert device.activator.in_use == attempt.digest, "the only version, which has passed, is not loaded"
            else:
                assert device.activator.in_use != attempt.digest, "what may have ended the agent is loaded"
                ends = frozenset({S.FAILED_REVERTED})
        device.run(self.desired, patience=PATIENCE)
        attempt = device.journal.of("parts").attempt
        assert attempt is not None
        assert attempt.digest == self.packages[scenario.release].digest
        assert attempt.state in ends, (attempt.state, attempt.fault)
        assert attempt.state in deployment.ENDS
        assert attempt.mismatches <= self.scenario.faults.count("deployment.digest_mismatch"), "a part was not trimmed"
        sent = [codec.decode(line, DeploymentReport) for line in self.log.read_bytes().splitlines()]
        check_reports([*self.before, *sent, *device.reports])
        installed = device.store.installed("parts")
        if attempt.state is S.SUCCEEDED:
            assert installed.current == device.activator.in_use == self.packages[scenario.release].digest
        elif scenario.history:
            assert installed.current == device.activator.in_use == self.packages[scenario.history[-1]].digest
        else:
            assert (installed.current, device.activator.in_use) == (None, None)
        if scenario.order is not None and attempt.state is not S.FAILED_REVERTED:
            answer = device.orders.answer_of(ORDER_ID)
            assert answer is not None, "the person was not answered"
            assert answer.done
        assert device.orders.pending() == ()
        kept = {digest for digest in (installed.current, installed.previous) if digest}
        if scenario.pinned is not None:
            kept.add(self.packages[scenario.pinned].digest)
        assert {path.name for path in (self.root / "store" / "packages").iterdir()} == kept
        for digest in kept:
            assert device.store.package(digest).digest == digest
        staged = list((self.root / "store" / "imports").glob("*"))
        leftovers = [path for path in self.root.rglob("*") if path.name.startswith(".tmp-") or path.suffix == ".part"]
        # Where a command may be at work at this moment, what is young is left to later starts.
        theirs = [self.root / "store" / "orders", *staged]
        assert [path for path in leftovers if not any(path.is_relative_to(one) for one in theirs)] == []
        assert [path for path in staged if not path.name.startswith(".tmp-")] == []
