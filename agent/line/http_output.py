"""HTTP output: each verdict is a POST of JSON to somebody else's server."""

from __future__ import annotations

import random
import time
from typing import Final

import httpx

from agent.capture import address
from agent.clock import Clock
from agent.line import messages
from agent.line.output_sender import OutputSender
from agent.line.settings import HttpOutputSettings
from agent.line.trigger import Answer, OutputCounts, StationState
from wire import codec
from wire.errors import LinesideError

_MAX_ANSWER_BYTES: Final = 64 * 1024


class HttpOutput:
    """Posts `lineside.verdict/1` bodies; any 2xx is a yes. Redirects are not followed.

    A repetition carries the same `Idempotency-Key`, so that the server can tell. A server learns nothing of an agent
    that is gone: it must take silence for that.

    Args:
        name: of the output.
        device, station: for the body.
        capacity: verdicts that may wait.
    """

    def __init__(
        self,
        settings: HttpOutputSettings,
        clock: Clock,
        *,
        name: str,
        device: str,
        station: str,
        capacity: int,
        rng: random.Random | None = None,
    ) -> None:
        self._url = settings.url
        self._shown = address.redact(settings.url)
        self._credentials_file = settings.credentials_file
        self._timeout_s = settings.timeout_s
        self._device = device
        self._station = station
        self._client = httpx.Client(
            timeout=settings.timeout_s,
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        )
        self._sender = OutputSender(name, self._deliver, capacity, clock, rng)

    @property
    def name(self) -> str:
        return self._sender.name

    def answer(self, answer: Answer) -> None:
        """Queue the verdict; what finds no room is dropped and counted."""
        self._sender.put(answer)

    def counts(self) -> OutputCounts:
        """Return what became of the verdicts so far."""
        return self._sender.counts()

    def set_state(self, state: StationState) -> None:
        """Only verdicts are told; parts of a station that is not ready have one, too."""

    def close(self) -> None:
        """End the thread and the connection."""
        self._sender.close()
        self._client.close()

    def _deliver(self, answer: Answer) -> None:
        body = codec.encode(messages.verdict_of(answer, self._device, self._station))
        headers = {"Content-Type": "application/json", "Idempotency-Key": answer.inspection_id or answer.trigger.id}
        auth = address.credentials_in(self._credentials_file) if self._credentials_file is not None else None
        try:
            with self._client.stream("POST", self._url, content=body, headers=headers, auth=auth) as response:
                status = response.status_code
                self._read_out(response)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            what = "does not answer in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
            raise LinesideError("network.unreachable", f"{self._shown} {what} ({type(error).__name__}).") from error
        if not 200 <= status < 300:
            raise LinesideError("network.bad_answer", f"{self._shown} answers with the status {status}.")

    def _read_out(self, response: httpx.Response) -> None:
        """Read a short answer to its end, so that the connection serves again; a long or dripping one is cut."""
        until, size = time.monotonic() + self._timeout_s, 0
        for chunk in response.iter_raw():
            size += len(chunk)
            if size > _MAX_ANSWER_BYTES or time.monotonic() > until:
                return
