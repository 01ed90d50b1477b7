"""Takes model versions in: every file must be here, and index and manifest must say the same."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlmodel import Session, col, select

from fleet.audit import service as audit
from fleet.auth.actor import Actor
from fleet.blobs.store import BlobStore
from fleet.registry.tables import Model, ModelVersion
from wire import codec, package
from wire.errors import LinesideError
from wire.manifest import FILE_NAME, GOLDEN_NAME, GoldenSet, Manifest
from wire.package import PackageFile, PackageIndex

MAX_MANIFEST_BYTES: Final = 256 * 1024
MAX_GOLDEN_BYTES: Final = 4 * 1024 * 1024
MAX_NAMED: Final = 20
MAX_RELEASE: Final = 2**53


def check(blobs: BlobStore, index: PackageIndex) -> Manifest:
    """Check a version's files against its index, and return its manifest. Touches no database.

    Raises:
        LinesideError: `package.incomplete` naming what is missing, `package.invalid` or `model.manifest_invalid`.
    """
    if index.release > MAX_RELEASE:
        raise LinesideError("package.invalid", f"Release {index.release} is too high.", f"Use at most {MAX_RELEASE}.")
    missing: list[str] = []
    for file in index.files:
        stat = blobs.stat(file.digest)
        if stat is None:
            missing.append(f"{file.path} ({file.digest})")
        elif stat.bytes != file.bytes:
            raise LinesideError(
                "package.invalid",
                f"{file.path} has {stat.bytes} bytes, and the index says {file.bytes}.",
                "Build the index anew.",
            )
    if missing:
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        raise LinesideError(
            "package.incomplete",
            f"Not uploaded: {', '.join(missing[:MAX_NAMED])}{more}.",
            "Upload each with PUT /api/v1/blobs/{digest}, then send the index again.",
        )
    manifest = _manifest(blobs, index)
    if (manifest.name, manifest.release) != (index.model, index.release):
        raise LinesideError(
            "package.invalid",
            f"The manifest is of {manifest.name} release {manifest.release}, "
            f"and the index of {index.model} release {index.release}.",
            "Build the index from the same folder.",
        )
    if manifest.labels_file is not None and index.file(manifest.labels_file) is None:
        raise LinesideError("package.incomplete", f"The package has no labels file {manifest.labels_file!r}.")
    _check_golden(blobs, index)
    return manifest


def push(
    session: Session, blobs: BlobStore, index: PackageIndex, *, by: Actor, now: datetime
) -> tuple[ModelVersion, bool]:
    """Register a version; returns it, and whether it is new.

    Raises:
        LinesideError: `resource.conflict` where the release exists with other content, or what `check` raises.
    """
    manifest = check(blobs, index)
    canonical = package.index_bytes(index)
    digest = package.digest_of(index)
    blobs.put(digest, len(canonical), [canonical])  # devices fetch the index like any other file
    row = session.exec(
        select(ModelVersion).where(ModelVersion.model == index.model).where(ModelVersion.release == index.release)
    ).first()
    if row is not None and row.digest != digest:
        raise LinesideError(
            "resource.conflict",
            f"Release {index.release} of {index.model} exists with the digest {row.digest}; a version never changes.",
            "Raise `release` in the manifest, and push again.",
        )
    if row is not None:
        return row, False
    if session.get(Model, index.model) is None:
        session.add(Model(name=index.model, created_at=now))
        session.flush()
    row = ModelVersion(
        digest=digest,
        model=index.model,
        release=index.release,
        task=manifest.task.value,
        bytes=index.total_bytes,
        index_json=canonical.decode(),
        manifest_json=codec.encode(manifest).decode(),
        created_at=now,
        created_by=by.label,
    )
    session.add(row)
    audit.record(
        session,
        actor=by.label,
        action="version.pushed",
        subject=index.model,
        detail={"release": index.release, "digest": digest},
        at=now,
    )
    return row, True


def version(session: Session, model: str, release: int) -> ModelVersion:
    """Return a version.

    Raises:
        LinesideError: `resource.not_found`.
    """
    row = session.exec(
        select(ModelVersion).where(ModelVersion.model == model).where(col(ModelVersion.release) == release)
    ).first()
    if row is None:
        raise LinesideError(
            "resource.not_found", f"There is no release {release} of {model!r}.", "See `lineside-fleet models list`."
        )
    return row


def _manifest(blobs: BlobStore, index: PackageIndex) -> Manifest:
    file = index.file(FILE_NAME)
    if file is None:
        raise LinesideError("package.invalid", f"The package index names no {FILE_NAME}.")
    with tempfile.TemporaryDirectory(prefix="lineside-manifest-") as folder:
        path = Path(folder) / FILE_NAME
        path.write_bytes(_read(blobs, file, MAX_MANIFEST_BYTES))
        try:
            return package.read_manifest(path)
        except LinesideError as error:
            plain = error.message.replace(f"{folder}/", "")
            raise LinesideError(error.code, plain, error.next_step) from error


def _check_golden(blobs: BlobStore, index: PackageIndex) -> None:
    file = index.file(GOLDEN_NAME)
    if file is None:
        return
    try:
        golden = codec.decode(_read(blobs, file, MAX_GOLDEN_BYTES), GoldenSet)
    except LinesideError as error:
        raise LinesideError("package.invalid", f"{GOLDEN_NAME}: {error.message}", error.next_step) from error
    for sample in golden.samples:
        if index.file(sample.picture) is None and index.file(f"golden/{sample.picture}") is None:
            raise LinesideError("package.incomplete", f"{GOLDEN_NAME} names {sample.picture!r}, which is not there.")


def _read(blobs: BlobStore, file: PackageFile, limit: int) -> bytes:
    if file.bytes > limit:
        raise LinesideError("package.invalid", f"{file.path} is over {limit} bytes.")
    return b"".join(blobs.open(file.digest))
