"""Candidates from connected regions of a map: boxes, scores, and masks cut out of the map when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent.vision import regions
from agent.vision.candidates import DecoderParams, Field
from agent.vision.decoders.contract import Choice
from agent.vision.regions import Regions

# (rows, columns) of a window of the map -> its values, positive inside a region
Margins: TypeAlias = Callable[[slice, slice], NDArray[np.float32]]
SCORE: Final = Choice(
    name="region_score", choices=("mean", "max"), default="mean", help="What a region's score is, of its cells' values."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The regions of one class.

    Args:
        margins: the values around which the mask's outline runs.
    """

    class_id: int
    regions: Regions
    margins: Margins


def layer(class_id: int, inside: NDArray[np.bool_], values: NDArray[np.float32], margins: Margins) -> Layer:
    """Return the regions of the cells that are inside.

    Args:
        inside: (rows, columns).
        values: (rows, columns) float32, of which the scores are made.
    """
    return Layer(class_id=class_id, regions=regions.find(inside, values), margins=margins)


class RegionMasks:
    """The masks of the regions of several layers, in their order."""

    def __init__(self, layers: Sequence[Layer], cell_px: tuple[float, float]) -> None:
        self._layers = layers
        self._starts = np.cumsum([0, *(len(one.regions.ids) for one in layers)])
        self._cell_px = cell_px

    def at(self, index: int) -> Field | None:
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        found = self._layers[place].regions
        number = index - int(self._starts[place])
        left, top, right, bottom = found.boxes_cells[number].tolist()
        rows = slice(max(top - 1, 0), min(bottom + 1, found.numbers.shape[0]))
        columns = slice(max(left - 1, 0), min(right + 1, found.numbers.shape[1]))
        with np.errstate(all="ignore"):  # of values near the greatest there are, the difference is infinite
            values = self._layers[place].margins(rows, columns).astype(np.float32)
        owners = found.numbers[rows, columns]
        # Another region of this class in the same window is not part of this mask.
        values[(owners != 0) & (owners != found.ids[number])] = -np.abs(values).max(initial=1.0)
        wide, high = self._cell_px
        return Field(
            values=values,
            region_xyxy=(columns.start * wide, rows.start * high, columns.stop * wide, rows.stop * high),
            cropped=False,
        )


def gathered(
    layers: Sequence[Layer], params: DecoderParams, shape: tuple[int, int], *, peak: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], RegionMasks]:
    """Return boxes in network pixels, scores, classes and masks of all regions.

    Args:
        shape: (rows, columns) of the map, which covers the network's input.
        peak: the score of a region is its greatest value, not the mean.
    """
    cell_px = (params.width_px / shape[1], params.height_px / shape[0])
    boxes = [one.regions.boxes_cells for one in layers] or [np.zeros((0, 4), dtype=np.int64)]
    scores = [one.regions.peaks if peak else one.regions.means for one in layers] or [np.zeros(0, dtype=np.float32)]
    class_ids = [np.full(len(one.regions.ids), one.class_id, dtype=np.int64) for one in layers]
    return (
        np.concatenate(boxes).astype(np.float32) * np.array(cell_px * 2, dtype=np.float32),
        np.concatenate(scores),
        np.concatenate(class_ids or [np.zeros(0, dtype=np.int64)]),
        RegionMasks(layers, cell_px),
    )
