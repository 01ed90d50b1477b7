"""Takes new models and recipes at one station, each between two parts: no part is on its way then."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from agent.capture.demand import ViewDemand
from agent.clock import Clock
from agent.inspection.catalogue import Catalogue
from agent.inspection.setup import StationSetup
from agent.inspection.wishes import Asked, Wishes
from agent.line.trigger import LineEvent, RecipeRequest, Trigger
from wire.errors import LinesideError
from wire.messages import Severity

log = logging.getLogger(__name__)

SWAP_TIMEOUT_S: Final = 10.0
_TOLD_EVERY_NS: Final = 60_000_000_000
Tell = Callable[[str, Severity, str], None]


def tell_nobody(name: str, severity: Severity, text: str) -> None:
    """Where nobody collects events."""


class Marks(Protocol):
    """Where the station remembers its recipe over a restart."""

    def meta_get(self, key: str) -> str | None: ...
    def meta_set(self, key: str, value: str) -> None: ...


class Demanding(Protocol):
    """A view's feed, as far as recipes concern it."""

    def demand(self, demand: ViewDemand) -> None: ...


class Changeover:
    """Holds the catalogue in force. `want` and `ask` may be called by any thread, the rest by the station's, one at a
    time; reading is safe everywhere.

    A recipe that the line asks for holds for all parts whose triggers come after the request in the line's own order.
    One that a person asks for holds for all parts triggered after the moment of asking: what was triggered before, and
    is still on its way to us, is judged with the former recipe.

    Args:
        own: what the device's file says: the recipe in force until another is chosen.
        await_parts: returns when every part that was taken has left.
        announce: tells the line and the outputs the station's state.
        tell: an event for people.
    """

    def __init__(
        self,
        *,
        station: str,
        own: StationSetup,
        feeds: Mapping[str, Demanding],
        marks: Marks,
        clock: Clock,
        await_parts: Callable[[], None],
        announce: Callable[[], None],
        tell: Tell,
    ) -> None:
        self.own = own
        self.changing = ""
        self._station = station
        self._key = f"recipe.{station}"
        self._feeds = feeds
        self._marks = marks
        self._clock = clock
        self._await_parts = await_parts
        self._announce = announce
        self._tell = tell
        self._wishes = Wishes()
        chosen = marks.meta_get(self._key) or own.recipe.id
        self._catalogue = Catalogue(setups={own.recipe.id: own}, active=chosen)
        self._former: tuple[StationSetup, int] | None = None
        self._refused: RecipeRequest | None = None
        self._told = ("", 0)
        self._demands: dict[str, ViewDemand] = {}
        self._demand()

    @property
    def catalogue(self) -> Catalogue:
        """What the next part is judged with."""
        return self._catalogue

    # Called by any thread

    def want(self, catalogue: Catalogue, timeout_s: float) -> None:
        """Have a catalogue taken, and wait until it is; which recipe is in force stays the station's business.

        Raises:
            LinesideError: `deployment.activation_failed` where the station does not come between two parts in time.
        """
        if not self._wishes.want(catalogue, timeout_s):
            raise LinesideError(
                "deployment.activation_failed",
                f"Station {self._station} did not finish its part within {timeout_s:g} s.",
                "See whether a camera or the model hangs.",
            )

    def want_back(self, catalogue: Catalogue, timeout_s: float) -> bool:
        """Have a former catalogue taken again; where it is not in time, it is as soon as the station can."""
        return self._wishes.want(catalogue, timeout_s, stays=True)

    def ask(self, request: RecipeRequest, timeout_s: float) -> str:
        """Have a recipe taken for a person; return why not, empty where it is in force now."""
        return self._wishes.ask(Asked(request, self._clock.monotonic_ns()), timeout_s)

    # Called by the station's thread

    def setup_for(self, trigger: Trigger) -> StationSetup:
        """Return what a part is judged with: what was in force when it was triggered."""
        if self._former is not None and trigger.at_ns < self._former[1]:
            return self._former[0]
        return self._catalogue.current

    def take_catalogue(self) -> RecipeRequest | None:
        """Take the catalogue that is wanted, if any is; return the line's request that it may now be able to fulfil."""
        if not self._wishes.wants_catalogue:
            return None
        self._await_parts()
        wanted = self._wishes.take_catalogue()
        if wanted is None:
            return None
        self.install(wanted.catalogue)
        wanted.done.set()
        refused, self._refused = self._refused, None
        return refused

    def install(self, catalogue: Catalogue) -> None:
        """Take a catalogue at once; no part may be on its way."""
        self._former = None
        self._catalogue = catalogue.succeeding(self._catalogue)
        self._demand()
        self._announce()

    def take_asked(self, event: LineEvent | None) -> None:
        """Answer persons, as far as `event`, the next of the line, was not triggered before they asked."""
        while (asked := self._wishes.first_asked()) is not None:
            if isinstance(event, Trigger) and event.at_ns < asked.at_ns:
                return
            taken = self._wishes.take_asked()
            if taken is not None:
                taken.refusal = self._switch(taken.request, since_ns=taken.at_ns)
                if not taken.refusal:
                    self._refused = None
                taken.done.set()
                self._announce()

    def obey(self, request: RecipeRequest) -> str:
        """Take the recipe the line asks for; return why not, empty where it is in force now."""
        refusal = self._switch(request, since_ns=None)
        # What a PLC asks for stands in its register until it asks for something else.
        self._refused = request if refusal and request.source == "plc" else None
        return refusal

    def _switch(self, request: RecipeRequest, *, since_ns: int | None) -> str:
        choice = self._catalogue.choose(request)
        refusal = choice.refusal
        if not refusal and choice.recipe != self._catalogue.active:
            self.changing = f"The recipe changes to {choice.recipe}."
            try:
                self._announce()
                self._await_parts()
                refusal = self._take(choice.recipe, since_ns)
            finally:
                self.changing = ""
        elif since_ns is None and not refusal:
            self._former = None  # the line itself says which recipe holds from here on
        if refusal:
            self._tell_refusal(f"{self._station}: {refusal} (Asked by {request.source}.)")
        return refusal

    def _tell_refusal(self, sentence: str) -> None:
        """Each trigger may name a recipe that is refused: the same sentence is told once a minute."""
        now_ns = self._clock.monotonic_ns()
        told, told_ns = self._told
        if sentence != told or now_ns - told_ns > _TOLD_EVERY_NS:
            self._told = (sentence, now_ns)
            log.warning("Recipe refused: %s", sentence, extra={"event": "recipe.refused"})
            self._tell("recipe.refused", Severity.WARNING, sentence)

    def _take(self, recipe: str, since_ns: int | None) -> str:
        try:
            self._marks.meta_set(self._key, recipe)
        except LinesideError as error:
            return f"The choice of {recipe} cannot be kept over a restart: {error.message}"
        former = self._catalogue
        self._catalogue = former.with_active(recipe)
        self._former = None if since_ns is None else (former.current, since_ns)
        self._demand()
        log.info("Recipe %s is in force.", recipe, extra={"event": "recipe.changed"})
        self._tell("recipe.changed", Severity.NOTE, f"{self._station}: recipe {former.active} gave way to {recipe}.")
        return ""

    def _demand(self) -> None:
        """Tell each camera what the recipe asks of it, where that is something new."""
        recipe = self._catalogue.current.recipe
        for view, feed in self._feeds.items():
            wanted = recipe.views.get(view)
            demand = ViewDemand(recipe=recipe.id, camera=wanted.camera if wanted is not None else None)
            if self._demands.get(view) != demand:
                self._demands[view] = demand
                feed.demand(demand)
