"""Decides what is done next about one model's candidate: bring it here, test it, start it, stop it, or wait. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from wire.ids import Digest


class Word(enum.StrEnum):
    """What is known of a candidate."""

    TESTED = "tested"  # it passed its self-test on this device
    STARTED = "started"  # likewise, and its session may be in this process: written before it is loaded
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """One model's candidate.

    Args:
        memory_mb: what it needs, as the self-test measured.
        runtime_version: of onnxruntime, that it was tested with.
        code, reason: why it was refused: a key of the error register, and a sentence.
    """

    digest: Digest
    word: Word
    memory_mb: float = 0.0
    runtime_version: str = ""
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A candidate, and the share of parts it is meant to see."""

    digest: str
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the decision depends on.

    Args:
        asked: the fleet's wish; None where it has none.
        running: digest and rate of the candidate that runs, the digest read from its session.
        stopped: code and reason of one that was stopped by itself and is not remembered as refused yet.
        remembered: over restarts.
        active: the version in use; None where none is.
        is_named: a recipe of this device's stations names the model.
        is_busy: a version of some model is about to be swapped in, or on probation: nothing new may disturb it.
        is_short: a version that is to be swapped in does not fit into memory beside all that runs.
        is_complete: all its bytes have come.
        is_verified: they were verified in this process.
        waiting: a pause after a failed try is not over; `trouble` is what failed.
        no_room: on the disk.
        fits: into memory, beside all that runs.
        runtime_version: of onnxruntime.
    """

    asked: Asked | None = None
    running: Asked | None = None
    stopped: tuple[str, str] | None = None
    remembered: Remembered | None = None
    active: str | None = None
    is_named: bool = True
    is_busy: bool = False
    is_short: bool = False
    is_complete: bool = False
    is_verified: bool = False
    waiting: bool = False
    trouble: str = ""
    no_room: bool = False
    fits: bool = True
    runtime_version: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """Take the candidate away."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Forget what is remembered of a candidate nobody asks for any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Remember not to run it again."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRate:
    """Show it another share of the parts."""

    rate: float


@dataclass(frozen=True, slots=True)
class Download:
    """Fetch the next blob."""


@dataclass(frozen=True, slots=True)
class Verify:
    """Verify all bytes."""


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Test it in a process of its own."""


@dataclass(frozen=True, slots=True)
class Start:
    """Load it and show it parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Do nothing now, because of this; empty where nothing is wrong."""

    why: str = ""


Step: TypeAlias = Stop | Forget | Refuse | ChangeRate | Download | Verify | SelfTest | Start | Wait


def next_step(facts: Facts) -> Step:
    """Return what is done next.

    What is no longer right is ended first, then forgotten; only then anything new is begun.
    """
    asked, running, remembered = facts.asked, facts.running, facts.remembered
    if running is not None and (asked is None or asked.digest != running.digest or running.digest == facts.active):
        return Stop()
    if running is not None and facts.is_short:
        return Stop()
    if facts.stopped is not None and asked is not None:
        return Refuse(code=facts.stopped[0], reason=facts.stopped[1])
    if remembered is not None and (asked is None or remembered.digest != asked.digest):
        return Forget()
    if asked is None:
        return Wait()
    if remembered is not None and remembered.word is Word.REFUSED:
        return Wait(why=remembered.reason)
    if running is not None:
        return ChangeRate(rate=asked.rate) if running.rate != asked.rate else Wait()
    return _why_not_now(asked, facts) or _towards_start(facts)


def _why_not_now(asked: Asked, facts: Facts) -> Wait | None:
    if asked.digest == facts.active:
        return Wait(why="It is the active version.")
    if not facts.is_named:
        return Wait(why="No recipe of this device names the model.")
    if facts.active is None:
        return Wait(why="The model has no active version to compare it with.")
    return None


def _towards_start(facts: Facts) -> Step:
    if facts.waiting:
        return Wait(why=facts.trouble)
    if not facts.is_complete:
        return Wait(why="The disk has no room for it.") if facts.no_room else Download()
    tested = facts.remembered
    if tested is None or tested.runtime_version != facts.runtime_version:
        return SelfTest() if facts.is_verified else Verify()
    if facts.is_busy:
        return Wait(why="It waits until a deployment is over.")
    if not facts.fits:
        return Wait(why=f"Its {tested.memory_mb:.0f} MB do not fit into memory beside what runs.")
    return Start()
