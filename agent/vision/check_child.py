"""What the check's child process does: from what harms least to what may end the process.

The file is read with our own bounded reader; only if that finds no reason against it does the runtime load it. Then it
runs: a package on a grey picture and on its golden samples, a bare file on an input of the declared shape.
"""

from __future__ import annotations

import math
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.vision.check import MAX_ANSWER_BYTES, CheckResult, facts_of, refused
from wire import codec, package
from wire.errors import LinesideError
from wire.manifest import GOLDEN_NAME, GoldenSample, Manifest, parameters_of
from wire.model_input import Unit

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime
    from numpy.typing import NDArray

    from agent.vision.onnx_walk import OnnxFacts
    from agent.vision.pipeline import Pipeline

_TRIAL_SIZE: Final = (480, 640)
_GREY: Final = 128
_MAX_TRIAL_ELEMENTS: Final = 64 * 1024 * 1024


def look_into(path: Path, max_bytes: int) -> CheckResult:
    """Check a file or a package in this very process."""
    from agent.vision import onnx_file, runtime

    facts: dict[str, Any] = {}
    try:
        found = package.read_folder(path) if path.is_dir() else None
        model = path if found is None else found.model_path
        read = onnx_file.read(model, max_bytes)
        facts.update(facts_of(read))
        onnx_file.refuse(read)
        facts.update(_try_file(model) if found is None else _try_package(found, read))
        facts["runtime"] = runtime.RUNTIME_VERSION
    except LinesideError as error:
        return CheckResult(ok=False, code=error.code, reason=error.message, next_step=error.next_step, facts=facts)
    except RecursionError:
        return refused("model.manifest_invalid", f"The manifest of {path.name} is nested too deeply.")
    except MemoryError:
        return refused("model.too_large", f"{path.name} needs more memory than is allowed.", "Use a smaller model.")
    return CheckResult(ok=True, facts=facts)


def _try_file(path: Path) -> dict[str, Any]:
    """Load a bare file, and run it once where it says all its sizes."""
    from agent.vision import runtime

    inference = runtime.build(path, runtime.RuntimeOptions())
    facts: dict[str, Any] = {"provider": inference.get_providers()[0], "trial": "not run: the graph leaves sizes free"}
    inputs = _trial_inputs(inference)
    if inputs is None:
        return facts
    try:
        outputs = inference.run(None, inputs)
    except runtime.RUNTIME_ERRORS as error:
        sentence = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise LinesideError(
            "model.run_failed", f"Running {path.name} failed: {sentence}", "Check it where it was made."
        ) from error
    del outputs
    facts["trial"] = "ran"
    return facts


def _trial_inputs(inference: onnxruntime.InferenceSession) -> dict[str, NDArray[Any]] | None:
    """Return an input of zeros for each declared one; None where a size other than the first is free."""
    import numpy as np

    types = {
        "tensor(float)": np.float32,
        "tensor(float16)": np.float16,
        "tensor(uint8)": np.uint8,
        "tensor(int8)": np.int8,
        "tensor(int32)": np.int32,
        "tensor(int64)": np.int64,
        "tensor(double)": np.float64,
        "tensor(bool)": np.bool_,
    }
    inputs: dict[str, NDArray[Any]] = {}
    for entry in inference.get_inputs():
        shape = [1 if index == 0 and not isinstance(size, int) else size for index, size in enumerate(entry.shape)]
        if entry.type not in types or not all(isinstance(size, int) and size >= 0 for size in shape):
            return None
        if math.prod(shape) > _MAX_TRIAL_ELEMENTS:
            raise LinesideError(
                "model.too_large",
                f"Its input {entry.name!r} takes {math.prod(shape)} numbers; {_MAX_TRIAL_ELEMENTS} are allowed.",
                "Export it with a smaller input.",
            )
        inputs[entry.name] = np.zeros(shape, dtype=types[entry.type])
    return inputs


