"""The deployments that are killed, or whose power goes, at every boundary: one table for both, and a device for each.

test_deploy_kill.py kills processes, test_deploy_power_cut.py loses what was not synced.
"""

from __future__ import annotations

import os
import shutil
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.deploy.part import SUFFIX, SYNC_BYTES
from agent.deploy.selftest import SelfTestResult
from tests.support.deploying import FakeActivator, MemoryFleet, TestDevice, check_reports, make_package, wanted
from wire import codec, deployment, package
from wire.deployment import DeploymentReport, HoldReason
from wire.deployment import DeploymentState as S

LIMIT = 1000
PATIENCE = 6


@dataclass(frozen=True)
class Scenario:
    """A deployment of release 3 on a device that has had the releases of `history`.

    Args:
        swaps: outcomes of the activator in the process that is killed.
        faults: of the fleet in that process.
        model_bytes: of release 3.
        busy_s, full_s: so long after each start the line is busy, and the disk full.
        ends: where the deployment may end after one kill and a restart.
    """

    history: tuple[int, ...]
    ends: frozenset[S]
    swaps: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    self_test: str = ""
    model_bytes: int | None = None
    busy_s: float = 0.0
    full_s: float = 0.0


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
        self.before = device.reports

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
            start_ns = device.clock.monotonic_ns()

            def since_start_s() -> float:
                return (device.clock.monotonic_ns() - start_ns) / 1e9

            device.not_now = lambda: HoldReason.LINE_BUSY if since_start_s() < self.scenario.busy_s else None
            device.room_bytes = lambda: 0 if since_start_s() < self.scenario.full_s else 1 << 40
        return device

    def reset(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.template, self.root)
        self.log.write_bytes(b"")

    def run_and_kill(self, at: int) -> list[str]:
        """Run release 3 in a child process that ends itself at boundary number `at`; return the boundaries passed."""
        trace = self.log.with_suffix(".trace")
        trace.write_text("")
        child = os.fork()
        if child == 0:
            try:
                self._child(at, trace)
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

    def _child(self, at: int, trace: Path) -> None:
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
        device.boot()
        device.run(wanted(self.packages[3]), patience=PATIENCE)

    def restart_and_check(self, ends: frozenset[S]) -> None:
        """Boot on what the kill left; the device must be on a whole version, and the deployment must end."""
        known = {found.digest for found in self.packages.values()}
        device = self._device(self.root, None)
        device.boot()
        if self.scenario.history:
            assert device.activator.in_use in known, "no model after the restart"
        device.run(wanted(self.packages[3]), patience=PATIENCE)
        attempt = device.journal.of("parts").attempt
        assert attempt is not None
        assert attempt.digest == self.packages[3].digest
        assert attempt.state in ends, attempt.state
        assert attempt.state in deployment.ENDS
        assert attempt.mismatches <= self.scenario.faults.count("deployment.digest_mismatch"), "a part was not trimmed"
        sent = [codec.decode(line, DeploymentReport) for line in self.log.read_bytes().splitlines()]
        check_reports([*self.before, *sent, *device.reports])
        installed = device.store.installed("parts")
        if attempt.state is S.SUCCEEDED:
            assert installed.current == device.activator.in_use == self.packages[3].digest
        elif self.scenario.history:
            assert installed.current == device.activator.in_use == self.packages[self.scenario.history[-1]].digest
        kept = {digest for digest in (installed.current, installed.previous) if digest}
        assert {path.name for path in (self.root / "store" / "packages").iterdir()} == kept
        for digest in kept:
            assert device.store.package(digest).digest == digest
        leftovers = [path for path in self.root.rglob("*") if path.name.startswith(".tmp-") or path.suffix == ".part"]
        assert leftovers == []
