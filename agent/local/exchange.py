"""What the local address is asked and what it answers; which route a request means. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from wire import codec, ids
from wire.errors import LinesideError

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
_PARAMETER: Final = re.compile(r"\{([a-z]+)\}")
_PLAIN: Final = re.compile(r"[A-Za-z0-9 .,;:/=+-]*(?!\n)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request that passed the guard.

    Args:
        method: GET, POST ...; HEAD comes as GET.
        path: as it was sent, without the query.
        names: what stands in the path for each `{name}` of the route.
    """

    method: str
    path: str
    names: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer; header values are the agent's own words, never the caller's."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for text in (self.content_type, *(part for header in self.headers for part in header)):
            if not _PLAIN.fullmatch(text):
                raise ValueError(f"{text!r} cannot stand in a header")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A function behind one path.

    Args:
        method: GET or POST.
        pattern: for example `/v1/stations/{station}/triggers`; `{...}` stands for one name (`wire.ids`).
        answer: may raise LinesideError, which becomes a problem.
    """

    method: str
    pattern: str
    answer: Callable[[Request], Response]


def json_of(value: object, status: int = 200) -> Response:
    """Return a value as an answer."""
    return Response(status=status, body=codec.encode(value))


def problem_of(error: LinesideError, status: int | None = None, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return an error as an answer (RFC 9457), in the same words as the fleet's API."""
    status = status or error.entry.http_status
    body = {
        "type": f"urn:lineside:problem:{error.code}",
        "title": error.entry.title,
        "status": status,
        "detail": error.message,
        "code": error.code,
        "next_step": error.next_step,
    }
    return Response(status=status, body=codec.encode(body), content_type=PROBLEM, headers=headers)


class Router:
    """Finds the route of a path. A path is compared as it was sent: nothing is decoded, so nothing can hide in it."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = [(_compiled(route.pattern), route) for route in routes]

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | Response:
        """Return the route with the names in its path, or the problem where there is none."""
        allowed = []
        for pattern, route in self._routes:
            match = pattern.fullmatch(path)
            if match is None or not all(ids.is_name(name) for name in match.groupdict().values()):
                continue
            if route.method == method:
                return route, match.groupdict()
            allowed.append(route.method)
        if allowed:
            return problem_of(
                LinesideError("request.invalid", "This address does not take that method."),
                HTTPStatus.METHOD_NOT_ALLOWED,
                (("Allow", ", ".join(sorted(allowed))),),
            )
        return problem_of(
            LinesideError("resource.not_found", "There is nothing at this address.", "See docs/reference/local-api.md.")
        )


def _compiled(pattern: str) -> re.Pattern[str]:
    parts = _PARAMETER.split(pattern)  # literal, name, literal, name, ...
    return re.compile(
        "".join(f"(?P<{part}>[^/]{{1,64}})" if number % 2 else re.escape(part) for number, part in enumerate(parts))
    )
