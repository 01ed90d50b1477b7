"""An agent's outside without its inside: a status file, and the real local address over views and recipes of a test."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent import status
from agent.capture.frame import NoFrame
from agent.line.trigger import RecipeRequest
from agent.local.api import LocalApi
from agent.local.server import LocalServer
from agent.status import RecipeStatus, StationStatus, Status, ViewStatus
from wire.messages import StationHealth, ViewHealth


def view_of(name: str, **more: Any) -> ViewHealth:
    """A view that gives 25 frames a second, three of which are judged."""
    values = {
        "view": name,
        "connected": True,
        "frames_in": 5000,
        "frames_used": 600,
        "frames_not_triggered": 0,
        "frames_dropped": {"replaced": 4400},
        "fps_in": 25.02,
        "fps_used": 3.0,
        "frame_age_ms": 31.0,
    }
    return ViewHealth(**(values | more))


def station_of(name: str, views: Sequence[ViewHealth], *, sources: Mapping[str, str], **more: Any) -> StationStatus:
    """A station that judges by `default`."""
    health = StationHealth(
        station=name,
        triggers=606,
        verdicts=606,
        frames_in=5000,
        frames_used=600,
        frames_not_triggered=0,
        frames_dropped=4400,
        latency_p50_ms=23.4,
        latency_p99_ms=61.0,
        recipe="default",
        not_ready=more.pop("not_ready", ""),
        deadline_misses=2,
        views=tuple(views),
    )
    values = {
        "health": health,
        "ready": not health.not_ready,
        "verdicts": {"OK": 580, "NG": 14, "UNSURE": 2, "NO_VERDICT": 4},
        "missed": 6,
        "line": "modbus 10.0.0.5:502",
        "views": tuple(
            ViewStatus(view=view, source=source, time_class="arrival_only") for view, source in sources.items()
        ),
        "recipes": (RecipeStatus(id="default", revision=0, active=True, loaded=True),),
    }
    return StationStatus(**(values | more))


@dataclass
class Desk:
    """A station's recipes; `refusal` is what it says to every wish."""

    refusal: str = ""
    wishes: list[RecipeRequest] = field(default_factory=list)

    def recipes(self) -> Sequence[object]:
        return ()

    def request_recipe(self, request: RecipeRequest) -> str:
        self.wishes.append(request)
        return self.refusal


@dataclass
class Camera:
    """Shows one picture, or none."""

    picture: NDArray[np.uint8] | NoFrame

    def snapshot(self, timeout_s: float) -> NDArray[np.uint8] | NoFrame:
        return self.picture


def picture(width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """A picture with something in it."""
    image = np.random.default_rng(1).integers(60, 100, (height, width, 3)).astype(np.uint8)
    cv2.circle(image, (width // 2, height // 2), height // 3, (40, 200, 240), -1)
    return image


class LocalAgent:
    """What commands meet; `write` replaces its status."""

    def __init__(self, folder: Path, stations: Sequence[StationStatus], cameras: Mapping[str, Camera]) -> None:
        self.folder = folder
        self.stations = tuple(stations)
        self.desks = {station.health.station: Desk() for station in stations}
        self.references: list[tuple[str, str, tuple[int, ...]]] = []
        views: dict[str, dict[str, Camera]] = {}
        for name, camera in cameras.items():
            station, _, view = name.partition("/")
            views.setdefault(station, {})[view] = camera
        api = LocalApi(
            device="press-7",
            status=dict,
            metrics=lambda: "",
            counters={},
            desks=self.desks,
            views=views,
            keep_reference=self._keep,
        )
        self.server = LocalServer("127.0.0.1", 0, api.routes())
        self.server.start()
        self.write()

    def write(self, **more: Any) -> None:
        """Write the status anew, as of now."""
        values = {
            "device": "press-7",
            "pid": os.getpid(),
            "at": datetime.now(UTC),
            "agent_version": "0.1.0",
            "connected": True,
            "mqtt_protocol": "5",
            "desired_revision": 4,
            "outbox_unsettled": 0,
            "outbox_dropped": 0,
            "pictures_waiting": 0,
            "stations": self.stations,
            "local_address": self.server.address,
        }
        status.write(self.folder, Status(**(values | more)))

    def close(self) -> None:
        self.server.close()

    def _keep(self, station: str, view: str, image_bgr: NDArray[np.uint8]) -> str:
        self.references.append((station, view, image_bgr.shape))
        return "default"
