"""What a device's export file holds: a head, then batches as they would have travelled, one JSON object a line.

The fleet takes the batches as if they had come over MQTT: what it has already changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from wire.ids import Count, Name, ShortText
from wire.inspection import Utc

SCHEMA_ID: Final = "lineside.export/1"
MAX_LINE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportHead:
    """The first line of an export file; each further line is a `wire.messages.Batch` of the same device.

    Args:
        batches: how many lines follow.
        entries: how many records they hold; 0 where the device had nothing to tell.
    """

    schema: Literal["lineside.export/1"] = SCHEMA_ID
    device: Name
    at: Utc
    agent_version: ShortText
    batches: Count
    entries: Count
