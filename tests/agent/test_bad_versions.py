"""Versions that are bad on purpose: which guard meets each of them, when, and which pass.

docs/explanation/bad-versions.md has a row for each test here, and no other rows (tests/docs/test_bad_versions_page.py).
"""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.deploy import download
from agent.deploy.attempt import Attempt, ModelJournal
from agent.deploy.probation import ProbationLimits
from agent.deploy.store import Store
from tests.support import bad_models, faulty_sessions
from tests.support.bad_models import MODEL, Bad
from tests.support.deploying import MemoryFleet, wanted
from tests.support.faulty_sessions import MIB
from tests.support.ports import free_port
from tests.support.probation_stand import Stand
from wire import codec
from wire.deployment import DeploymentState as S
from wire.package import Package

DAY_S = 86_400.0
LIMITS = ProbationLimits(parts=100, watch_s=0.0, latency_factor=1e6)


def parts(count: int, ng_share: float, **look: Any) -> Iterator[NDArray[np.uint8]]:
    """The pictures of a line, spread by a seeded dice."""
    dice = random.Random(count)
    for _ in range(count):
        yield bad_models.picture(scratched=dice.random() < ng_share, **look)


def even_parts(count: int, one_in: int) -> Iterator[NDArray[np.uint8]]:
    """The pictures of a line of which each so-manieth part is scratched."""
    for number in range(count):
        yield bad_models.picture(scratched=number % one_in == 0)


def version(folder: Path, bad: Bad, *, golden: bool = False, **more: Any) -> Package:
    return bad_models.make(folder / f"bad-{bad.value}", bad, release=2, golden=golden, **more)


@pytest.fixture
def limits() -> ProbationLimits:
    """Those of probation: a busy machine makes no version too slow but where a test is about that."""
    return LIMITS


@pytest.fixture
def stand(tmp_path: Path, limits: ProbationLimits) -> Iterator[Stand]:
    """A device whose good version has judged 300 parts, one in ten of them NG."""
    good = bad_models.make(tmp_path / "good")
    with Stand(tmp_path / "device", limits) as made:
        made.install(good, even_parts(300, 10))
        yield made


def still_judges(stand: Stand) -> bool:
    """Whether the good version judges: a scratched part is NG, a good one OK."""
    verdicts = [stand.show(bad_models.picture(scratched=scratched)).verdict.value for scratched in (True, False)]
    return verdicts == ["NG", "OK"]


def goes_back_unanswered(stand: Stand) -> bool:
    """Let a week pass in which nobody says what is right."""
    for _ in range(9):
        stand.clock.advance(DAY_S)
        stand.settle()
    return stand.end[:2] == (S.FAILED_REVERTED, "deployment.hold_expired")


# No fault


def test_a_good_version_passes(stand: Stand, tmp_path: Path) -> None:
    assert stand.deploy(version(tmp_path, Bad.NOTHING, golden=True)) is S.PROBATION
    assert stand.judge(even_parts(300, 10)) == 100
    assert stand.end[0] is S.SUCCEEDED


# The classes are exchanged


def test_exchanged_classes_are_refused_by_the_golden_set(stand: Stand, tmp_path: Path) -> None:
    assert stand.deploy(version(tmp_path, Bad.WRONG_ORDER, golden=True)) is S.REFUSED
    assert stand.end[1] == "model.golden_mismatch"
    assert still_judges(stand)


def test_exchanged_classes_without_a_golden_set_ask_a_person(stand: Stand, tmp_path: Path) -> None:
    assert stand.deploy(version(tmp_path, Bad.WRONG_ORDER)) is S.PROBATION
    assert stand.judge(even_parts(200, 10)) == 10
    assert stand.question.startswith("NG 9 of 10 parts (90.0%), 30 of 300 (10.0%) before.")
    assert goes_back_unanswered(stand)
    assert still_judges(stand)


def test_exchanged_classes_pass_where_half_of_all_parts_are_ng(tmp_path: Path) -> None:
    good, bad = bad_models.make(tmp_path / "good"), version(tmp_path, Bad.WRONG_ORDER)
    with Stand(tmp_path / "device", LIMITS) as stand:
        stand.install(good, even_parts(100, 2))
        assert stand.deploy(bad) is S.PROBATION
        assert stand.judge(even_parts(200, 2)) == 100
        assert stand.end[0] is S.SUCCEEDED


# Ten times slower


def test_a_version_slower_than_its_manifest_says_fails_the_self_test(stand: Stand, tmp_path: Path) -> None:
    assert stand.deploy(version(tmp_path, Bad.SLOW, golden=True, latency_p95_ms=4.0)) is S.FAILED_NO_CHANGE
    assert stand.end[1] == "model.too_slow"
    assert still_judges(stand)


