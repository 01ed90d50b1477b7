"""Makes wire records and batches for tests; every value that does not matter has a default."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from wire import codec
from wire.inspection import Box, Finding, Inspection, TimeSource, Verdict, ViewRecord
from wire.messages import Batch, Counter, Entry, Lane, SeqRange
from wire.mint import Mint
from wire.sampling import Draw

MINT = Mint()
EPOCH = "00112233445566aa"
DIGEST = "a" * 64
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def inspection(device: str = "cell-1", sequence: int = 1, **changes: Any) -> Inspection:
    """Return an OK inspection of `device`, triggered `sequence` seconds after noon."""
    at = NOON + timedelta(seconds=sequence)
    record = Inspection(
        id=MINT.uuid7(),
        device=device,
        station="s1",
        recipe="default",
        recipe_revision=0,
        trigger_id=f"run7-{sequence}",
        trigger_sequence=sequence,
        triggered_at=at,
        judged_at=at + timedelta(milliseconds=30),
        time_source=TimeSource.SYNCHRONISED,
        verdict=Verdict.OK,
        views=(view(),),
        sampling=Draw(plan_revision=1, stratum="all", pi=0.5, u=0.7, kept=False),
    )
    return replace(record, **changes)


def view(**changes: Any) -> ViewRecord:
    """Return a view of 320 x 240 pixels with one boxed finding."""
    record = ViewRecord(
        view="top",
        camera="cam",
        verdict=Verdict.OK,
        score=0.9,
        frame_number=1,
        width_px=320,
        height_px=240,
        model="parts",
        model_digest=DIGEST,
        findings=(Finding(label="scratch", score=0.75, box=Box(x1_px=32, y1_px=24, x2_px=96, y2_px=72)),),
    )
    return replace(record, **changes)


def counter(count: int, *, minute: datetime = NOON, verdict: Verdict = Verdict.OK) -> Counter:
    """Return one cell of the exact counts."""
    return Counter(
        minute=minute,
        station="s1",
        recipe="default",
        model_digest=DIGEST,
        verdict=verdict,
        stratum="all",
        count=count,
    )


def entry(seq: int, body: object) -> Entry:
    """Return a record at its place; bytes are taken as they are, so that they may be wrong."""
    return Entry(seq=seq, body=msgspec.Raw(body if isinstance(body, bytes) else codec.encode(body)))


def batch(*entries: Entry, device: str = "cell-1", epoch: str = EPOCH, lane: Lane = Lane.INSPECTIONS) -> bytes:
    """Return the payload of a batch."""
    return codec.encode(Batch(device=device, epoch=epoch, lane=lane, entries=entries))


def seq_range(first: int, last: int) -> SeqRange:
    return SeqRange(first=first, last=last)
