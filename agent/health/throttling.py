"""Tells whether the processor runs below its speed because of heat or a weak supply, where the kernel says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

_SYS: Final = Path("/sys")
# Of a Raspberry Pi's firmware word, the bits that speak of now; those above speak of what happened since it started.
_NOW_BITS: Final = 0b1111  # under-voltage, frequency capped, throttled, soft temperature limit
# Cooling devices of the kernel that cool by slowing the processor down; fans are none of them.
_SLOWING: Final = ("processor", "cpufreq", "thermal-cpufreq", "cpuidle", "thermal-idle", "intel_powerclamp")


class Throttling:
    """Reads every place a kernel has for it; one throttled core is enough.

    Args:
        sys: the folder that holds the kernel's tree.
    """

    def __init__(self, sys: Path = _SYS) -> None:
        self._sys = sys
        self._counts: dict[Path, int] = dict(self._throttle_counts())

    def read(self) -> bool | None:
        """Return whether the processor is throttled now, or was since the last call; None where nothing tells."""
        told = [*self._firmware(), *self._cooling(), *self._counted()]
        return any(told) if told else None

    def _firmware(self) -> Iterator[bool]:
        """A Raspberry Pi's own word, in hexadecimal digits."""
        for path in sorted(self._sys.glob("devices/platform/soc/*/get_throttled")):
            word = _number(path, base=16)
            if word is not None:
                yield bool(word & _NOW_BITS)

    def _cooling(self) -> Iterator[bool]:
        """Steps that the kernel's thermal governor has taken; 0 is none."""
        for folder in sorted(self._sys.glob("class/thermal/cooling_device*")):
            kind = _text(folder / "type")
            state = _number(folder / "cur_state")
            if kind is not None and state is not None and kind.lower().startswith(_SLOWING):
                yield state > 0

    def _counted(self) -> Iterator[bool]:
        """Intel's and AMD's counters of throttling events: it happened where one has grown."""
        for path, count in self._throttle_counts():
            known = self._counts.get(path, count)
            self._counts[path] = count
            yield count > known

    def _throttle_counts(self) -> Iterator[tuple[Path, int]]:
        for path in sorted(self._sys.glob("devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count")):
            count = _number(path)
            if count is not None:
                yield path, count


def _number(path: Path, base: int = 10) -> int | None:
    text = _text(path)
    try:
        return int(text, base) if text is not None else None
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
