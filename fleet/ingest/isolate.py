"""Sets apart the one record that no slice can digest, so that it does not stop all others."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from sqlalchemy import exc
from sqlmodel import Session

from wire.errors import LinesideError

_OF_THE_DATABASE: Final = (exc.OperationalError, exc.InternalError, exc.TimeoutError, MemoryError)


def is_of_the_database(error: BaseException) -> bool:
    """Tell whether an error may go away by itself (locked, full, unreachable) rather than lie in a record."""
    # `DatabaseError` itself, not its subclasses: a damaged file.
    return isinstance(error, _OF_THE_DATABASE) or type(error) is exc.DatabaseError


def as_lineside(error: Exception) -> LinesideError:
    """Return an unforeseen error under the code for faults of our own."""
    return LinesideError("internal.unexpected", f"{type(error).__name__}: {error}")


class Fence:
    """Where active, swallows a failure of the block, undoes what the block wrote, and keeps the error to be told.

    Args:
        session: with an open transaction; None where the block writes nothing.
    """

    def __init__(self, session: Session | None, *, active: bool) -> None:
        self._savepoint = session.begin_nested() if session is not None and active else None
        self._active = active
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        swallows = self._active and isinstance(error, Exception) and not is_of_the_database(error)
        if self._savepoint is not None and error is None:
            self._savepoint.commit()
        elif self._savepoint is not None and swallows:
            self._savepoint.rollback()
        if swallows and isinstance(error, Exception):
            self.error = error
        return swallows
