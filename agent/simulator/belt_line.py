"""Moves a planned belt: for each part the photo-eye tells the controller while the cameras expose, at one instant.

The belt's own account is a file of JSON lines: each part with its truth and with the cameras that gave its picture. It
never waits for a verdict. Only between batches it stands, until the station has the next batch's recipe in force.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Final, Protocol

from agent.simulator import belt, belt_marks
from agent.simulator.belt import Batch, BeltPart, BeltSettings
from agent.simulator.belt_cameras import BeltCameras
from agent.simulator.belt_marks import Mark
from agent.simulator.line import CountFile

log = logging.getLogger(__name__)

_ASK_INTERVAL_S: Final = 0.01


class Controller(Protocol):
    """What the belt needs of its PLC."""

    def request_recipe(self, number: int) -> None:
        """Ask the station for a recipe."""

    @property
    def active_recipe(self) -> int:
        """The recipe the station says is in force; 0 while it is not ready."""

    def part(self, at_ns: int) -> int:
        """The photo-eye saw a part at this moment (monotonic); returns the controller's own count, from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraLoss:
    """A camera that gives nothing from one part to another (excluded)."""

    camera: str
    from_part: int
    to_part: int


class BeltLine:
    """Runs the belt on the calling thread.

    Args:
        scale: size of the pictures; 1 is 64 x 48 pixels. It may be changed while the belt moves.
        recipe_timeout_s: how long the belt stands for a recipe; then it ends, as a line without its station would.
    """

    def __init__(
        self,
        settings: BeltSettings,
        controller: Controller,
        cameras: BeltCameras,
        account: CountFile,
        *,
        losses: tuple[CameraLoss, ...] = (),
        scale: int = 1,
        recipe_timeout_s: float = 120.0,
    ) -> None:
        self._settings = settings
        self._controller = controller
        self._cameras = cameras
        self._account = account
        self._losses = losses
        self.scale = scale
        self._recipe_timeout_s = recipe_timeout_s
        self._lost: set[str] = set()

    def run(self, stop: threading.Event) -> bool:
        """Pass all parts; False where the station never had a recipe ready, or `stop` was set."""
        for batch in belt.plan(self._settings):
            if not self._await_recipe(batch.recipe, stop):
                log.error("The station has no recipe %d.", batch.recipe, extra={"event": "line.stopped"})
                return False
            if not self._pass(batch, stop):
                return False
        return True

    def _await_recipe(self, number: int, stop: threading.Event) -> bool:
        asked_at = time.monotonic()
        self._controller.request_recipe(number)
        while time.monotonic() < asked_at + self._recipe_timeout_s:
            if self._controller.active_recipe == number:
                self._account.write(event="recipe", number=number, after_ms=round((time.monotonic() - asked_at) * 1e3))
                return True
            if stop.wait(_ASK_INTERVAL_S):
                return False
        return False

    def _pass(self, batch: Batch, stop: threading.Event) -> bool:
        began_ns = time.monotonic_ns()
        for part in batch.parts:
            self._switch_cameras(part.number)
            pictures = {
                view: belt_marks.render(
                    Mark(number=part.number, view=index), part.faults[view], scale=self.scale, seed=self._settings.seed
                )
                for index, view in enumerate(self._settings.views, 1)
                if view not in self._lost
            }
            due_ns = began_ns + int(part.at_s * 1e9)
            if stop.wait(max(0.0, (due_ns - time.monotonic_ns()) / 1e9)):
                return False
            at_ns = time.monotonic_ns()
            # A belt cannot catch up: after a late part all later ones are late, so that none is nearer than planned.
            began_ns += max(0, at_ns - due_ns)
            seen = self._cameras.expose(at_ns, time.time(), pictures)
            count = self._controller.part(at_ns)
            self._write(batch, part, count, seen)
        return True

    def _switch_cameras(self, number: int) -> None:
        lost = {loss.camera for loss in self._losses if loss.from_part <= number < loss.to_part}
        for camera in lost - self._lost:
            self._cameras.lose(camera)
            self._account.write(event="camera_lost", camera=camera, before=number)
        for camera in self._lost - lost:
            self._cameras.restore(camera)
            self._account.write(event="camera_restored", camera=camera, before=number)
        self._lost = lost

    def _write(self, batch: Batch, part: BeltPart, count: int, seen: frozenset[str]) -> None:
        self._account.write(
            event="part",
            number=part.number,
            count=count,
            recipe=batch.recipe,
            touching=part.touching,
            seen=sorted(seen),
            truth=belt.expected(part, batch.recipe_index, self._settings.views).value,
            at=time.time(),
        )
