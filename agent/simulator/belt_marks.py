"""The marks on a simulated part's pictures: which part it is and which view looks at it, for a machine to read. Pure.

A picture is a grid of cells. Sixteen cells hold the part's number and sixteen its complement, three the view's number,
and one cell for each recipe the fault that this view shows under it. A model that reads the cells puts into its
findings which part it judged: a verdict on the wrong part shows in the record, whatever the verdict is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.simulator.belt import Fault

CELL_PX: Final = 8
COLUMNS: Final = 8
ROWS: Final = 6
WIDTH_PX: Final = COLUMNS * CELL_PX
HEIGHT_PX: Final = ROWS * CELL_PX
NUMBER_BITS: Final = 16
VIEW_BITS: Final = 3
MAX_RECIPES: Final = 8
FAULT_LABEL: Final = "fault"
_NUMBER_CELL: Final = 8
_COMPLEMENT_CELL: Final = 24
_VIEW_CELL: Final = 2
_FAULT_CELL: Final = 40
_DARK: Final = 20
_LIGHT: Final = 230
_FAULT_GREY: Final = {Fault.NONE: _DARK, Fault.WEAK: 150, Fault.CLEAR: _LIGHT}
_NOISE_GREY: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What the marks say: the part's number and the view's, which counts from 1."""

    number: int
    view: int


def cells(recipe_index: int) -> dict[str, int]:
    """Return the labels a model of one recipe reads, each with its cell in row order."""
    found = {f"n{bit}": _NUMBER_CELL + bit for bit in range(NUMBER_BITS)}
    found |= {f"c{bit}": _COMPLEMENT_CELL + bit for bit in range(NUMBER_BITS)}
    found |= {f"v{bit}": _VIEW_CELL + bit for bit in range(VIEW_BITS)}
    return found | {FAULT_LABEL: _FAULT_CELL + recipe_index}


def read(labels: Collection[str]) -> Mark | None:
    """Return what the found labels say; None where number and complement contradict each other."""
    number = sum(1 << bit for bit in range(NUMBER_BITS) if f"n{bit}" in labels)
    complement = sum(1 << bit for bit in range(NUMBER_BITS) if f"c{bit}" in labels)
    if number ^ complement != (1 << NUMBER_BITS) - 1:
        return None
    return Mark(number=number, view=sum(1 << bit for bit in range(VIEW_BITS) if f"v{bit}" in labels))


def render(mark: Mark, faults: tuple[Fault, ...], *, scale: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    """Draw the picture of one view, with a sensor's noise.

    Args:
        faults: one for each recipe.
        scale: each cell is so many times larger; the model's input is stretched to fit.

    Returns:
        (48 * scale, 64 * scale, 3) uint8, BGR.
    """
    grid = np.full(COLUMNS * ROWS, _DARK, np.uint8)
    for bit in range(NUMBER_BITS):
        is_set = bool(mark.number >> bit & 1)
        grid[(_NUMBER_CELL if is_set else _COMPLEMENT_CELL) + bit] = _LIGHT
    for bit in range(VIEW_BITS):
        if mark.view >> bit & 1:
            grid[_VIEW_CELL + bit] = _LIGHT
    for index, fault in enumerate(faults):
        grid[_FAULT_CELL + index] = _FAULT_GREY[fault]
    side = CELL_PX * scale
    grey = np.repeat(np.repeat(grid.reshape(ROWS, COLUMNS), side, axis=0), side, axis=1)
    rng = np.random.Generator(np.random.PCG64((seed, mark.number, mark.view)))
    # One byte of noise for a whole cell's row keeps large pictures cheap, and no two pictures alike.
    noise = rng.integers(0, _NOISE_GREY, (grey.shape[0], COLUMNS, 1), np.uint8).repeat(side, axis=1)
    return np.ascontiguousarray(np.broadcast_to(grey[:, :, None] + noise, (*grey.shape, 3)))


def cell_of(picture: NDArray[np.uint8], cell: int) -> NDArray[np.uint8]:
    """Return the pixels of one cell of a picture of scale 1."""
    top, left = (place * CELL_PX for place in divmod(cell, COLUMNS))
    return picture[top : top + CELL_PX, left : left + CELL_PX]
