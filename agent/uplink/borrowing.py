"""Room that pictures give up for records: a record is worth more than any picture."""

from __future__ import annotations

from typing import Final, Protocol

AT_ONCE_BYTES: Final = 1024 * 1024


class Lender(Protocol):
    """Who gives up room: the spool of pictures."""

    def lend(self, count: int) -> int: ...
    def give_back(self, count: int) -> None: ...


class Borrowing:
    """How much of the lender's room is in use; nothing where there is no lender."""

    def __init__(self) -> None:
        self._lender: Lender | None = None
        self.bytes = 0

    def begin(self, lender: Lender) -> None:
        self._lender = lender

    def balance(self, over: int) -> None:
        """Borrow while there is too little room of our own, and give back what is no longer needed.

        Args:
            over: bytes in use beyond our own bound; negative where there is room.
        """
        if self._lender is None:
            return
        if over > self.bytes:
            self.bytes += self._lender.lend(over - self.bytes + AT_ONCE_BYTES)
        elif self.bytes and over < self.bytes - 2 * AT_ONCE_BYTES:
            spare = self.bytes - max(0, over + AT_ONCE_BYTES)
            self._lender.give_back(spare)
            self.bytes -= spare

    def free_some_disk(self) -> bool:
        """Have the lender remove something, for the disk itself is full; False where there is nothing left."""
        lent = self._lender.lend(AT_ONCE_BYTES) if self._lender is not None else 0
        self.bytes += lent
        return lent > 0
