"""Compares every byte of a version on this device with its digest, and says what is wrong; nothing is changed."""

from __future__ import annotations

from pathlib import Path

from agent.deploy.store import Store
from wire import package
from wire.errors import LinesideError


def damage(root: Path, digest: str) -> tuple[str, ...]:
    """Return what is wrong with a version, a sentence each; empty where it is whole.

    Args:
        root: the store's folder.
        digest: of the version.
    """
    store = Store(root)
    try:
        index = store.index(digest)
    except LinesideError as error:
        return (error.message,)
    if index is None:
        return (f"Its index has gone: {store.blob_path(digest)}.",)
    found = []
    folder = root / "packages" / digest
    hashed: dict[tuple[int, int], str] = {}  # a package's file and its blob are most often one and the same
    for file in index.files:
        for what, path in (("blob", store.blob_path(file.digest)), ("file", folder / file.path)):
            wrong = _wrong(path, file.digest, hashed)
            if wrong:
                found.append(f"{file.path}: its {what} {wrong} ({path}).")
    expected = {file.path for file in index.files}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    found += [f"{name}: no file of this version ({folder / name})." for name in sorted(there - expected)]
    return tuple(found)


def _wrong(path: Path, digest: str, hashed: dict[tuple[int, int], str]) -> str:
    try:
        condition = path.stat()
        key = (condition.st_dev, condition.st_ino)
        if key not in hashed:
            hashed[key] = package.digest_of_file(path)
    except FileNotFoundError:
        return "has gone"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if hashed[key] == digest else "is damaged"
