"""What the tests of deployments share: packages, a fleet in memory with faults, an activator, a whole device."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.clock import FakeClock
from agent.deploy.compatibility import DeviceFacts
from agent.deploy.durable import Disk
from agent.deploy.figures import Figures
from agent.deploy.journal import Journal
from agent.deploy.orders import Orders
from agent.deploy.outlook import Rules
from agent.deploy.part import Part
from agent.deploy.preparation import Tester
from agent.deploy.probation import ProbationLimits
from agent.deploy.runner import Runner, RunnerOptions
from agent.deploy.selftest import SelfTestResult
from agent.deploy.store import Store
from agent.uplink.ending import Ending
from wire import deployment, package
from wire.deployment import DeploymentReport, DeploymentState, HoldReason
from wire.desired import Desired, DesiredModel
from wire.errors import LinesideError
from wire.messages import Severity

MODEL = "parts"
# A probation that nothing is asked of: each version passes as soon as it is in use.
AT_ONCE = ProbationLimits(parts=0, watch_s=0.0)
DEVICE = DeviceFacts(architecture="x86_64", runtime_version="1.31.1", max_opset=23, provider="CPUExecutionProvider")
MANIFEST = """
schema = 1
name = "{model}"
release = {release}
task = "classify"
labels = ["good", "bad"]

[input]
width_px = 16
height_px = 16

[decoder]
name = "classify"
{extra}
"""


def make_package(
    folder: Path, release: int, *, model: str = MODEL, extra: str = "", model_bytes: int | None = None
) -> package.Package:
    """Write a package whose model is no model, of so many bytes: enough for all but the self-test."""
    (folder / "golden").mkdir(parents=True)
    (folder / "manifest.toml").write_text(MANIFEST.format(model=model, release=release, extra=extra))
    word = f"model {model} {release} ".encode()
    length = 50 * len(word) if model_bytes is None else model_bytes
    (folder / "model.onnx").write_bytes((word * (length // len(word) + 1))[:length])
    (folder / "card.md").write_text("The same card for every release.")
    (folder / "golden" / "part.bin").write_bytes(bytes([release]) * 64)
    return package.read_folder(folder)


def deployment_id(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012d}"


def wanted(found: package.Package, number: int | None = None) -> Desired:
    """Return a desired document that asks for this version; the deployment's number is the release unless given."""
    entry = DesiredModel(
        model=found.manifest.name,
        active=found.digest,
        release=found.manifest.release,
        deployment_id=deployment_id(found.manifest.release if number is None else number),
    )
    return Desired(device="edge-1", revision=1, models=(entry,))


class MemoryFleet:
    """Serves blobs from memory.

    Args:
        faults: what happens at the next fetches, oldest first: "" for nothing; "deployment.digest_mismatch" sends other
            bytes; "cut" sends half of what is asked for and then is gone; any other error code is raised at once.
    """

    def __init__(self, faults: list[str] | None = None, before: Callable[[str], None] | None = None) -> None:
        self.blobs: dict[str, bytes] = {}
        self.faults = faults or []
        self.fetched: list[str] = []
        self.sent_bytes = 0
        self._before = before or (lambda _: None)

    def publish(self, found: package.Package) -> None:
        self.blobs[found.digest] = package.index_bytes(found.index)
        for file in found.index.files:
            self.blobs[file.digest] = (found.folder / file.path).read_bytes()

    def fetch_blob(self, digest: str, part: Part, max_bytes: int, *, exact: bool, go_on: Callable[[], bool]) -> bool:
        self._before("fetch")
        self.fetched.append(digest)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "" and digest not in self.blobs:
            fault = "resource.not_found"
        if fault not in ("", "cut", "deployment.digest_mismatch"):
            raise LinesideError(fault, f"Injected: {fault}.")
        blob = self.blobs[digest]
        assert len(blob) == max_bytes if exact else len(blob) <= max_bytes
        rest = blob[part.length :]
        if fault == "deployment.digest_mismatch":
            rest = bytes(byte ^ 1 for byte in rest)
        half = len(rest) // 2
        self._send(part, rest[:half])
        self._before("fetch half")
        if fault == "cut":
            raise LinesideError("network.unreachable", "Injected: cut.")
        self._send(part, rest[half:])
        self._before("fetched")
        return True

    def _send(self, part: Part, data: bytes) -> None:
        self.sent_bytes += len(data)
        part.write(data)


