"""What a simulated part is: where it lies, which defects it has, and the known truth about it."""

from __future__ import annotations

import dataclasses
import enum
import math
from dataclasses import dataclass
from typing import Final

import numpy as np

WIDTH_PX: Final = 320
HEIGHT_PX: Final = 240
PLATE_HALF_PX: Final = (104.0, 68.0)
HOLE_RADIUS_PX: Final = 8.5
BORE_RADIUS_PX: Final = 21.0
HOLES: Final = tuple((x, y) for y in (-48.0, 48.0) for x in (-82.0, 0.0, 82.0))
"""Centres of the six holes, in pixels from the centre of a plate that lies straight."""

_EDGE_PX = 12.0
_CLEAR_PX = 5.0
_TRIES = 40
_PLACE_ALWAYS_CLEAR = (45.0, 0.0)
_SECOND_DEFECT = 0.15


class DefectKind(enum.StrEnum):
    """What can be wrong with a part."""

    SCRATCH = "scratch"
    DENT = "dent"
    MISSING_HOLE = "missing_hole"


_KIND_SHARES: Final = {DefectKind.SCRATCH: 0.45, DefectKind.DENT: 0.3, DefectKind.MISSING_HOLE: 0.25}


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """One defect as truth: its kind, and the box of all pixels it changes (x1, y1, x2, y2)."""

    kind: DefectKind
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTruth:
    """All that is wrong with a part; a part without defects is OK."""

    defects: tuple[Defect, ...] = ()

    @property
    def is_ng(self) -> bool:
        return bool(self.defects)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """A thin curved line.

    Args:
        points: its corners in picture pixels.
        contrast: grey levels it differs from the metal by; negative is darker.
    """

    points: tuple[tuple[float, float], ...]
    width_px: float
    contrast: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dent:
    """A soft hollow: one side in shade and the other in light.

    Args:
        center: in picture pixels.
        angle: direction of the light across it, in radians.
    """

    center: tuple[float, float]
    sigma_px: float
    contrast: float
    angle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part on the belt: everything `render` needs, so that the same value is always the same picture.

    Args:
        center: of the plate, in picture pixels.
        angle: the plate's rotation in radians.
        missing_holes: indexes into HOLES.
    """

    seed: int
    number: int
    center: tuple[float, float]
    angle: float
    scratches: tuple[Scratch, ...] = ()
    dents: tuple[Dent, ...] = ()
    missing_holes: tuple[int, ...] = ()

    def in_picture(self, place: tuple[float, float]) -> tuple[float, float]:
        """Turn a place on the plate (pixels from its centre) into a place in the picture."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y = place
        return (self.center[0] + x * cos - y * sin, self.center[1] + x * sin + y * cos)

    @property
    def truth(self) -> PartTruth:
        """The defects with the boxes they have in the picture."""
        defects = [Defect(kind=DefectKind.SCRATCH, box=_box(s.points, s.width_px / 2 + 2.0)) for s in self.scratches]
        defects += [Defect(kind=DefectKind.DENT, box=_box((d.center,), dent_reach_px(d) + 1.0)) for d in self.dents]
        defects += [
            Defect(kind=DefectKind.MISSING_HOLE, box=_box((self.in_picture(HOLES[i]),), HOLE_RADIUS_PX + 3.0))
            for i in self.missing_holes
        ]
        return PartTruth(defects=tuple(defects))

    def without_defects(self) -> Part:
        """Return the same part, in the same light, had nothing gone wrong with it."""
        return dataclasses.replace(self, scratches=(), dents=(), missing_holes=())


