"""Blobs over HTTP: devices and releasers upload them, whoever has a credential reads them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request
from starlette.responses import Response, StreamingResponse

from fleet.auth.actor import Actor, Kind, Role
from fleet.auth.guard import AnyActor
from fleet.blobs import ranges
from fleet.blobs.store import BlobStat
from fleet.web import Fleet, TheFleet, chunks_of
from wire import package
from wire.errors import LinesideError

log = logging.getLogger(__name__)
router = APIRouter(tags=["blobs"])
_MAGIC: Final = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"))
# A blob is whatever somebody uploaded: a browser must not run it as a page of ours.
_HEADERS: Final = {
    "Accept-Ranges": "bytes",
    "Cache-Control": "private, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
}

DigestPath = Annotated[str, Path(description="SHA-256 in small hexadecimal digits.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobView:
    """A stored blob."""

    digest: str
    bytes: int


@router.get("/blobs/{digest}", response_class=StreamingResponse)
def read_blob(_actor: AnyActor, request: Request, fleet: TheFleet, digest: DigestPath) -> Response:
    """Return a blob or one range of it."""
    stat = _stat(fleet, digest)
    headers = {**_HEADERS, "ETag": f'"{digest}"'}
    if _names(request.headers.get("if-none-match"), digest):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    condition = request.headers.get("if-range")
    wanted = request.headers.get("range") if condition is None or _names(condition, digest) else None
    try:
        span = ranges.span_of(wanted, stat.bytes)
    except ranges.Unsatisfiable as error:
        raise LinesideError(
            "request.range_unsatisfiable", f"The blob has {stat.bytes} bytes.", "Ask for bytes before its end."
        ) from error
    media_type = _media_type(fleet, digest)
    if span is None:
        headers["Content-Length"] = str(stat.bytes)
        return StreamingResponse(fleet.blobs.open(digest), media_type=media_type, headers=headers)
    headers["Content-Length"] = str(span.end - span.start)
    headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{stat.bytes}"
    body = _limited(fleet.blobs.open(digest, span.start), span.end - span.start)
    return StreamingResponse(body, status_code=HTTPStatus.PARTIAL_CONTENT, media_type=media_type, headers=headers)


@router.head("/blobs/{digest}")
def stat_blob(actor: AnyActor, fleet: TheFleet, digest: DigestPath) -> Response:
    """Tell whether a blob is there, and its size; to whoever may push versions, one that was damaged is not there."""
    stat = _stat(fleet, digest)
    if not _is_kept(actor, fleet, digest):
        raise LinesideError("resource.not_found", f"The blob {digest} is damaged.", "Upload it again.")
    headers = {**_HEADERS, "ETag": f'"{digest}"', "Content-Length": str(stat.bytes)}
    return Response(headers=headers, media_type=_media_type(fleet, digest))


@router.put("/blobs/{digest}", status_code=HTTPStatus.CREATED)
def write_blob(actor: AnyActor, request: Request, fleet: TheFleet, digest: DigestPath) -> Response:
    """Store a blob: 201 when it is new or replaces one that was damaged, 200 when it was there."""
    if actor.kind is not Kind.DEVICE and not actor.may(Role.RELEASER):
        raise LinesideError(
            "access.forbidden", f"{actor.label} may not upload blobs.", f"Use a token with the role {Role.RELEASER}."
        )
    length = _length(request)
    limit = fleet.settings.max_picture_bytes if actor.kind is Kind.DEVICE else package.MAX_FILE_BYTES
    if length is not None and length > limit:
        raise _too_large(limit)
    chunks = _at_most(chunks_of(request), limit)
    if fleet.blobs.stat(digest) is not None and _is_kept(actor, fleet, digest):
        for _ in chunks:  # read to the end, so that the connection stays usable
            pass
        new = False
    else:
        new = fleet.blobs.put(digest, length, chunks)
    stat = _stat(fleet, digest)
    return Response(
        b'{"digest":"%s","bytes":%d}' % (digest.encode(), stat.bytes),
        status_code=HTTPStatus.CREATED if new else HTTPStatus.OK,
        media_type="application/json",
    )


def _is_kept(actor: Actor, fleet: Fleet, digest: str) -> bool:
    """Tell whether a blob need not be sent again; it is read only for who pushes versions, since devices ask often."""
    if actor.kind is Kind.DEVICE or not actor.may(Role.RELEASER):
        return True
    whole = fleet.blobs.is_whole(digest)
    if not whole:
        log.error("The blob %s is damaged on the disk.", digest, extra={"event": "blob.damaged"})
    return whole


def _stat(fleet: Fleet, digest: str) -> BlobStat:
    stat = fleet.blobs.stat(digest)
    if stat is None:
        raise LinesideError("resource.not_found", f"There is no blob {digest}.", "Upload it first.")
    return stat


def _names(header: str | None, digest: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in (header or "").split(",")]
    return f'"{digest}"' in tags or "*" in tags


def _media_type(fleet: Fleet, digest: str) -> str:
    start = next(fleet.blobs.open(digest), b"")
    return next((kind for magic, kind in _MAGIC if start.startswith(magic)), "application/octet-stream")


def _length(request: Request) -> int | None:
    text = request.headers.get("content-length")
    return int(text) if text is not None and text.isdecimal() else None


def _too_large(limit: int) -> LinesideError:
    return LinesideError("request.too_large", f"This upload may have at most {limit} bytes.", "Send a smaller file.")


def _limited(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        yield piece[:count]
        count -= len(piece)
        if count <= 0:
            return


def _at_most(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise _too_large(limit)
        yield chunk
