"""One part on its way through a station, from its trigger to its record."""

from __future__ import annotations

import dataclasses
from concurrent.futures import Future
from dataclasses import dataclass

from agent.capture.feed import Lease
from agent.inspection import records
from agent.inspection.records import Seen
from agent.inspection.setup import StationSetup
from agent.line.trigger import Trigger
from wire.inspection import Reason
from wire.sampling import Draw


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is known of a part when its frames are there.

    Args:
        ticket: its place in the order of records.
        due_ns: monotonic; a later verdict is none.
        frames: of each of the setup's views, or why there is none.
        pictures: digests of those that are kept, when they have been encoded.
    """

    ticket: int
    id: str
    trigger: Trigger
    due_ns: int
    setup: StationSetup
    draw: Draw
    frames: tuple[Lease | Reason, ...]
    retrieve_ms: float
    pictures: tuple[Future[str | None] | None, ...]


def without_verdict(part: Part) -> list[Seen]:
    """Return the views of a part that a fault of ours kept from being judged."""
    return [
        Seen(
            record=records.view_without_verdict(view, Reason.RUNTIME_ERROR),
            judgement=records.nothing(Reason.RUNTIME_ERROR),
        )
        for view in part.setup.views
    ]


def release(part: Part) -> None:
    """Give the frames back, when nobody reads their pixels any more: they belong to somebody else from then on."""
    for picture in part.pictures:
        if picture is not None and not picture.cancel():
            picture.exception()
    for frame in part.frames:
        if isinstance(frame, Lease):
            frame.release()


def with_pictures(seen: list[Seen], part: Part) -> tuple[list[Seen], bool]:
    """Name the kept pictures in their records; a part counts as kept only if each of its pictures found room."""
    if not any(picture is not None for picture in part.pictures):
        return seen, False
    digests = [picture.result() if picture is not None else None for picture in part.pictures]
    kept = all(
        digest is not None for digest, frame in zip(digests, part.frames, strict=True) if isinstance(frame, Lease)
    )
    named = [
        dataclasses.replace(one, record=dataclasses.replace(one.record, picture_digest=digest))
        for one, digest in zip(seen, digests, strict=True)
    ]
    return named, kept
