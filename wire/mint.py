"""Makes ids and secrets: the only part of `wire` that touches the clock and random numbers."""

from __future__ import annotations

import secrets
import threading
import time
import uuid

_MILLISECOND_BITS = 48
_RANDOM_BITS = 62


def clock_ms() -> int:
    """Return the wall clock in milliseconds since 1970, wrong clocks included."""
    return time.time_ns() // 1_000_000


class Mint:
    """Makes UUIDv7 ids that never go backwards, even where the clock does.

    The time part is max(clock, high-water mark); within one millisecond a 12-bit counter keeps the order (RFC 9562,
    section 6.2, method 1). Persist `high_water_ms` and give it back at the next start.
    """

    def __init__(self, high_water_ms: int = 0) -> None:
        self._lock = threading.Lock()
        self._last_ms = high_water_ms
        self._counter = 0

    @property
    def high_water_ms(self) -> int:
        """The latest time in any id made so far, in milliseconds since 1970."""
        return self._last_ms

    def uuid7(self) -> str:
        """Return a new id in its 36-character form."""
        with self._lock:
            now_ms = clock_ms()
            if now_ms > self._last_ms:
                self._last_ms = now_ms
                self._counter = secrets.randbits(11)
            elif self._counter < 0xFFF:
                self._counter += 1
            else:
                self._last_ms += 1
                self._counter = 0
            time_ms, counter = self._last_ms & ((1 << _MILLISECOND_BITS) - 1), self._counter
        value = (time_ms << 80) | (0x7 << 76) | (counter << 64) | (0b10 << 62) | secrets.randbits(_RANDOM_BITS)
        return str(uuid.UUID(int=value))


def time_ms_of(uuid7: str) -> int:
    """Return the time part of a UUIDv7, in milliseconds since 1970."""
    return uuid.UUID(uuid7).int >> 80


def epoch_id() -> str:
    """Return the random id of one outbox file."""
    return secrets.token_hex(8)


def secret(prefix: str) -> str:
    """Return a new credential of 256 random bits, with a prefix that tells a person what it is for."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def salt() -> str:
    """Return the salt of one revision of a sampling plan."""
    return secrets.token_hex(16)
