"""What of each model lies on this device and what it is for, read from the disk beside a running agent; never written.

All of it may change while it is read: what vanished meanwhile is looked for once more before anything is said of it.
"""

from __future__ import annotations

import contextlib
import difflib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from agent import desired
from agent.deploy.attempt import Attempt, ModelJournal
from agent.deploy.pins import Pins
from agent.deploy.store import Store
from wire import codec, ids
from wire.desired import Desired, DesiredModel
from wire.errors import LinesideError
from wire.messages import RunningModel

T = TypeVar("T")

_LOOKS: Final = 3
_BETWEEN_LOOKS_S: Final = 0.25
DIGITS_AT_LEAST: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a model on this device.

    Args:
        release: None where its index cannot be read.
        bytes: of all its files, shared ones included; None likewise.
        roles: what it is kept for, the weightiest first: `runs`, `current`, `previous`, the state of a deployment that
            has not ended, `asked for` (by the fleet, not begun yet), `shadow`, `pinned`; empty where nothing keeps it.
        is_whole: its package folder is there; whether the bytes in it are right has not been looked at.
    """

    model: str
    release: int | None
    digest: str
    bytes: int | None
    roles: tuple[str, ...]
    is_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All versions, and the latest deployment of each model."""

    versions: tuple[Version, ...] = ()
    journals: Mapping[str, ModelJournal] = field(default_factory=dict)

    def models(self) -> tuple[str, ...]:
        """Return the models known here, by a version or by a deployment."""
        return tuple(sorted({*(version.model for version in self.versions), *self.journals}))

    def of(self, model: str) -> tuple[Version, ...]:
        """Return the versions of a model, the latest release first."""
        return tuple(version for version in self.versions if version.model == model)

    def attempt(self, model: str) -> Attempt | None:
        """Return the latest deployment of a model, ended or not."""
        return self.journals.get(model, ModelJournal()).attempt

    def having(self, model: str, role: str) -> Version | None:
        """Return the version of a model that has a role."""
        return next((version for version in self.of(model) if role in version.roles), None)

    def by_digest(self, digest: str | None) -> Version | None:
        """Return the version of that digest."""
        return next((version for version in self.versions if version.digest == digest), None)


def read(data_dir: Path, running: Iterable[RunningModel] = ()) -> Inventory:
    """Read what lies there.

    Args:
        data_dir: the agent's data folder.
        running: what the agent infers with; nothing where it does not run.

    Raises:
        LinesideError: `resource.not_found` where no agent has had models there, `storage.corrupt`.
    """
    root = data_dir / "models"
    if not (root / "blobs").is_dir():
        raise LinesideError(
            "resource.not_found",
            f"{root}: no model has ever been on this device.",
            "Import one: lineside import BUNDLE. Or name the agent's own folder with --data-dir.",
        )
    store = Store(root)
    journals = {
        path.stem: _steadily(lambda path=path: read_journal(path))  # type: ignore[misc]
        for path in sorted((root / "journal").glob("*.json"))
        if ids.is_name(path.stem)
    }
    wanted = _steadily(lambda: _wanted(data_dir / desired.FILE_NAME))
    packaged = [path.name for path in (root / "packages").glob("*") if ids.is_digest(path.name)]
    pinned = _steadily(Pins(root).read)
    roles = _roles(store, journals, tuple(running), wanted, pinned, packaged)
    found = [_version(root, store, journals, digest, names) for digest, names in roles.items()]
    named = [version for version in found if version is not None]
    named.sort(key=lambda version: (version.model, -(version.release or 0), version.digest))
    return Inventory(versions=tuple(named), journals=journals)


def find(inventory: Inventory, wish: str) -> tuple[str, Version | None]:
    """Return the model that a person named, and the version where one was named too.

    Args:
        wish: `MODEL`, `MODEL@RELEASE`, or `MODEL@` and the first digits of a digest, at least six.

    Raises:
        LinesideError: `resource.not_found`, with what there is and what comes nearest.
    """
    model, _, which = wish.partition("@")
    if model not in inventory.models():
        raise LinesideError("resource.not_found", f"There is no model {model} on this device.", _near(model, inventory))
    if not which:
        return model, None
    versions = inventory.of(model)
    fitting = [
        version
        for version in versions
        if which == str(version.release) or (len(which) >= DIGITS_AT_LEAST and version.digest.startswith(which))
    ]
    if len(fitting) == 1:
        return model, fitting[0]
    there = ", ".join(
        f"{model}@{version.release or version.digest[:12]} ({version.digest[:12]})" for version in versions
    )
    if fitting:
        raise LinesideError(
            "resource.not_found", f"{wish} means several versions.", f"Name one by its digest: {there}."
        )
    raise LinesideError(
        "resource.not_found", f"There is no {wish} on this device.", f"There is: {there or 'no version of it'}."
    )