class FakeActivator:
    """Holds at most one version of each model in use; `in_use` is that of `MODEL`.

    Args:
        outcomes: of the next activations, oldest first: "" works; "untouched" raises and the old goes on; "broken"
            raises and nothing is left; "other" says that another version is in use; "idle" changes nothing silently.

    No recipe fits the versions in `narrow`: they come into use only for whoever goes back.
    """

    def __init__(self, outcomes: list[str] | None = None, before: Callable[[str], None] | None = None) -> None:
        self.versions: dict[str, str | None] = {}
        self.exclusively: list[bool] = []
        self.judges: dict[str, Figures] = {}
        self.since_boot: dict[str, Figures] = {}
        self.lately: Figures | None = None
        self.outcomes = outcomes or []
        self.narrow: set[str] = set()
        self.activated: list[str] = []
        self._before = before or (lambda _: None)

    @property
    def in_use(self) -> str | None:
        return self.versions.get(MODEL)

    @in_use.setter
    def in_use(self, digest: str | None) -> None:
        self.versions[MODEL] = digest

    def activate(self, package: package.Package, *, exclusive: bool = False, going_back: bool = False) -> str:
        model = package.manifest.name
        self.exclusively.append(exclusive)
        self._before("activate")
        outcome = self.outcomes.pop(0) if self.outcomes else ""
        self.activated.append(package.digest)
        if package.digest in self.narrow and not going_back:
            raise LinesideError("deployment.out_of_bounds", "Injected: no recipe fits.")
        if outcome == "broken":
            self.versions[model] = None
        if outcome in ("broken", "untouched"):
            raise LinesideError("model.unloadable", f"Injected: {outcome}.")
        if outcome == "other":
            self.versions[model] = "f" * 64
        elif outcome == "":
            self.versions[model] = package.digest
            self.since_boot.pop(package.digest, None)
        self._before("activated")
        return package.digest if outcome == "idle" else self.versions.get(model) or ""

    def inferring(self, model: str) -> str | None:
        return self.versions.get(model)

    def figures(self, model: str) -> Figures | None:
        """Each time this is asked, the version in use has judged what `judges` says of it."""
        in_use = self.inferring(model)
        if in_use in self.judges:
            self._add(self.judges[in_use])
        return self.since_boot.get(in_use, Figures(digest=in_use)) if in_use is not None else None

    def recent_figures(self, model: str) -> Figures | None:
        is_told = self.lately is not None and self.lately.digest == self.inferring(model)
        return self.lately if is_told else self.figures(model)

    def judged(self, ok: int = 0, ng: int = 0, unsure: int = 0, *, model: str = MODEL, **faults: int) -> None:
        """Have the version in use judge so many parts more."""
        in_use = self.inferring(model)
        assert in_use is not None
        self._add(Figures(digest=in_use, verdicts={"OK": ok, "NG": ng, "UNSURE": unsure}, faults=faults))

    def _add(self, more: Figures) -> None:
        self.since_boot[more.digest] = self.since_boot.get(more.digest, Figures(digest=more.digest)).plus(more)


def passes(_package: package.Package, _go_on: Callable[[], bool]) -> SelfTestResult | None:
    """Stand for a self-test that passes."""
    return SelfTestResult(ok=True, latency_p95_ms=1.0, memory_mb=1.0, samples=1)


