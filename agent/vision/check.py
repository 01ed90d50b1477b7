"""Checks a model file or a package folder that nobody trusts, in a child process with little memory and little time.

The child is `agent.vision.check_child`; its answer is one JSON object. Whatever the child does, the parent answers with
a code of the register.
"""

from __future__ import annotations

import os
import signal
import subprocess  # nosec
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from wire import codec, package
from wire.errors import REGISTER, LinesideError

if TYPE_CHECKING:
    from agent.vision.onnx_walk import OnnxFacts

_MIB: Final = 1024 * 1024
_MOST_SHOWN, _MOST_TEXT = 64, 4000
MAX_ANSWER_BYTES: Final = _MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckLimits:
    """What checking one model may cost.

    Args:
        file_bytes: size of the model file.
        memory_bytes: address space of the child, the runtime's own libraries included.
        seconds: wall clock and processor time each.
    """

    file_bytes: int = package.MAX_FILE_BYTES
    memory_bytes: int = 4096 * _MIB
    seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """Whether a model may be loaded on this device.

    Args:
        code: of the error register; empty where the model is good.
        facts: what is known of the model, as far as the check got: plain values, ready for JSON.
    """

    ok: bool
    code: str = ""
    reason: str = ""
    next_step: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def check_file(path: Path, limits: CheckLimits | None = None) -> CheckResult:
    """Check a model file, or a package folder with its manifest; never raises for what the model is or does."""
    limits = limits or CheckLimits()
    if not path.exists():
        return refused("resource.not_found", f"There is no {path}.", "Name an ONNX file or a package folder.")
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as complaint:
        arguments = [
            str(path.absolute()),
            str(limits.file_bytes),
            str(limits.memory_bytes),
            str(max(1, round(limits.seconds))),
        ]
        # -P: a folder named `agent` in the working directory must not be imported instead of us.
        child = subprocess.Popen(  # noqa: S603  (our own module, by the interpreter that runs us)
            [sys.executable, "-P", "-m", "agent.vision.check_child", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=answer,
            stderr=complaint,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            status = child.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            status = -signal.SIGXCPU
        finally:
            _end(child)
        return _result(path.name, status, limits, _start_of(answer), _start_of(complaint))


def facts_of(facts: OnnxFacts) -> dict[str, Any]:
    """Return a file's facts as plain values."""
    return {
        "bytes": facts.file_bytes,
        "ir_version": facts.ir_version,
        "producer": facts.producer,
        "opsets": facts.opsets,
        "nodes": facts.node_count,
        "inputs": [_tensor(tensor) for tensor in facts.inputs[:_MOST_SHOWN]],
        "outputs": [_tensor(tensor) for tensor in facts.outputs[:_MOST_SHOWN]],
        "metadata": {key: value[:_MOST_TEXT] for key, value in facts.metadata.items()},
    }


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "shape": list(tensor.shape), "element": tensor.element}


def _result(name: str, status: int, limits: CheckLimits, answer: bytes, complaint: bytes) -> CheckResult:
    if status == 0:
        try:
            result = codec.decode(answer, CheckResult)
        except LinesideError:
            result = None
        if result is not None and (result.ok or result.code in REGISTER):
            return result
    if status == -signal.SIGXCPU:
        return refused(
            "model.timed_out", f"{name} was not loaded within {limits.seconds:g} s.", "Use a smaller or simpler model."
        )
    if status < 0:
        return refused(
            "model.crashed",
            f"{name} ended the process that loaded it ({signal.strsignal(-status)}).",
            "Do not use it; check it where it was made.",
        )
    last = complaint.decode("utf-8", errors="replace").strip().splitlines()
    return refused("internal.unexpected", f"The check of {name} failed: {last[-1][:300] if last else 'no answer'}.")


def refused(code: str, reason: str, next_step: str = "") -> CheckResult:
    """Return the result of a check that ended with a reason against the model."""
    return CheckResult(ok=False, code=code, reason=reason, next_step=next_step)


def _start_of(stream: IO[bytes]) -> bytes:
    stream.seek(0)
    return stream.read(MAX_ANSWER_BYTES)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
