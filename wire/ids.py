"""Names of devices, stations, models and digests: what is allowed, and the shard a device belongs to."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Final

import msgspec

# Python's `$` also matches before a line feed at the end; `(?!\n)` closes that.
NAME_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$(?!\n)"
DIGEST_PATTERN: Final = r"^[0-9a-f]{64}$(?!\n)"
UUID_PATTERN: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$(?!\n)"

# One MQTT topic level, one path segment, one DNS label: safe in each of them.
Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, description="Small letters, digits and hyphens, at most 64.")]
Digest = Annotated[str, msgspec.Meta(pattern=DIGEST_PATTERN, description="SHA-256 in small hexadecimal digits.")]
Uuid = Annotated[str, msgspec.Meta(pattern=UUID_PATTERN, description="A UUID in its 36-character form.")]
ShortText = Annotated[str, msgspec.Meta(max_length=200)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]

SHARDS: Final = 64


def is_name(text: str) -> bool:
    """Tell whether `text` may name a device, station, view, recipe or model."""
    return re.fullmatch(NAME_PATTERN, text) is not None


def is_digest(text: str) -> bool:
    """Tell whether `text` is a SHA-256 in the one form Lineside writes."""
    return re.fullmatch(DIGEST_PATTERN, text) is not None


def shard_of(device: str) -> str:
    """Return the shard of a device, fixed for ever: two hexadecimal digits from its name's SHA-256."""
    number = hashlib.sha256(device.encode()).digest()[0] % SHARDS
    return f"{number:02x}"