def plan_part(seed: int, number: int, defect_rate: float) -> Part:
    """Decide what part `number` of a run is; any part can be planned without those before it.

    Args:
        seed: of the run, 0 or more.
        number: of the part in the run, 0 or more.
        defect_rate: probability that the part has a defect, 0 to 1.
    """
    rng = np.random.Generator(np.random.PCG64((seed, number, 0)))
    part = Part(
        seed=seed,
        number=number,
        center=(WIDTH_PX / 2 + rng.uniform(-14.0, 14.0), HEIGHT_PX / 2 + rng.uniform(-10.0, 10.0)),
        angle=rng.uniform(-0.14, 0.14),
    )
    if rng.random() >= defect_rate:
        return part
    for _ in range(1 + int(rng.random() < _SECOND_DEFECT)):
        part = _with_defect(part, rng)
    return part


def dent_reach_px(dent: Dent) -> float:
    """Return the distance from its centre at which a dent has faded out."""
    return 2.3 * dent.sigma_px


def is_clear(place: tuple[float, float]) -> bool:
    """Say whether a place on the plate is metal, away from its edges and holes."""
    x, y = place
    inside = abs(x) <= PLATE_HALF_PX[0] - _EDGE_PX and abs(y) <= PLATE_HALF_PX[1] - _EDGE_PX
    off_holes = all(math.hypot(x - hx, y - hy) >= HOLE_RADIUS_PX + _CLEAR_PX for hx, hy in HOLES)
    return inside and off_holes and math.hypot(x, y) >= BORE_RADIUS_PX + _CLEAR_PX


def clear_place(rng: np.random.Generator) -> tuple[float, float]:
    """Draw a clear place on the plate."""
    for _ in range(_TRIES):
        place = (rng.uniform(-PLATE_HALF_PX[0], PLATE_HALF_PX[0]), rng.uniform(-PLATE_HALF_PX[1], PLATE_HALF_PX[1]))
        if is_clear(place):
            return place
    return _PLACE_ALWAYS_CLEAR


def clear_path(rng: np.random.Generator, length_px: float) -> tuple[tuple[float, float], ...]:
    """Draw a slightly bent line over clear metal, in plate pixels; shorter than asked for where it meets an edge."""
    x, y = clear_place(rng)
    heading, bend = rng.uniform(0.0, 2 * math.pi), rng.normal(0.0, 0.12)
    points = [(x, y)]
    for _ in range(6):
        x, y, heading = x + length_px / 6 * math.cos(heading), y + length_px / 6 * math.sin(heading), heading + bend
        if not is_clear((x, y)):
            break
        points.append((x, y))
    return tuple(points)


def _with_defect(part: Part, rng: np.random.Generator) -> Part:
    kind = list(_KIND_SHARES)[int(rng.choice(len(_KIND_SHARES), p=list(_KIND_SHARES.values())))]
    sign = 1.0 if rng.random() < 0.6 else -1.0
    strength = float(rng.beta(1.6, 1.4))  # 0 is barely a defect, 1 a glaring one
    if kind is DefectKind.MISSING_HOLE:
        index = int(rng.integers(len(HOLES)))
        return dataclasses.replace(part, missing_holes=tuple(sorted({*part.missing_holes, index})))
    if kind is DefectKind.DENT:
        dent = Dent(
            center=part.in_picture(clear_place(rng)),
            sigma_px=rng.uniform(3.0, 6.5),
            contrast=26.0 + 44.0 * strength,
            angle=rng.uniform(0.0, 2 * math.pi),
        )
        return dataclasses.replace(part, dents=(*part.dents, dent))
    path: tuple[tuple[float, float], ...] = ()
    for _ in range(_TRIES):
        path = clear_path(rng, rng.uniform(18.0, 70.0))
        if len(path) >= 4:
            break
    scratch = Scratch(
        points=tuple(part.in_picture(place) for place in path),
        width_px=rng.uniform(1.2, 2.4),
        contrast=sign * (24.0 + 50.0 * strength),
    )
    return dataclasses.replace(part, scratches=(*part.scratches, scratch))


def _box(points: tuple[tuple[float, float], ...], margin: float) -> tuple[float, float, float, float]:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return (
        max(0.0, min(xs) - margin),
        max(0.0, min(ys) - margin),
        min(float(WIDTH_PX), max(xs) + margin),
        min(float(HEIGHT_PX), max(ys) + margin),
    )