@pytest.mark.parametrize("limits", [ProbationLimits(parts=100, watch_s=0.0)], ids=["of latency too"])
@pytest.mark.parametrize("golden", [True, False])
def test_a_version_ten_times_slower_goes_back_by_itself(stand: Stand, tmp_path: Path, golden: bool) -> None:
    assert stand.deploy(version(tmp_path, Bad.SLOW, golden=golden)) is S.PROBATION
    assert 50 <= stand.judge(even_parts(100, 10)) < 100
    assert stand.end[:2] == (S.FAILED_REVERTED, "deployment.too_slow")
    assert still_judges(stand)


# Memory


def test_a_version_that_leaks_8_mib_a_look_goes_back_by_itself(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = version(tmp_path, Bad.NOTHING, golden=True)
    faulty_sessions.spoil({bad.digest: faulty_sessions.leak_of(8 * MIB)}, monkeypatch.setattr)
    try:
        assert stand.deploy(bad) is S.PROBATION
        assert 20 + 128 // 8 <= stand.judge(even_parts(100, 10)) < 50
        assert stand.end[:2] == (S.FAILED_REVERTED, "deployment.grew")
        assert still_judges(stand)
    finally:
        faulty_sessions.let_go()


def test_a_version_that_leaks_64_kib_a_look_passes(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = version(tmp_path, Bad.NOTHING, golden=True)
    faulty_sessions.spoil({bad.digest: faulty_sessions.leak_of(MIB // 16)}, monkeypatch.setattr)
    try:
        assert stand.deploy(bad) is S.PROBATION
        assert stand.judge(even_parts(200, 10)) == 100
        assert stand.end[0] is S.SUCCEEDED
    finally:
        faulty_sessions.let_go()


# No numbers


@pytest.mark.parametrize("golden", [True, False])
def test_a_version_that_is_blind_in_the_dark_is_refused_by_the_self_test(
    stand: Stand, tmp_path: Path, golden: bool
) -> None:
    assert stand.deploy(version(tmp_path, Bad.NAN_IN_THE_DARK, golden=golden)) is S.REFUSED
    assert stand.end[1] == "model.unusable_output"
    assert "black picture" in stand.end[2]
    assert still_judges(stand)


def test_a_version_that_is_blind_to_what_no_test_shows_goes_back_by_itself(stand: Stand, tmp_path: Path) -> None:
    """Of each scratched part it says nothing; one in five is scratched today."""
    assert stand.deploy(version(tmp_path, Bad.NAN_OF_SCRATCHES)) is S.PROBATION
    assert 20 < stand.judge(even_parts(100, 5)) < 100
    assert stand.end[:2] == (S.FAILED_REVERTED, "deployment.no_verdicts")
    assert "unusable_output" in stand.end[2]
    assert still_judges(stand)


# Crushed confidences, as of a twin that was quantised badly


def test_crushed_confidences_are_refused_by_the_golden_set(stand: Stand, tmp_path: Path) -> None:
    assert stand.deploy(version(tmp_path, Bad.CRUSHED, golden=True)) is S.REFUSED
    assert stand.end[1] == "model.golden_mismatch"


def test_crushed_confidences_without_a_golden_set_ask_a_person(stand: Stand, tmp_path: Path) -> None:
    assert stand.deploy(version(tmp_path, Bad.CRUSHED)) is S.PROBATION
    assert stand.judge(even_parts(200, 10)) == 10
    assert stand.question.startswith("UNSURE 10 of 10 parts (100.0%), 0 of 300 (0.0%) before.")
    assert goes_back_unanswered(stand)


def test_confidences_that_are_crushed_and_change_no_verdict_pass_without_a_golden_set(
    stand: Stand, tmp_path: Path
) -> None:
    assert stand.deploy(version(tmp_path, Bad.CRUSHED_A_LITTLE)) is S.PROBATION
    assert stand.judge(even_parts(200, 10)) == 100
    assert stand.end[0] is S.SUCCEEDED
    assert still_judges(stand)


# Always OK


def test_always_ok_is_refused_by_the_golden_set(stand: Stand, tmp_path: Path) -> None:
    assert stand.deploy(version(tmp_path, Bad.ALWAYS_OK, golden=True)) is S.REFUSED
    assert stand.end[1] == "model.golden_mismatch"


def test_always_ok_without_a_golden_set_asks_a_person_where_one_part_in_ten_is_ng(stand: Stand, tmp_path: Path) -> None:
    assert stand.deploy(version(tmp_path, Bad.ALWAYS_OK)) is S.PROBATION
    assert 80 < stand.judge(even_parts(300, 10)) < 100
    assert stand.question.startswith("NG 0 of ")
    assert goes_back_unanswered(stand)


def test_always_ok_without_a_golden_set_passes_where_one_part_in_fifty_is_ng(tmp_path: Path) -> None:
    good, bad = bad_models.make(tmp_path / "good"), version(tmp_path, Bad.ALWAYS_OK)
    with Stand(tmp_path / "device", LIMITS) as stand:
        stand.install(good, even_parts(300, 50))
        assert stand.deploy(bad) is S.PROBATION
        assert stand.judge(even_parts(300, 50)) == 100
        assert stand.end[0] is S.SUCCEEDED
        assert not still_judges(stand), "it lets every scratch pass"


# Crashing


CONFIG = """\
[device]
id = "press-1"
data_dir = "{data_dir}"

[fleet]
url = "http://127.0.0.1:{port}"

[local]
enabled = false

[deploy.probation]
parts = 60
minutes = 0.0

[[stations]]
id = "gauge"

[stations.line]
kind = "each_frame"
mode = "production"

[[stations.views]]
id = "top"
model = "demo-parts"

[stations.views.source]
kind = "watched_folder"
path = "{pictures}"
options = {{ remove = true }}
"""


@dataclasses.dataclass
class SpoiledDevice:
    """A whole agent in a process of its own, whose newer version ends it with its 50th look."""

    root: Path
    bad: Package
    shown: int = 0
    fleet: MemoryFleet = dataclasses.field(default_factory=MemoryFleet)

    def __post_init__(self) -> None:
        self.pictures = self.root / "pictures"
        self.pictures.mkdir(parents=True)
        text = CONFIG.format(data_dir=self.root / "data", pictures=self.pictures, port=free_port())
        (self.root / "agent.toml").write_text(text, encoding="utf-8")

    def ask_for(self, package: Package) -> None:
        """Put a version's bytes and the wish for it where a fleet that is out of reach has left them."""
        self.fleet.publish(package)
        store = Store(self.root / "data" / "models")
        while not download.fetch_next(store, self.fleet, package.digest, lambda: True):
            pass
        asked = dataclasses.replace(wanted(package), device="press-1", revision=package.manifest.release)
        (self.root / "data" / "desired.json").write_bytes(codec.encode(asked))

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.support.spoiled_agent", str(self.root / "agent.toml")]
        with (self.root / "agent.log").open("ab") as log:
            return subprocess.Popen([*command, self.bad.digest, "50"], stdout=log, stderr=log)

    def until(self, process: subprocess.Popen[bytes], state: S | None, timeout_s: float = 60.0) -> int:
        """Show parts until the deployment is in `state`, or the agent has ended; return how many."""
        before, deadline = self.shown, time.monotonic() + timeout_s
        while process.poll() is None and (state is None or self.attempt is None or self.attempt.state is not state):
            assert time.monotonic() < deadline, (self.root / "agent.log").read_text()[-3000:]
            self.show()
        return self.shown - before

    def show(self) -> None:
        """Put the next part's picture into the folder, no two of them equal."""
        picture = bad_models.picture(scratched=self.shown % 10 == 0)
        noise = np.random.default_rng(self.shown).integers(0, 20, picture.shape, dtype=np.uint8)
        cv2.imwrite(str(self.pictures / ".next.png"), cv2.add(picture, noise))
        (self.pictures / ".next.png").rename(self.pictures / f"{self.shown:05}.png")
        self.shown += 1
        time.sleep(0.05)

    @property
    def attempt(self) -> Attempt | None:
        """What the agent has written down; read without a `Journal`, which would put the folder in order."""
        file = self.root / "data" / "models" / "journal" / f"{MODEL}.json"
        return codec.decode(file.read_bytes(), ModelJournal).attempt if file.exists() else None


def test_a_version_that_ends_the_agent_with_its_50th_picture_is_not_loaded_again(tmp_path: Path) -> None:
    good, bad = bad_models.make(tmp_path / "good"), version(tmp_path, Bad.NOTHING, golden=True)
    device = SpoiledDevice(tmp_path / "device", bad)
    device.ask_for(good)
    process = device.start()
    try:
        device.until(process, S.SUCCEEDED)
        process.terminate()
        assert process.wait(20) == 0
        device.ask_for(bad)
        process = device.start()
        device.until(process, None)
        assert process.returncode == -6, "it ends in the middle of a look"
        assert device.attempt is not None
        assert device.attempt.state is S.PROBATION

        process = device.start()
        device.until(process, S.FAILED_REVERTED)
        assert device.attempt.fault is not None
        assert device.attempt.fault.code == "deployment.crashed"
        assert device.attempt.inferring == good.digest
        for _ in range(60):  # more pictures than it took before
            device.show()
        assert process.poll() is None, "nothing ends it any more"
        process.terminate()
        assert process.wait(20) == 0
        assert Store(tmp_path / "device" / "data" / "models").installed(MODEL).current == good.digest
    finally:
        process.kill()
        process.wait()
