"""Holds an ingest's shards of a data folder, so that no two processes take in the same devices' messages twice."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fleet.ingest.shards import Share
from wire.errors import LinesideError

FILE_NAME: Final = "ingest.lock"


@contextlib.contextmanager
def hold(folder: Path, share: Share) -> Iterator[None]:
    """Lock one byte for each shard until the end of the block, or of the process.

    Two that take the same would lose nothing, and double nothing: each record is a row once. They would only do the
    work twice.

    Raises:
        LinesideError: `resource.conflict`.
    """
    with (folder / FILE_NAME).open("a") as file:
        for shard in share.shards:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, shard)
            except OSError as error:
                raise LinesideError(
                    "resource.conflict",
                    f"Another ingest of {folder} takes the same devices already.",
                    "End it, give each worker another share (--worker 1/2, 2/2), or serve with --ingest elsewhere.",
                ) from error
        yield
