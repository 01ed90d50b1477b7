"""The journal of deployments, one file per model, written before each side effect."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from agent.clock import Clock
from agent.deploy.attempt import Attempt, ModelJournal, Past, joined
from agent.deploy.durable import Disk, tidying
from wire import codec, deployment, ids
from wire.errors import LinesideError

log = logging.getLogger(__name__)


class Journal:
    """What this device remembers of its deployments; read once at start, then held in memory beside the files.

    A file that cannot be read is set aside as `<model>.json.damaged` (the latest one only) and its model begins anew.
    """

    def __init__(self, folder: Path, clock: Clock, disk: Disk | None = None) -> None:
        self._folder = folder
        self._disk = disk or Disk()
        self._models: dict[str, ModelJournal] = {}
        self._disk.make_folder(folder)
        with tidying(folder):
            self._disk.sweep(folder)
        for path in sorted(folder.glob("*.json")):
            if ids.is_name(path.stem):
                self._models[path.stem] = self._load(path, clock)

    def models(self) -> tuple[str, ...]:
        """Return the models that were ever deployed here."""
        return tuple(sorted(self._models))

    def of(self, model: str) -> ModelJournal:
        """Return what is remembered of a model."""
        return self._models.get(model, ModelJournal())

    def write(self, attempt: Attempt) -> None:
        """Make an attempt's new condition durable; one for another deployment than before joins those of the past.

        Raises:
            LinesideError: `storage.full` or `storage.corrupt`; what was remembered before still stands.
        """
        self._store(attempt.model, self._joined(attempt))

    def remember(self, attempt: Attempt) -> None:
        """Hold an attempt's new condition in memory only, where the disk does not take it; the next `write` may."""
        self._models[attempt.model] = self._joined(attempt)

    def _joined(self, attempt: Attempt) -> ModelJournal:
        before = self.of(attempt.model)
        past = before.past
        latest = before.attempt
        if latest is not None and latest.deployment_id != attempt.deployment_id and latest.state in deployment.ENDS:
            ended = Past(
                deployment_id=latest.deployment_id,
                digest=latest.digest,
                state=latest.state,
                code=latest.fault.code if latest.fault else "",
                origin=latest.origin,
            )
            past = joined(past, ended)
        return replace(before, attempt=attempt, past=past)

    def _store(self, model: str, journal: ModelJournal) -> None:
        self._disk.write(self._folder / f"{model}.json", codec.encode(journal))
        self._models[model] = journal

    def _load(self, path: Path, clock: Clock) -> ModelJournal:
        try:
            return codec.decode(path.read_bytes(), ModelJournal)
        except (OSError, LinesideError):
            log.exception("%s is damaged and set aside.", path, extra={"event": "journal.damaged"})
        fresh = ModelJournal(first_sequence=max(0, int(clock.now_utc().timestamp())))
        self._models[path.stem] = fresh
        try:
            self._set_aside(path)
            self._store(path.stem, fresh)
        except LinesideError as error:  # the device starts all the same, and the next word replaces the file
            log.error("%s cannot be replaced: %s", path, error, extra={"event": "journal.not_replaced"})  # noqa: TRY400
        return fresh

    def _set_aside(self, path: Path) -> None:
        """Give a damaged file a second name; it keeps its own until the fresh one takes its place.

        Between the two there must be no moment without either: a start then would count reports from 1 again.
        """
        aside = path.with_name(f"{path.name}.damaged")
        self._disk.remove(aside)
        if path.is_file():
            self._disk.link(path, aside)
        else:
            self._disk.rename(path, aside)
