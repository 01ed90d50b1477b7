"""Makes the outbox of a device that was offline for weeks: many records, put straight into its file and counted beside.

Putting a million records through the outbox itself takes minutes; here they go into the same tables in seconds. The
line's count file gets a trigger for each, so that `SmallPlant.accounts` holds them against rows like all others.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from agent.clock import SystemClock
from agent.uplink import outbox_schema
from agent.uplink.outbox import Outbox
from scripts.small_device import STATION, record_of, verdict_of
from wire import codec
from wire.inspection import Verdict
from wire.messages import Lane

RUN: Final = "backlog"
_ID: Final = "01932f5e-7a10-7abc-8def-0123456789ab"
_AT_ONCE: Final = 20_000


def make(folder: Path, line_file: Path, device: str, count: int) -> int:
    """Leave so many records behind; return the bytes of the outbox's file.

    Args:
        folder: of the device; its outbox must not be there yet.
        line_file: the count file of its line.
    """
    path = folder / "outbox.db"
    Outbox(path, SystemClock(), device=device).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous=OFF")
        rows = _entries(device, count)
        for start in range(0, count, _AT_ONCE):
            database.execute("BEGIN")
            database.executemany(
                "INSERT INTO entry VALUES(?, ?)", (next(rows) for _ in range(min(_AT_ONCE, count - start)))
            )
            database.execute("COMMIT")
        minute = int(_begin().timestamp() // 60)
        for verdict in (Verdict.OK, Verdict.NG):
            total = sum(verdict_of(sequence) is verdict for sequence in range(1, count + 1))
            cell = (minute, STATION, "default", "a" * 64, verdict.value, "all", total)
            database.execute(
                "INSERT INTO counter(minute, station, recipe, model_digest, verdict, stratum, count, changed, seq)"
                " VALUES(?, ?, ?, ?, ?, ?, ?, 1, 0)",
                cell,
            )
        database.execute("INSERT INTO last_trigger VALUES(?, ?, ?)", (STATION, RUN, count))
    with line_file.open("a", encoding="utf-8") as lines:
        for sequence in range(1, count + 1):
            lines.write(json.dumps({"event": "trigger", "run": RUN, "sequence": sequence}) + "\n")
    folder.with_name(f"{folder.name}.taken").write_text(
        "".join(f"{RUN}-{sequence}\n" for sequence in range(1, count + 1)), encoding="ascii"
    )
    return path.stat().st_size


def _begin() -> datetime:
    """Two weeks ago."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(days=14)


def _entries(device: str, count: int) -> Iterator[tuple[int, bytes]]:
    """Yield place and body, spread over the two weeks: a million are one part each 1.2 s."""
    begin = _begin()
    apart_ms = 14 * 24 * 3600 * 1000 / (count + 1)
    bodies = {
        verdict: codec.encode(record_of(device, "@trigger@", sequence, _ID, begin)).replace(
            b'"trigger_sequence":%d,' % sequence, b'"trigger_sequence":@sequence@,'
        )
        for verdict, sequence in ((Verdict.OK, 1), (Verdict.NG, 7))
    }
    moment = codec.encode(begin).strip(b'"')
    begin_ms = int(begin.timestamp() * 1000)
    for sequence in range(1, count + 1):
        at_ms = begin_ms + int(sequence * apart_ms)
        at = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        # The time part of a UUIDv7, then the sequence where the random bits are.
        inspection_id = f"{at_ms >> 16:08x}-{at_ms & 0xFFFF:04x}-7abc-8def-{sequence:012x}"
        body = (
            bodies[verdict_of(sequence)]
            .replace(_ID.encode(), inspection_id.encode())
            .replace(b"@trigger@", f"{RUN}-{sequence}".encode())
            .replace(b"@sequence@", str(sequence).encode())
            .replace(moment, at.encode())
        )
        yield outbox_schema.place(Lane.INSPECTIONS, sequence), body
