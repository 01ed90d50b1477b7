"""A written model of a power cut: the system calls of a child, replayed up to any moment, what was not synced lost.

`trace` runs a command under strace, which stops each thread at the entry and at the exit of every call it is told of:
the order of its lines is the order in which the kernel did things. `Disk.at` then builds the files as they may be when
the power goes at one of these moments (docs/explanation/durability.md says what is assumed and what is not).
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support import require

SECTOR_BYTES: Final = 512
_CALLS: Final = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,sync_file_range,msync,"
    "ftruncate,truncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink"
)
_LINE: Final = re.compile(rb"(\d+) +(\d+\.\d+) (.*)")
_WHOLE: Final = re.compile(rb"(\w+)\((.*)\) += (-?\d+)(.*?)(?: <(\d+\.\d+)>)?$")
_UNFINISHED: Final = re.compile(rb"(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED: Final = re.compile(rb"<\.\.\. (\w+) resumed>(.*)")
_TEXT: Final = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"')
_FILE: Final = re.compile(rb"<((?:\\x[0-9a-f]{2})+)>")


@dataclass(slots=True, kw_only=True)
class Call:
    """One system call.

    Args:
        began, ended: places in the order of all entries and exits; a call that never ended has a late one.
        began_s, ended_s: seconds since 1970.
    """

    name: str
    arguments: bytes
    began: int
    began_s: float
    ended: int = 1 << 60
    ended_s: float = float("inf")
    result: int | None = None
    told: bytes = b""

    @property
    def texts(self) -> list[bytes]:
        """The strings among its arguments."""
        return [_plain(text) for text in _TEXT.findall(self.arguments)]

    @property
    def path(self) -> str:
        """Of the file that its first argument, a descriptor, is of."""
        found = _FILE.search(self.arguments)
        return _plain(found[1]).decode() if found else ""

    @property
    def numbers(self) -> list[int]:
        """Its last arguments, as far as they are numbers."""
        return [int(word) for word in self.arguments.rsplit(b'"', 1)[-1].split(b",") if word.strip().isdigit()]


def require_strace() -> str:
    """Return the program; skip the running test where it is missing, or may not trace."""
    program = str(require.program("strace"))
    tried = subprocess.run([program, "-f", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        require.missing(f"strace may not trace here: {tried.stderr.strip()[-200:]}")
    return program


def command(program: str, output: Path, arguments: Sequence[str], *, sync_takes_ms: float = 0.0) -> list[str]:
    """Return the command that traces another.

    Args:
        sync_takes_ms: added to each fsync and fdatasync, as a slow disk does.
    """
    traced = [program, "-f", "-y", "-ttt", "-T", "-xx", "-s", "1000000", "-e", f"trace={_CALLS}", "-o", str(output)]
    if sync_takes_ms:
        traced += ["-e", f"inject=fsync,fdatasync:delay_enter={int(sync_takes_ms * 1000)}"]
    return [*traced, *arguments]


def read(output: Path) -> list[Call]:
    """Return the calls of a trace, by their beginning."""
    calls: list[Call] = []
    open_calls: dict[bytes, Call] = {}
    with output.open("rb") as lines:
        for number, line in enumerate(lines):
            found = _LINE.match(line.rstrip(b"\n"))
            if found is None:
                continue
            thread, at_s, rest = found[1], float(found[2]), found[3]
            if (whole := _WHOLE.fullmatch(rest)) is not None:
                call = Call(name=whole[1].decode(), arguments=whole[2], began=2 * number, began_s=at_s)
                calls.append(call)
                _end(call, 2 * number + 1, at_s, whole[3], whole[4], whole[5])
            elif (begun := _UNFINISHED.fullmatch(rest)) is not None:
                call = Call(name=begun[1].decode(), arguments=begun[2], began=2 * number, began_s=at_s)
                calls.append(call)
                open_calls[thread] = call
            elif (ended := _RESUMED.match(rest)) is not None and (known := open_calls.pop(thread, None)) is not None:
                whole = _WHOLE.fullmatch(b"x(" + ended[2])
                if ended[2].rstrip().endswith(b"= ?"):  # the process ended in the midst of it
                    continue
                if whole is None:
                    raise ValueError(f"a line of strace that cannot be read: {line[:200]!r}")
                known.arguments += whole[2]
                _end(known, 2 * number + 1, at_s, whole[3], whole[4], None)
    return calls


def _end(call: Call, place: int, at_s: float, result: bytes, told: bytes, took_s: bytes | None) -> None:
    call.ended, call.ended_s, call.result, call.told = place, at_s + float(took_s or 0), int(result), told


@dataclass(slots=True, kw_only=True)
class _Change:
    """What a call did to a file's content (`path` of its making), or to the names in a folder."""

    call: Call
    file: int
    at: int = 0
    data: bytes | None = None
    length: int = 0
    folder: str = ""
    names: tuple[tuple[str, int | None], ...] = ()


