"""The self-test in its real child process: models that fail in each way, and children that come to harm."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NoReturn

import pytest

from agent.deploy import golden, selftest
from agent.deploy.selftest import SelfTestOptions, SelfTestResult
from tests.support import processes, tiny_models
from tests.support.deploying import MemoryFleet, TestDevice, wanted
from wire.deployment import DeploymentState as S
from wire.errors import REGISTER
from wire.inspection import Box, Finding, Verdict
from wire.manifest import GoldenSample, Tolerance

OPTIONS = SelfTestOptions(time_limit_s=60.0)
REPO = Path(__file__).resolve().parents[2]


def test_a_good_model_passes_and_is_measured(tmp_path: Path) -> None:
    result = selftest.self_test(tiny_models.make(tmp_path / "p"), OPTIONS)
    assert result is not None
    assert result.ok, result.reason
    assert result.samples == 3
    assert 0.0 < result.latency_p95_ms < 1000.0
    assert 0.0 <= result.memory_mb < 512.0


def test_memory_is_measured_however_much_its_parent_uses(tmp_path: Path) -> None:
    ballast = bytearray(600 * 1024 * 1024)
    ballast[::4096] = b"x" * len(ballast[::4096])
    result = selftest.self_test(tiny_models.make(tmp_path / "p", "wide"), OPTIONS)
    assert result is not None
    assert result.ok, result.reason
    assert 32.0 < result.memory_mb < 200.0


def test_a_model_without_golden_samples_is_run_on_a_grey_picture(tmp_path: Path) -> None:
    result = selftest.self_test(tiny_models.make(tmp_path / "p", "blind"), OPTIONS)
    assert result is not None
    assert (result.ok, result.samples) == (True, 0)


@pytest.mark.parametrize(
    ("kind", "limits", "code", "words"),
    [
        ("swapped", {}, "model.golden_mismatch", "blue.png: expected blue"),
        ("nan", {}, "model.unusable_output", "no numbers"),
        ("huge", {}, "model.out_of_memory", "4096 MB"),
        ("damaged", {}, "model.truncated", ""),
        ("good", {"latency_p95_ms": 0.0001}, "model.too_slow", "its limit is 0.0001 ms"),
        ("wide", {"memory_mb": 20.0}, "model.out_of_memory", "its limit is 20 MB"),
    ],
)
def test_a_bad_model_fails_with_its_own_code_and_words(
    tmp_path: Path, kind: str, limits: dict[str, float], code: str, words: str
) -> None:
    result = selftest.self_test(tiny_models.make(tmp_path / "p", kind, **limits), OPTIONS)
    assert result is not None
    assert (result.ok, result.code) == (False, code), result.reason
    assert words in result.reason


def test_a_provider_this_device_lacks_is_named(tmp_path: Path) -> None:
    result = selftest.self_test(tiny_models.make(tmp_path / "p"), SelfTestOptions(provider="CUDAExecutionProvider"))
    assert result is not None
    assert result.code == "model.provider_unavailable"


def test_a_folder_that_is_another_version_by_now_is_noticed(tmp_path: Path) -> None:
    tested = tiny_models.make(tmp_path / "p")
    (tested.folder / "card.md").write_text("added later")
    result = selftest.self_test(tested, OPTIONS)
    assert result is not None
    assert result.code == "storage.corrupt"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("kill -ILL $$", "model.illegal_instruction"),
        ("kill -SEGV $$", "model.crashed"),
        ("kill -KILL $$", "model.out_of_memory"),
        ("echo 'Traceback: it broke' >&2; exit 1", "model.crashed"),
        ("echo nonsense", "model.crashed"),
        ("exec sleep 60", "model.timed_out"),
        ("trap '' TERM; while :; do :; done", "model.timed_out"),
    ],
)
def test_a_child_that_comes_to_harm_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, code: str
) -> None:
    tested = tiny_models.make(tmp_path / "p")
    child = tmp_path / "child"
    child.write_text(f"#!/bin/sh\n{script}\n")
    child.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(child))
    time_limit_s = 0.5 if code == "model.timed_out" else 60.0
    result = selftest.self_test(tested, SelfTestOptions(time_limit_s=time_limit_s))
    assert result is not None
    assert (result.ok, result.code) == (False, code)
    assert result.reason
    assert code in REGISTER


def _no_process(*_: object, **__: object) -> NoReturn:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def _full(*_: object, **__: object) -> IO[bytes]:
    return Path("/dev/full").open("r+b")


def _read_only(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.EROFS, "Read-only file system")


def _no_file(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("what", "refuse", "code"),
    [
        ("tempfile.TemporaryFile", _no_file, "storage.full"),
        ("tempfile.TemporaryFile", _full, "storage.full"),
        ("tempfile.TemporaryFile", _read_only, "storage.unusable"),
        ("subprocess.Popen", _no_process, "model.out_of_memory"),
    ],
)
def test_a_device_on_which_no_self_test_can_be_run_waits_and_then_says_why(
    tmp_path: Path, what: str, refuse: Callable[..., Any], code: str
) -> None:
    """Nothing of it lies in the version: it goes on as soon as it can, and ends when its time is over."""
    good, late = tiny_models.make(tmp_path / "1"), tiny_models.make(tmp_path / "2", release=2)
    fleet = MemoryFleet()
    fleet.publish(good)
    fleet.publish(late)
    device = TestDevice(root=tmp_path / "device", fleet=fleet, tester=selftest.tester_of(OPTIONS))
    device.boot()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(what, refuse)
        for _ in range(20):
            device.runner.step(wanted(good))
            device.clock.advance(120.0)
        assert device.states(1)[-1] is S.SELF_TESTING
        assert processes.children("agent.deploy.selftest") == []
    device.run(wanted(good))
    assert device.states(1)[-1] is S.SUCCEEDED
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(what, refuse)
        device.run(wanted(late), steps=5_000)
    assert (device.states(2)[-1], device.reports[-1].code) == (S.FAILED_NO_CHANGE, code)
    assert "The self-test could not be run" in device.reports[-1].reason


def test_it_can_be_cut_short_and_leaves_no_child_behind(tmp_path: Path) -> None:
    tested = tiny_models.make(tmp_path / "p")
    started = time.monotonic()
    assert selftest.self_test(tested, OPTIONS, go_on=lambda: time.monotonic() - started < 0.2) is None
    assert time.monotonic() - started < 5.0
    assert processes.children("agent.deploy.selftest") == []


def test_the_child_holds_itself_to_memory_priority_and_the_life_of_its_parent() -> None:
    import subprocess

    program = (
        "import os, resource; from agent.deploy import golden_run\n"
        "golden_run.limit(address_space_mb=512, file_bytes=2**26, niceness=10)\n"
        "print(resource.getrlimit(resource.RLIMIT_AS)[0], resource.getrlimit(resource.RLIMIT_CORE)[0], os.nice(0))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPO)
    space, core, nice = (int(word) for word in done.stdout.split())
    assert (space, core) == (512 * 1024 * 1024, 0)
    assert nice >= 10


def test_a_whole_deployment_with_the_real_self_test(tmp_path: Path) -> None:
    good, bad = tiny_models.make(tmp_path / "1"), tiny_models.make(tmp_path / "2", "swapped", release=2)
    fleet = MemoryFleet()
    fleet.publish(good)
    fleet.publish(bad)
    device = TestDevice(root=tmp_path / "device", fleet=fleet, tester=selftest.tester_of(OPTIONS))
    device.boot()
    device.run(wanted(good))
    device.run(wanted(bad))
    assert [device.states(1)[-1], device.states(2)[-1]] == [S.SUCCEEDED, S.REFUSED]
    assert device.reports[-1].code == "model.golden_mismatch"
    assert device.activator.inferring(good.manifest.name) == good.digest


@pytest.mark.parametrize("name", ["demo-parts-1", "demo-parts-2"])
def test_the_demo_models_pass_on_this_device(name: str) -> None:
    from wire import package

    folder = REPO / "models" / name
    if not (folder / "golden" / "expected.json").is_file():
        pytest.skip(f"{folder} is not complete.")
    result = selftest.self_test(package.read_folder(folder), OPTIONS)
    assert isinstance(result, SelfTestResult)
    assert result.ok, result.reason
    assert result.samples > 0


def _finding(score: float, x1: float = 10.0, label: str = "scratch") -> Finding:
    return Finding(label=label, score=score, box=Box(x1_px=x1, y1_px=10.0, x2_px=50.0, y2_px=50.0))


SAMPLE = GoldenSample(picture="golden/a.png", verdict=Verdict.NG, findings=(_finding(0.8),))
TOLERANCE = Tolerance(score=0.05, box_px=3.0)


@pytest.mark.parametrize(
    ("verdict", "findings", "fits"),
    [
        (Verdict.NG, (_finding(0.8),), True),
        (Verdict.NG, (_finding(0.76, 12.0),), True),
        (Verdict.NG, (_finding(0.7),), False),
        (Verdict.NG, (_finding(0.8, 14.0),), False),
        (Verdict.NG, (_finding(0.8, label="dent"),), False),
        (Verdict.NG, (), False),
        (Verdict.NG, (_finding(0.8), _finding(0.6, 30.0)), False),
        (Verdict.NG, (_finding(0.8), _finding(0.37, 30.0)), True),
        (Verdict.OK, (_finding(0.8),), False),
        (Verdict.NG, (Finding(label="scratch", score=0.8),), False),
    ],
    ids=[
        "the same", "within tolerance", "score", "box", "label", "missing", "one more", "one more at the threshold",
        "verdict", "no box",
    ],
)  # fmt: skip
def test_a_golden_result_fits_within_its_tolerance_only(
    verdict: Verdict, findings: tuple[Finding, ...], fits: bool
) -> None:
    sentence = golden.difference(SAMPLE, verdict, findings, TOLERANCE, 0.35)
    assert (sentence is None) is fits
    assert sentence is None or "golden/a.png" in sentence
