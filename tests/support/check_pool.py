"""Many checks by a few long-lived children: the same code as `lineside model check`, without a start for each file.

A child that dies or hangs is replaced, and its file is checked again in a child of its own: only what that one says
counts, for the first child may have been harmed by an earlier file. `python -m tests.support.check_pool` is the child.
"""

from __future__ import annotations

import concurrent.futures
import os
import queue
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.vision import check, check_child
from agent.vision.check import CheckLimits, CheckResult
from wire import codec
from wire.errors import LinesideError

_MIB = 1024 * 1024
LIMITS = CheckLimits(file_bytes=64 * _MIB, memory_bytes=3072 * _MIB, seconds=20.0)
_CHECKS_PER_CHILD = 400
_CHILD_CPU_S = 600


@dataclass
class Pool:
    """A few children; `replaced` counts those that a file ended."""

    size: int = 2
    replaced: int = 0

    def check(self, paths: Iterable[Path]) -> Iterator[tuple[Path, CheckResult]]:
        """Check files and packages; yield results in the order given."""
        children: queue.Queue[_Child] = queue.Queue()
        for _ in range(self.size):
            children.put(_Child())

        def one(path: Path) -> tuple[Path, CheckResult]:
            child = children.get()
            try:
                result = child.check(path)
                if result is None or child.checks >= _CHECKS_PER_CHILD:
                    child.end()
                    child = _Child()
            finally:
                children.put(child)
            if result is None:
                self.replaced += 1
                result = check.check_file(path, LIMITS)
            return path, result

        try:
            with concurrent.futures.ThreadPoolExecutor(self.size) as threads:
                yield from threads.map(one, paths)
        finally:
            while not children.empty():
                children.get().end()


class _Child:
    def __init__(self) -> None:
        self.checks = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.check_pool"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def check(self, path: Path) -> CheckResult | None:
        """Return the child's answer; None where it died or hung."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.checks += 1
        try:
            self._process.stdin.write(f"{path}\n".encode())
        except BrokenPipeError:
            return None
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], LIMITS.seconds)
            piece = self._process.stdout.read(65536) if ready else b""
            if not piece:
                return None
            line += piece
        try:
            return codec.decode(line, CheckResult)
        except LinesideError:
            return None

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> int:
    check_child.bind(LIMITS.memory_bytes, _CHILD_CPU_S)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(codec.encode(check_child.look_into(Path(line.rstrip("\n")), LIMITS.file_bytes)) + b"\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