@dataclass
class Disk:
    """The files below a folder, as the calls made them.

    Args:
        folder: all else is passed over.
        before: the files that were there, and durable, before the first call.
    """

    folder: str
    calls: Sequence[Call]
    before: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._contents: list[_Change] = []
        self._names: list[_Change] = []
        self._syncs: dict[int | str, list[Call]] = {}
        self._first = dict(enumerate(self.before.values()))
        self._now = {path: number for number, path in enumerate(self.before)}
        self._start = dict(self._now)
        self._next = len(self._first)
        self._places: dict[tuple[bytes, str], int] = {}
        for call in self.calls:
            self._note(call)

    def at(self, moment: int, rng: random.Random | None = None, keep: float = 0.0) -> dict[str, bytes]:
        """Return the files after a power cut.

        Args:
            moment: place in the order of entries and exits.
            rng, keep: of what was not synced, each sector is on the disk with the chance `keep`; of the changes of
                names a random number of the first, in their order.
        """
        names = self._names_at(moment, rng)
        contents = self._contents_at(moment, set(names.values()), rng, keep)
        return {path: contents[number] for path, number in names.items()}

    def durable_moments(self, path: str) -> list[Call]:
        """Return the syncs of a file that ended well, in order."""
        return [
            call for call in self.calls if call.name in {"fsync", "fdatasync"} and call.path == path and not call.result
        ]

    def _names_at(self, moment: int, rng: random.Random | None) -> dict[str, int]:
        changes = [change for change in self._names if change.call.began <= moment]
        safe = [number for number, change in enumerate(changes, 1) if self._is_synced(change, change.folder, moment)]
        kept = max(safe, default=0)
        if rng is not None:
            kept = rng.randint(kept, len(changes))
        names = dict(self._start)
        for change in changes[:kept]:
            for name, file in change.names:
                if file is None:
                    names.pop(name, None)
                else:
                    names[name] = file
        return names

    def _contents_at(self, moment: int, files: set[int], rng: random.Random | None, keep: float) -> dict[int, bytes]:
        contents = {file: bytearray(self._first.get(file, b"")) for file in files}
        for change in self._contents:
            content = contents.get(change.file)
            if content is None or change.call.began > moment:
                continue
            if self._is_synced(change, change.file, moment):
                _apply(content, change, 0, len(change.data or b""))
            elif rng is not None and change.data is None:
                if rng.random() < keep:
                    _apply(content, change, 0, 0)
            elif rng is not None:
                for start, end in _sectors(change):
                    if rng.random() < keep:
                        _apply(content, change, start, end)
        return {file: bytes(content) for file, content in contents.items()}

    def _is_synced(self, change: _Change, what: int | str, moment: int) -> bool:
        return any(change.call.ended < sync.began and sync.ended <= moment for sync in self._syncs.get(what, ()))

    def _note(self, call: Call) -> None:
        if call.result is not None and call.result < 0:
            return
        match call.name:
            case "open" | "openat" | "creat":
                self._opened(call)
            case "fsync" | "fdatasync" if self._is_ours(call.path):
                known: int | str = self._now.get(call.path, call.path)
                self._syncs.setdefault(known, []).append(call)
            case "pwrite64" if self._is_ours(call.path):
                self._written(call, call.path, call.numbers[-1])
            case "write" if self._is_ours(call.path):
                key = (call.arguments.split(b"<", 1)[0], call.path)
                self._written(call, call.path, self._places.get(key, 0))
                self._places[key] = self._places.get(key, 0) + len(call.texts[0])
            case "ftruncate" if self._is_ours(call.path):
                length = int(call.arguments.rsplit(b",", 1)[1])
                self._contents.append(_Change(call=call, file=self._now[call.path], length=length))
            case "rename" | "renameat" | "renameat2":
                source, target = (text.decode() for text in call.texts)
                if self._is_ours(target) and source in self._now:
                    file = self._now.pop(source)
                    self._rename(call, target, ((source, None), (target, file)))
                    self._now[target] = file
            case "unlink" | "unlinkat":
                gone = call.texts[0].decode()
                if self._now.pop(gone, None) is not None:
                    self._rename(call, gone, ((gone, None),))
            case "mkdir" | "mkdirat" | "fallocate" | "rmdir":
                pass  # a folder is there when a file in it is; reserved space holds nothing
            case "write" | "pwrite64" | "fsync" | "fdatasync" | "ftruncate":
                pass
            case other:
                if self.folder.encode().hex() in call.arguments.replace(b"\\x", b"").decode("latin-1"):
                    raise ValueError(f"the model knows no {other}")

    def _opened(self, call: Call) -> None:
        path = os.path.normpath(call.texts[0].decode())
        if not self._is_ours(path) or b"O_DIRECTORY" in call.arguments:
            return
        descriptor = str(call.result).encode()
        self._places[descriptor, path] = 0
        if path not in self._now and b"O_CREAT" in call.arguments:
            self._now[path] = self._next
            self._next += 1
            self._rename(call, path, ((path, self._now[path]),))
        elif b"O_TRUNC" in call.arguments:
            self._contents.append(_Change(call=call, file=self._now[path], length=0))

    def _written(self, call: Call, path: str, at: int) -> None:
        # Only as much as the call says it wrote, where it lived to say so.
        data = call.texts[0][: call.result if call.result is not None else None]
        self._contents.append(_Change(call=call, file=self._now[path], at=at, data=data))

    def _rename(self, call: Call, path: str, names: tuple[tuple[str, int | None], ...]) -> None:
        self._names.append(_Change(call=call, file=-1, folder=str(Path(path).parent), names=names))

    def _is_ours(self, path: str) -> bool:
        return path == self.folder or path.startswith(f"{self.folder}/")


def write_files(files: Mapping[str, bytes], source: str, target: Path) -> None:
    """Write the files of a cut below another folder."""
    target.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        place = target / Path(path).relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def _sectors(change: _Change) -> Iterator[tuple[int, int]]:
    """Yield the parts of a write that reach the disk or not, each as a whole."""
    length = len(change.data or b"")
    start = 0
    while start < length:
        end = min(length, start + SECTOR_BYTES - (change.at + start) % SECTOR_BYTES)
        yield start, end
        start = end


def _apply(content: bytearray, change: _Change, start: int, end: int) -> None:
    if change.data is None:
        if len(content) > change.length:
            del content[change.length :]
        else:
            content.extend(bytes(change.length - len(content)))
        return
    if len(content) < change.at + end:
        content.extend(bytes(change.at + end - len(content)))
    content[change.at + start : change.at + end] = change.data[start:end]


def _plain(text: bytes) -> bytes:
    return bytes.fromhex(text.replace(b"\\x", b"").decode("ascii"))
