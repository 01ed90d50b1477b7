"""Verifies a downloaded version: every byte, its index and manifest against what was asked for, and its needs."""

from __future__ import annotations

from typing import Final

from agent.deploy import compatibility
from agent.deploy.attempt import Attempt
from agent.deploy.store import Store
from wire import package
from wire.errors import LinesideError

# Of a version to go back to, whose index was damaged on disk; its digest says well enough which one is meant.
RELEASE_UNKNOWN: Final = 0


def verify(store: Store, attempt: Attempt, device: compatibility.DeviceFacts) -> package.Package:
    """Check a version and make its folder.

    The rules in order: the index is the one its digest names, and speaks of the model and release asked for; every file
    has the bytes the index names; the files make up a package of that very digest, with a valid manifest; this device
    offers what the manifest requires. A recipe's parameters are checked where recipes are.

    Raises:
        LinesideError: `deployment.digest_mismatch` where bytes must be downloaded again (they have been dropped);
            `package.invalid`, `model.manifest_invalid` and those of `compatibility.check` where the version is at
            fault; `storage.full` or `storage.corrupt` where the disk is.
    """
    index = _index(store, attempt.digest)
    if index.model != attempt.model or attempt.release not in (RELEASE_UNKNOWN, index.release):
        raise LinesideError(
            "package.invalid",
            f"Asked for {attempt.model} release {attempt.release}; "
            f"{attempt.digest[:12]} is {index.model} release {index.release}.",
        )
    damaged = store.damage(index)
    if damaged is not None:
        listed = ", ".join(digest[:12] for digest in damaged.digests[:5])
        raise LinesideError("deployment.digest_mismatch", f"Bytes on disk differ from their digest: {listed}.")
    try:
        verified = store.package(attempt.digest)
    except LinesideError:
        store.materialise(attempt.digest, index)
        verified = _read(store, attempt.digest)
    compatibility.check(verified.manifest.requires, device)
    return verified


def _index(store: Store, digest: str) -> package.PackageIndex:
    index = store.mended_index(digest)
    if index is None:
        raise LinesideError("deployment.digest_mismatch", f"The index of {digest[:12]} is damaged, or has gone.")
    return index


def _read(store: Store, digest: str) -> package.Package:
    """Read the folder just made; every byte in it is right, so what is still wrong lies in the version."""
    try:
        return store.package(digest)
    except LinesideError as error:
        if error.code in ("storage.corrupt", "package.incomplete"):
            raise LinesideError("package.invalid", f"Its files are not what its index says: {error.message}") from error
        raise
