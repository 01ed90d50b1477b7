"""What this device remembers of candidates over a restart: one that was refused, or ended the agent, is not run again.

One small file, one entry a model: of the candidate that is asked for now. It is forgotten when the fleet no longer asks
for that version, so that asking anew means trying anew.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.deploy.durable import Disk
from agent.deploy.shadow_plan import Remembered
from wire import codec
from wire.errors import LinesideError
from wire.ids import Name

log = logging.getLogger(__name__)

FILE_NAME: Final = "shadows.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    models: dict[Name, Remembered] = field(default_factory=dict)


class ShadowMemory:
    """Read once at start, then held in memory beside the file; a file that cannot be read counts as none.

    Args:
        folder: where the file lies; it exists.
    """

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self._path = folder / FILE_NAME
        self._disk = disk or Disk()
        self._models = self._read()

    def of(self, model: str) -> Remembered | None:
        """Return what is known of a model's candidate."""
        return self._models.get(model)

    def models(self) -> tuple[str, ...]:
        """Return the models that something is known of."""
        return tuple(sorted(self._models))

    def write(self, model: str, remembered: Remembered | None) -> None:
        """Remember a candidate instead of any other of the model; None forgets.

        Raises:
            LinesideError: `storage.full` or `storage.corrupt`: it holds for this process only, unless a later write of
                any model gets through.
        """
        models = {name: one for name, one in self._models.items() if name != model}
        if remembered is not None:
            models[model] = remembered
        self._models = models
        self._disk.write(self._path, codec.encode(_File(models=models)))

    def _read(self) -> dict[str, Remembered]:
        try:
            return dict(codec.decode(self._path.read_bytes(), _File).models)
        except FileNotFoundError:
            return {}
        except (OSError, LinesideError) as error:
            log.warning("What is known of candidates is lost: %s", error, extra={"event": "shadow.memory_lost"})
            return {}
