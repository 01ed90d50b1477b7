"""When a camera's process is given up: decided from what it has said and shown, and when."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

# The process reports a lost camera itself after the same time-outs; only one that hangs is found out by the parent.
_MARGIN_S: Final = 2.0
_START_S: Final = 30.0


class Phase(enum.StrEnum):
    """How far a camera's process has come."""

    STARTING = "starting"  # the interpreter and its libraries are loaded
    OPENING = "opening"  # the camera is being opened
    RUNNING = "running"  # the camera is open; frames come, or could at any moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is asked of a camera's process.

    Args:
        steady: frames come all the time; one that waits for a trigger or a file may be silent.
        unchanged_s: 0 turns the watch off.
    """

    open_s: float
    read_s: float
    unchanged_s: float
    steady: bool


@dataclass(slots=True, kw_only=True)
class Signs:
    """What was last seen of a camera's process, in monotonic nanoseconds.

    Args:
        since_ns: of the phase.
        word_ns: any message.
        frame_ns: the camera gave a frame, whether or not it could be handed on.
        shown_ns: a frame was handed on.
        changed_ns: a frame was handed on that differed from the one before.
    """

    phase: Phase
    since_ns: int
    word_ns: int
    frame_ns: int
    shown_ns: int
    changed_ns: int


def signs_of_birth(now_ns: int) -> Signs:
    """Return the signs of a process that has just been started."""
    return Signs(
        phase=Phase.STARTING, since_ns=now_ns, word_ns=now_ns, frame_ns=now_ns, shown_ns=now_ns, changed_ns=now_ns
    )


def enter(signs: Signs, phase: Phase, now_ns: int) -> None:
    """Note that the process has come to another phase; nothing before counts against it any more."""
    signs.phase = phase
    signs.since_ns = signs.word_ns = signs.frame_ns = signs.shown_ns = signs.changed_ns = now_ns


def fault(signs: Signs, limits: Limits, now_ns: int) -> str:
    """Return why the process must be ended, for people; empty where it may run on."""
    in_phase_s = (now_ns - signs.since_ns) / 1e9
    if signs.phase is Phase.STARTING:
        return f"its process did not start within {_START_S:g} s" if in_phase_s > _START_S else ""
    if signs.phase is Phase.OPENING:
        return (
            f"it hangs while it is opened (over {limits.open_s:g} s)" if in_phase_s > limits.open_s + _MARGIN_S else ""
        )
    if (now_ns - signs.word_ns) / 1e9 > limits.read_s + _MARGIN_S:
        return f"its process hangs: no sign of life for {limits.read_s + _MARGIN_S:g} s"
    if limits.steady and (now_ns - signs.frame_ns) / 1e9 > limits.read_s + _MARGIN_S:
        return f"no frame for {limits.read_s + _MARGIN_S:g} s"
    if limits.unchanged_s and (signs.shown_ns - signs.changed_ns) / 1e9 > limits.unchanged_s:
        return f"its picture has not changed for {limits.unchanged_s:g} s"
    return ""
