"""Counts the parts that pass a virtual line, from what lies on the belt in each frame. Pure.

A part is followed from frame to frame by the movement that all parts on a belt share, and counted once, when its front
first reaches the line: not again when it stops there, goes back and comes again, even out of the picture. Runs whose
fronts are nearer together than the minimum pitch are one part, so that a part with a hole in it is one.

Parts that touch make one run. Those that touched before they came in are told apart by length, as soon as single parts
of about one length have been seen; parts of very different lengths that touch are counted as one. Between two frames
the belt must move less than a third of a pitch, or parts that look alike hide which way it moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.line.strip import Run

_LOST_AFTER: Final = 5  # frames in which a part cannot be seen though it should be in view
_LENGTHS_KEPT: Final = 8
_LENGTHS_NEEDED: Final = 5
_SAME_LENGTH: Final = 1.3  # longest to shortest of parts that are "of about one length"
_TWO_PARTS: Final = 1.6  # a run is so many times longer than one part
_PARTS_MOST: Final = 24
# What a movement costs, in pixels by which edges miss: for each pixel it differs from the last one, or goes backwards;
# for an edge that leaves the picture, as a share of the most an edge can miss; for each pixel of a miss that fits.
_SURPRISE: Final = 0.1
_BACKWARDS: Final = 0.15
_LEAVES: Final = 0.2
_NOISE: Final = 0.05
_FITS_COLUMNS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Where the line is.

    Args:
        at_px: of the picture's beginning, in the direction of the parts.
        length_px: of the picture.
        min_pitch_px: from front to front.
        column_px: how fine places are known.
    """

    at_px: float
    length_px: float
    min_pitch_px: float
    column_px: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part on the belt, as far as it is in view.

    Args:
        front_px: may lie beyond the picture.
        unseen: frames since it was seen last.
        measured: its length is known, since it has been seen whole and alone.
    """

    front_px: float
    length_px: float
    counted: bool = False
    unseen: int = 0
    measured: bool = False

    @property
    def rear_px(self) -> float:
        return self.front_px - self.length_px


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What is known after a frame.

    Args:
        parts: in view, the foremost first.
        runs: what lay on the belt.
        speed_px: of the belt, from the last frame to this one.
        lengths_px: of the last parts that were seen whole and alone.
        behind: counted parts that went back out of the picture; as many that come in are no new ones.
        beyond: counted parts that left in front; as many may come back.
        passed: parts counted since the beginning.
    """

    parts: tuple[Part, ...] = ()
    runs: tuple[Run, ...] = ()
    speed_px: float = 0.0
    lengths_px: tuple[float, ...] = ()
    behind: int = 0
    beyond: int = 0
    passed: int = 0
    begun: bool = field(default=False)


def step(gate: Gate, runs: Sequence[Run], line: Line) -> Gate:
    """Take one frame in; `passed` grows by the parts whose front has reached the line.

    Args:
        runs: what lies on the belt, the foremost first.
    """
    runs = _joined(runs, line.min_pitch_px)
    moved_px = _movement(gate, runs, line)
    followed = _followed(gate, runs, line, moved_px)
    parts = _born(followed, runs, line, moved_px)
    if not gate.begun:  # what is beyond the line already was there before us
        parts = replace(
            parts, parts=tuple(replace(part, counted=part.front_px >= line.at_px) for part in parts.parts), begun=True
        )
    parts = _split(parts, runs, line)
    parts = _measured(parts, runs, line)
    arrived = [part for part in parts.parts if not part.counted and part.front_px >= line.at_px]
    return replace(
        parts,
        parts=tuple(replace(part, counted=part.counted or part in arrived) for part in parts.parts),
        runs=tuple(runs),
        speed_px=moved_px,
        passed=gate.passed + len(arrived),
    )


def _joined(runs: Sequence[Run], min_pitch_px: float) -> list[Run]:
    """Take as one what is nearer together, front to front, than two parts can be."""
    joined: list[Run] = []
    for run in runs:
        if joined and joined[-1].front_px - run.front_px < min_pitch_px:
            joined[-1] = replace(joined[-1], rear_px=run.rear_px)
        else:
            joined.append(run)
    return joined


