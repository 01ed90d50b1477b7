"""The desired document on the device: the last one read is kept on disk, so that a start without a network knows it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, Protocol

from agent.deploy.durable import Disk
from wire import codec
from wire.desired import Desired
from wire.errors import LinesideError

log = logging.getLogger(__name__)

FILE_NAME: Final = "desired.json"


class Api(Protocol):
    """What is needed of the fleet's HTTP client."""

    def desired(self, etag: str | None) -> tuple[Desired, str] | None: ...


class DesiredKeeper:
    """Reads the document from the fleet when it has changed, and from disk at the start."""

    def __init__(self, data_dir: Path, device: str, api: Api) -> None:
        self._path = data_dir / FILE_NAME
        self._device = device
        self._api = api
        self._disk = Disk()
        self._etag: str | None = None
        self.current = self._read()

    def refresh(self) -> bool:
        """Ask the fleet; True when the document is new.

        Raises:
            LinesideError: `network.*`, `access.*`, or `storage.*` where it cannot be kept; the document in force stays.
        """
        answer = self._api.desired(self._etag)
        if answer is None:
            return False
        document, etag = answer
        if document.device != self._device:
            raise LinesideError(
                "network.bad_answer", f"The fleet sent the desired document of {document.device} to {self._device}."
            )
        is_new = self.current is None or document != self.current
        if is_new:
            self._disk.write(self._path, codec.encode(document))
            self.current = document
            log.info("Desired revision %d was read.", document.revision, extra={"event": "desired.changed"})
        self._etag = etag
        return is_new

    def _read(self) -> Desired | None:
        try:
            return codec.decode(self._path.read_bytes(), Desired)
        except FileNotFoundError:
            return None
        except (OSError, LinesideError) as error:
            log.warning("The kept desired document is of no use: %s", error, extra={"event": "desired.set_aside"})
            return None
