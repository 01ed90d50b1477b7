"""What a camera's process and its parent say survives the way, and nonsense is known as such; so does shared memory."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from agent.capture import camera_messages as messages
from agent.capture.camera_messages import Kind, Lost, Note, Opened, Ring, Shown, Totals
from agent.capture.frame import Vital
from agent.capture.ring import RingReader, RingWriter
from wire.errors import LinesideError


def test_frames_totals_and_slots_come_out_as_they_went_in() -> None:
    chance = random.Random(11)
    for _ in range(200):
        totals = Totals(
            **{name: chance.randrange(2**50) for name in ("grabbed", "overflow", "unreadable", "stale", "lost")}
        )
        shown = Shown(
            generation=chance.randrange(2**32),
            slot=chance.randrange(2**32),
            height_px=chance.randrange(2**32),
            width_px=chance.randrange(2**32),
            exposed_ns=chance.randrange(-(2**62), 2**62),
            demand=chance.randrange(2**32),
            changed=chance.random() < 0.5,
            vitals=tuple(vital for vital in Vital if chance.random() < 0.3),
            totals=totals,
        )
        packed = messages.pack_frame(shown)

        assert messages.kind_of(packed) is Kind.FRAME
        assert messages.unpack_frame(packed) == shown
        assert messages.unpack_beat(messages.pack_beat(totals)) == totals
        assert messages.unpack_free(messages.pack_free(3, 4)) == (3, 4)


@pytest.mark.parametrize(
    "body",
    [Lost(reason="x"), Note(reason="y", expected=True), Opened(width_px=3), Ring(generation=1, slots=2, slot_bytes=3)],
)
def test_other_messages_come_out_as_they_went_in(body: messages.Body) -> None:
    assert messages.unpack(messages.pack(body)) == body


@pytest.mark.parametrize(
    "message", [b"\x00", b"\xff{}", bytes([Kind.LOST]) + b"{", bytes([Kind.RING]) + b'{"slots": "many"}']
)
def test_nonsense_is_refused(message: bytes) -> None:
    with pytest.raises((ValueError, LinesideError)):
        messages.unpack(message)


def test_a_frame_cut_short_is_refused() -> None:
    with pytest.raises(struct.error):
        messages.unpack_frame(bytes([Kind.FRAME]) * 20)


def test_pictures_lie_in_the_same_memory_on_both_sides_and_the_reader_cannot_write() -> None:
    writer = RingWriter(1, 24 * 32 * 3, 6)
    reader = RingReader(os.dup(writer.fd), writer.size)
    slots = [writer.take() for _ in range(7)]
    assert slots[:6] == [5, 4, 3, 2, 1, 0]
    assert slots[6] is None

    for slot in range(6):
        writer.picture(slot, 24, 32)[...] = slot
    read = [reader.picture(slot, 24, 32) for slot in range(6)]
    assert [int(picture.mean()) for picture in read] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="read-only"):
        read[0][0, 0, 0] = 1

    writer.give(3)
    writer.give(3)
    assert (writer.take(), writer.take()) == (3, None)
    writer.close()
    assert int(read[5].mean()) == 5


def test_memory_is_gone_with_the_last_who_looks_at_it() -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text(encoding="utf-8").count("lineside-frames")

    before = mapped()
    writer = RingWriter(1, 1000, 4)
    reader = RingReader(os.dup(writer.fd), writer.size)
    picture = reader.picture(0, 10, 10)
    writer.close()
    del reader, writer
    assert mapped() == before + 1
    del picture
    assert mapped() == before


@pytest.mark.parametrize(("slot", "height", "width"), [(-1, 2, 2), (4, 2, 2), (0, 0, 5), (0, 100_000, 100_000)])
def test_a_picture_that_is_not_there_is_refused(slot: int, height: int, width: int) -> None:
    writer = RingWriter(1, 4096, 4)
    reader = RingReader(os.dup(writer.fd), writer.size)

    with pytest.raises(LinesideError):
        reader.picture(slot, height, width)
    writer.close()


def test_memory_that_could_be_shrunk_or_is_too_small_is_refused() -> None:
    open_to_all = os.memfd_create("unsealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(open_to_all, 8192)
    with pytest.raises(LinesideError):
        RingReader(open_to_all, Ring(generation=1, slots=2, slot_bytes=4096))

    writer = RingWriter(1, 4096, 4)
    with pytest.raises(LinesideError):
        RingReader(os.dup(writer.fd), Ring(generation=1, slots=5, slot_bytes=4096))
    with pytest.raises(PermissionError):
        os.ftruncate(writer.fd, 0)
    writer.close()


def test_a_ring_is_bounded_whatever_the_pictures_are() -> None:
    writer = RingWriter(1, 64 * 2**20, 14)

    assert writer.size.slots * writer.size.slot_bytes <= 512 * 2**20
    assert np.prod(writer.picture(0, 4000, 5000).shape) <= writer.size.slot_bytes
    writer.close()
