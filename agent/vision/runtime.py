"""The runtime: a package's model becomes a session, by path, with explicit threads and the provider asked for."""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from agent.vision import input_fit, onnx_file
from agent.vision.graph_cache import GraphCache
from agent.vision.input_fit import Shape
from agent.vision.onnx_walk import TensorInfo
from wire import package as packages
from wire.errors import LinesideError
from wire.manifest import MODEL_NAME

CPU_PROVIDER: Final = "CPUExecutionProvider"
RUNTIME_VERSION: Final[str] = onnxruntime.__version__
# onnxruntime's errors share no base class of their own.
RUNTIME_ERRORS: Final[tuple[type[Exception], ...]] = (
    ort.EPFail,
    ort.EngineError,
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.ModelLoaded,
    ort.NoModel,
    ort.NoSuchFile,
    ort.NotImplemented,
    ort.RuntimeException,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
_LOG_ERRORS_ONLY: Final = 3
_NO_MEMORY: Final = ("bad_alloc", "bad allocation", "Failed to allocate memory")  # the last one is the arena's
_GRAPH_MIN_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions:
    """How sessions run on this device.

    Args:
        threads: for one operator; more than one pays only for big graphs.
        provider: the only one a session may use.
        cache_dir: where optimised graphs are kept, so that a session is built faster the next time; None: nowhere.
    """

    threads: int = 1
    provider: str = CPU_PROVIDER
    cache_dir: Path | None = None


class Session(Protocol):
    """A loaded model; used by one thread at a time."""

    @property
    def digest(self) -> str:
        """The digest of the package whose model this session holds."""

    @property
    def provider(self) -> str:
        """What it really runs on."""

    @property
    def opset(self) -> int:
        """The graph's opset of the standard operators."""

    @property
    def input_name(self) -> str:
        """The picture input."""

    @property
    def input_shapes(self) -> Mapping[str, Shape]:
        """The shapes of all inputs as the graph declares them; a text or None where any size will do."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs in the graph's order."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """Return the outputs in the graph's order; raises LinesideError `model.run_failed`."""

    def close(self) -> None:
        """Free the model; closing twice is harmless."""


class OnnxSession:
    """A session of onnxruntime."""

    def __init__(self, inference: onnxruntime.InferenceSession, *, digest: str, opset: int, input_name: str) -> None:
        self._inference: onnxruntime.InferenceSession | None = inference
        self._digest = digest
        self._opset = opset
        self._input_name = input_name
        self._input_shapes: dict[str, Shape] = {entry.name: tuple(entry.shape) for entry in inference.get_inputs()}
        self._output_names = tuple(entry.name for entry in inference.get_outputs())
        self._provider = str(inference.get_providers()[0])
        self._run_options = onnxruntime.RunOptions()

    @property
    def digest(self) -> str:
        return self._digest

    @property
    def provider(self) -> str:
        return self._provider

    @property
    def opset(self) -> int:
        return self._opset

    @property
    def input_name(self) -> str:
        return self._input_name

    @property
    def input_shapes(self) -> Mapping[str, Shape]:
        return self._input_shapes

    @property
    def output_names(self) -> tuple[str, ...]:
        return self._output_names

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        if self._inference is None:
            raise LinesideError("model.run_failed", f"The session of {self._digest[:12]} is closed.")
        try:
            return tuple(self._inference.run(None, dict(inputs), self._run_options))
        except RUNTIME_ERRORS as error:
            raise LinesideError(
                "model.run_failed", f"Running {self._digest[:12]} failed: {_first_line(error)}"
            ) from error

    def interrupt(self) -> None:
        """Have the run of another thread fail after the operator it is at, and each later run at once."""
        self._run_options.terminate = True

    def resume(self) -> None:
        """Let later runs go through again."""
        self._run_options.terminate = False

    def close(self) -> None:
        self._inference = None


def load(package: packages.Package, options: RuntimeOptions) -> OnnxSession:
    """Build a session from a package's model file, after comparing the file with the package's index.

    The file must have passed `agent.vision.check` on this device before: building the session of a hostile file may
    end the process.

    Raises:
        LinesideError: `package.incomplete`, `model.truncated` (the bytes are not the index's), the refusals of
            `onnx_file.refuse`, `model.provider_unavailable`, `model.unloadable`, `model.custom_ops`,
            `model.unsupported_opset` or `model.manifest_mismatch`.
    """
    listed = package.index.file(MODEL_NAME)
    if listed is None or not package.model_path.is_file():
        raise LinesideError("package.incomplete", f"{package.folder} has no {MODEL_NAME}.")
    if (
        package.model_path.stat().st_size != listed.bytes
        or packages.digest_of_file(package.model_path) != listed.digest
    ):
        raise LinesideError(
            "model.truncated",
            f"{package.model_path} is not the file the package lists ({listed.bytes} bytes, {listed.digest[:12]}...).",
            "Fetch the package again.",
        )
    needed = package.manifest.requires.providers
    if needed and options.provider not in needed:
        raise LinesideError(
            "model.provider_unavailable",
            f"{package.manifest.name} needs one of {', '.join(needed)}; this device runs {options.provider}.",
        )
    inference, opset = _built(package.model_path, options, listed.digest)
    declared = {
        entry.name: input_fit.Declared(shape=tuple(entry.shape), element=str(entry.type))
        for entry in inference.get_inputs()
    }
    name = input_fit.picture_input(declared, package.manifest)
    return OnnxSession(inference, digest=package.digest, opset=opset, input_name=name)


def build(path: Path, options: RuntimeOptions) -> onnxruntime.InferenceSession:
    """Build onnxruntime's session: by path (bytes would stall the other threads), spinning off.

    Args:
        path: of a model file that was checked.

    Raises:
        LinesideError: `model.provider_unavailable`, `model.unloadable`, `model.custom_ops`, `model.unsupported_opset`.
    """
    return _inference(path, options, _settings(options))


def _built(path: Path, options: RuntimeOptions, digest: str) -> tuple[onnxruntime.InferenceSession, int]:
    """Build a session from the optimised graph, where it is kept, else from the model, whose graph is kept then.

    Returns:
        The session and the model's opset.
    """
    cache = _cache_of(options.cache_dir, options, digest) if options.cache_dir is not None else None
    kept = cache.find() if cache is not None else None
    if cache is not None and kept is not None:
        settings = _settings(options)
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return _inference(kept.path, options, settings), kept.opset
        except LinesideError:
            cache.forget()
    facts = onnx_file.read(path)
    onnx_file.refuse(facts)
    if cache is not None:
        with contextlib.suppress(LinesideError, OSError), cache.place(facts.opset) as draft:
            settings = _settings(options)
            settings.optimized_model_filepath = str(draft)
            return _inference(path, options, settings), facts.opset
    return build(path, options), facts.opset  # with its own reason, where it was not for the cache


def is_cached(package: packages.Package, options: RuntimeOptions) -> bool:
    """Tell whether a package's optimised graph is kept, whole."""
    listed = package.index.file(MODEL_NAME)
    if options.cache_dir is None or listed is None:
        return False
    return _cache_of(options.cache_dir, options, listed.digest).find() is not None


def adopt(package: packages.Package, options: RuntimeOptions, drafts: Path) -> bool:
    """Keep the optimised graph that another process, which nobody trusts, left in a folder of `graph_cache.drafts`.

    It must be a file that may be loaded as the package's own model may, with the same inputs and outputs, and not
    much larger.

    Args:
        package: read from its folder, and verified.
        options: that process's; `cache_dir` is where the graph is to be kept.

    Returns:
        Whether one was kept; where none was, the next session is built from the model itself.
    """
    listed = package.index.file(MODEL_NAME)
    if options.cache_dir is None or listed is None:
        return False
    cache = _cache_of(options.cache_dir, options, listed.digest)
    graph = cache.left_in(drafts)
    if graph is None:
        return False
    try:
        facts = onnx_file.read(graph, graph_bytes_max(package))
        onnx_file.refuse(facts)
        own = onnx_file.read(package.model_path)
        if _doors(facts.inputs) != _doors(own.inputs) or _doors(facts.outputs) != _doors(own.outputs):
            return False
        cache.keep(graph, own.opset)
    except (LinesideError, OSError):
        return False
    return True


def graph_bytes_max(package: packages.Package) -> int:
    """Return how large a package's optimised graph may become: constants that are folded add to it."""
    listed = package.index.file(MODEL_NAME)
    return _GRAPH_MIN_BYTES + 2 * (listed.bytes if listed is not None else 0)


def _doors(tensors: Iterable[TensorInfo]) -> list[tuple[str, str]]:
    return [(tensor.name, tensor.element) for tensor in tensors]


def _cache_of(folder: Path, options: RuntimeOptions, digest: str) -> GraphCache:
    return GraphCache(folder, f"{digest} {RUNTIME_VERSION} {options.provider}")


def _settings(options: RuntimeOptions) -> onnxruntime.SessionOptions:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # A session keeps what its looks need. Without it all share the process's heap: whenever another session has looked,
    # or memory was given back to the system, a part waits for as much as a look takes, page by page.
    settings.enable_cpu_mem_arena = True
    settings.log_severity_level = _LOG_ERRORS_ONLY
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return settings


def _inference(
    path: Path, options: RuntimeOptions, settings: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    if options.provider not in onnxruntime.get_available_providers():
        raise LinesideError(
            "model.provider_unavailable",
            f"This onnxruntime has no {options.provider} (it has {', '.join(onnxruntime.get_available_providers())}).",
            "Install the build of onnxruntime that has it, or choose another provider in the settings.",
        )
    try:
        inference = onnxruntime.InferenceSession(str(path), settings, providers=[options.provider])
    except RUNTIME_ERRORS as error:
        raise _load_error(path, error) from error
    actual = inference.get_providers()[0]
    if actual != options.provider:
        raise LinesideError(
            "model.provider_unavailable", f"{path.name} would run on {actual} instead of {options.provider}."
        )
    return inference


def trim() -> bool:
    """Give the memory of what was freed, a closed session above all, back to the system; only glibc can.

    Returns:
        Whether any was given back.
    """
    if sys.platform != "linux":
        return False
    try:
        given_back = ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # another C library
        return False
    return bool(given_back)


def is_want_of_memory(error: BaseException | None) -> bool:
    """Tell whether the runtime failed because it got no memory: only its words say so."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def _load_error(path: Path, error: Exception) -> LinesideError:
    """Turn the runtime's words, the only thing that tells its refusals apart, into a code."""
    whole, text = str(error), _first_line(error)
    if "is not a registered function/op" in whole or "No Op registered for" in whole:
        return LinesideError(
            "model.custom_ops",
            f"{path.name} needs operators onnxruntime does not have: {text}",
            "Export it without pre- or post-processing in the graph.",
        )
    if "opset" in whole.lower() or "ir version" in whole.lower():
        return LinesideError(
            "model.unsupported_opset",
            f"onnxruntime {RUNTIME_VERSION} does not support {path.name}: {text}",
            "Export it with an older opset, or update the device.",
        )
    if is_want_of_memory(error):
        return LinesideError("model.too_large", f"{path.name} needs more memory than is allowed.", "Use a smaller one.")
    return LinesideError(
        "model.unloadable",
        f"onnxruntime {RUNTIME_VERSION} cannot load {path.name}: {text}",
        "Check it where it was made, with onnx.checker.check_model.",
    )


def _first_line(error: Exception) -> str:
    """Return the runtime's sentence without the path and the place in its source that precede it."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    sentence = re.sub(r"^.* failed:", "", text)
    sentence = re.sub(r"^/\S+:\d+ .*\) (?=[A-Z])", "", sentence)
    return f"{sentence[:300].strip().rstrip('.')}."
