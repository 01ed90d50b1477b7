"""What routers share: the fleet's parts behind a request, the two sessions, decoded bodies and pages of lists."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, TypeVar

import anyio
import msgspec
from anyio import from_thread
from fastapi import Depends, Query, Request
from sqlalchemy import Engine, tuple_
from sqlmodel import Session
from starlette.requests import ClientDisconnect

from fleet import clock, db
from fleet.blobs.store import BlobStore
from fleet.deployments.announce import Announcer
from fleet.settings import FleetSettings
from wire import codec
from wire.errors import LinesideError
from wire.mint import Mint

T = TypeVar("T")
MAX_LIMIT: Final = 500
DEFAULT_LIMIT: Final = 100
CHUNK_TIMEOUT_S: Final = 30.0
_SmallInt = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The parts that serve a request, put together once by `create_app`."""

    settings: FleetSettings
    engine: Engine
    blobs: BlobStore
    announcer: Announcer
    mint: Mint
    now: clock.Now = clock.utc_now


def fleet_of(request: Request) -> Fleet:
    """Return the parts behind a request."""
    fleet: Fleet = request.app.state.fleet
    return fleet


def _reading(fleet: Annotated[Fleet, Depends(fleet_of)]) -> Iterator[Session]:
    with db.read_session(fleet.engine) as session:
        yield session


def _writing(fleet: Annotated[Fleet, Depends(fleet_of)]) -> Iterator[Session]:
    with db.write_session(fleet.engine) as session:
        yield session


TheFleet = Annotated[Fleet, Depends(fleet_of)]
# Scope "function": the commit is over before the answer is sent. One writer at a time, and the others wait without a
# worker thread: if they waited for SQLite's lock in all the threads there are, its holder would find none to end in.
# A route asks for Writing after its body, or a slow sender would hold everybody's turn.
Reading = Annotated[Session, Depends(_reading, scope="function")]
Writing = Annotated[Session, Depends(_writing, scope="function", max_concurrency=1)]


def body_of(kind: type[T]) -> Callable[[Request], Any]:
    """Return a dependency that decodes the request's body with the wire's one strict decoder."""

    async def read(request: Request) -> T:
        return codec.decode(await request.body(), kind)

    return read


def chunks_of(request: Request) -> Iterator[bytes]:
    """Read a body piece by piece from the route's worker thread, so that hashing and fsync never block the loop.

    Raises:
        LinesideError: `request.invalid` where it ends too early, or nothing comes for half a minute.
    """
    stream = request.stream()

    async def following() -> bytes | None:
        with anyio.fail_after(CHUNK_TIMEOUT_S):
            return await anext(stream, None)

    while True:
        try:
            chunk = from_thread.run(following)
        except (ClientDisconnect, TimeoutError) as error:
            raise LinesideError("request.invalid", "The upload ended before its end.", "Send it again.") from error
        if chunk is None:
            return
        yield chunk


def body_schema(kind: type) -> dict[str, Any]:
    """Return the OpenAPI description of a body read with `body_of`, for a route's `openapi_extra`."""
    schema = _inlined(kind)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _inlined(kind: type) -> dict[str, Any]:
    (schema,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str):
                return resolve(parts[reference.removeprefix("#/$defs/")])
            return {key: resolve(value) for key, value in node.items()}
        return [resolve(one) for one in node] if isinstance(node, list) else node

    resolved: dict[str, Any] = resolve(schema)
    return resolved


def url_pattern(pattern: str) -> str:
    """Return a pattern of `wire.ids` for a part of an address: here `$` is the very end, and look-ahead is unknown."""
    return pattern.removesuffix(r"(?!\n)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which part of a list is asked for."""

    limit: int
    after: tuple[str | int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """A part of a list, and the cursor of the next part, None at the end."""

    items: list[T]
    next_cursor: str | None


def page_request(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: Annotated[str | None, Query(max_length=400)] = None,
) -> PageRequest:
    """Read `?limit=&cursor=`.

    Raises:
        LinesideError: `request.invalid` where the cursor is not one of ours.
    """
    return PageRequest(limit=limit, after=None if cursor is None else _read_cursor(cursor))


Paged = Annotated[PageRequest, Depends(page_request)]


def fetch_page(
    session: Session, statement: Any, keys: Sequence[Any], page: PageRequest, *, newest_first: bool = False
) -> tuple[list[Any], str | None]:
    """Run a select as one page by keyset: stable while rows are inserted, and as fast on the last page as on the first.

    Args:
        statement: a select of one entity, without order or limit.
        keys: its columns that order it, together unique. Where one is a time, `page.after` has it as such.
        page: from `page_request`.

    Returns:
        The rows, and the cursor of the next page or None.
    """
    if page.after is not None:
        if len(page.after) != len(keys):
            raise _bad_cursor()
        place = tuple_(*keys)
        statement = statement.where(place < page.after if newest_first else place > page.after)
    order = [key.desc() if newest_first else key.asc() for key in keys]
    rows = list(session.exec(statement.order_by(*order).limit(page.limit + 1)).all())
    if len(rows) <= page.limit:
        return rows, None
    rows = rows[: page.limit]
    return rows, write_cursor([getattr(rows[-1], key.key) for key in keys])


def write_cursor(values: Sequence[str | int]) -> str:
    """Return a cursor for the key values of a page's last row."""
    return base64.urlsafe_b64encode(msgspec.json.encode(list(values))).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[str | int, ...]:
    try:
        data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        return tuple(msgspec.json.decode(data, type=list[str | _SmallInt]))
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise _bad_cursor() from error


def _bad_cursor() -> LinesideError:
    return LinesideError("request.invalid", "The cursor is not one of this list.", "Begin again without a cursor.")
