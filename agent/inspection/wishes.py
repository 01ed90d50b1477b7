"""What others want changed at a station, kept until the station's own thread takes it between two parts."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from agent.inspection.catalogue import Catalogue
from agent.line.trigger import RecipeRequest

_MOST_ASKED: Final = 8


@dataclass(slots=True)
class Wanted:
    """A catalogue that is to be taken."""

    catalogue: Catalogue
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Asked:
    """A person's request for a recipe, and the station's word on it; an empty refusal is a yes.

    Args:
        at_ns: monotonic; parts triggered before it are judged with the recipe that was in force then.
    """

    request: RecipeRequest
    at_ns: int
    done: threading.Event = field(default_factory=threading.Event)
    refusal: str = ""


class Wishes:
    """Any thread leaves a wish and waits; one thread at a time, the station's, takes wishes and fulfils them.

    A wish that is not taken in time is withdrawn, so that it is never fulfilled after its owner has given up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: Wanted | None = None
        self._asked: deque[Asked] = deque()

    @property
    def wants_catalogue(self) -> bool:
        return self._wanted is not None

    def want(self, catalogue: Catalogue, timeout_s: float, *, stays: bool = False) -> bool:
        """Wait until a catalogue was taken; False where it was not in time.

        Args:
            stays: it is not withdrawn then, but taken as soon as it can be, unless another one is wanted before.
        """
        wanted = Wanted(catalogue)
        with self._lock:
            self._wanted = wanted
        if wanted.done.wait(timeout_s):
            return True
        with self._lock:
            if self._wanted is wanted:
                self._wanted = wanted if stays else None
                return False
        return wanted.done.wait(timeout_s)

    def take_catalogue(self) -> Wanted | None:
        """Return the catalogue to be taken now; `done` is to be set when it was."""
        with self._lock:
            wanted, self._wanted = self._wanted, None
            return wanted

    def ask(self, asked: Asked, timeout_s: float) -> str:
        """Wait for the station's word on a request for a recipe; return why not, empty where it is in force."""
        with self._lock:
            if len(self._asked) >= _MOST_ASKED:
                return "Too many requests for a recipe wait already."
            self._asked.append(asked)
        if asked.done.wait(timeout_s):
            return asked.refusal
        with self._lock:
            if asked in self._asked:
                self._asked.remove(asked)
                return f"The station did not come between two parts within {timeout_s:g} s."
        return asked.refusal if asked.done.wait(timeout_s) else "The station still waits for a part to leave."

    def first_asked(self) -> Asked | None:
        """Return the oldest request without taking it."""
        with self._lock:
            return self._asked[0] if self._asked else None

    def take_asked(self) -> Asked | None:
        """Return the oldest request; `done` is to be set when it was answered."""
        with self._lock:
            return self._asked.popleft() if self._asked else None
