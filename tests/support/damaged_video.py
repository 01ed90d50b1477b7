"""Damage to an H.264 stream inside an MP4 file, as lost packets make it: its boxes are read, its slices overwritten."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Kind = Literal["flip", "burst", "tail"]
_CONTAINERS = {b"trak", b"mdia", b"minf", b"stbl"}
_SLICES = {1, 5}
_HEADER = 16  # of a slice: left as it is, so that the slice is decoded at all


def damage(clip: Path, out: Path, *, samples: Sequence[int], kind: Kind, seed: int) -> None:
    """Write a copy of a clip with damaged slices.

    Args:
        samples: which pictures, in decoding order.
        kind: `flip` changes three bits of each slice, `burst` overwrites a quarter of it, `tail` zeroes its last two
            thirds.
    """
    content = bytearray(clip.read_bytes())
    random = np.random.default_rng(seed)
    places, _ = samples_of(bytes(content))
    for number in samples:
        for start, length in _slices(bytes(content), *places[number]):
            body, left = start + _HEADER, length - _HEADER
            if kind == "flip":
                for _ in range(3):
                    content[body + int(random.integers(left))] ^= 1 << int(random.integers(8))
            elif kind == "burst":
                first = body + int(random.integers(max(left // 2, 1)))
                size = min(max(length // 4, 20), start + length - first)
                content[first : first + size] = random.integers(0, 256, size, dtype=np.uint8).tobytes()
            else:
                first = start + length // 3
                content[first : start + length] = bytes(start + length - first)
    out.write_bytes(content)


def frames(clip: Path) -> Iterator[NDArray[np.uint8]]:
    """Decode a clip."""
    capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        while True:
            read, image = capture.read()
            if not read:
                return
            yield np.asarray(image, dtype=np.uint8)
    finally:
        capture.release()


def samples_of(content: bytes) -> tuple[list[tuple[int, int]], list[int]]:
    """Return offset and size of each video sample, and the numbers of those that stand alone."""
    for kind, start, end in _boxes(content, 0, len(content)):
        if kind != b"moov":
            continue
        for inner, first, last in _boxes(content, start, end):
            tables: dict[bytes, int] = {}
            if inner == b"trak":
                _collect(content, first, last, tables)
            if b"vmhd" in tables:
                return _places(content, tables), [number - 1 for number in _numbers(content, tables[b"stss"] + 4)]
    raise ValueError("There is no video track.")


def _places(content: bytes, tables: dict[bytes, int]) -> list[tuple[int, int]]:
    sizes = _numbers(content, tables[b"stsz"] + 8)
    offsets = _numbers(content, tables[b"stco"] + 4)
    (runs,) = struct.unpack_from(">I", content, tables[b"stsc"] + 4)
    chunks = [struct.unpack_from(">III", content, tables[b"stsc"] + 8 + 12 * run) for run in range(runs)]
    places: list[tuple[int, int]] = []
    for chunk, start in enumerate(offsets, 1):
        offset = start
        for _ in range([count for first, count, _ in chunks if first <= chunk][-1]):
            if len(places) < len(sizes):
                places.append((offset, sizes[len(places)]))
                offset += sizes[len(places) - 1]
    return places


def _numbers(content: bytes, count_at: int) -> list[int]:
    (count,) = struct.unpack_from(">I", content, count_at)
    return list(struct.unpack_from(f">{count}I", content, count_at + 4))


def _collect(content: bytes, start: int, end: int, tables: dict[bytes, int]) -> None:
    for kind, first, last in _boxes(content, start, end):
        if kind in _CONTAINERS:
            _collect(content, first, last, tables)
        else:
            tables[kind] = first


def _boxes(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", content, start)
        header = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, start + 8)
            header = 16
        size = size or end - start
        yield kind, start + header, start + size
        start += size


def _slices(content: bytes, offset: int, size: int) -> Iterator[tuple[int, int]]:
    end = offset + size
    while offset + 5 < end:
        (length,) = struct.unpack_from(">I", content, offset)
        if content[offset + 4] & 31 in _SLICES and length > 2 * _HEADER:
            yield offset + 4, length
        offset += 4 + length
