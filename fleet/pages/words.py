"""How the pages put figures and times into words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from wire.inspection import Verdict

VERDICTS: Final = tuple(verdict.value for verdict in Verdict)
BAR_WIDTH: Final = 100.0
_STEPS: Final = ((60, 1, "s"), (3600, 60, "min"), (48 * 3600, 3600, "h"))


def age(seconds: float) -> str:
    """Return how long ago something was: `4 s ago`, `3 min ago`, `5 h ago`, `2 d ago`."""
    if seconds < 1:
        return "now"
    for below, unit, name in _STEPS:
        if seconds < below:
            return f"{int(seconds // unit)} {name} ago"
    return f"{int(seconds // 86400)} d ago"


def stamp(moment: datetime) -> str:
    """Return a moment for a machine: ISO 8601, UTC, milliseconds."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def stamp_or_none(moment: datetime | None) -> str | None:
    """Return a moment for a machine, None where there is none."""
    return stamp(moment) if moment is not None else None


def clock(moment: datetime) -> str:
    """Return a moment for a person, on the UTC clock."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def short(digest: str | None) -> str:
    """Return the part of a digest people compare by eye."""
    return digest[:8] if digest else "none"


def size(count: float) -> str:
    """Return bytes in words: `512 B`, `3.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def plural(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def bar(counts: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Return where each verdict's part of a bar of 100 units begins and how wide it is.

    A verdict that occurred at all is at least 1.5 units wide: one NG in a thousand must not be invisible.
    """
    total = sum(counts.values())
    if total == 0:
        return {verdict: {"x": 0.0, "width": 0.0} for verdict in VERDICTS}
    widths = {
        verdict: max(1.5, BAR_WIDTH * counts[verdict] / total) if counts.get(verdict) else 0.0 for verdict in VERDICTS
    }
    scale = BAR_WIDTH / sum(widths.values())
    parts: dict[str, dict[str, float]] = {}
    x = 0.0
    for verdict, width in widths.items():
        parts[verdict] = {"x": round(x, 2), "width": round(width * scale, 2)}
        x += width * scale
    return parts
