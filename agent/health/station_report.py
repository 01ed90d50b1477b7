"""What one station tells of itself: its accounts, its views, its line and its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from agent.capture.accounts import FeedHealth, FrameCounts
from agent.health.rates import FrameRates
from agent.line.trigger import OutputCounts, StationState
from agent.status import OutputStatus, RecipeStatus, StationStatus, ViewStatus
from wire.messages import ShadowHealth, StationHealth, ViewHealth

_TEXT_MOST: Final = 200
_REASONS_MOST: Final = 32


class Feed(Protocol):
    """What is needed of a view's feed."""

    def counts(self) -> FrameCounts: ...
    def health(self) -> FeedHealth: ...


class Tally(Protocol):
    """What is needed of a station's tally."""

    @property
    def received(self) -> int: ...
    @property
    def repeats(self) -> int: ...
    @property
    def unrecorded(self) -> int: ...
    @property
    def verdicts(self) -> dict[str, int]: ...
    @property
    def without_verdict(self) -> dict[str, int]: ...
    @property
    def deadline_misses(self) -> int: ...
    def percentiles_ms(self) -> tuple[float, float] | None: ...
    def step_percentiles_ms(self, view: str | None = None) -> dict[str, tuple[float, float]]: ...


class Recipe(Protocol):
    """One recipe of a station's listing."""

    @property
    def id(self) -> str: ...
    @property
    def revision(self) -> int: ...
    @property
    def number(self) -> int | None: ...
    @property
    def codes(self) -> tuple[str, ...]: ...
    @property
    def active(self) -> bool: ...
    @property
    def loaded(self) -> bool: ...
    @property
    def refusal(self) -> str: ...


class Worker(Protocol):
    """What is needed of a station's worker."""

    @property
    def tally(self) -> Tally: ...
    @property
    def missed_count(self) -> int: ...
    def state(self) -> StationState: ...
    def recipes(self) -> Sequence[Recipe]: ...


class Output(Protocol):
    """What is needed of an output."""

    @property
    def name(self) -> str: ...
    def counts(self) -> OutputCounts: ...


def _no_trouble() -> str:
    return ""


def _no_shadows() -> tuple[ShadowHealth, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What stands around a station.

    Args:
        line: what triggers it, in words, without passwords.
        line_trouble: why the line cannot be reached, empty where it can; called every second.
        sources: of each view, in words, and its time class.
        shadows: the accounts of candidates that are shown its parts.
    """

    line: str = ""
    line_trouble: Callable[[], str] = _no_trouble
    sources: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    outputs: Sequence[Output] = ()
    shadows: Callable[[], tuple[ShadowHealth, ...]] = _no_shadows


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One look at a station.

    Args:
        cameras: process ids of its cameras, by view.
    """

    status: StationStatus
    cameras: Mapping[str, int]


def look(
    station: str,
    worker: Worker,
    feeds: Mapping[str, Feed],
    around: Surroundings,
    rates: FrameRates,
    now_ns: int,
) -> Report:
    """Take one look at a station.

    Args:
        rates: remembers the counts of former looks.
        now_ns: monotonic clock.
    """
    state, tally = worker.state(), worker.tally
    counts = {view: feed.counts() for view, feed in feeds.items()}
    feed_health = {view: feed.health() for view, feed in feeds.items()}
    views = tuple(_view(station, view, counts[view], feed_health[view], tally, rates, now_ns) for view in feeds)
    percentiles = tally.percentiles_ms()
    cameras = {view: health.process_id for view, health in feed_health.items() if health.process_id is not None}
    # Each is read once, verdicts before triggers: a report that is made while parts pass agrees with itself.
    verdicts, missed = tally.verdicts, worker.missed_count
    health = StationHealth(
        station=station,
        triggers=tally.received + missed,
        verdicts=sum(verdicts.values()) + missed,
        frames_in=sum(view.frames_in for view in views),
        frames_used=sum(view.frames_used for view in views),
        frames_not_triggered=sum(view.frames_not_triggered for view in views),
        frames_dropped=sum(sum(view.frames_dropped.values()) for view in views),
        latency_p50_ms=percentiles[0] if percentiles else None,
        latency_p99_ms=percentiles[1] if percentiles else None,
        recipe=state.recipe,
        not_ready=short("" if state.ready else state.not_ready or "It is not ready yet."),
        deadline_misses=tally.deadline_misses,
        repeats=tally.repeats,
        views=views,
        shadows=around.shadows(),
    )
    status = StationStatus(
        health=health,
        ready=state.ready,
        verdicts=verdicts,
        without_verdict=dict(sorted(tally.without_verdict.items())[:_REASONS_MOST]),
        steps_ms=tally.step_percentiles_ms(),
        missed=missed,
        unrecorded=tally.unrecorded,
        line=around.line,
        line_trouble=around.line_trouble(),
        views=tuple(
            ViewStatus(view=view, source=source, time_class=time_class, process_id=cameras.get(view))
            for view, (source, time_class) in around.sources.items()
        ),
        recipes=tuple(_recipe(recipe) for recipe in worker.recipes()),
        outputs=tuple(_output(output) for output in around.outputs),
    )
    return Report(status=status, cameras=cameras)


def _view(
    station: str,
    view: str,
    counts: FrameCounts,
    health: FeedHealth,
    tally: Tally,
    rates: FrameRates,
    now_ns: int,
) -> ViewHealth:
    rate = rates.add(station, view, now_ns, counts.frames_in, counts.used)
    return ViewHealth(
        view=view,
        connected=health.connected,
        trouble=short(health.trouble),
        frames_in=counts.frames_in,
        frames_used=counts.used,
        frames_not_triggered=counts.not_triggered,
        frames_dropped=dict(counts.dropped),
        fps_in=rate[0] if rate is not None else None,
        fps_used=rate[1] if rate is not None else None,
        frame_age_ms=health.frame_age_ms,
        restarts=health.restarts,
        vitals=tuple(vital.value for vital in health.raised),
        steps_ms=tally.step_percentiles_ms(view),
    )


def _recipe(recipe: Recipe) -> RecipeStatus:
    return RecipeStatus(
        id=recipe.id,
        revision=recipe.revision,
        number=recipe.number,
        codes=recipe.codes,
        active=recipe.active,
        loaded=recipe.loaded,
        refusal=recipe.refusal,
    )


def _output(output: Output) -> OutputStatus:
    counts = output.counts()
    return OutputStatus(
        name=output.name, sent=counts.sent, dropped=counts.dropped, failed=counts.failed, trouble=counts.trouble
    )


def short(text: str) -> str:
    """Return a text that fits the wire's short ones."""
    return text if len(text) <= _TEXT_MOST else f"{text[: _TEXT_MOST - 3]}..."