def _try_package(found: package.Package, read: OnnxFacts) -> dict[str, Any]:
    """Run a package's model: its output must be what the manifest's decoder reads, and the golden samples'."""
    import numpy as np

    from agent.inspection import judge, regions
    from agent.vision import pipeline, runtime

    needed = found.manifest.requires.opset
    if needed is not None and needed < read.opset:
        raise LinesideError(
            "model.manifest_mismatch",
            f"requires.opset = {needed}, but the model uses opset {read.opset}.",
            f"Write opset = {read.opset}.",
        )
    samples = found.golden().samples
    session = runtime.load(found, runtime.RuntimeOptions())
    parameters, _ = parameters_of(found.manifest, {})
    line = pipeline.Pipeline(session, found, parameters)
    grey = np.full((*_trial_size(found.manifest), 3), _GREY, dtype=np.uint8)
    findings = _look(line, found, grey, "a grey picture")
    judge.judge(findings, judge.rules_of(found.manifest, parameters), regions.size_of(grey))
    for sample in samples:
        _try_sample(line, found, sample, parameters)
    return {
        "provider": session.provider,
        "name": found.manifest.name,
        "release": found.manifest.release,
        "digest": found.digest,
        "golden_samples": len(samples),
    }


def _trial_size(spec: Manifest) -> tuple[int, int]:
    """Return height and width of a picture that the region, where it is in pixels, lies within."""
    height, width = _TRIAL_SIZE
    region = spec.input.region
    if region is None or region.unit is not Unit.PX:
        return height, width
    return max(height, math.ceil(region.top + region.height)), max(width, math.ceil(region.left + region.width))


def _try_sample(line: Pipeline, found: package.Package, sample: GoldenSample, parameters: dict[str, float]) -> None:
    from agent.deploy import golden
    from agent.inspection import judge, regions
    from agent.vision import pipeline

    picture = _picture(found, sample.picture)
    findings = _look(line, found, picture, sample.picture)
    judgement = judge.judge(findings, judge.rules_of(found.manifest, parameters), regions.size_of(picture))
    sentence = golden.difference(
        sample, judgement.verdict, findings, found.golden().tolerance, parameters.get(pipeline.SCORE_THRESHOLD)
    )
    if sentence is not None:
        raise LinesideError(
            "model.golden_mismatch", sentence, "Correct the manifest, or make the golden set again with this model."
        )


def _look(line: Pipeline, found: package.Package, picture: NDArray[np.uint8], what: str) -> Any:
    from agent.vision.candidates import Unusable

    findings = line.look(picture).findings
    if isinstance(findings, Unusable):
        raise LinesideError(
            "model.unusable_output",
            f"The decoder {found.manifest.decoder.name!r} cannot read what the model answers to {what}: "
            f"{findings.reason}",
            "Correct [decoder] and the labels in the manifest.",
        )
    return findings


def _picture(found: package.Package, name: str) -> NDArray[np.uint8]:
    import cv2
    import numpy as np

    picture = cv2.imread(str(found.folder / name), cv2.IMREAD_COLOR) if found.index.file(name) is not None else None
    if picture is None:
        raise LinesideError(
            "package.invalid",
            f"{GOLDEN_NAME} names {name!r}, which is no readable picture of the package.",
            "Add the picture, or remove the sample.",
        )
    return np.asarray(picture, dtype=np.uint8)


def bind(memory_bytes: int, cpu_s: int) -> None:
    """Limit this process for ever."""
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, MAX_ANSWER_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (allowed, hard if what == resource.RLIMIT_CPU else allowed))


def main(arguments: list[str]) -> int:
    """Run the child: PATH, bytes of the file, bytes of memory, seconds."""
    path, max_bytes, memory_bytes, seconds = Path(arguments[0]), *(int(text) for text in arguments[1:4])
    bind(memory_bytes, seconds)
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is talk, not the answer
    with os.fdopen(answer, "wb") as stream:
        stream.write(codec.encode(look_into(path, max_bytes)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
