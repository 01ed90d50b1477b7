"""Which shards an ingest takes: worker `number` of `of` takes each `of`-th, so that together they take all. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from wire import ids, topics
from wire.errors import LinesideError

_FORM: Final = re.compile(r"([0-9]{1,2})/([0-9]{1,2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A worker's part of all devices.

    Args:
        number: from 1 to `of`.
        of: how many workers there are; all of them must run.
    """

    number: int = 1
    of: int = 1

    @property
    def shards(self) -> tuple[int, ...]:
        """The numbers of its shards, of which there are `wire.ids.SHARDS`."""
        return tuple(range(self.number - 1, ids.SHARDS, self.of))

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """The topics it subscribes to."""
        if self.of == 1:
            return (topics.ALL_UP,)
        return tuple(topics.ALL_UP.replace("+", f"{shard:02x}", 1) for shard in self.shards)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


WHOLE: Final = Share()


def parse(text: str) -> Share:
    """Read a share as people write it: `2/4`.

    Raises:
        LinesideError: `usage.invalid`.
    """
    found = _FORM.fullmatch(text)
    if found is not None:
        number, of = int(found[1]), int(found[2])
        if 1 <= number <= of <= ids.SHARDS:
            return Share(number=number, of=of)
    raise LinesideError(
        "usage.invalid",
        f"{text!r} is no share of the devices.",
        f"Write 2/4 for the second of 4, at most {ids.SHARDS}.",
    )
