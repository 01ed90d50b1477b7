"""Optimised graphs kept between starts: one file per model, runtime, provider and processor, never trusted blindly."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wire.package import digest_of_file

MAX_GRAPHS: Final = 8
_DRAFTS: Final = ".drafts"
_CPU_LINES: Final = ("model name", "flags", "Features", "CPU implementer", "CPU part")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptGraph:
    """A whole graph, and the opset of the model it was made of: so that nobody reads that model again, which takes
    longer than building the session, and holds the interpreter all the while.
    """

    path: Path
    opset: int


class GraphCache:
    """The cached graph of one model.

    A graph is optimised for the processor it was made on, and a file of that kind may be damaged by a power cut: it is
    used only if its SHA-256 is the one noted beside it, which is written last.

    Args:
        folder: made if it is not there.
        key: names model, runtime and provider; the processor is added.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        name = hashlib.sha256(f"{key} {processor()}".encode()).hexdigest()[:32]
        self._graph = folder / f"{name}.onnx"
        self._note = folder / f"{name}.sha256"

    def find(self) -> KeptGraph | None:
        """Return the graph; None where there is none, or not a whole one."""
        try:
            note = self._note.read_text(encoding="ascii")
            actual = digest_of_file(self._graph)
        except (OSError, UnicodeDecodeError):
            return None
        found = re.fullmatch(r"([0-9a-f]{64}) ([0-9]{1,6})", note)
        if found is None or found[1] != actual:
            self.forget()
            return None
        return KeptGraph(path=self._graph, opset=int(found[2]))

    def forget(self) -> None:
        """Remove the graph."""
        for path in (self._note, self._graph):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def place(self, opset: int) -> Iterator[Path]:
        """Give a path to write the graph to; it is kept when the block ends well. A full disk costs only the cache."""
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._graph.with_name(f"{self._graph.stem}.{os.getpid()}.draft")
        try:
            yield draft
            if draft.is_file():
                with contextlib.suppress(OSError):
                    self._keep(draft, opset)
        finally:
            draft.unlink(missing_ok=True)

    def left_in(self, folder: Path) -> Path | None:
        """Return this model's graph that another process left in a folder; None where there is none, or no plain file.

        A link might lead to a file that is not that process's to give.
        """
        path = folder / self._graph.name
        try:
            found = path.lstat()
        except OSError:
            return None
        return path if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 else None

    def keep(self, graph: Path, opset: int) -> None:
        """Take a graph from a folder on the same disk. Its digest is taken anew: no note that lay beside it counts."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._keep(graph, opset)

    def _keep(self, draft: Path, opset: int) -> None:
        digest = digest_of_file(draft)
        self._note.unlink(missing_ok=True)
        draft.replace(self._graph)
        note_draft = self._note.with_suffix(f".{os.getpid()}.draft")
        note_draft.write_text(f"{digest} {opset}", encoding="ascii")
        note_draft.replace(self._note)
        graphs = sorted(self._folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in graphs[MAX_GRAPHS:]:
            old.with_suffix(".sha256").unlink(missing_ok=True)
            old.unlink(missing_ok=True)


@contextlib.contextmanager
def drafts(cache: Path) -> Iterator[Path]:
    """Give a folder beside the kept graphs, where another process may leave one; it is removed at the end.

    Those that a killed process left are removed first: one process at a time owns a cache.
    """
    for left in cache.glob(f"*{_DRAFTS}"):
        if not left.name.startswith(f"{os.getpid()}-"):
            shutil.rmtree(left, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", suffix=_DRAFTS, dir=cache))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def processor() -> str:
    """Return what tells this processor from others an optimised graph may not suit."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
        lines = [line for line in text.splitlines() if line.startswith(_CPU_LINES)]
    return f"{platform.machine()} {platform.processor()} {' '.join(lines)}"
