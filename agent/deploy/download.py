"""Fetches a version blob by blob: first its index, then each file that is not on disk yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from agent.deploy.part import Part
from agent.deploy.store import Store
from wire.errors import LinesideError

MAX_INDEX_BYTES: Final = 1024 * 1024


class BlobSource(Protocol):
    """Where blobs come from; `agent.uplink.fleet_api.FleetApi` in the product."""

    def fetch_blob(self, digest: str, part: Part, max_bytes: int, *, exact: bool, go_on: Callable[[], bool]) -> bool:
        """Write what is missing of a blob to the end of `part`, or all of it anew; what has come stays when it raises.

        Args:
            max_bytes: the blob's length where `exact`, else a limit.
            go_on: asked after each piece; False cuts it short.

        Returns:
            Whether the end was reached; the bytes have not been checked.

        Raises:
            LinesideError: `network.unreachable` where waiting helps, `deployment.download_failed`,
                `resource.not_found` and others where the fleet answers, but not as it should.
        """


def fetch_next(store: Store, api: BlobSource, digest: str, go_on: Callable[[], bool]) -> bool:
    """Fetch the next blob of a version that is missing, if any.

    Returns:
        Whether the version is complete.

    Raises:
        LinesideError: what the source raises, `deployment.digest_mismatch` where the bytes that came are others,
            `package.invalid` where the index is not one, `storage.full`.
    """
    index = store.mended_index(digest)
    if index is None:
        _fetch(store, api, digest, MAX_INDEX_BYTES, exact=False, go_on=go_on)
        return False
    store.mend_blobs(digest, index)
    missing = store.missing(index)
    if missing and not _fetch(store, api, missing[0].digest, missing[0].bytes, exact=True, go_on=go_on):
        return False
    return len({file.digest for file in missing}) <= 1


def is_complete(store: Store, digest: str) -> bool:
    """Tell whether all of a version is on disk under its own names, so that nothing of it is written any more."""
    try:
        index = store.index(digest)
    except LinesideError:
        index = None
    return index is not None and not store.missing(index)


def bytes_to_come(store: Store, digest: str) -> int:
    """Return how many bytes a version still needs on disk; a guess from above until its index has come."""
    try:
        index = store.index(digest)
    except LinesideError:
        index = None
    if index is None:
        return MAX_INDEX_BYTES
    missing = {file.digest: file.bytes for file in store.missing(index)}
    here = sum(store.part_bytes(one) for one in missing)
    return max(0, sum(missing.values()) - here)


def _fetch(
    store: Store, api: BlobSource, digest: str, max_bytes: int, *, exact: bool, go_on: Callable[[], bool]
) -> bool:
    with store.part(digest) as part:
        if part.length > max_bytes or not exact:  # an index is short, and its length is not known beforehand
            part.restart()
        if (part.length < max_bytes or not exact) and not api.fetch_blob(
            digest, part, max_bytes, exact=exact, go_on=go_on
        ):
            return False
        found = part.digest()
        if found != digest:
            part.restart()
            raise LinesideError(
                "deployment.digest_mismatch",
                f"Other bytes came than were asked for: {found[:12]} instead of {digest[:12]}.",
                "Look at the blob store of the fleet, and at what stands between it and the device.",
            )
        store.adopt(digest)
    return True
