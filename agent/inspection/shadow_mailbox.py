"""The one place where a part waits for a candidate, with copies of its pictures: full until it has been judged."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.inspection.shadow_account import Account
from agent.inspection.shadow_candidate import Candidate
from wire.desired import Recipe
from wire.inspection import Inspection

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """A candidate a part is meant for, the account that has counted it as chosen, and the rate it was chosen by."""

    candidate: Candidate
    account: Account
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedPart:
    """A part that the active version has judged.

    Args:
        inspection: as it was recorded.
        recipe: it was judged with.
        pictures: by view, (H, W, 3) uint8; they belong to whoever has the part until the place is freed.
        meant: who is to judge it.
    """

    inspection: Inspection
    recipe: Recipe
    pictures: Mapping[str, Picture]
    meant: tuple[Meant, ...]


class Mailbox:
    """One place for one part; its memory is used again and again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reserved = False
        self._part: CopiedPart | None = None
        self._memory: dict[int, Picture] = {}

    def reserve(self) -> bool:
        """Take the place for a part that is about to be copied; False where another part has it."""
        with self._changed:
            if self._reserved:
                return False
            self._reserved = True
            return True

    def copy(self, pictures: Mapping[str, Picture]) -> dict[str, Picture]:
        """Copy pictures; only whoever has reserved the place may."""
        copied: dict[str, Picture] = {}
        for slot, (view, picture) in enumerate(pictures.items()):
            memory = self._memory.get(slot)
            if memory is None or memory.shape != picture.shape:
                memory = self._memory[slot] = np.empty_like(picture)
            np.copyto(memory, picture)
            copied[view] = memory
        return copied

    def put(self, part: CopiedPart) -> None:
        """Leave a part in the reserved place."""
        with self._changed:
            self._part = part
            self._changed.notify_all()

    def take(self, timeout_s: float) -> CopiedPart | None:
        """Return the part that waits; the place stays taken until `free`."""
        with self._changed:
            self._changed.wait_for(lambda: self._part is not None, timeout_s)
            part, self._part = self._part, None
            return part

    def free(self, *, forget: bool = False) -> None:
        """Let another part come.

        Args:
            forget: give the memory of the pictures back: nobody needs it for now.
        """
        with self._changed:
            if forget:
                self._memory = {}
            self._reserved = False
