"""Gives several stations new catalogues, each between two parts of its own: all of them, or none."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from agent.inspection.catalogue import Catalogue
from agent.inspection.changeover import SWAP_TIMEOUT_S
from agent.inspection.worker import StationWorker
from wire.errors import LinesideError

log = logging.getLogger(__name__)


def swap(
    workers: Mapping[str, StationWorker], catalogues: Mapping[str, Catalogue], timeout_s: float = SWAP_TIMEOUT_S
) -> None:
    """Have each station take its catalogue; where one does not in time, the others go back to what they had.

    A station that has taken the new one and does not come between two parts again goes back as soon as it does.

    Args:
        workers: by station.
        catalogues: of the stations that change.
        timeout_s: for which each station is waited for.

    Raises:
        LinesideError: `deployment.activation_failed`, and no station judges its next part with the new catalogue.
    """
    done: list[tuple[StationWorker, Catalogue]] = []
    try:
        for station, catalogue in catalogues.items():
            worker = workers[station]
            former = worker.catalogue
            worker.replace_catalogue(catalogue, timeout_s)
            done.append((worker, former))
    except LinesideError:
        for worker, former in reversed(done):
            worker.restore_catalogue(former, timeout_s)
        raise