def _movement(gate: Gate, runs: Sequence[Run], line: Line) -> float:
    """Return by how much the belt has moved: what brings most edges that were seen to edges that are seen."""
    if not gate.runs or not runs:
        return gate.speed_px if gate.parts else 0.0
    most = max(4 * line.column_px, line.min_pitch_px / 2)
    fronts = _Edges.of([run.front_px for run in gate.runs], [run.front_px for run in runs], line.length_px)
    rears = _Edges.of([run.rear_px for run in gate.runs], [run.rear_px for run in runs], line.length_px)
    moves = np.concatenate(([0.0, gate.speed_px], fronts.moves(), rears.moves()))
    moves = moves[np.abs(moves) <= line.length_px / 2]
    fit = line.column_px * _FITS_COLUMNS
    cost = fronts.apart(moves, fit, most) + rears.apart(moves, fit, most)
    cost += _SURPRISE * np.abs(moves - gate.speed_px) + _BACKWARDS * np.maximum(0.0, -moves)
    return float(moves[np.argmin(cost)])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edges:
    """Where edges of one kind were and are; those that the picture's border cuts off are none."""

    known: NDArray[np.float64]
    seen: NDArray[np.float64]
    length_px: float

    @classmethod
    def of(cls, known: Sequence[float], seen: Sequence[float], length_px: float) -> _Edges:
        before, now = np.asarray(known, np.float64), np.asarray(seen, np.float64)
        return cls(known=before[_inside(before, length_px)], seen=now[_inside(now, length_px)], length_px=length_px)

    def moves(self) -> NDArray[np.float64]:
        """Every movement that brings one known edge to one that is seen."""
        return (self.seen[np.newaxis, :] - self.known[:, np.newaxis]).ravel()

    def apart(self, moves: NDArray[np.float64], fit: float, most: float) -> NDArray[np.float64]:
        """By how much the known edges, moved, miss those that are seen; summed, each `most` at the most.

        What misses by less than `fit` counts for little: among parts at equal distances, the speed decides, not the
        noise of the edges. An edge that leaves the picture explains nothing, and disproves nothing.
        """
        moved = moves[:, np.newaxis] + self.known[np.newaxis, :]
        misses = np.full(moved.shape, most)
        if self.seen.size:
            nearest = np.abs(moved[:, :, np.newaxis] - self.seen).min(axis=2)
            misses = np.minimum(_NOISE * nearest + np.maximum(0.0, nearest - fit), most)
        return np.asarray(np.where(_inside(moved, self.length_px), misses, _LEAVES * most).sum(axis=1), np.float64)


def _inside(places: NDArray[np.float64], length_px: float) -> NDArray[np.bool_]:
    return np.asarray((places > 0) & (places < length_px))


def _followed(gate: Gate, runs: Sequence[Run], line: Line, moved_px: float) -> Gate:
    """Move the known parts, each to the front that is seen next to where it should be."""
    snap = max(3 * line.column_px, line.min_pitch_px / 2)
    taken: set[Run] = set()
    kept: list[Part] = []
    behind, beyond = gate.behind, gate.beyond
    for part in gate.parts:
        front = part.front_px + moved_px
        near = [run for run in runs if run not in taken and run.front_px < line.length_px]
        match = min(near, key=lambda run: abs(run.front_px - front), default=None)
        if match is not None and abs(match.front_px - front) <= snap:
            taken.add(match)
            kept.append(replace(part, front_px=match.front_px, unseen=0))
        elif front - part.length_px >= line.length_px - line.column_px:
            beyond += part.counted
        elif front <= line.column_px:
            behind += part.counted
        elif any(run.rear_px - snap <= front and front - part.length_px <= run.front_px for run in runs):
            kept.append(replace(part, front_px=front, unseen=0))  # part of a longer run, or half out of the picture
        elif part.unseen < _LOST_AFTER:
            kept.append(replace(part, front_px=front, unseen=part.unseen + 1))
    return replace(gate, parts=tuple(kept), behind=behind, beyond=beyond)


