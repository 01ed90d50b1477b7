"""Fetches a version blob by blob: first its index, then each file that is not on disk yet."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from agent.deploy.store import Store
from wire import package
from wire.errors import LinesideError

MAX_INDEX_BYTES: Final = 1024 * 1024


class BlobSource(Protocol):
    """Where blobs come from; `agent.uplink.fleet_api.FleetApi` in the product."""

    def fetch_blob(self, digest: str, path: Path, max_bytes: int) -> object:
        """Write a blob of at most `max_bytes` to `path`, its digest checked; nothing lies there when it raises.

        Raises:
            LinesideError: `deployment.digest_mismatch`, `deployment.download_failed`, `resource.not_found` and others.
        """


def fetch_next(store: Store, api: BlobSource, digest: str) -> bool:
    """Fetch the next blob of a version that is missing, if any.

    Returns:
        Whether the version is complete.

    Raises:
        LinesideError: what the source raises, `package.invalid` where the index is not one, `storage.full`.
    """
    index = _index(store, digest)
    if index is None:
        _fetch(store, api, digest, MAX_INDEX_BYTES)
        if _index(store, digest) is None:
            raise LinesideError("deployment.digest_mismatch", f"The index fetched is not that of {digest[:12]}.")
        return False
    missing = store.missing(index)
    if missing:
        _fetch(store, api, missing[0].digest, missing[0].bytes)
    return len({file.digest for file in missing}) <= 1


def _index(store: Store, digest: str) -> package.PackageIndex | None:
    """Return the index on disk; one whose bytes are wrong is dropped and counts as none."""
    try:
        return store.index(digest)
    except LinesideError as error:
        if error.code != "deployment.digest_mismatch":
            raise
        store.drop(digest)
        return None


def _fetch(store: Store, api: BlobSource, digest: str, max_bytes: int) -> None:
    api.fetch_blob(digest, store.incoming_path(digest), max_bytes)
    store.adopt(digest)
