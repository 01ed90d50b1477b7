"""A disk whose power may go: what was done below a folder, watched as it is done, and what a cut may leave of it.

What is promised is what POSIX promises, and no more: an fsync of a file makes its bytes durable, an fsync of a folder
the names in it. Everything else is in doubt, each by itself: bytes that were not synced are there, are not, are zeros,
or half there; names that were not synced were changed, were not, or in another order; a rename from one folder into
another may have reached one of them only. A journaling file system does better; this is what must do.

The watcher stands before each call that changes names and around each sync, and looks at the folder itself: what it
knows of names and bytes is what is really there, whoever changed it.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest import mock

SECTOR_BYTES: Final = 512
MOST_ORDERS: Final = 12
_CHANGES_NAMES: Final = ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "link", "ftruncate", "truncate")

Names = dict[tuple[int, str], int]
Image = tuple[tuple[str, int, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """What a cut leaves.

    Args:
        moment: place in the order of all moments; `before` is what would have come next.
        variant: what becomes of that which was not synced.
        image: path, file, content of each file; content None for a folder. One file may have two names.
        said: how many words had been said before (`Watch.say`).
    """

    moment: int
    before: str
    variant: str
    image: Image
    said: int


@dataclass
class Watch:
    """Watches a folder while `with watch.watching()` lasts; `cuts` has one of each distinct kind afterwards.

    Args:
        durable: whether what is there at the beginning is on the disk for sure.
        wanted: of the moments, those at which cuts are made; all unless given.
        lies: a sync of a file does nothing: what a test of the model itself needs.
    """

    root: Path
    rng: random.Random
    durable: bool = True
    wanted: Callable[[int], bool] = lambda _moment: True
    lies: bool = False
    cases: int = 0
    moments: int = 0
    said: int = 0
    cuts: list[Cut] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._seen: set[tuple[Image, int]] = set()
        self._same: dict[bytes, bytes] = {}
        self._names: Names = {}
        self._now: dict[int, bytes | None] = {}
        self._ever: dict[int, bytes | None] = {}
        self._looking = False
        self._pending: list[tuple[int, str, int | None]] = []
        self._look()
        self._safe_names = dict(self._names) if self.durable else {}
        self._safe = {file: data for file, data in self._now.items() if self.durable and data is not None}
        self._pending = [] if self.durable else [(folder, name, file) for (folder, name), file in self._names.items()]

    def say(self) -> None:
        """Note that one more word was said to the world outside, where no cut takes it back."""
        self._moment("say")
        self.said += 1

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Stand before each call of this process that changes something, and around each sync."""
        with contextlib.ExitStack() as stack:
            for name in _CHANGES_NAMES:
                stack.enter_context(mock.patch.object(os, name, self._before(name, getattr(os, name))))
            for module, name in ((os, "open"), (io, "open")):
                stack.enter_context(mock.patch.object(module, name, self._opening(getattr(module, name))))
            for name in ("fsync", "fdatasync"):
                stack.enter_context(mock.patch.object(os, name, self._syncing(name, getattr(os, name))))
            yield
            self._moment("end")

    def _before(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            last = args[1] if name in ("rename", "replace", "link") else args[0]
            self._moment(f"{name} {Path(last).name if not isinstance(last, int) else last}")
            return call(*args, **kwargs)

        return watched

    def _opening(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(path: Any, how: Any = "r", *args: Any, **kwargs: Any) -> Any:
            changes = bool(how & (os.O_CREAT | os.O_TRUNC)) if isinstance(how, int) else not set(how).isdisjoint("wax")
            if changes and not isinstance(path, int):
                self._moment(f"open {Path(path).name}")
            return call(path, how, *args, **kwargs)

        return watched

    def _syncing(self, name: str, call: Callable[[int], None]) -> Callable[[int], None]:
        def watched(descriptor: int) -> None:
            found = os.fstat(descriptor)
            self._moment(f"{name} {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
            call(descriptor)
            if stat.S_ISDIR(found.st_mode):
                self._safe_names = {key: file for key, file in self._safe_names.items() if key[0] != found.st_ino}
                self._safe_names |= {key: file for key, file in self._names.items() if key[0] == found.st_ino}
                self._pending = [one for one in self._pending if one[0] != found.st_ino]
            elif not self.lies and (data := self._now.get(found.st_ino)) is not None:
                self._safe[found.st_ino] = data

        return watched

    # What is there

    def _moment(self, before: str) -> None:
        if self._looking:
            return
        self._look()
        self.moments += 1
        if self.wanted(self.moments):
            self._cut(before)

    def _look(self) -> None:
        """Read names and bytes; what changed since the last look is one more change in doubt."""
        self._looking = True
        try:
            names: Names = {}
            now: dict[int, bytes | None] = {}
            self._read(str(self.root), names, now)
        finally:
            self._looking = False
        gone = [(folder, name, None) for folder, name in self._names.keys() - names.keys()]
        came = [(*key, file) for key, file in names.items() if self._names.get(key) != file]
        self._pending += [*sorted(came), *sorted(gone)]
        self._names, self._now = names, now
        self._ever |= now  # what is gone from here may still be what a safe name means

    def _read(self, folder: str, names: Names, now: dict[int, bytes | None]) -> None:
        number = Path(folder).stat().st_ino
        now[number] = None
        with os.scandir(folder) as entries:
            for entry in entries:
                file = entry.inode()
                names[number, entry.name] = file
                if entry.is_dir(follow_symlinks=False):
                    self._read(entry.path, names, now)
                elif file not in now:
                    descriptor = os.open(entry.path, os.O_RDONLY)
                    with os.fdopen(descriptor, "rb") as stream:
                        data = stream.read()
                    now[file] = self._same.setdefault(data, data)

    # What a cut may leave of it

    def _cut(self, before: str) -> None:
        for variant, names, contents in self._variants():
            self.cases += 1
            image = _image(self.root.stat().st_ino, names, contents)
            if (image, self.said) not in self._seen:
                self._seen.add((image, self.said))
                self.cuts.append(Cut(self.moments, before, variant, image, self.said))

    def _variants(self) -> Iterator[tuple[str, Names, dict[int, bytes | None]]]:
        contents = self._ever
        empty: dict[int, bytes | None] = {}
        zeros: dict[int, bytes | None] = {}
        torn: dict[int, bytes | None] = {}
        for file, data in contents.items():
            safe = self._safe.get(file, b"")
            if data is None or safe == data:
                empty[file] = zeros[file] = torn[file] = data
            else:
                empty[file] = safe
                zeros[file] = self._made(safe[: len(data)].ljust(len(data), b"\0"))
                torn[file] = self._made(self._torn(safe, data))
        yield "all kept", self._names, contents
        yield "all lost", self._safe_names, empty
        yield "names lost, bytes kept", self._safe_names, contents
        yield "names kept, bytes lost", self._names, empty
        yield "names kept, bytes zero", self._names, zeros
        yield "names kept, bytes torn", self._names, torn
        for number, chosen in enumerate(self._orders()):
            names = dict(self._safe_names)
            for folder, name, changed in chosen:
                if changed is None:
                    names.pop((folder, name), None)
                else:
                    names[folder, name] = changed
            yield f"other order {number}, bytes lost", names, empty
            yield f"other order {number}, bytes kept", names, contents

    def _orders(self) -> list[list[tuple[int, str, int | None]]]:
        """Return which changes of names may have become durable, if not all and not none: each alone, all but each."""
        pending = self._pending
        if len(pending) < 2:
            return []
        found = [[one] for one in pending] + [[other for other in pending if other is not one] for one in pending]
        found += [pending[:number] for number in range(2, len(pending) - 1)]
        return found if len(found) <= MOST_ORDERS else self.rng.sample(found, MOST_ORDERS)

    def _torn(self, safe: bytes, data: bytes) -> bytes:
        pieces = []
        for start in range(0, len(data), SECTOR_BYTES):
            end = min(start + SECTOR_BYTES, len(data))
            pieces.append(data[start:end] if self.rng.random() < 0.5 else safe[start:end].ljust(end - start, b"\0"))
        return b"".join(pieces)

    def _made(self, data: bytes) -> bytes:
        return self._same.setdefault(data, data)


def _image(root: int, names: Names, contents: dict[int, bytes | None]) -> Image:
    inside: dict[int, list[tuple[str, int]]] = {}
    for (folder, name), file in names.items():
        inside.setdefault(folder, []).append((name, file))

    def walked(folder: int, path: str) -> Iterator[tuple[str, int, bytes | None]]:
        for name, file in sorted(inside.get(folder, ())):
            data = contents[file]
            yield f"{path}{name}", file, data
            if data is None:
                yield from walked(file, f"{path}{name}/")

    return tuple(walked(root, ""))


def write_image(image: Image, root: Path) -> None:
    """Write what a cut left into a folder that is not there yet."""
    root.mkdir(parents=True)
    first: dict[int, Path] = {}
    for name, file, data in image:
        path = root / name
        if data is None:
            path.mkdir(exist_ok=True)
        elif file in first:
            os.link(first[file], path)
        else:
            path.write_bytes(data)
            first[file] = path


@contextlib.contextmanager
def memory_folder() -> Iterator[Path]:
    """Make a folder in memory where there is one: cases sync often, and its file numbers are never given out again."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(prefix="lineside-", dir=memory if usable else None) as made:
        yield Path(made)


def cuts_of(root: Path, rng: random.Random, action: Callable[[Watch], object]) -> list[Cut]:
    """Return what cuts may leave of a folder in the course of an action; what was there before is durable."""
    watch = Watch(root, rng)
    with watch.watching():
        action(watch)
    return watch.cuts
