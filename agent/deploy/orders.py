"""Orders of a person beside the machine: a command leaves one as a file, the runner's thread takes and answers it.

Under the folder: `<id>.order.json` waits, `<id>.answer.json` is the agent's word on it, `<id>.order.json.damaged` could
not be read. Each file appears whole or not at all, so that any number of processes may look at any time.
"""

from __future__ import annotations

import enum
import errno
import logging
import os
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec

from agent.clock import Clock, SystemClock
from agent.deploy.durable import TEMPORARY, Disk, failure, tidying
from wire import codec
from wire.errors import LinesideError
from wire.ids import Count, Digest, Name, ShortText, Uuid
from wire.inspection import Utc

log = logging.getLogger(__name__)

MAX_WAITING: Final = 32
MAX_BYTES: Final = 16 * 1024
MAX_TEXT: Final = 2000
_ORDER, _ANSWER, _DAMAGED = ".order.json", ".answer.json", ".damaged"
# Nobody waits for an answer so long; what a command was killed over is left to it for so long, should it still live.
_KEEP_ANSWER_S: Final = 86400.0
_KEEP_TEMPORARY_S: Final = 600.0
_NO_FILE: Final = (errno.ELOOP, errno.ENXIO)  # a link, a socket


class OrderKind(enum.StrEnum):
    """What may be asked for beside the machine."""

    ROLLBACK = "rollback"  # have the version before run again; ends a probation
    CONFIRM = "confirm"  # let a deployment go on that awaits confirmation
    IMPORT = "import"  # deploy a version that lies in the imports folder
    COLLECT = "collect"  # remove what nothing refers to


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order.

    Args:
        id: made by who gives it; the deployment that comes of it bears this id.
        model, digest, release: what it is about, as far as the kind needs it. Where a rollback names a digest, it is
            the version that was shown to the person as the one to come back.
        by: who gave it.
        reason: why, in the person's words.
    """

    id: Uuid
    kind: OrderKind
    model: Name | None = None
    digest: Digest | None = None
    release: Count | None = None
    by: ShortText = ""
    at: Utc
    reason: ShortText = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The agent's word on an order.

    Args:
        done: it was taken; what comes of a rollback or an import is told by the deployment of the same id.
        code: a key of the error register where it was not.
    """

    order_id: Uuid
    done: bool
    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
    code: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Orders:
    """The folder in which orders and answers lie. Many processes may give; one thread of one process takes.

    The folder is made by who gives the first order: nothing is there before.
    """

    def __init__(self, folder: Path, disk: Disk | None = None, clock: Clock | None = None) -> None:
        self.folder = folder
        self._disk = disk or Disk()
        self._clock = clock or SystemClock()
        self._unreadable: set[str] = set()

    # What a command calls

    def give(self, order: Order) -> None:
        """Leave an order; once this returns it survives a power cut. Giving the same one again changes nothing.

        Raises:
            LinesideError: `resource.conflict` where too many wait already, `storage.full` or `storage.corrupt`.
        """
        waiting = len(self._names(_ORDER))
        if waiting >= MAX_WAITING:
            raise LinesideError(
                "resource.conflict",
                f"{waiting} orders wait already and nobody takes them.",
                "Start the agent, or look at its log: `lineside status`.",
            )
        self._disk.write(self.folder / f"{order.id}{_ORDER}", codec.encode(order))

    def answer_of(self, order_id: str) -> Answer | None:
        """Return the agent's word on an order, None before there is one.

        Raises:
            LinesideError: `storage.corrupt` where it cannot be read.
        """
        path = self.folder / f"{order_id}{_ANSWER}"
        try:
            return codec.decode(_read(path), Answer)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failure(path, error) from error
        except LinesideError as error:
            raise LinesideError(
                "storage.corrupt", f"{path} is damaged: {error.message}", "Give the order again."
            ) from error

    def is_waiting(self, order_id: str) -> bool:
        """Tell whether an order lies there untaken."""
        return (self.folder / f"{order_id}{_ORDER}").exists()

    def waiting(self) -> tuple[Order, ...]:
        """Return the orders that lie there untaken, oldest first; nothing is touched."""
        found = []
        for name in self._names(_ORDER)[:MAX_WAITING]:
            try:
                order = codec.decode(_read(self.folder / name), Order)
            except (OSError, LinesideError):
                continue  # taken at this moment, or none at all, which `pending` says
            if not (self.folder / f"{order.id}{_ANSWER}").exists():
                found.append(order)
        return tuple(sorted(found, key=_age))

    def withdraw(self, order_id: str) -> None:
        """Take an order back as far as it has not been taken; the runner may be taking it at this moment."""
        self._disk.remove(self.folder / f"{order_id}{_ORDER}")
        if self.folder.is_dir():  # or a power cut brings it back
            self._disk.sync_folder(self.folder)

    # What the runner calls

    def pending(self) -> tuple[Order, ...]:
        """Return the orders that wait, oldest first; what is no order is set aside and logged once.

        An order that was answered is not among them, even where a kill has kept its file. Nor is one that the system
        does not let be read at this moment: it stays for a later call.

        Raises:
            LinesideError: `storage.full` or `storage.corrupt` where the folder cannot be read or put in order.
        """
        found = []
        names = self._names(_ORDER)[:MAX_WAITING]
        self._unreadable.intersection_update(names)
        for name in names:
            order = self._order(self.folder / name)
            if order is None:
                continue
            if (self.folder / f"{order.id}{_ANSWER}").exists():
                self._disk.remove(self.folder / name)
            else:
                found.append(order)
        return tuple(sorted(found, key=_age))

    def answer(self, order: Order, *, done: bool, text: str, code: str = "") -> None:
        """Write the answer to an order, then remove the order; the first answer stands, however often this is called.

        Raises:
            LinesideError: `storage.full` or `storage.corrupt`; call it again then.
        """
        path = self.folder / f"{order.id}{_ANSWER}"
        if not path.exists():
            given = Answer(order_id=order.id, done=done, text=text[:MAX_TEXT], code=code)
            self._disk.write(path, codec.encode(given))
        self._disk.remove(self.folder / f"{order.id}{_ORDER}")

    def sweep(self) -> None:
        """Remove answers that nobody waits for any more, orders set aside, and what interrupted writes left behind.

        What cannot be removed stays, and a warning is logged: this is part of the agent's start.
        """
        now_s = self._clock.now_utc().timestamp()
        for path in sorted(self.folder.glob("*") if self.folder.is_dir() else ()):
            is_temporary = path.name.startswith(TEMPORARY)
            if not is_temporary and not path.name.endswith((_ANSWER, _DAMAGED)):
                continue
            if self.is_waiting(path.name.removesuffix(_ANSWER)):
                continue  # a kill kept the order; without its answer it would be taken again
            try:
                age_s = abs(now_s - path.lstat().st_mtime)  # a clock that was set back must not keep it for ever
            except OSError:
                continue
            if age_s > (_KEEP_TEMPORARY_S if is_temporary else _KEEP_ANSWER_S):
                with tidying(path):
                    self._disk.remove(path)

    def _names(self, ending: str) -> list[str]:
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise failure(self.folder, error) from error
        return sorted(name for name in names if name.endswith(ending) and not name.startswith(TEMPORARY))

    def _order(self, path: Path) -> Order | None:
        try:
            order = codec.decode(_read(path), Order)
            if path.name != f"{order.id}{_ORDER}":
                raise LinesideError("message.invalid_value", f"It holds the order {order.id}.")  # noqa: TRY301
        except FileNotFoundError:
            return None  # taken back at this moment
        except (OSError, LinesideError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_FILE:
                self._leave(path, error)
                return None
            log.warning("%s is no order and is set aside: %s", path, error, extra={"event": "order.damaged"})
            self._disk.rename(path, path.with_name(f"{path.name}{_DAMAGED}"))
            return None
        self._unreadable.discard(path.name)
        return order

    def _leave(self, path: Path, error: OSError) -> None:
        """Leave an order for later: no rights yet, no descriptors left or a failure of the disk say nothing of it."""
        if path.name not in self._unreadable:
            self._unreadable.add(path.name)
            log.warning("The order %s cannot be read now: %s", path, error, extra={"event": "order.unreadable"})


def _age(order: Order) -> tuple[datetime, str]:
    return order.at, order.id


def _read(path: Path) -> bytes:
    """Read a short plain file; a link, a pipe or a long one is refused without waiting for it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
            raise LinesideError("message.too_large", f"It is no plain file of at most {MAX_BYTES} bytes.")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(MAX_BYTES)
    finally:
        os.close(descriptor)