def unneeded(root: Path, inventory: Inventory) -> tuple[tuple[Version, ...], tuple[tuple[str, int], ...]]:
    """Return the versions nothing refers to, and all files of no use with their bytes, by digest.

    The agent decides anew what it removes; this is what it would be if nothing changed meanwhile.
    """
    keep = {version.digest for version in inventory.versions if version.roles}
    attempts = (journal.attempt for journal in inventory.journals.values())
    keep.update(one.former for one in attempts if one is not None and one.former is not None and not one.has_ended)
    store = Store(root)
    files = [(digest, _bytes_of(store, digest)) for digest in store.unneeded(keep)]
    return tuple(one for one in inventory.versions if one.digest not in keep), tuple(files)


def _bytes_of(store: Store, digest: str) -> int:
    total = 0
    for path in (store.blob_path(digest), store.incoming_path(digest)):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _near(model: str, inventory: Inventory) -> str:
    models = inventory.models()
    if not models:
        return "There is none yet."
    near = difflib.get_close_matches(model, models, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}? " if near else ""
    return f"{hint}There is: {', '.join(models)}."


def _roles(
    store: Store,
    journals: Mapping[str, ModelJournal],
    running: tuple[RunningModel, ...],
    wanted: tuple[DesiredModel, ...],
    pinned: Iterable[str],
    packaged: Iterable[str],
) -> dict[str, tuple[str, ...]]:
    """Return what each version is for, those included that are for nothing."""
    found: dict[str, list[str]] = {}

    def add(digest: str | None, role: str) -> None:
        if digest is not None and role not in found.setdefault(digest, []):
            found[digest].append(role)

    for one in running:
        add(one.digest, "runs")
    for model in {*store.models(), *journals}:
        installed = store.installed(model)
        add(installed.current, "current")
        add(installed.previous, "previous")
    for journal in journals.values():
        attempt = journal.attempt
        if attempt is not None and not attempt.has_ended:
            add(attempt.digest, attempt.state.value.replace("_", " "))
    for entry in wanted:
        journal = journals.get(entry.model, ModelJournal())
        is_latest = journal.attempt is not None and journal.attempt.deployment_id == entry.deployment_id
        if not is_latest and not journal.has_ended(entry.deployment_id):
            add(entry.active, "asked for")
        add(entry.shadow, "shadow")
    for one in running:
        add(one.shadow_digest, "shadow")
    for digest in pinned:
        add(digest, "pinned")
    for digest in packaged:
        found.setdefault(digest, [])
    return {digest: tuple(names) for digest, names in found.items()}


def _version(
    root: Path, store: Store, journals: Mapping[str, ModelJournal], digest: str, roles: tuple[str, ...]
) -> Version | None:
    """Return a version by what its index says, else by what the journal or the record of what is installed does."""
    is_whole = (root / "packages" / digest).is_dir()
    try:
        index = _steadily(lambda: store.index(digest))
    except LinesideError:
        index = None
    if index is not None:
        return Version(
            model=index.model,
            release=index.release,
            digest=digest,
            bytes=index.total_bytes,
            roles=roles,
            is_whole=is_whole,
        )
    for model, journal in journals.items():
        attempt = journal.attempt
        if attempt is not None and attempt.digest == digest:
            return Version(
                model=model, release=attempt.release, digest=digest, bytes=None, roles=roles, is_whole=is_whole
            )
    for model in store.models():
        if digest in (store.installed(model).current, store.installed(model).previous):
            return Version(model=model, release=None, digest=digest, bytes=None, roles=roles, is_whole=is_whole)
    return None  # a leftover whose name nobody knows any more; it is collected


def read_journal(path: Path) -> ModelJournal:
    """Return what the device remembers of one model; nothing where it has no file.

    Raises:
        OSError, LinesideError: where it cannot be read, which may be so for a moment only.
    """
    try:
        return codec.decode(path.read_bytes(), ModelJournal)
    except FileNotFoundError:
        return ModelJournal()


def _wanted(path: Path) -> tuple[DesiredModel, ...]:
    try:
        return codec.decode(path.read_bytes(), Desired).models
    except FileNotFoundError:
        return ()


def _steadily(look: Callable[[], T]) -> T:
    """Look again where what was looked at is being replaced at this moment."""
    for left in range(_LOOKS - 1, -1, -1):
        try:
            return look()
        except (OSError, LinesideError):
            if left == 0:
                raise
            time.sleep(_BETWEEN_LOOKS_S)
    raise AssertionError
