"""What is wrong with the device now, and when a person is told that it began and that it is over. Pure.

A trouble is told once it has stood for `STANDS_NS`, and called over once it has been gone for as long. Each trouble has
a budget of its own and all share another: one that comes and goes is told rarely, with how often it did, and what it
is in the end is always told.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from wire.messages import Health, Severity, StationHealth, ViewHealth

STANDS_NS: Final = 3_000_000_000
LOW_DISK_FRACTION: Final = 0.05
_NS_PER_MINUTE: Final = 60_000_000_000
_EACH_MOST, _EACH_PER_MINUTE = 4.0, 1.0
_ALL_MOST, _ALL_PER_MINUTE = 60.0, 30.0
_TEXT_MOST: Final = 1000

VITAL_WORDS: Final[dict[str, str]] = {
    "frozen": "the picture does not change any more",
    "black": "the picture is black",
    "saturated": "the picture is overexposed",
    "blurred": "the picture is blurred",
    "moved": "the camera has moved against its reference view",
    "wrong_size": "the picture has another size than it should",
    "corrupt": "the picture is damaged",
    "settings": "the camera does not keep the settings it is locked to",
}


class Kind(enum.Enum):
    """What can be in trouble: names of the two events, how soon a person should look, and the end in words."""

    CAMERA = ("camera.lost", "camera.found", Severity.ALARM, "the camera is back")
    VITAL = ("vital.raised", "vital.cleared", Severity.ALARM, "the picture is good again")
    LINE = ("line.lost", "line.found", Severity.ALARM, "the line is back")
    STATION = ("station.became_unready", "station.became_ready", Severity.ALARM, "the station is ready again")
    OUTPUT = ("output.lost", "output.found", Severity.WARNING, "the output gets through again")
    THREAD = ("thread.stalled", "thread.recovered", Severity.ALARM, "this thread answers again")
    DISK = ("disk.ran_low", "disk.recovered", Severity.WARNING, "there is room again")
    THROTTLING = ("device.throttled", "device.unthrottled", Severity.WARNING, "the processor has its full speed again")

    @property
    def raised(self) -> str:
        return self.value[0]

    @property
    def cleared(self) -> str:
        return self.value[1]

    @property
    def severity(self) -> Severity:
        return self.value[2]

    @property
    def over(self) -> str:
        return self.value[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One thing that is wrong.

    Args:
        place: what it is wrong with: `outlet/side`, a thread's name; empty for the device.
        what: tells apart troubles of one kind at one place: the vital.
        text: a sentence for a person, without the place.
    """

    kind: Kind
    place: str = ""
    what: str = ""
    text: str

    @property
    def key(self) -> str:
        """The same as long as it is the same trouble; its text may change meanwhile."""
        return " ".join((self.kind.name, self.place, self.what))


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One event to send: a name, how soon to look, and a sentence."""

    name: str
    severity: Severity
    text: str


def troubles_of(health: Health, lines: Mapping[str, str], outputs: Mapping[str, str]) -> tuple[Trouble, ...]:
    """Return what is wrong now.

    Args:
        lines, outputs: why each station's line, and each output, does not get through; empty where it does.
    """
    found = [trouble for station in health.stations for trouble in _of_station(station)]
    found += [Trouble(kind=Kind.LINE, place=place, text=f"the line: {text}") for place, text in lines.items() if text]
    found += [
        Trouble(kind=Kind.OUTPUT, place=place, text=f"verdicts do not get through: {text}")
        for place, text in outputs.items()
        if text
    ]
    found += [
        Trouble(kind=Kind.THREAD, place=name, text="this thread of the agent does not answer")
        for name in health.threads_stalled
    ]
    if health.disk_free_fraction < LOW_DISK_FRACTION:
        free = f"{health.disk_free_fraction:.1%} of the disk is free ({health.disk_free_bytes / 1e9:.1f} GB)"
        found.append(Trouble(kind=Kind.DISK, text=f"only {free}"))
    if health.throttled:
        found.append(Trouble(kind=Kind.THROTTLING, text="the processor is slowed down by heat or a weak supply"))
    return tuple(found)


def _of_station(station: StationHealth) -> Iterable[Trouble]:
    if station.not_ready:
        yield Trouble(kind=Kind.STATION, place=station.station, text=f"not ready: {station.not_ready}")
    for view in station.views:
        yield from _of_view(f"{station.station}/{view.view}", view)


def _of_view(place: str, view: ViewHealth) -> Iterable[Trouble]:
    if not view.connected and view.trouble:  # a clip that has ended gives no more frames, and nothing is wrong
        yield Trouble(kind=Kind.CAMERA, place=place, text=f"the camera is lost: {view.trouble}")
    for vital in view.vitals:
        yield Trouble(kind=Kind.VITAL, place=place, what=vital, text=VITAL_WORDS.get(vital, vital))


@dataclass(slots=True)
class _Budget:
    """Lets events through at a rate, with some to spare."""

    most: float
    per_minute: float
    left: float = field(init=False)
    asked_ns: int | None = None

    def __post_init__(self) -> None:
        self.left = self.most

    def refill(self, now_ns: int) -> None:
        if self.asked_ns is not None:
            self.left = min(self.most, self.left + (now_ns - self.asked_ns) / _NS_PER_MINUTE * self.per_minute)
        self.asked_ns = now_ns


@dataclass(slots=True)
class _Known:
    """One trouble that is there, or was told."""

    trouble: Trouble
    told: bool = False
    here: bool = False
    changed_ns: int | None = None
    begun_ns: int | None = None
    turns: int = 0
    budget: _Budget = field(default_factory=lambda: _Budget(_EACH_MOST, _EACH_PER_MINUTE))

    def stands(self, now_ns: int) -> bool:
        """Whether it has been as it is for long enough."""
        return self.changed_ns is not None and now_ns - self.changed_ns >= STANDS_NS

    @property
    def lasted_s(self) -> float | None:
        """From its beginning to its end; None where it began before the agent did."""
        if self.begun_ns is None or self.changed_ns is None:
            return None
        return (self.changed_ns - self.begun_ns) / 1e9


class TroubleWatch:
    """Says when to tell a person. One thread uses it.

    Args:
        told: keys and texts of troubles that were told, and not told to be over, before the agent was started anew.
    """

    def __init__(self, told: Mapping[str, str] | None = None) -> None:
        self._known: dict[str, _Known] = {}
        self._budget = _Budget(_ALL_MOST, _ALL_PER_MINUTE)
        for key, text in (told or {}).items():
            kind, _, rest = key.partition(" ")
            place, _, what = rest.partition(" ")
            if kind in Kind.__members__:
                trouble = Trouble(kind=Kind[kind], place=place, what=what, text=text)
                self._known[key] = _Known(trouble=trouble, told=True)

    @property
    def told(self) -> dict[str, str]:
        """What was told and is not over, to be remembered over a restart."""
        return {key: known.trouble.text for key, known in self._known.items() if known.told}

    def look(self, troubles: Iterable[Trouble], now_ns: int) -> tuple[Told, ...]:
        """Take what is wrong now; return what a person is to be told now."""
        now = {trouble.key: trouble for trouble in troubles}
        for key in now.keys() - self._known.keys():
            self._known[key] = _Known(trouble=now[key])
        self._budget.refill(now_ns)
        events = []
        for key, known in self._known.items():
            self._see(known, now.get(key), now_ns)
            if known.told is not known.here and known.stands(now_ns) and self._may(known):
                events.append(_event(known))
                known.told, known.turns = known.here, 0
        for key in [key for key, known in self._known.items() if _is_forgotten(known, now_ns)]:
            del self._known[key]
        return tuple(events)

    def _see(self, known: _Known, trouble: Trouble | None, now_ns: int) -> None:
        known.budget.refill(now_ns)
        here = trouble is not None
        if trouble is not None:
            known.trouble = trouble
        if here is not known.here or known.changed_ns is None:
            known.turns += here and not known.here
            known.here = here
            known.changed_ns = now_ns
            if here and not known.told:
                known.begun_ns = now_ns

    def _may(self, known: _Known) -> bool:
        if known.budget.left < 1 or self._budget.left < 1:
            return False
        known.budget.left -= 1
        self._budget.left -= 1
        return True


def _is_forgotten(known: _Known, now_ns: int) -> bool:
    """A trouble that is over and told is kept while its budget still has to fill up."""
    return not known.here and not known.told and known.stands(now_ns) and known.budget.left >= known.budget.most


def _event(known: _Known) -> Told:
    trouble, kind = known.trouble, known.trouble.kind
    often = f" It came and went {known.turns} times meanwhile." if known.turns > 1 else ""
    place = f"{trouble.place}: " if trouble.place else ""
    if known.here:
        text = f"{place}{trouble.text}"
        return Told(name=kind.raised, severity=kind.severity, text=_sentence(text, often))
    lasted = f" after {_duration(known.lasted_s)}" if known.lasted_s is not None else ""
    over = f"over{lasted}: {trouble.text}" if kind is Kind.VITAL else f"{kind.over}{lasted}"
    return Told(name=kind.cleared, severity=Severity.NOTE, text=_sentence(f"{place}{over}", often))


def _sentence(text: str, more: str) -> str:
    return f"{text.rstrip('.')[: _TEXT_MOST - len(more) - 1]}.{more}"


def _duration(seconds: float) -> str:
    for unit_s, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds:.0f} s"
