"""The fleet's HTTP API as the device uses it: bounded in bytes and time, and never led elsewhere by a redirect."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import httpx

from wire import codec, ids
from wire.desired import Desired
from wire.enrolment import Enrolment, EnrolmentRequest
from wire.errors import REGISTER, LinesideError

T = TypeVar("T")

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
MAX_PROBLEM_BYTES: Final = 64 * 1024
# A transfer that is slower than this is given up: time for n bytes = PATIENCE_S + n / SLOWEST_BYTES_PER_S.
SLOWEST_BYTES_PER_S: Final = 32 * 1024
PATIENCE_S: Final = 30.0
_CODE_OF_STATUS: Final = {
    401: "access.unauthenticated",
    403: "access.forbidden",
    404: "resource.not_found",
    409: "resource.conflict",
    412: "resource.stale",
    413: "request.too_large",
    422: "request.invalid",
}


class ApiError(LinesideError):
    """A request that did not succeed.

    Args:
        status: what the fleet answered with, None where it did not answer.
    """

    def __init__(self, code: str, message: str, next_step: str = "", *, status: int | None = None) -> None:
        super().__init__(code, message, next_step)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is used of an `application/problem+json` answer."""

    title: str = ""
    detail: str | None = None
    code: str = ""
    next_step: str = ""


