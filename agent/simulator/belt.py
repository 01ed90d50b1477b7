"""The plan of a simulated belt: which part passes the photo-eye when, under which recipe, and the truth about it. Pure.

Lengths are in lengths of a part, so that a pitch of 1 is two parts that touch. The belt runs in batches of one recipe
each; before a batch it stands, and the line asks for the batch's recipe. Within a batch it runs through stretches of
one acceleration each: faster, slower, to a stop and on again. Times are seconds since the batch began to move.
"""

from __future__ import annotations

import bisect
import enum
import itertools
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from wire.inspection import Verdict

MAX_PARTS: Final = 65_535  # what the marks on a picture can count
_RAMP_LENGTHS: Final = 3.0


class Fault(enum.Enum):
    """How much of a fault one view shows of a part, under one recipe."""

    NONE = Verdict.OK
    WEAK = Verdict.UNSURE
    CLEAR = Verdict.NG


@dataclass(frozen=True, slots=True, kw_only=True)
class BeltSettings:
    """What a belt does.

    Args:
        part_count: of all batches together.
        least_pitch_ms: two parts that touch, at full speed, are so far apart; nothing is nearer.
        views: of the station.
        recipes: numbers by which the line asks for them, in turn.
        batch_parts: parts of one recipe, before the line asks for the next.
        touching_share: of the parts touch the one before.
        mean_gap: of the others, in lengths of a part.
        speeds: of the stretches, as shares of full speed.
        stretch_parts: the belt keeps a speed for about so many parts.
        stop_share: of the stretches end with a stop.
        stop_s: longest stop.
        clear_share, weak_share: of the parts show such a fault, in each view and under each recipe by itself.
    """

    seed: int = 1
    part_count: int = 1000
    least_pitch_ms: float = 50.0
    views: tuple[str, ...] = ("top", "left", "right")
    recipes: tuple[int, ...] = (1, 2)
    batch_parts: int = 250
    touching_share: float = 0.25
    mean_gap: float = 0.5
    speeds: tuple[float, ...] = (1.0, 0.9, 0.7, 0.5)
    stretch_parts: int = 60
    stop_share: float = 0.25
    stop_s: float = 0.5
    clear_share: float = 0.12
    weak_share: float = 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class BeltPart:
    """One part.

    Args:
        number: from 1, over all batches.
        at_s: when its front reaches the photo-eye, since the batch began to move.
        touching: it lies against the part before it.
        faults: per view, one for each of the belt's recipes.
    """

    number: int
    at_s: float
    touching: bool
    faults: Mapping[str, tuple[Fault, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Parts of one recipe, by its number and its place among the belt's recipes."""

    recipe: int
    recipe_index: int
    parts: tuple[BeltPart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A piece of the belt's way, at one acceleration, after a stop of `pause_s`; speeds in lengths per second."""

    length: float
    from_speed: float
    to_speed: float
    pause_s: float = 0.0

    def time_at(self, way: float) -> float:
        """Return the seconds from the stretch's beginning, its stop included, to `way` lengths into it."""
        if way <= 0:
            return self.pause_s
        gain = (self.to_speed**2 - self.from_speed**2) * way / self.length
        return self.pause_s + 2 * way / (self.from_speed + math.sqrt(max(0.0, self.from_speed**2 + gain)))


class Travel:
    """When the belt has moved how far."""

    def __init__(self, stretches: Collection[Stretch]) -> None:
        self._stretches = tuple(stretches)
        self._ways = (0.0, *itertools.accumulate(one.length for one in self._stretches))
        self._times = (0.0, *itertools.accumulate(one.time_at(one.length) for one in self._stretches))

    @property
    def length(self) -> float:
        return self._ways[-1]

    def time_at(self, way: float) -> float:
        """Return the seconds after which the belt has moved `way` lengths."""
        index = min(bisect.bisect_left(self._ways, way, lo=1) - 1, len(self._stretches) - 1)
        return self._times[index] + self._stretches[index].time_at(way - self._ways[index])


def plan(settings: BeltSettings) -> Iterator[Batch]:
    """Return the batches, one after the other; the same settings give the same belt."""
    first = 1
    for index in itertools.count():
        count = min(settings.batch_parts, settings.part_count - first + 1)
        if count <= 0:
            return
        yield _batch(settings, index, first, count)
        first += count


def expected(part: BeltPart, recipe_index: int, seen: Collection[str]) -> Verdict:
    """Return the verdict the part must have when the views `seen` gave a picture: any NG is NG, otherwise a missing
    view is NO_VERDICT, otherwise any UNSURE is UNSURE."""
    verdicts = {faults[recipe_index].value for view, faults in part.faults.items() if view in seen}
    if Verdict.NG in verdicts:
        return Verdict.NG
    if any(view not in seen for view in part.faults):
        return Verdict.NO_VERDICT
    return Verdict.UNSURE if Verdict.UNSURE in verdicts else Verdict.OK


def _batch(settings: BeltSettings, index: int, first: int, count: int) -> Batch:
    rng = np.random.Generator(np.random.PCG64((settings.seed, index)))
    touching = rng.random(count) < settings.touching_share
    touching[0] = False
    gaps = np.where(touching, 0.0, rng.exponential(settings.mean_gap, count))
    places = np.cumsum(1.0 + gaps)
    travel = Travel(_stretches(settings, rng, float(places[-1])))
    draws = rng.random((count, len(settings.views), len(settings.recipes)))
    parts = tuple(
        BeltPart(
            number=first + offset,
            at_s=travel.time_at(float(places[offset])),
            touching=bool(touching[offset]),
            faults={
                view: tuple(_fault(settings, float(draw)) for draw in draws[offset, column])
                for column, view in enumerate(settings.views)
            },
        )
        for offset in range(count)
    )
    turn = index % len(settings.recipes)
    return Batch(recipe=settings.recipes[turn], recipe_index=turn, parts=parts)


def _stretches(settings: BeltSettings, rng: np.random.Generator, length: float) -> list[Stretch]:
    """Return the belt's speeds over at least `length`, from standstill."""
    full = 1000.0 / settings.least_pitch_ms
    made: list[Stretch] = []
    speed = covered = pause_s = 0.0
    while covered < length:
        wanted = full * float(rng.choice(settings.speeds))
        steady = settings.stretch_parts * float(rng.uniform(0.3, 1.7))
        made.append(Stretch(length=_RAMP_LENGTHS, from_speed=speed, to_speed=wanted, pause_s=pause_s))
        made.append(Stretch(length=steady, from_speed=wanted, to_speed=wanted))
        speed, pause_s = wanted, 0.0
        if rng.random() < settings.stop_share:
            made.append(Stretch(length=_RAMP_LENGTHS, from_speed=wanted, to_speed=0.0))
            speed, pause_s = 0.0, settings.stop_s * float(rng.uniform(0.2, 1.0))
        covered = sum(one.length for one in made)
    return made


def _fault(settings: BeltSettings, draw: float) -> Fault:
    if draw < settings.clear_share:
        return Fault.CLEAR
    return Fault.WEAK if draw < settings.clear_share + settings.weak_share else Fault.NONE
