"""Is a picture fit to be judged at all? Decided from a thumbnail and a few rows, before any model is asked."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.capture import measures
from agent.capture.frame import Vital
from agent.capture.measures import Sample
from agent.capture.reference import Reference
from agent.capture.settings import VitalsSettings


class VitalsWatch:
    """Sees every picture of one view, in their order.

    One thread calls `see`; `raised` may be read and `use_reference` called from any other.
    """

    def __init__(self, settings: VitalsSettings, reference: Reference | None = None) -> None:
        self._settings = settings
        self._reference = reference
        self._before: Sample | None = None
        self._equal = 1
        self._bad: dict[Vital, int] = {}
        self._good: dict[Vital, int] = {}
        self._raised: frozenset[Vital] = frozenset()

    @property
    def raised(self) -> frozenset[Vital]:
        """The troubles that lasted `raise_after` pictures and have not been away for `clear_after` since."""
        return self._raised

    def use_reference(self, reference: Reference | None) -> None:
        """Hold the pictures that follow against this view; None: check only what needs none."""
        self._reference = reference

    def see(self, image_bgr: NDArray[np.uint8]) -> tuple[Vital, ...]:
        """Return what is wrong with this very picture, (H, W, 3) uint8; nothing of it is kept by reference."""
        if not self._settings.enabled:
            return ()
        seen = measures.sample(image_bgr)
        troubles = self._troubles(seen)
        self._count(troubles)
        return troubles

    def _troubles(self, seen: Sample) -> tuple[Vital, ...]:
        settings, reference = self._settings, self._reference
        found: list[Vital] = []
        wanted_width = settings.width_px or (reference.width_px if reference else None)
        wanted_height = settings.height_px or (reference.height_px if reference else None)
        if (wanted_width or seen.width_px, wanted_height or seen.height_px) != (seen.width_px, seen.height_px):
            found.append(Vital.WRONG_SIZE)
            reference = None
        if settings.max_dark_share < 1.0 and measures.dark_share(seen.thumbnail) > settings.max_dark_share:
            found.append(Vital.BLACK)
        if settings.max_saturated_share < 1.0 and (
            measures.saturated_share(seen.thumbnail) > settings.max_saturated_share
        ):
            found.append(Vital.SATURATED)
        if self._is_frozen(seen):
            found.append(Vital.FROZEN)
        if reference is not None and Vital.BLACK not in found and Vital.SATURATED not in found:
            least = settings.min_sharpness * reference.sharpness
            if measures.sharpness(seen.bands) < least:
                found.append(Vital.BLURRED)
        return tuple(found)

    def _is_frozen(self, seen: Sample) -> bool:
        before, self._before = self._before, seen
        if self._settings.frozen_after == 0 or before is None:
            return False
        same = np.array_equal(before.thumbnail, seen.thumbnail) and np.array_equal(before.bands, seen.bands)
        self._equal = self._equal + 1 if same else 1
        return self._equal >= self._settings.frozen_after

    def _count(self, troubles: tuple[Vital, ...]) -> None:
        raised = set(self._raised)
        for vital in Vital:
            if vital in troubles:
                self._bad[vital], self._good[vital] = self._bad.get(vital, 0) + 1, 0
                if self._bad[vital] >= self._settings.raise_after:
                    raised.add(vital)
            else:
                self._bad[vital], self._good[vital] = 0, self._good.get(vital, 0) + 1
                if self._good[vital] >= self._settings.clear_after:
                    raised.discard(vital)
        if raised != self._raised:
            self._raised = frozenset(raised)