def _born(gate: Gate, runs: Sequence[Run], line: Line, moved_px: float) -> Gate:
    """Add a part for each run that none of the known ones explains."""
    parts = list(gate.parts)
    behind, beyond = gate.behind, gate.beyond
    snap = max(3 * line.column_px, line.min_pitch_px / 2)
    fronts = {run.front_px for run in runs}
    inside = [part for part in parts if part.front_px not in fronts]  # of those seen from rear to front, each has a run
    for run in runs:
        if any(part.front_px == run.front_px for part in parts):
            continue
        if any(run.rear_px - snap <= part.front_px and part.rear_px <= run.front_px + snap for part in inside):
            continue
        if any(abs(part.front_px - run.front_px) < line.min_pitch_px for part in parts) or len(parts) >= _PARTS_MOST:
            continue
        at_exit = run.front_px >= line.length_px and run.rear_px >= line.at_px  # the last of a part, or one coming back
        comes_back = at_exit and moved_px < 0 and beyond > 0
        comes_again = not at_exit and behind > 0
        known = at_exit or comes_again
        beyond -= comes_back
        behind -= comes_again
        parts.append(Part(front_px=run.front_px, length_px=run.length_px, counted=known))
    parts.sort(key=lambda part: -part.front_px)
    return replace(gate, parts=tuple(parts), behind=behind, beyond=beyond)


def _split(gate: Gate, runs: Sequence[Run], line: Line) -> Gate:
    """Tell the parts of a run that is too long for one, and place those whose fronts cannot be seen."""
    typical = _typical(gate.lengths_px)
    if typical is None:
        return gate
    parts: list[Part] = []
    left = list(gate.parts)
    for run in runs:
        inside = [part for part in left if run.rear_px < part.front_px <= run.front_px + line.column_px]
        left = [part for part in left if part not in inside]
        parts += _placed(inside, run, line, typical) if inside else []
    parts = sorted([*parts, *left], key=lambda part: -part.front_px)
    return replace(gate, parts=tuple(parts[:_PARTS_MOST]))


def _placed(inside: Sequence[Part], run: Run, line: Line, typical: float) -> list[Part]:
    """Return the parts of one run, the foremost first; those it must have beside the known ones are added."""
    cut_front, cut_rear = run.front_px >= line.length_px, run.rear_px <= 0
    if cut_front and cut_rear:
        return list(inside)
    missing = 0
    if cut_rear:
        while inside[-1].front_px - missing * typical - run.rear_px >= _TWO_PARTS * typical:
            missing += 1
    elif not cut_front and run.length_px >= _TWO_PARTS * typical:
        missing = max(0, round(run.length_px / typical) - len(inside))
    parts = [*inside, *[Part(front_px=run.front_px, length_px=typical, measured=True)] * missing]
    count = len(parts)
    if count == 1:
        return parts
    if cut_front:
        fronts = [run.rear_px + (count - place) * typical for place in range(count)]
    else:
        pitch = typical if cut_rear else run.length_px / count
        fronts = [run.front_px - place * pitch for place in range(count)]
    return [replace(part, front_px=front) for part, front in zip(parts, fronts, strict=True)]


def _measured(gate: Gate, runs: Sequence[Run], line: Line) -> Gate:
    """Note the length of each part that is seen whole and alone, and how long the others are as far as they show."""
    lengths = list(gate.lengths_px)
    parts: list[Part] = []
    for part in gate.parts:
        own = [run for run in runs if abs(run.front_px - part.front_px) <= line.column_px]
        others = [other for run in own for other in gate.parts if run.rear_px < other.front_px <= run.front_px]
        if not own or len(others) != 1:
            parts.append(part)
            continue
        whole = own[0].rear_px > 0 and own[0].front_px < line.length_px
        if whole and not part.measured:
            lengths.append(own[0].length_px)
        length = own[0].length_px if whole else max(part.length_px, own[0].length_px)
        parts.append(replace(part, length_px=length, measured=part.measured or whole))
    return replace(gate, parts=tuple(parts), lengths_px=tuple(lengths[-_LENGTHS_KEPT:]))


def _typical(lengths_px: Sequence[float]) -> float | None:
    """Return the length of a single part; None while it is not known, or parts differ too much."""
    if len(lengths_px) < _LENGTHS_NEEDED or max(lengths_px) > _SAME_LENGTH * min(lengths_px):
        return None
    return sorted(lengths_px)[len(lengths_px) // 2]
