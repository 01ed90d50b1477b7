"""`lineside simulate --belt FILE`: a belt with its cameras and its PLC in one process."""

from __future__ import annotations

import logging
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import msgspec

from agent.simulator import belt_marks
from agent.simulator.belt import MAX_PARTS, BeltSettings
from agent.simulator.belt_cameras import BeltCameras
from agent.simulator.belt_line import BeltLine, CameraLoss
from agent.simulator.line import CountFile
from agent.simulator.plc import PlcSettings, SimulatedPlc
from wire import strict_toml
from wire.strict_toml import Document

log = logging.getLogger(__name__)

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_SWITCH_INTERVAL_S: Final = 0.0005
_SETTLE_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BeltFile:
    """The file of one simulated belt.

    Args:
        account, plc_account: files of JSON lines: what passed, and what the PLC was told.
        plc_port, cameras_port: on 127.0.0.1; 0 picks a free one.
        deadline_ms: from the photo-eye to the gate.
        scan_ms: of the PLC.
        scale: size of the pictures; 1 is 64 x 48 pixels.
        stays: serve on when all parts have passed, until stopped.
        losses: cameras that are away for a while.
    """

    account: str
    plc_account: str
    plc_port: Port = 0
    cameras_port: Port = 0
    deadline_ms: Annotated[float, msgspec.Meta(gt=0.0)] = 500.0
    scan_ms: Annotated[float, msgspec.Meta(gt=0.0)] = 5.0
    scale: Annotated[int, msgspec.Meta(ge=1, le=40)] = 1
    recipe_timeout_s: Annotated[float, msgspec.Meta(gt=0.0)] = 120.0
    stays: bool = False
    belt: BeltSettings = field(default_factory=BeltSettings)
    losses: tuple[CameraLoss, ...] = ()


class PlcController:
    """The belt's side of the simulated PLC."""

    def __init__(self, plc: SimulatedPlc) -> None:
        self._plc = plc

    def request_recipe(self, number: int) -> None:
        """Ask the station for a recipe, once the parts before have their results: they need the one before."""
        self._plc.wait_until_settled(_SETTLE_TIMEOUT_S)
        self._plc.program.request_recipe(number)

    @property
    def active_recipe(self) -> int:
        """The recipe in force; 0 while parts are not taken."""
        agent = self._plc.program.agent
        return agent.recipe_active if agent.trigger_ready else 0

    def part(self, at_ns: int) -> int:
        """A part has passed the photo-eye."""
        return self._plc.program.photo_eye(at_ns)


def read(path: Path) -> BeltFile:
    """Read a belt's file.

    Raises:
        LinesideError: `config.*`, naming file, line and key.
    """
    document = strict_toml.read(path)
    found = document.value_of(BeltFile)
    _check(found, document)
    return found


def run(file: BeltFile, stop: threading.Event) -> int:
    """Move the belt until all parts have passed or `stop` is set; 0 where all have passed."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)  # the photo-eye must not wait for a picture that is being drawn
    plc = SimulatedPlc(
        PlcSettings(
            port=file.plc_port,
            count_file=Path(file.plc_account),
            scan_ms=file.scan_ms,
            deadline_ms=file.deadline_ms,
        )
    )
    cameras = BeltCameras("127.0.0.1", file.cameras_port, file.belt.views)
    account = CountFile(Path(file.account))
    plc.start()
    try:
        account.write(event="run", run=plc.program.run, plc_port=plc.port, cameras_port=cameras.port)
        print(f"PLC 127.0.0.1:{plc.port}  cameras 127.0.0.1:{cameras.port}", flush=True)  # noqa: T201
        line = BeltLine(
            file.belt,
            PlcController(plc),
            cameras,
            account,
            losses=file.losses,
            scale=file.scale,
            recipe_timeout_s=file.recipe_timeout_s,
        )
        passed = line.run(stop)
        plc.wait_until_settled(_SETTLE_TIMEOUT_S)
        account.write(event="end", all_passed=passed, at=time.time())
        if file.stays:
            stop.wait()
        return 0 if passed else 1
    finally:
        plc.stop()
        cameras.close()
        account.close()


def _check(file: BeltFile, document: Document) -> None:
    """Refuse what the marks cannot say, and what would never move."""
    belt = file.belt
    limits = {
        "part_count": (1, MAX_PARTS, belt.part_count),
        "batch_parts": (1, MAX_PARTS, belt.batch_parts),
        "stretch_parts": (1, MAX_PARTS, belt.stretch_parts),
        "views": (1, 2**belt_marks.VIEW_BITS - 1, len(belt.views)),
        "recipes": (1, belt_marks.MAX_RECIPES, len(belt.recipes)),
        "speeds": (1, 100, len(belt.speeds)),
    }
    for key, (least, most, value) in limits.items():
        if not least <= value <= most:
            raise document.error(
                "config.invalid_value", f"belt.{key}", f"must be {least} to {most}.", "Choose a number in between."
            )
    if belt.least_pitch_ms <= 0 or not all(0 < speed <= 1 for speed in belt.speeds):
        raise document.error(
            "config.invalid_value", "belt", "the belt would never move.", "Give a pitch above 0 and speeds up to 1."
        )
    for loss in file.losses:
        if loss.camera not in belt.views:
            known = ", ".join(belt.views)
            raise document.error(
                "config.invalid_value", "losses", f"there is no camera {loss.camera!r}.", f"The cameras are {known}."
            )
