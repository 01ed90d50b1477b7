"""What a package costs on this very device: times per run and per look, memory, and how many threads pay.

Each number of threads has a child process (`agent.vision.bench_child`) with a session of its own; the children take
turns, round by round, so that what else the machine does meets all of them alike.
"""

from __future__ import annotations

import contextlib
import math
import select
import signal
import subprocess  # nosec
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wire import codec
from wire.errors import REGISTER, LinesideError

WORTH: Final = 0.9  # more threads must bring the median of a look down to this share
_ANSWER_S: Final = 120.0
_MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A child has its session.

    Args:
        code: of the register, where it could not be built; empty otherwise.
        load_ms: building the session.
        memory_mb: growth of resident memory by session and first looks, its peak.
    """

    code: str = ""
    reason: str = ""
    provider: str = ""
    load_ms: float = 0.0
    memory_mb: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lap:
    """One child's round, milliseconds.

    Args:
        run, look: wall time of `session.run`, and of the whole look at a picture.
        cpu: processor time of a look, all threads of the process together.
    """

    run: tuple[float, ...]
    look: tuple[float, ...]
    cpu: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Of one series, milliseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one number of threads costs."""

    threads: int
    looks: int
    run_ms: Percentiles
    look_ms: Percentiles
    cpu_ms: float
    load_ms: float
    memory_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Benched:
    """A package's costs, and the number of threads to run it with."""

    provider: str
    cores: int
    measured: tuple[Measured, ...]
    best_threads: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a package is measured.

    Args:
        picture: a file to look at; None: the golden pictures, or noise of 1280 x 720.
        threads: the numbers to compare.
    """

    folder: Path
    threads: tuple[int, ...]
    rounds: int = 5
    looks: int = 20
    picture: Path | None = None


def measure(plan: Plan, cores: int) -> Benched:
    """Measure a package that has passed `agent.vision.check`.

    Args:
        cores: that this process may use, for the answer.

    Raises:
        LinesideError: whatever kept a child from building its session; `model.crashed` or `model.timed_out`.
    """
    children: list[_Child] = []
    laps: dict[int, list[Lap]] = {threads: [] for threads in plan.threads}
    try:
        children.extend(_Child(plan, threads) for threads in plan.threads)
        ready = {child.threads: child.ready() for child in children}
        for number in range(plan.rounds):
            for child in children if number % 2 == 0 else reversed(children):
                laps[child.threads].append(child.lap(plan.looks))
    finally:
        for child in children:
            child.end()
    measured = tuple(summary(threads, laps[threads], ready[threads]) for threads in plan.threads)
    best, why = choose(measured)
    return Benched(provider=ready[plan.threads[0]].provider, cores=cores, measured=measured, best_threads=best, why=why)


def summary(threads: int, laps: Sequence[Lap], ready: Ready) -> Measured:
    """Put a child's rounds together."""
    look = [number for lap in laps for number in lap.look]
    return Measured(
        threads=threads,
        looks=len(look),
        run_ms=percentiles([number for lap in laps for number in lap.run]),
        look_ms=percentiles(look),
        cpu_ms=percentiles([number for lap in laps for number in lap.cpu]).p50,
        load_ms=ready.load_ms,
        memory_mb=ready.memory_mb,
    )


def percentiles(series: Sequence[float]) -> Percentiles:
    """Return the percentiles of a series, each one of its values (the nearest rank)."""
    ranked = sorted(series)
    p50, p95, p99 = (ranked[max(0, math.ceil(share * len(ranked)) - 1)] for share in (0.50, 0.95, 0.99))
    return Percentiles(p50=p50, p95=p95, p99=p99)


def choose(measured: Sequence[Measured]) -> tuple[int, str]:
    """Return the number of threads to use and why: more only where they make a look shorter by a tenth or more."""
    by_threads = sorted(measured, key=lambda one: one.threads)
    best = by_threads[0]
    refused: Measured | None = None
    for more in by_threads[1:]:
        if more.look_ms.p50 <= WORTH * best.look_ms.p50:
            best, refused = more, None
        else:
            refused = refused or more
    words = [f"{_threads(best.threads)}: {best.look_ms.p50:.2f} ms a look, {best.cpu_ms:.2f} ms of processor time"]
    first = by_threads[0]
    if best is not first:
        words.append(f"with {_threads(first.threads)} {first.look_ms.p50:.2f} ms and {first.cpu_ms:.2f} ms")
    if refused is not None:
        words.append(
            f"with {_threads(refused.threads)} {refused.look_ms.p50:.2f} ms and {refused.cpu_ms:.2f} ms, which is not "
            f"a tenth faster"
        )
    if len(by_threads) == 1:
        words.append("no other number was tried")
    return best.threads, "; ".join(words) + "."


def _threads(count: int) -> str:
    return f"{count} thread" + ("" if count == 1 else "s")


class _Child:
    def __init__(self, plan: Plan, threads: int) -> None:
        self.threads = threads
        picture = "" if plan.picture is None else str(plan.picture.absolute())
        self._process = subprocess.Popen(  # noqa: S603  (our own module, by the interpreter that runs us)
            [
                sys.executable,
                "-P",
                "-m",
                "agent.vision.bench_child",
                str(plan.folder.absolute()),
                str(threads),
                picture,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def ready(self) -> Ready:
        ready = codec.decode(self._line(), Ready)
        if ready.code:
            code = ready.code if ready.code in REGISTER else "internal.unexpected"
            raise LinesideError(code, ready.reason)
        return ready

    def lap(self, looks: int) -> Lap:
        assert self._process.stdin is not None  # noqa: S101  (Popen was told to make it)
        with contextlib.suppress(BrokenPipeError):  # the line that is missing says so
            self._process.stdin.write(f"{looks}\n".encode())
        return codec.decode(self._line(), Lap)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self) -> bytes:
        assert self._process.stdout is not None  # noqa: S101  (Popen was told to make it)
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], _ANSWER_S)
            if not ready:
                raise LinesideError("model.timed_out", f"A round took over {_ANSWER_S:g} s.", "Use a smaller model.")
            piece = self._process.stdout.read(65536)
            if not piece or len(line) > _MAX_ANSWER_BYTES:
                status = self._process.wait(10.0)
                cause = signal.strsignal(-status) if status < 0 else f"status {status}"
                raise LinesideError("model.crashed", f"The process that measured ended ({cause}).")
            line += piece
        return line
