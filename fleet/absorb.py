"""The seam between ingest and the slices: what ingest hands over, and what a slice answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec
from sqlmodel import Session

from wire.messages import Lane


class Received(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One decoded record of a lane, from a known device, with its place in the device's outbox.

    A struct and no dataclass, since one is made for each record: a third of the time, and none of the collector's.

    Args:
        text: the record as the device wrote it (JSON), with whatever this version of the fleet does not know yet; None
            where nobody has it.
        carried: it came in a file that a person brought, which says nothing of the device being there now.
    """

    device: str
    epoch: str
    lane: Lane
    seq: int
    body: Any
    received_at: datetime
    text: bytes | msgspec.Raw | None = None
    carried: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A record a slice will never take, and why; it goes to quarantine and is settled on the device."""

    message: Received
    code: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Absorbed:
    """What became of the messages: `accepted` counts duplicates too, since they are safely rows already.

    Args:
        duplicates: how many of the accepted were rows before, where the slice can tell.
    """

    accepted: int
    refused: tuple[Refused, ...] = ()
    duplicates: int = 0


class Slice(Protocol):
    """A slice of the fleet that takes records of one lane into its own tables."""

    def absorb(self, session: Session, messages: Sequence[Received]) -> Absorbed:
        """Write the records in the session's open transaction; never commits, never publishes."""
