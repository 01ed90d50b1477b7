"""Whether the inputs a manifest declares are those of the graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from wire.errors import LinesideError
from wire.manifest import ExtraInput, Input, Layout, Manifest
from wire.model_input import ExtraKind

Shape: TypeAlias = tuple[int | str | None, ...]
_ELEMENT_TYPES: Final = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "uint8": "tensor(uint8)",
    "int32": "tensor(int32)",
    "int64": "tensor(int64)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """An input as the graph declares it.

    Args:
        shape: with a text or None where any size will do.
        element: the runtime's name of the type, "tensor(float)".
    """

    shape: Shape
    element: str


def mismatch_of(spec: Input, name: str, shape: Shape, element: str, *, batch: int = 1) -> str | None:
    """Return why a manifest's input does not fit a graph's, or None where it does; unknown sizes fit any.

    Args:
        batch: pictures in one run.
    """
    if element != _ELEMENT_TYPES[spec.dtype]:
        return f"input.dtype = {spec.dtype} does not fit the model's input {name!r}, which is {element}."
    channels = 1 if spec.color == "GRAY" else 3
    planes_first = (batch, channels, spec.height_px, spec.width_px)
    ours = planes_first if spec.layout is Layout.NCHW else (batch, spec.height_px, spec.width_px, channels)
    sides = shape[2:] if spec.layout is Layout.NCHW else shape[1:3]
    if spec.dynamic and len(shape) == len(ours) and any(isinstance(side, int) for side in sides):
        return f"input.dynamic = true, yet the model's input {name!r} takes {list(shape)} only."
    fits = len(shape) == len(ours) and all(
        not isinstance(theirs, int) or theirs == mine for theirs, mine in zip(shape, ours, strict=True)
    )
    return (
        None
        if fits
        else f"The manifest makes {spec.layout} {list(ours)}; the model's input {name!r} takes {list(shape)}."
    )


def extra_mismatch_of(extra: ExtraInput, shape: Shape, element: str, *, batch: int = 1) -> str | None:
    """Return why a further input of the manifest does not fit the graph's, or None where it does."""
    if element != _ELEMENT_TYPES[extra.dtype]:
        return f"extra_inputs: dtype = {extra.dtype} does not fit the model's input {extra.name!r}, which is {element}."
    count = len(extra.values) if extra.kind is ExtraKind.CONSTANT else 2
    last = shape[-1] if shape else 1
    fits = len(shape) <= 2 and (not isinstance(last, int) or last == count)
    if fits and len(shape) == 2 and isinstance(shape[0], int):
        fits = shape[0] in (1, batch)
    return None if fits else f"extra_inputs: {extra.name!r} has {count} numbers; the model's input takes {list(shape)}."


def picture_input(inputs: Mapping[str, Declared], manifest: Manifest) -> str:
    """Return the name of the picture input, after comparing every input of the graph with the manifest.

    Raises:
        LinesideError: `model.manifest_mismatch`.
    """
    extras = {extra.name: extra for extra in manifest.extra_inputs}
    unknown = sorted(extras.keys() - inputs.keys())
    if unknown:
        raise _no_input(unknown[0], inputs)
    left = [name for name in inputs if name not in extras]
    if len(left) != 1:
        raise LinesideError(
            "model.manifest_mismatch",
            f"The model has the inputs {', '.join(inputs)}; the manifest says what {len(inputs) - len(left)} of them "
            "are besides the picture."
            if left
            else "The manifest leaves no input of the model for the picture.",
            "Name every input but the picture's in [[extra_inputs]].",
        )
    name = manifest.input.name or left[0]
    if name not in left:
        raise _no_input(name, inputs)
    batch = manifest.tiling.batch if manifest.tiling is not None else 1
    sentences = [
        mismatch_of(manifest.input, name, inputs[name].shape, inputs[name].element, batch=batch),
        *(
            extra_mismatch_of(extra, inputs[extra.name].shape, inputs[extra.name].element, batch=batch)
            for extra in manifest.extra_inputs
        ),
    ]
    for sentence in sentences:
        if sentence is not None:
            raise LinesideError("model.manifest_mismatch", sentence, "Correct the inputs in the manifest.")
    return name


def _no_input(name: str, known: Iterable[str]) -> LinesideError:
    return LinesideError(
        "model.manifest_mismatch", f"The model has no input {name!r}.", f"Its inputs: {', '.join(known)}."
    )
