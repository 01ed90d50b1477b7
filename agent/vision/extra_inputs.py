"""A graph's inputs besides the picture: filled from where the picture lies, in memory that is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.vision.geometry import Geometry
from agent.vision.input_fit import Shape
from wire.model_input import ExtraDtype, ExtraInput, ExtraKind

_ELEMENTS: Final[dict[ExtraDtype, Any]] = {
    ExtraDtype.FLOAT32: np.float32,
    ExtraDtype.INT32: np.int32,
    ExtraDtype.INT64: np.int64,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    spec: ExtraInput
    array: NDArray[Any]
    by_row: bool


class ExtraInputs:
    """The further inputs of one session; used by one thread at a time.

    Args:
        specs: the manifest's.
        shapes: the graph's, by name.
        batch: pictures in one run.
    """

    def __init__(self, specs: Sequence[ExtraInput], shapes: Mapping[str, Shape], *, batch: int = 1) -> None:
        self._kept = [_kept(spec, shapes[spec.name], batch) for spec in specs]
        self._filled_for: Geometry | None = None

    def arrays(self, placed: Geometry, rows: int) -> dict[str, NDArray[Any]]:
        """Return the inputs by name, which the next call overwrites.

        Args:
            placed: where each picture of the batch lies; they all lie alike.
            rows: pictures in the run.
        """
        if placed != self._filled_for:
            for kept in self._kept:
                if kept.spec.kind is not ExtraKind.CONSTANT:
                    kept.array[...] = values_of(kept.spec.kind, placed)
            self._filled_for = placed
        return {kept.spec.name: kept.array[:rows] if kept.by_row else kept.array for kept in self._kept}


def values_of(kind: ExtraKind, placed: Geometry) -> tuple[float, float]:
    """Return the two numbers a kind of input is told of a placed picture.

    Raises:
        ValueError: a constant depends on no picture.
    """
    source = (placed.region_height_px, placed.region_width_px)
    network = (placed.network_height_px or placed.height_px, placed.network_width_px or placed.width_px)
    match kind:
        case ExtraKind.SOURCE_SIZE_HW:
            return source
        case ExtraKind.SOURCE_SIZE_WH:
            return source[::-1]
        case ExtraKind.NETWORK_SIZE_HW:
            return network
        case ExtraKind.NETWORK_SIZE_WH:
            return network[::-1]
        case ExtraKind.SCALE_HW:
            return placed.scale_y, placed.scale_x
        case ExtraKind.CONSTANT:
            raise ValueError("a constant depends on no picture")


def _kept(spec: ExtraInput, shape: Shape, batch: int) -> _Kept:
    values = spec.values if spec.kind is ExtraKind.CONSTANT else (0.0, 0.0)
    element = _ELEMENTS[spec.dtype]
    if len(shape) == 0:
        return _Kept(spec=spec, array=np.array(values[0], dtype=element), by_row=False)
    row = np.array(values, dtype=element)
    if len(shape) == 1:
        return _Kept(spec=spec, array=row, by_row=False)
    by_row = shape[0] != 1
    return _Kept(spec=spec, array=np.tile(row, (batch if by_row else 1, 1)), by_row=by_row)
