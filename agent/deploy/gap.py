"""How long a station stands without a model where the old version must go before the new one can be built (pure)."""

from __future__ import annotations

from typing import Final

# The self-test has just read the file, and nothing else waited for the disk: days later it is read anew.
_MARGIN: Final = 1.5
# Twice every station comes between two parts, and the memory of the old version is given back.
_SWAPS_S: Final = 0.2


def expected_s(load_ms: float) -> float:
    """Return the seconds to tell people beforehand.

    Args:
        load_ms: what the self-test measured on this device, from the file to a session that has looked a few times.
    """
    return _MARGIN * load_ms / 1000.0 + _SWAPS_S
