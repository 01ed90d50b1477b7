"""The child of test_power_cut.py: fills and empties a real outbox, and says of each step when it was done.

It writes its log outside of the outbox's folder, one line a step, so that the trace holds the log's calls too, at their
place among the outbox's.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from pathlib import Path

from agent.clock import SystemClock
from agent.uplink import ending, flusher
from agent.uplink.outbox import Outbox
from tests.support import records
from wire.messages import Batch, Lane, SeqRange

TICK_S = 0.005


def main() -> None:
    """Work for so many seconds, then end without a word, as the power does."""
    folder, log, seed, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    # The log is copied and begun anew every few dozen commits, so that a short run sees much of it.
    flusher.CHECKPOINT_COMMITS = 60  # type: ignore[misc]
    flusher.MAX_LOG_PAGES = 300  # type: ignore[misc]
    if "liar" in sys.argv:
        os.fdatasync = lambda _descriptor: None  # type: ignore[assignment]
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def say(text: str) -> None:
        os.write(said, f"{text} {time.monotonic_ns()}\n".encode())

    rng = random.Random(seed)
    box = Outbox(folder / "outbox.db", SystemClock(), device="cell-1", resend_after_s=0.3)
    say(f"epoch {box.epoch}")
    ending.begin(box, "boot-1")
    threading.Thread(target=_tick, args=(say,), daemon=True).start()
    until = time.monotonic() + seconds
    on_way: list[Batch] = []
    sequence = 0
    while time.monotonic() < until:
        for _ in range(rng.randint(1, 6)):
            sequence += 1
            seq = box.put_inspection(records.inspection(sequence=sequence), line_run="run7")
            say(f"put {seq} {sequence}")
        if rng.random() < 0.2:
            box.emit_counters()
        if rng.random() < 0.4 and (batch := box.next_batch(Lane.INSPECTIONS, 20_000)) is not None:
            say(f"sent {min(e.seq for e in batch.entries)} {max(e.seq for e in batch.entries)}")
            on_way.append(batch)
        if on_way and rng.random() < 0.3:
            batch = on_way.pop(0)
            say(f"settling {batch.entries[0].seq} {batch.entries[-1].seq}")
            box.settle(batch.epoch, batch.lane, [SeqRange(first=e.seq, last=e.seq) for e in batch.entries])
        time.sleep(rng.uniform(0.0, 0.05))
    os._exit(0)


def _tick(say: object) -> None:
    """Note when the machine gave us no processor time: the flusher had none either."""
    before = time.monotonic_ns()
    while True:
        time.sleep(TICK_S)
        now = time.monotonic_ns()
        if now - before > 2 * TICK_S * 1e9:
            say(f"stalled {now - before}")  # type: ignore[operator]
        before = now


if __name__ == "__main__":
    main()
