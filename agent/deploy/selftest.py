"""The self-test: a version runs its golden samples on this very device, in a child process that may come to harm.

`python -m agent.deploy.selftest --package FOLDER --digest DIGEST --json` is the child; `self_test` is its parent.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from agent.deploy import golden_run, headroom
from wire import codec, package
from wire.errors import LinesideError

_ANSWER_MAX_BYTES: Final = 64 * 1024
_POLL_S: Final = 0.05
_LIBRARIES_MB: Final = 1024  # of address space, which is not memory
_FILE_BYTES: Final = 64 * 1024 * 1024
_KEEP_FREE_BYTES: Final = 128 * 1024 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTestOptions:
    """What the child may use, and how models are run on this device.

    Args:
        address_space_mb: of the child, libraries included (they reserve about 1 GB).
        niceness: so that the line in the other process goes first.
        cache_dir: where the optimised graph of a version that passed is kept for the agent; None: nowhere.
    """

    provider: str = "CPUExecutionProvider"
    threads: int = 1
    time_limit_s: float = 120.0
    address_space_mb: int = 4096
    niceness: int = 10
    cache_dir: Path | None = None


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

    Raises:
        LinesideError: `storage.full`, `storage.unusable` or `model.out_of_memory` where this device cannot run a
            self-test at the moment, whatever the version.
    """
    try:
        return _tested(tested, options, go_on)
    except OSError as error:
        raise _unable(error) from error


def _tested(tested: package.Package, options: SelfTestOptions, go_on: Callable[[], bool]) -> SelfTestResult | None:
    from agent.vision import runtime  # the child, which is this module, limits itself first

    address_space_mb = _address_space_mb(options.address_space_mb, headroom.available_mb())
    command = [sys.executable, "-P", "-m", "agent.deploy.selftest", "--json"]
    command += ["--package", str(tested.folder), "--digest", tested.digest]
    command += ["--provider", options.provider, "--threads", str(options.threads)]
    command += ["--address-space-mb", str(address_space_mb), "--niceness", str(options.niceness)]
    command += ["--file-bytes", str(runtime.graph_bytes_max(tested))]
    with contextlib.ExitStack() as held:
        drafts = _drafts(options, tested, held)
        if drafts is not None:
            command += ["--drafts", str(drafts)]
        result = _wait_for(command, options.time_limit_s, go_on)
        if result is not None and result.ok and drafts is not None:
            kept = runtime.adopt(
                tested,
                runtime.RuntimeOptions(threads=options.threads, provider=options.provider, cache_dir=options.cache_dir),
                drafts,
            )
            if not kept:
                log.info(
                    "The optimised graph of %s was not kept.", tested.digest[:12], extra={"event": "model.no_graph"}
                )
        return result


def _drafts(options: SelfTestOptions, tested: package.Package, held: contextlib.ExitStack) -> Path | None:
    """Return a folder for the child's graph; None where there is no cache, or no room for one beside the records."""
    from agent.vision import graph_cache, runtime

    if options.cache_dir is None:
        return None
    try:
        folder = held.enter_context(graph_cache.drafts(options.cache_dir))
        room = shutil.disk_usage(folder).free - runtime.graph_bytes_max(tested)
    except OSError:
        return None
    return folder if room > _KEEP_FREE_BYTES else None


def _address_space_mb(most_mb: int, free_mb: float | None) -> int:
    """Return what the child may take: no more than is left on the device, since the line goes on meanwhile."""
    return most_mb if free_mb is None else min(most_mb, _LIBRARIES_MB + int(free_mb))


def _wait_for(command: list[str], time_limit_s: float, go_on: Callable[[], bool]) -> SelfTestResult | None:
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as talk:
        _need_room(answer)
        child = subprocess.Popen(  # noqa: S603  (our own module, by the interpreter that runs us)
            command, stdin=subprocess.DEVNULL, stdout=answer, stderr=talk, start_new_session=True
        )
        deadline = time.monotonic() + time_limit_s
        try:
            while child.poll() is None:
                if not go_on():
                    return None
                if time.monotonic() > deadline:
                    return _bad("model.timed_out", f"The self-test took over {time_limit_s:g} s.")
                time.sleep(_POLL_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # and whatever it has started
            child.wait()
        return _read(child.returncode, _tail(answer), _tail(talk))


def _need_room(stream: IO[bytes]) -> None:
    """Raise OSError where a short file cannot be written: it would look as though the model had ended the child."""
    os.write(stream.fileno(), bytes(_ANSWER_MAX_BYTES))
    os.ftruncate(stream.fileno(), 0)
    os.lseek(stream.fileno(), 0, os.SEEK_SET)  # the child writes where this file stands


def _unable(error: OSError) -> LinesideError:
    sentence = f"The self-test could not be run: {error}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LinesideError("storage.full", sentence, f"Make room in {tempfile.gettempdir()}.")
    if error.errno in (errno.EAGAIN, errno.ENOMEM):
        return LinesideError("model.out_of_memory", sentence, "See what else takes memory and processes here.")
    return LinesideError("storage.unusable", sentence, "Check the folder for temporary files.")


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
    parser.add_argument("--file-bytes", type=int, default=_FILE_BYTES, help="the largest file it may write")
    parser.add_argument("--niceness", type=int, default=defaults.niceness)
    parser.add_argument("--drafts", type=Path, help="folder where the optimised graph is left")
    parser.add_argument("--json", action="store_true", help="print the result as JSON (it has no other form)")
    given = parser.parse_args(arguments)
    golden_run.limit(address_space_mb=given.address_space_mb, file_bytes=given.file_bytes, niceness=given.niceness)
    try:
        measured = golden_run.run(
            given.package, given.digest, provider=given.provider, threads=given.threads, drafts=given.drafts
        )
        result = SelfTestResult(
            ok=True,
            latency_p95_ms=measured.latency_p95_ms,
            memory_mb=measured.memory_mb,
            load_ms=measured.load_ms,
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
    from agent.vision import runtime

    if runtime.is_want_of_memory(error.__cause__):
        return _bad("model.out_of_memory", f"It needs more than {address_space_mb} MB of address space.")
    return _bad(error.code, error.message)


if __name__ == "__main__":
    raise SystemExit(main())
