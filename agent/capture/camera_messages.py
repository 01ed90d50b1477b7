"""What a camera's process and its parent say to each other: one byte that names the message, then its body.

Frames, freed slots and signs of life are packed numbers, everything else is JSON. Pixels never travel here; they lie in
the ring (agent.capture.ring), whose file descriptor comes with the message `RING`.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from typing import Final

from agent.capture.frame import TimeClass, Vital
from agent.capture.settings import SourceKind, V4l2Settings
from wire import codec
from wire.desired import CameraSettings

MAX_BYTES: Final = 64 * 1024


class Kind(enum.IntEnum):
    """The first byte of each message."""

    # To the camera's process
    TASK = 1  # once, the first
    DEMAND = 2
    FREE = 3
    # From it
    HELLO = 10  # once: it runs and knows its camera's kind
    OPENED = 11  # once: the camera is open
    RING = 12  # with a file descriptor; frames from now on lie in this ring
    FRAME = 13
    BEAT = 14
    NOTE = 15  # why no frame comes, or that one could again
    LOG = 16
    LOST = 17  # the last: the camera is lost, the process ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Camera settings under a number that frames refer to; 0 is never demanded."""

    serial: int
    camera: CameraSettings | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """All that a camera's process is told; it holds secrets, so it is neither an argument nor in the environment."""

    camera: str
    kind: SourceKind
    url: str = field(default="", repr=False)
    path: str = ""
    plugin: str = ""
    options: dict[str, str | int | float | bool] = field(default_factory=dict, repr=False)
    v4l2: V4l2Settings
    open_timeout_s: float
    read_timeout_s: float
    max_frame_bytes: int
    slots: int
    watch_changes: bool
    demand: Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What kind of camera it is, known before it is opened."""

    time_class: TimeClass
    steady: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What the camera told when it was opened."""

    width_px: int | None = None
    height_px: int | None = None
    frames_per_s: float | None = None
    backend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Why no frame comes.

    Args:
        expected: nothing is wrong.
    """

    reason: str
    expected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A line for the agent's log."""

    level: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Why the process ends.

    Args:
        hopeless: starting it again cannot help (a plug-in that is not installed).
    """

    reason: str
    hopeless: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The camera's frames since its process began: grabbed = handed on + all others.

    Args:
        overflow: no slot was free.
        unreadable: could not be decoded.
        stale: gathered before the stream was opened.
        lost: the camera's own count says that they were exposed and never came.
    """

    grabbed: int = 0
    overflow: int = 0
    unreadable: int = 0
    stale: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One frame in one slot of the ring.

    Args:
        demand: serial of the camera settings it was exposed with; 0 where none is known to be in force.
        exposed_ns: monotonic clock of the device.
        totals: this frame included.
    """

    generation: int
    slot: int
    height_px: int
    width_px: int
    exposed_ns: int
    demand: int
    changed: bool
    vitals: tuple[Vital, ...]
    totals: Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """Size of a ring: `slots` pictures of at most `slot_bytes`, one behind the other."""

    generation: int
    slots: int
    slot_bytes: int


_VITALS: Final = tuple(Vital)
_TOTALS: Final = struct.Struct("<5Q")
_FRAME: Final = struct.Struct("<BBHIIIIIq")
_FREE: Final = struct.Struct("<BII")
_BODIES: Final[dict[Kind, type]] = {
    Kind.TASK: Task,
    Kind.DEMAND: Demand,
    Kind.HELLO: Hello,
    Kind.OPENED: Opened,
    Kind.RING: Ring,
    Kind.NOTE: Note,
    Kind.LOG: Logged,
    Kind.LOST: Lost,
}
_KINDS: Final = {body: kind for kind, body in _BODIES.items()}

Body = Task | Demand | Hello | Opened | Ring | Note | Logged | Lost


def pack(body: Body) -> bytes:
    """Return a message other than a frame, a freed slot or a sign of life."""
    return bytes([_KINDS[type(body)]]) + codec.encode(body)


def pack_frame(shown: Shown) -> bytes:
    vitals = sum(1 << _VITALS.index(vital) for vital in shown.vitals)
    head = (shown.changed, vitals, shown.demand, shown.generation, shown.slot, shown.height_px, shown.width_px)
    return _FRAME.pack(Kind.FRAME, *head, shown.exposed_ns) + _pack_totals(shown.totals)


def pack_beat(totals: Totals) -> bytes:
    return bytes([Kind.BEAT]) + _pack_totals(totals)


def pack_free(generation: int, slot: int) -> bytes:
    return _FREE.pack(Kind.FREE, generation, slot)


def kind_of(message: bytes) -> Kind:
    """Return what a message is; raises ValueError for what is none."""
    return Kind(message[0])


def unpack(message: bytes) -> Body:
    """Return the body of a message in JSON.

    Raises:
        LinesideError: `message.undecodable`.
    """
    body: Body = codec.decode(message[1:], _BODIES[kind_of(message)])
    return body


def unpack_frame(message: bytes) -> Shown:
    """Return a frame's place and accounts; raises struct.error where the message is cut short."""
    _, changed, vitals, demand, generation, slot, height_px, width_px, exposed_ns = _FRAME.unpack_from(message)
    return Shown(
        generation=generation,
        slot=slot,
        height_px=height_px,
        width_px=width_px,
        exposed_ns=exposed_ns,
        demand=demand,
        changed=bool(changed),
        vitals=tuple(vital for bit, vital in enumerate(_VITALS) if vitals >> bit & 1),
        totals=_unpack_totals(message, _FRAME.size),
    )


def unpack_beat(message: bytes) -> Totals:
    return _unpack_totals(message, 1)


def unpack_free(message: bytes) -> tuple[int, int]:
    """Return generation and slot."""
    _, generation, slot = _FREE.unpack(message)
    return generation, slot


def _pack_totals(totals: Totals) -> bytes:
    return _TOTALS.pack(totals.grabbed, totals.overflow, totals.unreadable, totals.stale, totals.lost)


def _unpack_totals(message: bytes, offset: int) -> Totals:
    grabbed, overflow, unreadable, stale, lost = _TOTALS.unpack_from(message, offset)
    return Totals(grabbed=grabbed, overflow=overflow, unreadable=unreadable, stale=stale, lost=lost)
