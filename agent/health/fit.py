"""Makes health fit its byte budget: figures go first, and what is wrong goes last. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from wire import codec, topics
from wire.messages import Health, Lane, StationHealth, ViewHealth

# The batch around one entry: device, epoch, lane and sequence number.
_ENVELOPE_BYTES: Final = 512
MAX_BYTES: Final = topics.TABLE[Lane.HEALTH.value].max_bytes - _ENVELOPE_BYTES


def fitted(health: Health, max_bytes: int = MAX_BYTES) -> Health:
    """Return health as it is where it fits, otherwise with less in it.

    In this order go: the steps of views, the views nothing is wrong with, processes, candidates, all views.
    """
    for less in _LESS:
        if len(codec.encode(health)) <= max_bytes:
            break
        health = less(health)
    return health


def _is_wrong(view: ViewHealth) -> bool:
    return not view.connected or bool(view.trouble) or bool(view.vitals)


def _stations(change: Callable[[StationHealth], StationHealth]) -> Callable[[Health], Health]:
    return lambda health: replace(health, stations=tuple(change(station) for station in health.stations))


_LESS: Final[tuple[Callable[[Health], Health], ...]] = (
    _stations(lambda one: replace(one, views=tuple(replace(view, steps_ms={}) for view in one.views))),
    _stations(lambda one: replace(one, views=tuple(view for view in one.views if _is_wrong(view)))),
    lambda health: replace(health, processes=health.processes[:1]),
    _stations(lambda one: replace(one, shadows=())),
    _stations(lambda one: replace(one, views=())),
)
