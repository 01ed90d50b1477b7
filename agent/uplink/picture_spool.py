"""The folder where kept pictures wait: bounded, and when it is full the pictures that go are not the oldest or newest.

What goes is decided by the draw alone, so that what stays is still a sample of known probabilities (accuracy.md 1):
the pictures with the largest u/pi go first, those of the gate's sample only when no other is left. The smallest u/pi
that ever went in an hour is that hour's tau, and the effective inclusion of a part of the hour is min(1, pi * tau).

Pictures outside of every sampling plan (of a candidate that disagrees) have no draw. They go before all others and no
tau knows of them: neither their coming nor their going changes what an estimate is made of.
"""

from __future__ import annotations

import bisect
import enum
import json
import logging
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from wire import ids
from wire.errors import LinesideError
from wire.messages import PictureWindow
from wire.sampling import Draw

log = logging.getLogger(__name__)

KEPT_WINDOWS: Final = 24
MAX_COUNT_DEFAULT: Final = 5000
_WINDOWS_FILE: Final = "windows.json"
_RANK_SCALE: Final = 2**53


class Claim(enum.IntEnum):
    """Why a picture is kept, the best right to its room first; the number stands in its file's name."""

    GATE = 0  # of the gate's sample
    SAMPLE = 1
    EXTRA = 2  # outside of the sampling plan


@dataclass(frozen=True, slots=True, order=True)
class Waiting:
    """A picture in the folder; the greater one of two goes first when there is no room.

    Args:
        rank: u/pi of its part, in 2**-53.
        hour: of its part, since 1970.
    """

    claim: Claim
    rank: int
    digest: str
    hour: int
    bytes: int

    @property
    def file_name(self) -> str:
        return f"{self.digest}_{self.hour}_{self.claim.value}_{self.rank:x}"

    @classmethod
    def of(cls, name: str, length: int) -> Waiting | None:
        """Read a file name back; None for one that is none of ours."""
        digest, *rest = name.split("_")
        try:
            hour, claim, rank = int(rest[0]), Claim(int(rest[1])), int(rest[2], 16)
        except (IndexError, ValueError):
            return None
        if not ids.is_digest(digest) or len(rest) != 3:
            return None
        return cls(claim=claim, rank=rank, digest=digest, hour=hour, bytes=length)


