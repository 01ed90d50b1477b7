"""Is a picture fit to be judged at all? Decided from a thumbnail and a few rows, before any model is asked.

What needs no reference view: frozen, black, saturated, corrupt, and the size where the settings name one. Blurred,
moved and the size are held against the view's reference.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.capture import measures
from agent.capture.frame import Vital
from agent.capture.measures import Damage, Sample
from agent.capture.reference import Reference
from agent.capture.settings import VitalsSettings
from agent.capture.shift import LEAST_SIDE_PX, Place, ShiftMeter

_NOTHING_TO_SEE: Final = frozenset({Vital.BLACK, Vital.SATURATED, Vital.CORRUPT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of one picture, for those who set the limits; None where the reference view is missing.

    Args:
        sharpness: as a share of the reference view's.
        shift_px: to the right and down, in source pixels; None also where the picture has too little in common with
            the reference.
    """

    width_px: int
    height_px: int
    dark_share: float
    saturated_share: float
    corrupt_share: float
    equal_frames: int
    sharpness: float | None = None
    shift_px: tuple[float, float] | None = None


class VitalsWatch:
    """Sees every picture of one view, in their order.

    One thread calls `see`; `raised` and `last` may be read and `use_reference` called from any other.
    """

    def __init__(self, settings: VitalsSettings, reference: Reference | None = None) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._held: tuple[Reference, ShiftMeter | None] | None = None
        self._moved = False
        self._before: Sample | None = None
        self._equal = 1
        self._bad = dict.fromkeys(Vital, 0)
        self._good = dict.fromkeys(Vital, 0)
        self._raised: frozenset[Vital] = frozenset()
        self._last: Measured | None = None
        self.use_reference(reference)

    @property
    def raised(self) -> frozenset[Vital]:
        """The troubles that lasted `raise_after` pictures and have not been away for `clear_after` since."""
        return self._raised

    @property
    def last(self) -> Measured | None:
        """What was measured of the last picture."""
        return self._last

    def use_reference(self, reference: Reference | None) -> None:
        """Hold the pictures that follow against this view; None: check only what needs none."""
        held = None
        if reference is not None:
            limit_px = self._settings.max_shift_px
            step_px = reference.width_px / reference.view.shape[1]
            watched = limit_px > 0.0 and min(reference.view.shape) >= LEAST_SIDE_PX
            meter = ShiftMeter(reference.view, step_px=step_px, limit_px=limit_px) if watched else None
            held = (reference, meter)
        with self._lock:
            self._held, self._moved = held, False

    def see(self, image_bgr: NDArray[np.uint8]) -> tuple[Vital, ...]:
        """Return what is wrong with this very picture, (H, W, 3) uint8, which may be overwritten afterwards."""
        if not self._settings.enabled:
            return ()
        seen = measures.sample(image_bgr)
        troubles = self._troubles(seen)
        self._count(troubles)
        return troubles

    def _troubles(self, seen: Sample) -> tuple[Vital, ...]:
        limits = self._settings
        with self._lock:
            held = self._held
        reference = None if held is None else held[0]
        found: list[Vital] = []
        size = (seen.width_px, seen.height_px)
        if _wanted_size(limits, reference, size) != size:
            found.append(Vital.WRONG_SIZE)
        if reference is not None and (reference.width_px, reference.height_px) != size:
            held = reference = None  # neither sharpness nor place of another size can be held against it
        dark, saturated = measures.dark_share(seen.thumbnail), measures.saturated_share(seen.thumbnail)
        if limits.max_dark_share < 1.0 and dark > limits.max_dark_share:
            found.append(Vital.BLACK)
        if limits.max_saturated_share < 1.0 and saturated > limits.max_saturated_share:
            found.append(Vital.SATURATED)
        corrupt = _corrupt_share(seen, reference)
        if limits.max_corrupt_share < 1.0 and corrupt > limits.max_corrupt_share:
            found.append(Vital.CORRUPT)
        self._compare(seen)
        # What clips everything clips the noise, too: such pictures are equal and need not be frozen.
        if 0 < limits.frozen_after <= self._equal and Vital.BLACK not in found and Vital.SATURATED not in found:
            found.append(Vital.FROZEN)
        sharpness, shift = None, None
        if held is not None and _NOTHING_TO_SEE.isdisjoint(found):
            sharpness = measures.detail(seen.rows).relative_to(held[0].detail)
            if sharpness < limits.min_sharpness:
                found.append(Vital.BLURRED)  # which says little about where it looks
            else:
                shift = self._shift(seen, held[1])
            if self._moved:
                found.append(Vital.MOVED)
        self._last = Measured(
            width_px=seen.width_px,
            height_px=seen.height_px,
            dark_share=dark,
            saturated_share=saturated,
            corrupt_share=corrupt,
            equal_frames=self._equal,
            sharpness=sharpness,
            shift_px=shift,
        )
        return tuple(found)

    def _compare(self, seen: Sample) -> None:
        """Count pictures equal to the last bit: no sensor repeats the noise of tens of thousands of pixels."""
        before, self._before = self._before, seen
        same = (
            before is not None
            and np.array_equal(before.thumbnail_bgr, seen.thumbnail_bgr)
            and np.array_equal(before.rows, seen.rows)
        )
        self._equal = self._equal + 1 if same else 1

    def _shift(self, seen: Sample, meter: ShiftMeter | None) -> tuple[float, float] | None:
        """Note whether the camera has moved; where the picture does not tell, it is still where it was last seen."""
        if meter is None:
            return None
        shift = meter.measure(seen.view)
        if shift.place is Place.UNKNOWN:
            return None
        self._moved = shift.place is Place.ELSEWHERE
        return shift.x_px, shift.y_px

    def _count(self, troubles: tuple[Vital, ...]) -> None:
        raised = set(self._raised)
        for vital in Vital:
            there = vital in troubles
            self._bad[vital] = self._bad[vital] + 1 if there else 0
            self._good[vital] = 0 if there else self._good[vital] + 1
            if self._bad[vital] >= self._settings.raise_after:
                raised.add(vital)
            elif self._good[vital] >= self._settings.clear_after:
                raised.discard(vital)
        if raised != self._raised:
            self._raised = frozenset(raised)


def _wanted_size(limits: VitalsSettings, reference: Reference | None, size: tuple[int, int]) -> tuple[int, int]:
    width, height = size if reference is None else (reference.width_px, reference.height_px)
    return limits.width_px or width, limits.height_px or height


def _corrupt_share(seen: Sample, reference: Reference | None) -> float:
    """Return the share that looks damaged, less what looks so on the reference view."""
    damage = measures.damage(seen)
    usual = Damage(smeared=0.0, filled=0.0) if reference is None else reference.damage
    return max(damage.smeared - usual.smeared, damage.filled - usual.filled, 0.0)
