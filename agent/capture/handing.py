"""Handing frames from a camera's process to the agent: a slot of the ring each, or a count of why not."""

from __future__ import annotations

import dataclasses
import socket

import numpy as np
from numpy.typing import NDArray

from agent.capture import camera_messages as messages
from agent.capture.camera import Camera, Exposure
from agent.capture.camera_messages import Shown, Totals
from agent.capture.ring import RingWriter
from wire.errors import LinesideError


class Hand:
    """Holds the ring and the accounts of the camera's side.

    Args:
        channel: to the agent; nothing here waits for it.
        slots: pictures that may be with the agent or being written.
        max_frame_bytes: the largest picture taken.
    """

    def __init__(self, channel: socket.socket, *, slots: int, max_frame_bytes: int) -> None:
        self._channel = channel
        self._slots = slots
        self._max_frame_bytes = max_frame_bytes
        self._ring: RingWriter | None = None
        self._shape: tuple[int, int] | None = None
        self._slot: int | None = None
        self._generation = 0
        self.totals = Totals()

    @property
    def has_room(self) -> bool:
        """Whether the next picture finds a slot."""
        return self._ring is None or self._ring.has_room

    def take_back(self, generation: int, slot: int) -> None:
        """Let a slot be written again; those of a ring that is gone are forgotten."""
        if self._ring is not None and generation == self._ring.size.generation:
            self._ring.give(slot)

    def receive(self, camera: Camera, exposure: Exposure) -> NDArray[np.uint8] | None:
        """Decode the frame just grabbed into a slot; None where it only counts.

        Raises:
            LinesideError: `source.unreadable` where a picture is larger than any may be.
        """
        self._count(grabbed=1 + exposure.lost, lost=exposure.lost)
        if exposure.stale:
            self._count(stale=1)
            return None
        slot = None if self._ring is None else self._ring.take()
        if self._ring is not None and slot is None:
            self._count(overflow=1)
            return None
        into = None
        if self._ring is not None and slot is not None and self._shape is not None:
            into = self._ring.picture(slot, *self._shape)
        image = camera.retrieve(into)
        if image is None or not _is_picture(image):
            self._give(slot)
            self._count(unreadable=1)
            return None
        if into is not None and image.shape == into.shape and _place(image) == _place(into):
            self._slot = slot
            return into
        return self._copied(image, slot)

    def pass_on(self, exposure: Exposure, *, demand: int, changed: bool) -> None:
        """Tell the agent of the picture received last."""
        ring, slot, shape = self._ring, self._slot, self._shape
        if ring is None or slot is None or shape is None:
            return
        self._slot = None
        shown = Shown(
            generation=ring.size.generation,
            slot=slot,
            height_px=shape[0],
            width_px=shape[1],
            exposed_ns=exposure.exposed_ns,
            demand=demand,
            changed=changed,
            vitals=exposure.vitals,
            totals=self.totals,
        )
        if not self.send(messages.pack_frame(shown)):
            ring.give(slot)
            self._count(overflow=1)

    def send(self, message: bytes) -> bool:
        """Send without waiting; False where the agent has not read for so long that the socket is full.

        Raises:
            BrokenPipeError: the agent has gone.
        """
        try:
            self._channel.send(message, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        return True

    def _copied(self, image: NDArray[np.uint8], slot: int | None) -> NDArray[np.uint8]:
        """Copy a picture that lies in memory of the camera's own."""
        height_px, width_px = image.shape[:2]
        frame_bytes = height_px * width_px * 3
        if frame_bytes > self._max_frame_bytes:
            raise LinesideError(
                "source.unreadable",
                f"A picture of {width_px} x {height_px} pixels is over {self._max_frame_bytes >> 20} MB.",
                "Raise max_frame_mb of the source.",
            )
        ring = self._ring
        if ring is None or slot is None or frame_bytes > ring.size.slot_bytes:
            ring, slot = self._new_ring(frame_bytes)
        self._shape = (height_px, width_px)
        self._slot = slot
        picture = ring.picture(slot, height_px, width_px)
        # One without colours becomes three equal ones; a fourth channel says nothing about the part.
        picture[...] = image.reshape(height_px, width_px, -1)[:, :, :3]
        return picture

    def _new_ring(self, frame_bytes: int) -> tuple[RingWriter, int]:
        if self._ring is not None:
            self._ring.close()
        self._generation += 1
        self._ring = ring = RingWriter(self._generation, frame_bytes, self._slots)
        # This message waits for room: without it no frame can be shown.
        socket.send_fds(self._channel, [messages.pack(ring.size)], [ring.fd])
        slot = ring.take()
        if slot is None:
            raise LinesideError("source.unavailable", "A ring without slots.")
        return ring, slot

    def _give(self, slot: int | None) -> None:
        if self._ring is not None and slot is not None:
            self._ring.give(slot)

    def _count(self, **more: int) -> None:
        totals = self.totals
        self.totals = dataclasses.replace(totals, **{key: getattr(totals, key) + value for key, value in more.items()})


def _is_picture(image: NDArray[np.uint8]) -> bool:
    channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    return image.dtype == np.uint8 and channels in {1, 3, 4} and image.size > 0


def _place(image: NDArray[np.uint8]) -> int:
    place: int = image.__array_interface__["data"][0]
    return place
