"""What the self-test's child process does: limit itself, load the model, run the golden samples, measure."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.deploy import golden
from wire import manifest, package
from wire.errors import LinesideError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from agent.deploy.finite_session import FiniteSession
    from agent.deploy.trial_pictures import TrialPicture
    from agent.vision import pipeline
    from agent.vision.candidates import Unusable
    from wire.inspection import Finding

_PR_SET_PDEATHSIG: Final = 1
_MIB: Final = 1024 * 1024
_KILL_US_FIRST: Final = "1000"
# At most 200 looks, or as many as go into 2 s, but at least 64 where they go into 20 s, and 5 however slow.
_LOOKS_MAX, _LOOKS_S = 200, 2.0
_LOOKS_MIN, _LOOKS_MOST_S = 64, 20.0
_LOOKS_LEAST: Final = 5
_EXTRAS_S: Final = 20.0
_GREY: Final = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the model costs on this device; `samples` golden samples gave what was expected."""

    latency_p95_ms: float
    memory_mb: float
    load_ms: float
    samples: int


def limit(*, address_space_mb: int, file_bytes: int, niceness: int) -> None:
    """Bind this process: memory, size of files, no core dump, low priority, no life after its parent.

    Where the device's memory runs out, the kernel ends this process rather than the agent beside it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for what, most in (
        (resource.RLIMIT_AS, address_space_mb * _MIB),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_KILL_US_FIRST)
    os.nice(niceness)


def run(folder: Path, digest: str, *, provider: str, threads: int, drafts: Path | None = None) -> Measured:
    """Load a package's model and run its golden samples (without any, a grey picture), then worse pictures, then many.

    Args:
        drafts: where the optimised graph is left, in a file that `agent.vision.runtime.adopt` takes; what is tested
            is then that very graph. None, or a graph that cannot be written: the model as it is.

    Raises:
        LinesideError: the codes of `agent.vision.runtime.load`, `model.golden_mismatch`, `model.unusable_output`,
            `model.run_failed`, `model.too_slow`, `model.out_of_memory`, or `storage.corrupt` where the folder is not
            the version asked for.
    """
    from agent.deploy.finite_session import FiniteSession
    from agent.deploy.trial_pictures import TrialPicture, extras
    from agent.inspection import session_builder
    from agent.vision import pipeline, runtime

    found = package.read_folder(folder)
    if found.digest != digest:
        raise LinesideError("storage.corrupt", f"{folder} holds version {found.digest[:12]}, not {digest[:12]}.")
    parameters, _ = manifest.parameters_of(found.manifest, {})
    golden_set = found.golden()
    size_px = session_builder.size_for(found.manifest.input)
    shown = [
        TrialPicture(name=sample.picture, image_bgr=_picture(found, sample.picture)) for sample in golden_set.samples
    ] or [TrialPicture(name=f"a grey picture of {size_px[0]} x {size_px[1]} pixels", image_bgr=_grey(size_px))]
    before_mb = _status_mb("VmRSS")
    options = runtime.RuntimeOptions(threads=threads, provider=provider, cache_dir=drafts)
    if drafts is not None:
        runtime.load(found, options).close()
        runtime.trim()
        if not runtime.is_cached(found, options):
            options = runtime.RuntimeOptions(threads=threads, provider=provider)
    _restart_peak_rss()
    started = time.perf_counter()
    session = FiniteSession(runtime.load(found, options))
    line = pipeline.Pipeline(session, found, parameters)
    for _ in range(session_builder.ROUNDS):
        line.look(shown[0].image_bgr)
    load_ms = 1000.0 * (time.perf_counter() - started)
    trial = _Trial(line, session)
    for picture, sample in itertools.zip_longest(shown, golden_set.samples):
        findings = trial.findings(picture)
        if sample is not None:
            _expect(found, parameters, sample, picture, findings, golden_set.tolerance)
    until = time.perf_counter() + _EXTRAS_S
    for picture in extras(shown):
        trial.findings(picture)
        if time.perf_counter() > until:
            break
    measured = Measured(
        latency_p95_ms=_latency_p95_ms(trial, shown),
        memory_mb=_status_mb("VmHWM") - before_mb,
        load_ms=load_ms,
        samples=len(golden_set.samples),
    )
    _compare(measured, found.manifest.limits)
    return measured


class _Trial:
    """Looks at pictures, and refuses what is no answer."""

    def __init__(self, line: pipeline.Pipeline, session: FiniteSession) -> None:
        self._line = line
        self._session = session
        self._findings: tuple[Finding, ...] | Unusable = ()

    def look(self, picture: TrialPicture) -> None:
        """Look at a picture; `check` says what came of it."""
        self._findings = self._line.look(picture.image_bgr).findings

    def check(self, picture: TrialPicture) -> tuple[Finding, ...]:
        """Return what was found in the picture just looked at.

        Raises:
            LinesideError: `model.unusable_output` where the answer cannot be used, or any of its numbers is none. On a
                black picture it counts as on any other: one day the lamp fails, and each part would be without verdict.
        """
        from agent.vision.candidates import Unusable

        findings, trouble = self._findings, self._session.trouble()
        if isinstance(findings, Unusable):
            raise _unusable(picture, findings.reason)
        if trouble:
            raise _unusable(picture, trouble)
        return findings

    def findings(self, picture: TrialPicture) -> tuple[Finding, ...]:
        """Look and check."""
        self.look(picture)
        return self.check(picture)


def _unusable(picture: TrialPicture, why: str) -> LinesideError:
    return LinesideError("model.unusable_output", f"What it says of {picture.name} cannot be used: {why}")


def _expect(
    found: package.Package,
    parameters: dict[str, float],
    sample: manifest.GoldenSample,
    picture: TrialPicture,
    findings: tuple[Finding, ...],
    tolerance: manifest.Tolerance,
) -> None:
    """Compare an answer with the golden one, labels, scores and verdict."""
    from agent.inspection import judge, regions
    from agent.vision import pipeline

    verdict = judge.judge(findings, judge.rules_of(found.manifest, parameters), regions.size_of(picture.image_bgr))
    threshold = parameters.get(pipeline.SCORE_THRESHOLD)
    sentence = golden.difference(sample, verdict.verdict, findings, tolerance, threshold)
    if sentence is not None:
        raise LinesideError("model.golden_mismatch", sentence)


def _compare(measured: Measured, limits: manifest.Limits) -> None:
    if measured.latency_p95_ms > limits.latency_p95_ms:
        raise LinesideError(
            "model.too_slow",
            f"95 % of the pictures take up to {measured.latency_p95_ms:.1f} ms on this device; "
            f"its limit is {limits.latency_p95_ms:g} ms.",
        )
    if measured.memory_mb > limits.memory_mb:
        raise LinesideError(
            "model.out_of_memory",
            f"It takes {measured.memory_mb:.0f} MB on this device; its limit is {limits.memory_mb:g} MB.",
        )


def _latency_p95_ms(trial: _Trial, pictures: Sequence[TrialPicture]) -> float:
    """Look many times, so that what fails at the 50th look fails here; return the 95th percentile of their duration.

    A look counts with its wall time or its processor time, whichever is less: at low priority beside a busy line the
    wall time holds the waiting too, and with several threads the processor time adds them up.
    """
    durations_ms: list[float] = []
    started = time.perf_counter()
    for number in range(_LOOKS_MAX):
        spent_s = time.perf_counter() - started
        if spent_s > _LOOKS_S and (number >= _LOOKS_MIN or spent_s > _LOOKS_MOST_S) and number >= _LOOKS_LEAST:
            break
        wall, cpu = time.perf_counter(), time.process_time()
        trial.look(pictures[number % len(pictures)])
        durations_ms.append(1000.0 * min(time.perf_counter() - wall, time.process_time() - cpu))
        trial.check(pictures[number % len(pictures)])
    return sorted(durations_ms)[int(0.95 * (len(durations_ms) - 1))]


def _picture(found: package.Package, name: str) -> NDArray[np.uint8]:
    import cv2
    import numpy as np

    if found.index.file(name) is None:
        raise LinesideError("package.invalid", f"The golden set names {name!r}, which is no file of the package.")
    picture = cv2.imread(str(found.folder / name), cv2.IMREAD_COLOR)
    if picture is None:
        raise LinesideError("package.invalid", f"The golden picture {name} cannot be read.")
    return np.asarray(picture, dtype=np.uint8)


def _grey(size_px: tuple[int, int]) -> NDArray[np.uint8]:
    import numpy as np

    return np.full((size_px[1], size_px[0], 3), _GREY, dtype=np.uint8)


def _restart_peak_rss() -> None:
    """Let the peak of resident memory begin anew at what is resident now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status_mb(field: str) -> float:
    """Read from /proc, for what `getrusage` calls the peak is handed down from the parent process."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise LinesideError("internal.unexpected", f"The kernel does not say how much memory is used ({field}).")
    return int(found[1]) / 1024
