"""The fleet's HTTP API as the device uses it: bounded in bytes and time, and never led elsewhere by a redirect."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol, TypeVar

import httpx

from agent.uplink import blob_answer
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

# The fleet, or the proxy before it, is busy or being started: it will answer another time.
_COME_BACK_LATER: Final = frozenset({408, 425, 429, 502, 503, 504})


class ApiError(LinesideError):
    """A request that did not succeed.

    Args:
        status: what the fleet answered with, None where it did not answer.
        retry_after_s: how long the fleet asks to wait, 0 where it does not.
    """

    def __init__(
        self, code: str, message: str, next_step: str = "", *, status: int | None = None, retry_after_s: float = 0.0
    ) -> None:
        super().__init__(code, message, next_step)
        self.status = status
        self.retry_after_s = retry_after_s


class TooLongError(ApiError):
    """An answer has more bytes than it may have."""


class Part(Protocol):
    """What has come of a blob; `agent.deploy.part.Part` in the product."""

    @property
    def length(self) -> int: ...
    def write(self, piece: bytes) -> None: ...
    def restart(self) -> None: ...


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

    def fetch_blob(self, digest: str, part: Part, max_bytes: int, *, exact: bool, go_on: Callable[[], bool]) -> bool:
        """Add to `part` what it lacks of a blob, or all of it where the fleet begins anew; the bytes are not checked.

        Args:
            digest: SHA-256 of the blob, also its strong ETag.
            part: what came before; it keeps what has come when this raises, unless the answer shows it to be of no use.
            max_bytes: the blob's length where `exact`, else a limit.
            go_on: asked after each piece; False cuts it short.

        Returns:
            Whether the end was reached.

        Raises:
            LinesideError: `network.unreachable` where the fleet is not there, breaks off, or asks to come back later
                (`ApiError.retry_after_s`); `deployment.download_failed`, `resource.not_found` or `access.*` where it
                answers, but not with the blob; what `part` raises.
        """
        url = f"/api/v1/blobs/{_checked(digest)}"
        headers = blob_answer.request_headers(digest, part.length)
        try:
            with self._exchange("GET", url, headers=headers) as answer:
                _place(answer, digest, part, max_bytes, exact=exact)
                for piece in self._pieces(answer, max_bytes - part.length):
                    part.write(piece)
                    if not go_on():
                        return False
        except ApiError as error:
            if isinstance(error, TooLongError) or error.status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.restart()
            raise _download_error(digest, error) from error
        if exact and part.length < max_bytes:
            raise _failed_download(digest, f"The answer ended after {part.length} of {max_bytes} bytes.")
        return True

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
            # A line that breaks, or a server that ends, in mid-answer; anything else is no HTTP.
            is_broken_off = any(word in str(error).lower() for word in ("disconnected", "closed connection"))
            raise ApiError(
                "network.unreachable" if is_broken_off else "network.bad_answer",
                f"{self._client.base_url} broke off its answer: {str(error).rstrip('.')}.",
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
            raise TooLongError("network.bad_answer", f"The fleet's answer is over {max_bytes} bytes.")
        for piece in answer.iter_raw():  # a chunk size would have it wait for a full chunk, past the deadline
            received += len(piece)
            if received > max_bytes:
                raise TooLongError("network.bad_answer", f"The fleet's answer is over {max_bytes} bytes.")
            if time.monotonic() > deadline:
                raise ApiError("network.unreachable", "The fleet's answer comes too slowly.")
            yield piece

    def _decoded(self, answer: httpx.Response, kind: type[T]) -> T:
        body = b"".join(self._pieces(answer, MAX_ANSWER_BYTES))
        try:
            return codec.decode(body, kind)
        except LinesideError as error:
            raise ApiError("network.bad_answer", f"The fleet's answer cannot be read: {error.message}") from error

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
        wait_s = blob_answer.retry_after_s(answer.headers.get("Retry-After", ""), datetime.now(UTC))
        return ApiError(code, text[:500], problem.next_step[:500], status=status, retry_after_s=wait_s)


def _checked(digest: str) -> str:
    if not ids.is_digest(digest):
        raise ApiError("request.invalid", f"{digest[:80]!r} is no SHA-256.")
    return digest


def _place(answer: httpx.Response, digest: str, part: Part, max_bytes: int, *, exact: bool) -> None:
    """Make the part ready for an answer's body.

    Raises:
        ApiError: the body is of no use.
    """
    begins = blob_answer.judge(answer.status_code, answer.headers, digest, part.length, max_bytes, exact=exact)
    if isinstance(begins, blob_answer.Unfit):
        if begins.spoils:
            part.restart()
        raise ApiError("network.bad_answer", begins.reason, status=answer.status_code)
    if begins is blob_answer.Begins.ANEW:
        part.restart()


def _download_error(digest: str, error: ApiError) -> ApiError:
    """Say of a failed download whether waiting helps, and keep the codes that say more."""
    if error.code == "network.unreachable" or error.status in _COME_BACK_LATER:
        return ApiError(
            "network.unreachable",
            f"Blob {digest[:12]} waits: {error.message}",
            error.next_step,
            status=error.status,
            retry_after_s=error.retry_after_s,
        )
    if error.code == "resource.not_found" or error.code.startswith(("access.", "device.")):
        return error
    return _failed_download(digest, error.message, error.retry_after_s)


def _failed_download(digest: str, why: str, retry_after_s: float = 0.0) -> ApiError:
    return ApiError(
        "deployment.download_failed",
        f"Blob {digest[:12]} could not be downloaded: {why}",
        "Look at the fleet's log, and at what stands between it and the device.",
        retry_after_s=retry_after_s,
    )
