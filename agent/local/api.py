"""What can be asked at the agent's local address (docs/reference/local-api.md): one function behind each route."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from agent.capture import encode
from agent.capture.frame import NoFrame
from agent.line import messages
from agent.line.trigger import Answer, RecipeRequest
from agent.local.exchange import Request, Response, Route, json_of
from wire.errors import LinesideError

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SNAPSHOT_S: Final = 5.0
T = TypeVar("T")


class Counter(Protocol):
    """Takes triggers by HTTP: `agent.line.http_trigger.HttpLine`."""

    def submit(self, message: messages.TriggerMessage) -> Answer: ...


class RecipeDesk(Protocol):
    """A station that tells its recipes and changes them between two parts."""

    def recipes(self) -> Sequence[object]: ...

    def request_recipe(self, request: RecipeRequest) -> str:
        """Return why the recipe is refused; empty where it is in force now."""


class View(Protocol):
    """A view that can be looked at without touching its accounts."""

    def snapshot(self, timeout_s: float) -> NDArray[np.uint8] | NoFrame: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalApi:
    """The parts of the agent that the routes speak to.

    Args:
        device: its id.
        status: what `lineside status` shows.
        metrics: Prometheus text.
        counters: of the stations whose line has the kind `http`.
        desks: of all stations.
        views: of all stations, by station and view.
        keep_reference: stores a picture (H, W, 3) uint8 as what the view looks like with the recipe in force; returns
            that recipe.
    """

    device: str
    status: Callable[[], object]
    metrics: Callable[[], str]
    counters: Mapping[str, Counter]
    desks: Mapping[str, RecipeDesk]
    views: Mapping[str, Mapping[str, View]]
    keep_reference: Callable[[str, str, NDArray[np.uint8]], str]

    def routes(self) -> tuple[Route, ...]:
        """Return every route of the local address."""
        station = "/v1/stations/{station}"
        return (
            Route(method="GET", pattern="/metrics", answer=self._metrics),
            Route(method="GET", pattern="/v1/status", answer=lambda _request: json_of(self.status())),
            Route(method="POST", pattern=f"{station}/triggers", answer=self._trigger),
            Route(method="GET", pattern=f"{station}/recipe", answer=self._recipes),
            Route(method="POST", pattern=f"{station}/recipe", answer=self._choose_recipe),
            Route(method="GET", pattern=f"{station}/views/{{view}}/snapshot.jpg", answer=self._snapshot),
            Route(method="POST", pattern=f"{station}/views/{{view}}/reference", answer=self._reference),
        )

    def _metrics(self, _request: Request) -> Response:
        return Response(body=self.metrics().encode(), content_type=METRICS_TYPE)

    def _trigger(self, request: Request) -> Response:
        station = request.names["station"]
        _known(self.desks, station, "station")
        if station not in self.counters:
            raise LinesideError(
                "resource.conflict",
                f"Station {station} takes no triggers by HTTP.",
                'Give it a line of kind = "http", or trigger it where its line says.',
            )
        answer = self.counters[station].submit(messages.read_trigger(request.body))
        return json_of(messages.verdict_of(answer, self.device, station))

    def _recipes(self, request: Request) -> Response:
        station = request.names["station"]
        recipes = list(_known(self.desks, station, "station").recipes())
        return json_of({"schema": "lineside.recipes/1", "station": station, "recipes": recipes})

    def _choose_recipe(self, request: Request) -> Response:
        station = request.names["station"]
        desk = _known(self.desks, station, "station")
        refusal = desk.request_recipe(messages.read_recipe(request.body, "http"))
        if refusal:
            raise LinesideError("recipe.refused", refusal, "The former recipe stays in force.")
        return self._recipes(request)

    def _snapshot(self, request: Request) -> Response:
        data, _ = encode.jpeg(self._look(request))
        return Response(body=data, content_type="image/jpeg")

    def _reference(self, request: Request) -> Response:
        image_bgr = self._look(request)
        station, view = request.names["station"], request.names["view"]
        recipe = self.keep_reference(station, view, image_bgr)
        height_px, width_px = image_bgr.shape[:2]
        return json_of(
            {
                "schema": "lineside.reference/1",
                "station": station,
                "view": view,
                "recipe": recipe,
                "width_px": width_px,
                "height_px": height_px,
            }
        )

    def _look(self, request: Request) -> NDArray[np.uint8]:
        views = _known(self.views, request.names["station"], "station")
        view = request.names["view"]
        seen = _known(views, view, "view").snapshot(SNAPSHOT_S)
        if isinstance(seen, NoFrame):
            sentence = f"View {view} gives no picture: {seen.reason.rstrip('.')}."
            raise LinesideError("source.unavailable", sentence, "See lineside status.")
        return seen


def _known(known: Mapping[str, T], name: str, what: str) -> T:
    if name not in known:
        raise LinesideError(
            "resource.not_found", f"There is no {what} {name}.", f"There are: {', '.join(sorted(known)) or 'none'}."
        )
    return known[name]
