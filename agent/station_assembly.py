"""Puts one station together: its cameras, its line, its outputs, and the worker between them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.capture import reference
from agent.capture.demand import ViewDemand
from agent.capture.encode import PictureKeeper
from agent.capture.feed import Feed
from agent.capture.reference import ReferenceStore
from agent.capture.settings import VitalsSettings
from agent.capture.source_words import words_of
from agent.capture.sources import source_of
from agent.capture.vitals import VitalsWatch
from agent.clock import Clock
from agent.health import cores
from agent.health.station_report import Surroundings
from agent.inspection.changeover import Tell
from agent.inspection.records import TimeQuality
from agent.inspection.setup import own_setup
from agent.inspection.shadow import Shadows
from agent.inspection.turns import Turns
from agent.inspection.worker import StationWorker
from agent.line import tap
from agent.line.http_trigger import HttpLine
from agent.line.lines import line_of
from agent.line.outputs import outputs_of
from agent.line.trigger import Line, Output
from agent.settings import RuntimeSettings, StationSettings, ViewSettings
from agent.uplink.outbox import Outbox
from wire.errors import LinesideError
from wire.mint import Mint

log = logging.getLogger(__name__)

_MOST_THREADS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all stations of a device use together."""

    device: str
    clock: Clock
    mint: Mint
    outbox: Outbox
    pictures: PictureKeeper
    references: ReferenceStore
    turns: Turns
    runtime: RuntimeSettings
    sampling_salt: str
    time_quality: Callable[[], TimeQuality]
    tell: Tell
    shadows: Shadows


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One station, its line, outputs and cameras running; its worker's threads are the caller's to start.

    Args:
        http: takes triggers at the local address, None where the line is another.
    """

    id: str
    worker: StationWorker
    line: Line
    outputs: tuple[Output, ...]
    feeds: dict[str, Feed]
    watches: dict[str, VitalsWatch]
    around: Surroundings
    references: ReferenceStore
    http: HttpLine | None = None

    def keep_reference(self, view: str, image_bgr: NDArray[np.uint8], at: datetime) -> str:
        """Store what a view looks like with the recipe in force, and compare with it from now on; return the recipe."""
        recipe = self.worker.setup.recipe.id
        made = reference.of_pictures([image_bgr], at)
        self.references.write(self.id, view, made, recipe)
        self.watches[view].use_reference(made)
        return recipe

    def stop_line(self) -> None:
        """Take no more parts, and leave the line and the outputs in their fail-safe state."""
        self.line.close()
        for output in self.outputs:
            output.close()

    def close_cameras(self) -> None:
        for feed in self.feeds.values():
            feed.close()


def assemble(settings: StationSettings, shared: Shared) -> Station:
    """Build a station; cameras may be absent, and come when they come.

    Raises:
        LinesideError: `source.*` where a file cannot be read, `config.*` where a package is missing.
    """
    watches = {view.id: VitalsWatch(_limits(view)) for view in settings.views}
    feeds = {view.id: _feed(settings.id, view, watches[view.id], shared) for view in settings.views}
    infos = {view: feed.open() for view, feed in feeds.items()}
    built = line_of(settings, feeds, shared.clock, shared.mint, device=shared.device)
    outputs = outputs_of(settings, shared.clock, device=shared.device)
    worker = StationWorker(
        device=shared.device,
        settings=settings,
        line=tap.shown_to(built.line, outputs),
        feeds=feeds,
        time_classes={view: info.time_class for view, info in infos.items()},
        setup=own_setup(settings, shared.sampling_salt),
        outbox=shared.outbox,
        pictures=shared.pictures,
        mint=shared.mint,
        clock=shared.clock,
        time_quality=shared.time_quality,
        thread_count=_thread_count(shared.runtime, settings),
        outputs=outputs,
        turns=shared.turns,
        tell=shared.tell,
        shadows=shared.shadows,
    )
    sources = {view.id: (words_of(view.source), infos[view.id].time_class.value) for view in settings.views}
    return Station(
        id=settings.id,
        worker=worker,
        line=built.line,
        outputs=outputs,
        feeds=feeds,
        watches=watches,
        around=Surroundings(
            line=built.words,
            line_trouble=built.trouble,
            sources=sources,
            outputs=outputs,
            shadows=partial(shared.shadows.health, settings.id),
        ),
        references=shared.references,
        http=built.http,
    )


def _limits(view: ViewSettings) -> VitalsSettings:
    """A file may well repeat a picture; only a live camera that does is frozen."""
    is_live = view.source.kind not in {"video", "folder"}
    return view.vitals if is_live else dataclasses.replace(view.vitals, frozen_after=0)


def _feed(station: str, view: ViewSettings, watch: VitalsWatch, shared: Shared) -> Feed:
    def demand(asked: ViewDemand) -> None:
        """A recipe may be for another part before another background: each has its own reference view."""
        try:
            watch.use_reference(shared.references.read(station, view.id, asked.recipe))
        except LinesideError as error:
            watch.use_reference(None)
            log.error("View %s/%s: %s", station, view.id, error, extra={"event": "reference.failed"})  # noqa: TRY400

    return Feed(
        source_of(view.id, view.source, shared.clock),
        policy=view.source.policy,
        vitals=watch if view.vitals.enabled else None,
        on_demand=demand,
    )


def _thread_count(runtime: RuntimeSettings, station: StationSettings) -> int:
    """Parts of a line come one at a time, but a gate must look on while one is judged; clips keep all cores busy."""
    if runtime.station_threads is not None:
        return runtime.station_threads
    if station.line.kind == "part_gate":
        return 2
    return min(cores.usable(), _MOST_THREADS) if station.line.kind == "each_frame" else 1
