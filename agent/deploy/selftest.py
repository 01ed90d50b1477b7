"""The self-test: a version runs its golden samples on this very device, in a child process that may come to harm.

`python -m agent.deploy.selftest --package FOLDER --digest DIGEST --json` is the child; `self_test` is its parent.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from agent.deploy import golden_run
from wire import codec, package
from wire.errors import LinesideError

_ANSWER_MAX_BYTES: Final = 64 * 1024
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTestOptions:
    """What the child may use, and how models are run on this device.

    Args:
        address_space_mb: of the child, libraries included (they reserve about 1 GB).
        niceness: so that the line in the other process goes first.
    """

    provider: str = "CPUExecutionProvider"
    threads: int = 1
    time_limit_s: float = 120.0
    address_space_mb: int = 4096
    niceness: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTestResult:
    """How a self-test ended.

    Args:
        code: a key of the error register; empty where it passed.
        latency_p95_ms, memory_mb: of a look, and the peak of the session with its looks.
        load_ms: from the file to a session that has looked a few times, as the agent will build it: so long the line
            stands without a model where the two versions do not fit in memory together.
        samples: golden samples that gave what was expected.
    """

    ok: bool
    code: str = ""
    reason: str = ""
    latency_p95_ms: float = 0.0
    memory_mb: float = 0.0
    load_ms: float = 0.0
    samples: int = 0


def _always() -> bool:
    return True


def self_test(
    tested: package.Package, options: SelfTestOptions, *, go_on: Callable[[], bool] = _always
) -> SelfTestResult | None:
    """Test a package in a child process and wait for the result.

    Args:
        tested: the package as it lies on disk.
        go_on: asked many times a second; False ends the child.

    Returns:
        The result; None where `go_on` ended it.
    """
    command = [sys.executable, "-P", "-m", "agent.deploy.selftest", "--json"]
    command += ["--package", str(tested.folder), "--digest", tested.digest]
    command += ["--provider", options.provider, "--threads", str(options.threads)]
    command += ["--address-space-mb", str(options.address_space_mb), "--niceness", str(options.niceness)]
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as talk:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=answer, stderr=talk)  # noqa: S603
        deadline = time.monotonic() + options.time_limit_s
        try:
            while child.poll() is None:
                if not go_on():
                    return None
                if time.monotonic() > deadline:
                    return _bad("model.timed_out", f"The self-test took over {options.time_limit_s:g} s.")
                time.sleep(_POLL_S)
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
        return _read(child.returncode, _tail(answer), _tail(talk))


def tester_of(options: SelfTestOptions) -> Callable[[package.Package, Callable[[], bool]], SelfTestResult | None]:
    """Return `self_test` with these options, in the form the runner takes."""
    return lambda tested, go_on: self_test(tested, options, go_on=go_on)


def _tail(stream: IO[bytes]) -> bytes:
    end = stream.seek(0, 2)
    stream.seek(max(0, end - _ANSWER_MAX_BYTES))
    return stream.read(_ANSWER_MAX_BYTES)


def _read(status: int, answer: bytes, talk: bytes) -> SelfTestResult:
    if status == 0:
        try:
            return codec.decode(answer.splitlines()[-1], SelfTestResult)
        except (IndexError, LinesideError):
            return _bad("model.crashed", "The self-test ended without a result.")
    if status == -signal.SIGILL:
        return _bad("model.illegal_instruction", "The model or its runtime uses an instruction this processor lacks.")
    if status == -signal.SIGKILL:
        return _bad("model.out_of_memory", "The system ended the self-test, most likely for want of memory.")
    if status < 0:
        return _bad("model.crashed", f"The self-test was ended by {signal.Signals(-status).name}.")
    lines = talk.decode(errors="replace").strip().splitlines()
    return _bad("model.crashed", f"The self-test ended with status {status}: {lines[-1][:300] if lines else ''}")


def _bad(code: str, reason: str) -> SelfTestResult:
    return SelfTestResult(ok=False, code=code, reason=reason)


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the child: print one JSON object and return 0, whatever the model's result; other statuses are accidents."""
    parser = argparse.ArgumentParser(prog="python -m agent.deploy.selftest", description=__doc__)
    defaults = SelfTestOptions()
    parser.add_argument("--package", type=Path, required=True, help="folder of the model package")
    parser.add_argument("--digest", required=True, help="of the version it must be")
    parser.add_argument("--provider", default=defaults.provider)
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--address-space-mb", type=int, default=defaults.address_space_mb)
    parser.add_argument("--niceness", type=int, default=defaults.niceness)
    parser.add_argument("--json", action="store_true", help="print the result as JSON (it has no other form)")
    given = parser.parse_args(arguments)
    golden_run.limit(address_space_mb=given.address_space_mb, niceness=given.niceness)
    try:
        measured = golden_run.run(given.package, given.digest, provider=given.provider, threads=given.threads)
        result = SelfTestResult(
            ok=True,
            latency_p95_ms=measured.latency_p95_ms,
            memory_mb=measured.memory_mb,
            samples=measured.samples,
        )
    except MemoryError:
        result = _bad("model.out_of_memory", f"It needs more than {given.address_space_mb} MB of address space.")
    except LinesideError as error:
        result = _of(error, given.address_space_mb)
    sys.stdout.buffer.write(codec.encode(result) + b"\n")
    sys.stdout.flush()
    return 0


def _of(error: LinesideError, address_space_mb: int) -> SelfTestResult:
    """A failed allocation inside the runtime comes as one of its own errors, or as a MemoryError behind ours."""
    cause = error.__cause__
    if isinstance(cause, MemoryError) or "bad_alloc" in str(cause) or "bad allocation" in str(cause):
        return _bad("model.out_of_memory", f"It needs more than {address_space_mb} MB of address space.")
    return _bad(error.code, error.message)


if __name__ == "__main__":
    raise SystemExit(main())
