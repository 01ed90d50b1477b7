"""What the self-test's child process does: limit itself, load the model, run the golden samples, measure."""

from __future__ import annotations

import contextlib
import ctypes
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
    import numpy as np
    from numpy.typing import NDArray

    from agent.vision import pipeline

_PR_SET_PDEATHSIG: Final = 1
_MIB: Final = 1024 * 1024
_MAX_FILE_BYTES: Final = 64 * _MIB
_LOOKS_MIN, _LOOKS_MAX, _LOOKS_S = 5, 30, 5.0
_GREY: Final = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the model costs on this device; `samples` golden samples gave what was expected."""

    latency_p95_ms: float
    memory_mb: float
    samples: int


def limit(*, address_space_mb: int, niceness: int) -> None:
    """Bind this process: memory, size of files, no core dump, low priority, no life after its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for what, most in (
        (resource.RLIMIT_AS, address_space_mb * _MIB),
        (resource.RLIMIT_FSIZE, _MAX_FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    os.nice(niceness)


def run(folder: Path, digest: str, *, provider: str, threads: int) -> Measured:
    """Load a package's model and run its golden samples; without any, a grey picture.

    Raises:
        LinesideError: the codes of `agent.vision.runtime.load`, `model.golden_mismatch`, `model.unusable_output`,
            `model.too_slow`, `model.out_of_memory`, or `storage.corrupt` where the folder is not the version asked for.
    """
    from agent.inspection import judge, regions
    from agent.vision import candidates, pipeline, runtime

    found = package.read_folder(folder)
    if found.digest != digest:
        raise LinesideError("storage.corrupt", f"{folder} holds version {found.digest[:12]}, not {digest[:12]}.")
    parameters, _ = manifest.parameters_of(found.manifest, {})
    golden_set = found.golden()
    pictures = [_picture(found, sample.picture) for sample in golden_set.samples] or [_grey(found.manifest.input)]
    before_mb = _restart_peak_rss_mb()
    session = runtime.load(found, runtime.RuntimeOptions(threads=threads, provider=provider))
    line = pipeline.Pipeline(session, found, parameters)
    rules = judge.rules_of(found.manifest, parameters)
    for number, picture in enumerate(pictures):
        findings = line.look(picture).findings
        if isinstance(findings, candidates.Unusable):
            raise LinesideError("model.unusable_output", f"A golden picture gives no usable output: {findings.reason}")
        if number < len(golden_set.samples):
            sentence = golden.difference(
                golden_set.samples[number],
                judge.judge(findings, rules, regions.size_of(picture)).verdict,
                findings,
                golden_set.tolerance,
                parameters.get(pipeline.SCORE_THRESHOLD),
            )
            if sentence is not None:
                raise LinesideError("model.golden_mismatch", sentence)
    measured = Measured(
        latency_p95_ms=_latency_p95_ms(line, pictures),
        memory_mb=_peak_rss_mb() - before_mb,
        samples=len(golden_set.samples),
    )
    _compare(measured, found.manifest.limits)
    return measured


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


def _latency_p95_ms(line: pipeline.Pipeline, pictures: list[NDArray[np.uint8]]) -> float:
    """Return the 95th percentile of a look's duration.

    A look counts with its wall time or its processor time, whichever is less: at low priority beside a busy line the
    wall time holds the waiting too, and with several threads the processor time adds them up.
    """
    durations_ms: list[float] = []
    started = time.perf_counter()
    while len(durations_ms) < _LOOKS_MIN or (
        len(durations_ms) < _LOOKS_MAX and time.perf_counter() - started < _LOOKS_S
    ):
        wall, cpu = time.perf_counter(), time.process_time()
        line.look(pictures[len(durations_ms) % len(pictures)])
        durations_ms.append(1000.0 * min(time.perf_counter() - wall, time.process_time() - cpu))
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


def _grey(spec: manifest.Input) -> NDArray[np.uint8]:
    import numpy as np

    return np.full((spec.height_px, spec.width_px, 3), _GREY, dtype=np.uint8)


def _restart_peak_rss_mb() -> float:
    """Let the peak of resident memory begin anew at what is resident now, and return that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status_mb("VmRSS")


def _peak_rss_mb() -> float:
    return _status_mb("VmHWM")


def _status_mb(field: str) -> float:
    """Read from /proc, for what `getrusage` calls the peak is handed down from the parent process."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise LinesideError("internal.unexpected", f"The kernel does not say how much memory is used ({field}).")
    return int(found[1]) / 1024
