"""What commands share that go through the API: where it is, the token, and errors in words."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from wire.errors import REGISTER, LinesideError

if TYPE_CHECKING:
    import httpx

DEFAULT_URL: Final = "http://127.0.0.1:8080"
TOKEN_VARIABLE: Final = "LINESIDE_TOKEN"  # noqa: S105 - the name of a variable
TIMEOUT_S: Final = 60.0
PAGE: Final = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --url and --token-file."""
    parser.add_argument("--url", default=DEFAULT_URL, help=f"of the fleet (default: {DEFAULT_URL})")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help=f"holds the token (default: the variable {TOKEN_VARIABLE})"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json to a command that reads."""
    parser.add_argument("--json", action="store_true", help="write JSON, with the id of its schema")


def print_json(schema: str, content: Mapping[str, Any]) -> None:
    """Write a command's machine-readable result."""
    print(json.dumps({"schema": f"lineside.{schema}.v1", **content}, indent=2))


def token_of(args: argparse.Namespace) -> str:
    """Return the token a command uses.

    Raises:
        LinesideError: `config.missing_file` or `access.unauthenticated`.
    """
    if args.token_file is not None:
        try:
            text: str = args.token_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LinesideError("config.missing_file", f"{args.token_file} cannot be read: {error}.") from error
        token = text.strip()
    else:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise LinesideError(
            "access.unauthenticated",
            "There is no usable token.",
            f"Set {TOKEN_VARIABLE} or --token-file; `lineside-fleet token create` makes a token.",
        )
    return token


class Client:
    """The API, for commands; use it as a context manager."""

    def __init__(self, args: argparse.Namespace) -> None:
        import httpx

        self._url = args.url.rstrip("/")
        try:
            self._http = httpx.Client(
                base_url=f"{self._url}/api/v1",
                headers={"Authorization": f"Bearer {token_of(args)}"},
                timeout=TIMEOUT_S,
                follow_redirects=False,
            )
        except httpx.InvalidURL as error:
            raise LinesideError("usage.invalid", f"{args.url!r} is not an address: {error}.") from error

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def send(self, method: str, path: str, *, allow: tuple[int, ...] = (), **options: Any) -> httpx.Response:
        """Send a request and return its answer.

        Args:
            allow: statuses of failure that the caller handles.

        Raises:
            LinesideError: the fleet's own problem, `network.unreachable` or `network.bad_answer`.
        """
        import httpx

        try:
            answer = self._http.request(method, path, **options)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise LinesideError(
                "usage.invalid",
                f"{self._url!r} is not the address of a fleet.",
                "For example: --url http://server:8080",
            ) from error
        except httpx.HTTPError as error:
            raise LinesideError(
                "network.unreachable",
                f"The fleet at {self._url} cannot be reached: {error or type(error).__name__}.",
                "Start it with `lineside-fleet serve`, or name it with --url.",
            ) from error
        if answer.is_success or answer.status_code in allow:
            return answer
        raise _problem_of(answer)

    def items(self, path: str, **params: str) -> Iterator[dict[str, Any]]:
        """Read a whole list, page by page."""
        cursor: str | None = None
        while True:
            query = {"limit": str(PAGE), **params, **({"cursor": cursor} if cursor else {})}
            page = self.send("GET", path, params=query).json()
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return


def _problem_of(answer: httpx.Response) -> LinesideError:
    try:
        body = answer.json()
        code, detail, next_step = body["code"], str(body["detail"]), str(body.get("next_step", ""))
    except (ValueError, KeyError, TypeError):
        code, detail, next_step = "", f"{answer.request.url} answered {answer.status_code}.", "Is it a Lineside fleet?"
    return LinesideError(code if code in REGISTER else "network.bad_answer", detail, next_step)