@dataclass
class TestDevice:
    """One device with real files under `root`; `boot` starts it anew, as after a kill.

    Args:
        person: called when there is nothing to do; tells whether they have done something.
    """

    __test__ = False

    root: Path
    fleet: MemoryFleet
    activator: FakeActivator = field(default_factory=FakeActivator)
    tester: Tester = passes
    reports: list[DeploymentReport] = field(default_factory=list)
    earlier: list[DeploymentReport] = field(default_factory=list)
    take: Callable[[DeploymentReport], None] | None = None
    before: Callable[[str], None] | None = None
    not_now: Callable[[], HoldReason | None] = lambda: None
    room_bytes: Callable[[], int] = lambda: 1 << 40
    available_mb: Callable[[], float | None] = lambda: None
    person: Callable[[], bool] = lambda: False
    told: list[tuple[str, Severity, str]] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)
    options: RunnerOptions = field(
        default_factory=lambda: RunnerOptions(
            pause_s=1.0, pause_max_s=60.0, keep_free_bytes=0, rules=Rules(probation=AT_ONCE)
        )
    )

    def boot(self, *, crashed: bool = False, ended: Ending = Ending.CLEAN) -> Runner:
        """Build store, journal and runner on what lies on disk, recover, and load what is to be loaded.

        Args:
            crashed: the process before this one was killed, or ended by itself without notice.
            ended: how it ended otherwise.
        """
        disk = Disk(self.before) if self.before else Disk()
        self.store = Store(self.root / "store", disk)
        self.store.room_bytes = self.room_bytes  # type: ignore[method-assign]
        self.journal = Journal(self.root / "journal", self.clock, disk)
        self.orders = Orders(self.root / "store" / "orders", disk)  # files have the machine's time
        self.runner = Runner(
            store=self.store,
            journal=self.journal,
            api=self.fleet,
            activator=self.activator,
            reports=self.take or self.reports.append,
            clock=self.clock,
            device=DEVICE,
            tester=self.tester,
            options=self.options,
            rng=random.Random(7),
            not_now=self.not_now,
            orders=self.orders,
            available_mb=self.available_mb,
            tell=lambda name, severity, text: self.told.append((name, severity, text)),
        )
        self.runner.recover(ended=Ending.KILLED if crashed else ended)
        self.activator.since_boot.clear()
        self.activator.versions.clear()
        for model in self.runner.models_in_use():
            first = next(self.runner.boot_choices(model), None)
            self.activator.versions[model] = first.digest if first else None
        return self.runner

    def run(self, desired: Desired, steps: int = 200, patience: int = 1) -> None:
        """Step until nothing is left to do, time passing in the pauses; fail where that takes too many steps.

        Args:
            patience: so many times two minutes pass without a step before it is taken for the end.
        """
        idle = 0
        for _ in range(steps):
            if self.runner.step(desired):
                idle = 0
                continue
            if self.person():
                continue
            idle += 1
            self.clock.advance(120.0)
            if idle > patience:
                return
        raise AssertionError(f"The deployment does not end: {self.states()}")

    def states(self, number: int | None = None) -> list[DeploymentState]:
        """Return the states reported, of one deployment or of all; how far probation has come is no state."""
        reports = [one for one in self.reports if number is None or one.deployment_id == deployment_id(number)]
        return [
            report.state
            for before, report in zip([None, *reports], reports, strict=False)
            if before is None or not tells_of_progress(before, report)
        ]


def tells_of_progress(before: DeploymentReport, report: DeploymentReport) -> bool:
    """Tell whether a report says the same as the one before, but for what probation has seen."""
    same = replace(report, sequence=before.sequence, at=before.at, probation=before.probation)
    return same == before and report.sequence > before.sequence and report.probation != before.probation


def check_reports(reports: list[DeploymentReport]) -> None:
    """Fail unless the reports are ones the fleet would take: each transition legal, equal sequences equal reports."""
    latest: dict[str, DeploymentReport] = {}
    for report in reports:
        before = latest.get(report.deployment_id)
        if before is not None and before.sequence == report.sequence:
            assert report == before, "a sequence number was used twice"
            continue
        state = before.state if before else DeploymentState.QUEUED
        if before is not None and report.state is state:
            assert report.hold != before.hold or tells_of_progress(before, report), "the same word twice"
        else:
            assert report.state in deployment.TRANSITIONS[state], f"{state} -> {report.state}"
        assert report.hold is None or report.hold.deadline > report.at
        assert report.hold is None or report.state not in deployment.ENDS
        assert before is None or report.sequence > before.sequence
        if report.state is DeploymentState.SUCCEEDED:
            assert report.inferring_digest == report.digest
        latest[report.deployment_id] = report


def whole_files(folder: Path) -> Iterator[Path]:
    """Yield the files under a folder."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
