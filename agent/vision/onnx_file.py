"""What an ONNX file says of itself, read without the runtime, and why it must not be loaded.

Numbers of messages and fields are those of onnx.proto3 (onnx/onnx, Apache-2.0). Nothing here is executed or allocated
by the file's word: payloads stay in the mapped file, graphs are walked with a stack, fields and depth are bounded.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Final

from agent.vision import onnx_walk, protobuf
from agent.vision.onnx_picture import takes_picture
from agent.vision.onnx_walk import OnnxFacts
from wire.errors import LinesideError
from wire.package import MAX_FILE_BYTES

MIN_OPSET: Final = 7  # onnxruntime promises nothing for older ones


def read(path: Path, max_bytes: int = MAX_FILE_BYTES) -> OnnxFacts:
    """Read a file's facts.

    Raises:
        LinesideError: `resource.not_found`, `model.too_large`, `model.not_onnx` or `model.truncated`.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise LinesideError("resource.not_found", f"{path} is not a file.", "Name an ONNX file.")
        if size > max_bytes:
            raise LinesideError(
                "model.too_large", f"{path.name} has {size} bytes; {max_bytes} are allowed.", "Use a smaller model."
            )
        if size == 0:
            raise LinesideError("model.truncated", f"{path.name} is empty.", "Copy or export it again.")
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            try:
                return parse(view, path.name)
            finally:
                view.release()
    except OSError as error:
        raise LinesideError(
            "resource.not_found", f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions."
        ) from error


def parse(data: memoryview, name: str) -> OnnxFacts:
    """Read the facts of a file's bytes; see `read`."""
    foreign = _foreign_kind(bytes(data[:512]))
    if foreign:
        raise LinesideError("model.not_onnx", f"{name} is {foreign}, not an ONNX model.", "Get the model file itself.")
    walk = onnx_walk.Walk(data)
    try:
        walk.model()
    except protobuf.CutShort as error:
        if not walk.looks_like_onnx:
            raise _not_onnx(name, str(error)) from error
        raise _truncated(name, str(error)) from error
    except protobuf.Malformed as error:
        if not walk.looks_like_onnx:
            raise _not_onnx(name, str(error)) from error
        raise LinesideError(
            "model.truncated", f"{name} is damaged: {error}.", "Copy or export it again and compare its SHA-256."
        ) from error
    if not walk.has_graph:
        raise _truncated(name, "it holds no graph") if walk.looks_like_onnx else _not_onnx(name, "it holds no graph")
    if not walk.opsets:
        raise _truncated(name, "it names no operator set")
    return walk.facts()


def refuse(facts: OnnxFacts) -> None:
    """Refuse a file that must not be loaded.

    Raises:
        LinesideError: `model.external_data`, `model.unsupported_opset`, `model.custom_ops` or `model.not_vision`.
    """
    if facts.external_tensors:
        raise LinesideError(
            "model.external_data",
            f"{len(facts.external_tensors)} of its tensors ({facts.external_tensors[0]}, ...) lie outside the file.",
            "Save it as one file (onnx.save_model with save_as_external_data=False).",
        )
    if facts.foreign_operators:
        raise LinesideError(
            "model.custom_ops",
            f"It needs operators that onnxruntime does not have: {', '.join(facts.foreign_operators[:5])}.",
            "Export it without pre- or post-processing in the graph; libraries of custom operators are not loaded.",
        )
    if facts.opset < MIN_OPSET and any(domain in facts.opsets for domain in ("", "ai.onnx")):
        raise LinesideError(
            "model.unsupported_opset",
            f"It uses opset {facts.opset}; {MIN_OPSET} is the oldest supported.",
            "Export it with a newer opset.",
        )
    if not any(takes_picture(tensor) for tensor in facts.inputs):
        shapes = "; ".join(f"{tensor.name} {list(tensor.shape)} {tensor.element}" for tensor in facts.inputs[:4])
        raise LinesideError(
            "model.not_vision",
            f"None of its inputs takes a picture: {shapes or 'it has none'}.",
            "A picture input has four axes, 1 or 3 channels, and elements of type float32, float16 or uint8.",
        )


def _foreign_kind(head: bytes) -> str:
    """Name a well-known kind of file that is mistaken for a model; empty where it is none."""
    lowered = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if lowered.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page"
    if lowered.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    if head.startswith(b"PK\x03\x04"):
        return "a ZIP archive (a PyTorch checkpoint, perhaps)"
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file (a Keras model, perhaps)"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    return ""


def _not_onnx(name: str, why: str) -> LinesideError:
    return LinesideError("model.not_onnx", f"{name} is not an ONNX model: {why}.", "Get the model file itself.")


def _truncated(name: str, why: str) -> LinesideError:
    return LinesideError(
        "model.truncated", f"{name} is cut short: {why}.", "Copy or export it again and compare its SHA-256."
    )