class FleetApi:
    """Requests to one fleet; may be used by several threads.

    Proxies of the environment are not used: a device talks to its fleet and to nobody else.

    Args:
        base_url: `http://host:port`, without a path.
        device: this device.
        credential: what enrolment gave; None before it.
        connect_s: bound for reaching the fleet.
        silence_s: bound for the time in which nothing comes or goes.
        patience_s: bound for a whole answer, beside the time its bytes need at the slowest accepted pace.
    """

    def __init__(
        self,
        base_url: str,
        device: str,
        credential: str | None = None,
        *,
        connect_s: float = 5.0,
        silence_s: float = 15.0,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._device = device
        self._patience_s = patience_s
        headers = {"Accept-Encoding": "identity", "User-Agent": f"lineside-agent/{device}"}
        if credential is not None:
            headers["Authorization"] = f"Bearer {credential}"
        self._client = httpx.Client(
            base_url=base_url,
            headers=headers,
            timeout=httpx.Timeout(silence_s, connect=connect_s),
            limits=httpx.Limits(max_connections=4, max_keepalive_connections=2, keepalive_expiry=30),
            follow_redirects=False,
            trust_env=False,
        )

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def enrol(self, request: EnrolmentRequest) -> Enrolment:
        """Show a claim token and get this device's credential.

        Raises:
            LinesideError: `claim.invalid`, `network.*`, `access.*` or what else the fleet says.
        """
        with self._exchange("POST", "/api/v1/enrolments", content=codec.encode(request), json=True) as answer:
            enrolment = self._decoded(answer, Enrolment)
        if enrolment.device != request.device:
            raise ApiError("network.bad_answer", f"The fleet enrolled {enrolment.device!r}, not {request.device!r}.")
        return enrolment

    def desired(self, etag: str | None) -> tuple[Desired, str] | None:
        """Read the desired document.

        Args:
            etag: what came with the document in hand, None where there is none.

        Returns:
            The document and its ETag, None where the one in hand is still the latest.

        Raises:
            LinesideError: `network.*`, `access.*`, `resource.not_found`.
        """
        headers = {} if etag is None else {"If-None-Match": etag}
        with self._exchange("GET", f"/api/v1/devices/{self._device}/desired", headers=headers) as answer:
            if answer.status_code == httpx.codes.NOT_MODIFIED:
                return None
            document = self._decoded(answer, Desired)
            latest = answer.headers.get("ETag", "")
        if document.device != self._device or not latest:
            raise ApiError("network.bad_answer", f"The fleet's desired document is for {document.device!r}.")
        return document, latest

    def fetch_blob(self, digest: str, path: Path, max_bytes: int) -> int:
        """Download a blob; `path` exists afterwards only with exactly the bytes of `digest`, durably.

        Args:
            digest: SHA-256 of the blob.
            path: where to; `<path>.part` is used meanwhile.
            max_bytes: more are not taken.

        Returns:
            The blob's length.

        Raises:
            LinesideError: `deployment.digest_mismatch`, `deployment.download_failed` (try again later),
                `resource.not_found`, `access.*`, or `storage.full`.
        """
        part = path.with_name(f"{path.name}.part")
        try:
            with self._exchange("GET", f"/api/v1/blobs/{_checked(digest)}") as answer:
                length, found = self._save(answer, part, max_bytes)
            if found != digest:
                raise ApiError(
                    "deployment.digest_mismatch",
                    f"The fleet sent other bytes than were asked for: {found[:12]}... instead of {digest[:12]}...",
                )
            part.replace(path)
            _sync_folder(path.parent)
        except LinesideError as error:
            part.unlink(missing_ok=True)
            if error.code.startswith("network."):
                raise _failed_download(digest, error.message) from error
            raise
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise _disk_error(path, error) from error
        return length

    def put_blob(self, digest: str, data: bytes) -> bool:
        """Upload a blob unless the fleet has it; return whether bytes were sent.

        Raises:
            LinesideError: `network.*`, `access.*`, or what else the fleet says; `ApiError.status` has the status.
        """
        url = f"/api/v1/blobs/{_checked(digest)}"
        try:
            with self._exchange("HEAD", url):
                return False
        except ApiError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
        with self._exchange("PUT", url, content=data, headers={"Content-Type": "application/octet-stream"}):
            return True

    @contextlib.contextmanager
    def _exchange(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        json: bool = False,
    ) -> Iterator[httpx.Response]:
        """Send a request; yields answers that are a success or 304, and raises for all others."""
        sent = {**(headers or {}), **({"Content-Type": "application/json"} if json else {})}
        try:
            with self._client.stream(method, url, content=content, headers=sent) as answer:
                if not answer.is_success and answer.status_code != httpx.codes.NOT_MODIFIED:
                    raise self._refusal(answer)
                yield answer
        except httpx.TimeoutException as error:
            raise ApiError("network.unreachable", f"{self._client.base_url} did not answer in time.") from error
        except httpx.RemoteProtocolError as error:
            raise ApiError(
                "network.bad_answer", f"{self._client.base_url} broke off its answer: {str(error).rstrip('.')}."
            ) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ApiError(
                "network.unreachable",
                f"{self._client.base_url} cannot be reached: {str(error).rstrip('.')}.",
                "Check [fleet] url, and that the fleet runs there.",
            ) from error

    def _pieces(self, answer: httpx.Response, max_bytes: int) -> Iterator[bytes]:
        """Yield an answer's body, at most so many bytes and for so long."""
        deadline = time.monotonic() + self._patience_s + max_bytes / SLOWEST_BYTES_PER_S
        received = 0
        if int(answer.headers.get("Content-Length") or 0) > max_bytes:
            raise ApiError("network.bad_answer", f"The fleet's answer is over {max_bytes} bytes.")
        for piece in answer.iter_raw():  # a chunk size would have it wait for a full chunk, past the deadline
            received += len(piece)
            if received > max_bytes:
                raise ApiError("network.bad_answer", f"The fleet's answer is over {max_bytes} bytes.")
            if time.monotonic() > deadline:
                raise ApiError("network.unreachable", "The fleet's answer comes too slowly.")
            yield piece

    def _decoded(self, answer: httpx.Response, kind: type[T]) -> T:
        body = b"".join(self._pieces(answer, MAX_ANSWER_BYTES))
        try:
            return codec.decode(body, kind)
        except LinesideError as error:
            raise ApiError("network.bad_answer", f"The fleet's answer cannot be read: {error.message}") from error

    def _save(self, answer: httpx.Response, part: Path, max_bytes: int) -> tuple[int, str]:
        digest = hashlib.sha256()
        length = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(part, flags, 0o644), "wb") as stream:
            for piece in self._pieces(answer, max_bytes):
                digest.update(piece)
                stream.write(piece)
                length += len(piece)
            stream.flush()
            os.fsync(stream.fileno())
        return length, digest.hexdigest()

    def _refusal(self, answer: httpx.Response) -> ApiError:
        status = answer.status_code
        if answer.is_redirect:
            where = answer.headers.get("Location", "?")[:200]
            return ApiError(
                "network.bad_answer", f"The fleet redirects to {where}; that is not followed.", status=status
            )
        problem = Problem()
        with contextlib.suppress(LinesideError, httpx.HTTPError, ValueError):
            body = b"".join(self._pieces(answer, MAX_PROBLEM_BYTES))
            if "json" in answer.headers.get("Content-Type", ""):
                problem = codec.decode(body, Problem)
        code = _CODE_OF_STATUS.get(status, "network.bad_answer")
        if problem.code in REGISTER and REGISTER[problem.code].http_status == status:
            code = problem.code
        if status == httpx.codes.UNAUTHORIZED:
            return ApiError(
                code,
                f"The fleet does not take the credential of {self._device}.",
                "Enrol this device again (lineside enroll), then start the agent again.",
                status=status,
            )
        text = problem.detail or problem.title or f"The fleet answered with status {status}."
        return ApiError(code, text[:500], problem.next_step[:500], status=status)


def _checked(digest: str) -> str:
    if not ids.is_digest(digest):
        raise ApiError("request.invalid", f"{digest[:80]!r} is no SHA-256.")
    return digest


def _failed_download(digest: str, why: str) -> ApiError:
    return ApiError("deployment.download_failed", f"Blob {digest} could not be downloaded: {why}", "It is tried again.")


def _disk_error(path: Path, error: OSError) -> ApiError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ApiError(
            "storage.full", f"{path} cannot be written: {error.strerror}.", "Make room on the device's disk."
        )
    return ApiError("deployment.download_failed", f"{path} cannot be written: {error}.", "Look at the device's disk.")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