class PictureSpool:
    """Pictures under their digest, the oldest first; safe for several threads.

    Args:
        folder: for this use only; made where it is missing.
        max_bytes, max_count: its bounds.
    """

    def __init__(self, folder: Path, *, max_bytes: int, max_count: int = MAX_COUNT_DEFAULT) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LinesideError(
                "storage.full", f"{folder} cannot be made: {error}.", "Make room on the device's disk."
            ) from error
        self._folder = folder
        self._max_bytes = max_bytes
        self._lent_bytes = 0
        self._max_count = max_count
        self._lock = threading.RLock()
        self._order: dict[str, Waiting] = {}  # by arrival
        self._ranked: list[Waiting] = []
        self._windows = _read_windows(folder)
        self._windows_changed = False
        self.bytes = 0
        self.dropped = 0
        self._sweep()

    def __len__(self) -> int:
        return len(self._order)

    def take(self, digest: str, data: bytes, draw: Draw | None, at: datetime, *, gate_rate: float = 0.0) -> bool:
        """Take a picture; False where others have a better right to the room.

        Args:
            draw: of the picture's part; None for a picture outside of the sampling plan.
            at: when the part was triggered.
            gate_rate: of the sampling plan in force.

        Raises:
            LinesideError: `storage.full` where the disk does not take it; it is then counted as dropped.
        """
        waiting = Waiting(
            claim=_claim(draw, gate_rate),
            rank=0 if draw is None else int(draw.u / draw.pi * _RANK_SCALE),
            digest=digest,
            hour=int(at.timestamp() // 3600),
            bytes=len(data),
        )
        with self._lock:
            try:
                return self._take(waiting, data)
            finally:
                self._keep_windows()

    def oldest(self) -> tuple[str, Path] | None:
        """Return digest and file of the picture that waits longest."""
        with self._lock:
            waiting = next(iter(self._order.values()), None)
            return None if waiting is None else (waiting.digest, self._folder / waiting.file_name)

    def put_last(self, digest: str) -> None:
        """Have all others go before this one."""
        with self._lock:
            waiting = self._order.pop(digest, None)
            if waiting is not None:
                self._order[digest] = waiting

    def forget(self, digest: str, path: Path | None = None) -> None:
        """Remove a picture that needs to wait no longer.

        Args:
            path: only while this is still its file.
        """
        with self._lock:
            waiting = self._order.get(digest)
            if waiting is not None and path in (None, self._folder / waiting.file_name):
                self._strike_out(waiting)
                (self._folder / waiting.file_name).unlink(missing_ok=True)

    def lend(self, count: int) -> int:
        """Give up to `count` bytes of the folder's bound to somebody with more precious things; return how many.

        Pictures that no longer fit go, as always by their draw.
        """
        with self._lock:
            lent = max(0, min(count, self._max_bytes - self._lent_bytes))
            self._lent_bytes += lent
            self._fit()
            self._keep_windows()
            return lent

    def give_back(self, count: int) -> None:
        """Take lent bytes back."""
        with self._lock:
            self._lent_bytes = max(0, self._lent_bytes - count)

    def windows(self) -> tuple[PictureWindow, ...]:
        """Return what went in each of the last hours in which anything did, the latest last."""
        with self._lock:
            return tuple(self._windows[hour] for hour in sorted(self._windows))

    def _take(self, waiting: Waiting, data: bytes) -> bool:
        digest = waiting.digest
        known = self._order.get(digest)
        if known is not None:
            if known.claim is Claim.EXTRA and waiting.claim is not Claim.EXTRA:
                self._raise_claim(known, waiting)
            return True
        if len(data) > self._max_bytes - self._lent_bytes:
            self._note_dropped(waiting)
            return False
        bisect.insort(self._ranked, waiting)
        self._order[digest] = waiting
        self.bytes += waiting.bytes
        self._fit(writing=waiting)
        if digest not in self._order:
            return False
        part = self._folder / f"{digest}.part"
        try:
            part.write_bytes(data)
            part.replace(self._folder / waiting.file_name)
        except OSError as error:
            part.unlink(missing_ok=True)
            self._strike_out(waiting)
            self._note_dropped(waiting)
            raise LinesideError("storage.full", f"A picture cannot be kept: {error}.") from error
        return True

    def _raise_claim(self, known: Waiting, waiting: Waiting) -> None:
        """A picture that waits for another reason turns out to be of the sample: from now on it goes by its draw."""
        (self._folder / known.file_name).replace(self._folder / waiting.file_name)
        self._ranked.pop(bisect.bisect_left(self._ranked, known))
        bisect.insort(self._ranked, waiting)
        self._order[known.digest] = waiting

    def _fit(self, writing: Waiting | None = None) -> None:
        while self._ranked and (self.bytes > self._max_bytes - self._lent_bytes or len(self._ranked) > self._max_count):
            victim = self._ranked[-1]
            self._strike_out(victim)
            if victim is not writing:
                (self._folder / victim.file_name).unlink(missing_ok=True)
            self._note_dropped(victim)

    def _strike_out(self, waiting: Waiting) -> None:
        del self._order[waiting.digest]
        self._ranked.pop(bisect.bisect_left(self._ranked, waiting))
        self.bytes -= waiting.bytes

    def _note_dropped(self, waiting: Waiting) -> None:
        self.dropped += 1
        if waiting.claim is Claim.EXTRA:
            return
        tau = waiting.rank / _RANK_SCALE
        former = self._windows.get(waiting.hour)
        if former is None:
            start = datetime.fromtimestamp(0, UTC) + timedelta(hours=waiting.hour)
            former = PictureWindow(start=start, tau=tau, dropped=0, gate_trimmed=False)
        now = replace(
            former,
            tau=min(former.tau, tau),
            dropped=former.dropped + 1,
            gate_trimmed=former.gate_trimmed or waiting.claim is Claim.GATE,
        )
        self._windows[waiting.hour] = now
        for old in sorted(self._windows)[:-KEPT_WINDOWS]:
            del self._windows[old]
        self._windows_changed = True

    def _keep_windows(self) -> None:
        """Write what was dropped, once for all pictures that went together."""
        if self._windows_changed:
            self._windows_changed = False
            _write_windows(self._folder, self._windows)

    def _sweep(self) -> None:
        found = []
        for path in self._folder.iterdir():
            if path.name == _WINDOWS_FILE:
                continue
            status = path.stat()
            waiting = Waiting.of(path.name, status.st_size)
            if waiting is None:
                path.unlink(missing_ok=True)
            else:
                found.append((status.st_mtime_ns, waiting))
        for _, waiting in sorted(found):
            self._order[waiting.digest] = waiting
            self.bytes += waiting.bytes
        self._ranked = sorted(self._order.values())
        self._fit()
        self._keep_windows()


def _claim(draw: Draw | None, gate_rate: float) -> Claim:
    if draw is None:
        return Claim.EXTRA
    return Claim.SAMPLE if draw.u >= gate_rate else Claim.GATE


def _read_windows(folder: Path) -> dict[int, PictureWindow]:
    try:
        rows = json.loads((folder / _WINDOWS_FILE).read_text(encoding="utf-8"))
        return {
            int(hour): PictureWindow(
                start=datetime.fromtimestamp(0, UTC) + timedelta(hours=int(hour)),
                tau=float(tau),
                dropped=int(dropped),
                gate_trimmed=bool(gate),
            )
            for hour, tau, dropped, gate in rows
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        log.warning("What pictures were dropped is not known: %s.", error, extra={"event": "pictures.windows_lost"})
        return {}


def _write_windows(folder: Path, windows: dict[int, PictureWindow]) -> None:
    rows = [[hour, window.tau, window.dropped, window.gate_trimmed] for hour, window in sorted(windows.items())]
    part = folder / f"{_WINDOWS_FILE}.part"
    try:
        part.write_text(json.dumps(rows), encoding="utf-8")
        part.replace(folder / _WINDOWS_FILE)
    except OSError as error:
        log.warning("What pictures were dropped cannot be noted: %s.", error, extra={"event": "pictures.windows_lost"})
