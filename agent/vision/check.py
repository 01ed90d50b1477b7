"""Checks a model file or a package folder that nobody trusts, in a child process with little memory and little time.

The child (`python -m agent.vision.check PATH`) reads the file with our own bounded reader, and only if that finds no
reason against it lets the runtime load it; its answer is one JSON object. Whatever the child does, the parent answers
with a code of the register.
"""

from __future__ import annotations

import os
import resource
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
_MAX_ANSWER_BYTES: Final = _MIB
_TRIAL_PICTURE: Final = (480, 640, 3)
_GREY: Final = 128


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
        return _refused("resource.not_found", f"There is no {path}.", "Name an ONNX file or a package folder.")
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as complaint:
        arguments = [
            str(path.absolute()),
            str(limits.file_bytes),
            str(limits.memory_bytes),
            str(max(1, round(limits.seconds))),
        ]
        # -P: a folder named `agent` in the working directory must not be imported instead of us.
        child = subprocess.Popen(  # noqa: S603  (our own module, by the interpreter that runs us)
            [sys.executable, "-P", "-m", "agent.vision.check", *arguments],
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
        "inputs": [_tensor(tensor) for tensor in facts.inputs],
        "outputs": [_tensor(tensor) for tensor in facts.outputs],
        "metadata": facts.metadata,
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
        return _refused(
            "model.timed_out", f"{name} was not loaded within {limits.seconds:g} s.", "Use a smaller or simpler model."
        )
    if status < 0:
        return _refused(
            "model.crashed",
            f"{name} ended the process that loaded it ({signal.strsignal(-status)}).",
            "Do not use it; check it where it was made.",
        )
    last = complaint.decode("utf-8", errors="replace").strip().splitlines()
    return _refused("internal.unexpected", f"The check of {name} failed: {last[-1][:300] if last else 'no answer'}.")


def _refused(code: str, reason: str, next_step: str = "") -> CheckResult:
    return CheckResult(ok=False, code=code, reason=reason, next_step=next_step)


def _start_of(stream: IO[bytes]) -> bytes:
    stream.seek(0)
    return stream.read(_MAX_ANSWER_BYTES)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _bind(memory_bytes: int, cpu_s: int) -> None:
    """Limit this process for ever."""
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, _MAX_ANSWER_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (allowed, hard if what == resource.RLIMIT_CPU else allowed))


def _look_into(path: Path, max_bytes: int) -> CheckResult:
    """The child's work: from what harms least to what may end the process."""
    from agent.vision import onnx_file, runtime

    facts: dict[str, Any] = {}
    try:
        found = package.read_folder(path) if path.is_dir() else None
        model = path if found is None else found.model_path
        read = onnx_file.read(model, max_bytes)
        facts.update(facts_of(read))
        onnx_file.refuse(read)
        if found is None:
            inference = runtime.build(model, runtime.RuntimeOptions())
            facts["provider"] = inference.get_providers()[0]
        else:
            facts.update(_try_package(found))
        facts["runtime"] = runtime.RUNTIME_VERSION
    except LinesideError as error:
        return CheckResult(ok=False, code=error.code, reason=error.message, next_step=error.next_step, facts=facts)
    except RecursionError:
        return _refused("model.manifest_invalid", f"The manifest of {path.name} is nested too deeply.")
    except MemoryError:
        return _refused("model.too_large", f"{path.name} needs more memory than is allowed.", "Use a smaller model.")
    return CheckResult(ok=True, facts=facts)


def _try_package(found: package.Package) -> dict[str, Any]:
    """Run a package's model once, on a grey picture: its output must be what the manifest's decoder reads."""
    import numpy as np

    from agent.vision import pipeline, runtime
    from agent.vision.candidates import Unusable
    from wire.manifest import parameters_of

    session = runtime.load(found, runtime.RuntimeOptions())
    parameters, _ = parameters_of(found.manifest, {})
    look = pipeline.Pipeline(session, found, parameters).look(np.full(_TRIAL_PICTURE, _GREY, dtype=np.uint8))
    if isinstance(look.findings, Unusable):
        raise LinesideError(
            "model.unusable_output",
            f"The decoder {found.manifest.decoder.name!r} cannot read what the model answers: {look.findings.reason}",
            "Correct [decoder] and the labels in the manifest.",
        )
    return {
        "provider": session.provider,
        "name": found.manifest.name,
        "release": found.manifest.release,
        "digest": found.digest,
    }


def main(arguments: list[str]) -> int:
    """Run the child: PATH, bytes of the file, bytes of memory, seconds."""
    path, max_bytes, memory_bytes, seconds = Path(arguments[0]), *(int(text) for text in arguments[1:4])
    _bind(memory_bytes, seconds)
    sys.stdout.buffer.write(codec.encode(_look_into(path, max_bytes)))
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
