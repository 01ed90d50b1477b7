"""Reads a Range header (RFC 9110, section 14.2): one range of bytes, or none. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE = re.compile(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Bytes from `start` to before `end`."""

    start: int
    end: int


class Unsatisfiable(Exception):  # noqa: N818
    """The range lies outside the blob."""


def span_of(header: str | None, total: int) -> Span | None:
    """Return the part asked for; None means the whole, also for forms this server does not serve (several ranges).

    Raises:
        Unsatisfiable: the range begins at or after the end.
    """
    match = _ONE.fullmatch(header.strip()) if header is not None else None
    if match is None or (not match[1] and not match[2]):
        return None
    if not match[1]:
        length = int(match[2])
        if length == 0 or total == 0:
            raise Unsatisfiable
        return Span(start=max(0, total - length), end=total)
    start = int(match[1])
    last = int(match[2]) if match[2] else total - 1
    if match[2] and last < start:
        return None  # not a valid range: to be ignored
    if start >= total:
        raise Unsatisfiable
    return Span(start=start, end=min(last, total - 1) + 1)
