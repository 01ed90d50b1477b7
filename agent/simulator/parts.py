"""The picture of a simulated part: a drilled metal plate on a belt, as a camera with its own noise sees it."""

from __future__ import annotations

import functools
import math
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.simulator.parts_plan import (
    BORE_RADIUS_PX,
    HEIGHT_PX,
    HOLE_RADIUS_PX,
    HOLES,
    PLATE_HALF_PX,
    WIDTH_PX,
    Defect,
    DefectKind,
    Dent,
    Part,
    PartTruth,
    Scratch,
    clear_path,
    clear_place,
    dent_reach_px,
    plan_part,
)

__all__ = ["HEIGHT_PX", "WIDTH_PX", "Defect", "DefectKind", "Part", "PartTruth", "plan_part", "render"]

Grey = NDArray[np.float32]
_TILE: Final = 640
_SUBPIXEL_BITS: Final = 4
_CUT_PX: Final = 6.0
_TEXTURES: Final = ("belt", "brushed", "sensor")


def render(part: Part) -> NDArray[np.uint8]:
    """Draw a part.

    The same part gives the same picture, byte for byte with the same NumPy and OpenCV. Light, texture, dust, smudges
    and handling marks too faint to matter vary from part to part and are there whether or not it has a defect.

    Returns:
        (240, 320, 3) uint8, BGR.
    """
    rng = np.random.Generator(np.random.PCG64((part.seed, part.number, 1)))
    grey = _belt_and_plate(part, rng)
    _smudges_and_marks(grey, part, rng)
    for dent in part.dents:
        _draw_dent(grey, dent)
    for scratch in part.scratches:
        _draw_scratch(grey, scratch)
    _holes(grey, part, rng)
    return _exposed(grey, rng)


def _belt_and_plate(part: Part, rng: np.random.Generator) -> Grey:
    grey = _crop(_tile("belt"), rng)
    grey += rng.uniform(42.0, 66.0)
    half_x, half_y = PLATE_HALF_PX
    cut_x, cut_y = half_x - _CUT_PX, half_y - _CUT_PX
    corners = [(cut_x, -half_y), (half_x, -cut_y), (half_x, cut_y), (cut_x, half_y)]
    corners += [(-x, -y) for x, y in corners]
    outline = np.array([part.in_picture(corner) for corner in corners], dtype=np.float32)
    mask: Grey = np.zeros((HEIGHT_PX, WIDTH_PX), dtype=np.float32)
    shade_px = np.array([rng.uniform(-5.0, 5.0), rng.uniform(1.0, 6.0)], dtype=np.float32)
    cv2.fillPoly(mask, [_fixed(outline + shade_px)], 1.0, cv2.LINE_8, _SUBPIXEL_BITS)
    grey *= 1.0 - 0.45 * cv2.blur(mask, (9, 9))
    mask.fill(0.0)
    cv2.fillPoly(mask, [_fixed(outline)], 1.0, cv2.LINE_8, _SUBPIXEL_BITS)
    metal = _brushed(part, rng)
    metal += rng.uniform(138.0, 166.0)
    metal -= grey
    metal *= cv2.blur(mask, (3, 3))
    grey += metal
    return grey


def _brushed(part: Part, rng: np.random.Generator) -> Grey:
    """Brushed metal whose lines turn with the plate."""
    x, y = (float(v) for v in rng.integers(120, _TILE - 440, size=2))
    turn = cv2.getRotationMatrix2D((x + WIDTH_PX / 2, y + HEIGHT_PX / 2), -math.degrees(part.angle), 1.0)
    turn[:, 2] -= np.array((x, y))
    strength = rng.uniform(0.7, 1.4)
    turned = cv2.warpAffine(_tile("brushed"), turn, (WIDTH_PX, HEIGHT_PX), flags=cv2.INTER_LINEAR)
    return np.asarray(turned * strength, dtype=np.float32)


def _smudges_and_marks(grey: Grey, part: Part, rng: np.random.Generator) -> None:
    """What good parts have too: oil smudges, dust, and handling marks within the specification."""
    for _ in range(int(rng.integers(0, 4))):
        x, y = part.in_picture(clear_place(rng))
        sigma = rng.uniform(6.0, 16.0)
        _add_blob(grey, (x, y), sigma, 2.2 * sigma, rng.uniform(-16.0, 8.0))
    for _ in range(int(rng.integers(0, 6))):
        x, y = part.in_picture(clear_place(rng))
        _add_blob(grey, (x, y), rng.uniform(0.7, 1.3), 4.0, rng.uniform(-55.0, -15.0))
    for _ in range(int(rng.integers(0, 3))):
        points = tuple(part.in_picture(place) for place in clear_path(rng, rng.uniform(15.0, 60.0)))
        contrast = rng.uniform(4.0, 12.0) * (1.0 if rng.random() < 0.6 else -1.0)
        _draw_scratch(grey, Scratch(points=points, width_px=rng.uniform(1.2, 2.2), contrast=contrast))


def _draw_scratch(grey: Grey, scratch: Scratch) -> None:
    if len(scratch.points) < 2:
        return
    points = np.array(scratch.points, dtype=np.float32)
    reach = scratch.width_px / 2 + 2.0
    left, top, right, bottom = _window(points.min(axis=0) - reach, points.max(axis=0) + reach)
    # OpenCV draws with whole-pixel widths and no anti-aliasing on floats: draw at twice the size and average.
    line = np.zeros(((bottom - top) * 2, (right - left) * 2), dtype=np.uint8)
    doubled = _fixed((points - (left, top)) * 2)
    thickness = max(1, round(scratch.width_px * 1.2))
    cv2.polylines(line, [doubled], False, 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    small = cv2.resize(line, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    grey[top:bottom, left:right] += small.astype(np.float32) * np.float32(scratch.contrast / 255.0)


def _draw_dent(grey: Grey, dent: Dent) -> None:
    left, top, right, bottom, dx, dy, square = _polar(dent.center, dent_reach_px(dent))
    bell = np.exp(-square / (2 * dent.sigma_px**2))
    side = (dx * math.cos(dent.angle) + dy * math.sin(dent.angle)) / dent.sigma_px
    shading = bell * (1.65 * side - 0.35) * dent.contrast
    shading[square > dent_reach_px(dent) ** 2] = 0.0
    grey[top:bottom, left:right] += shading.astype(np.float32)


def _add_blob(grey: Grey, center: tuple[float, float], sigma: float, reach: float, contrast: float) -> None:
    left, top, right, bottom, _, _, square = _polar(center, reach)
    grey[top:bottom, left:right] += (np.exp(-square / (2 * sigma**2)) * contrast).astype(np.float32)


def _holes(grey: Grey, part: Part, rng: np.random.Generator) -> None:
    depth, rim = rng.uniform(18.0, 40.0), rng.uniform(14.0, 34.0)
    for index, place in enumerate((*HOLES, (0.0, 0.0))):
        if index in part.missing_holes:
            continue
        radius = BORE_RADIUS_PX if index == len(HOLES) else HOLE_RADIUS_PX
        left, top, right, bottom, dx, dy, square = _polar(part.in_picture(place), radius + 2.5)
        distance = np.sqrt(square)
        inside = np.clip(radius + 0.5 - distance, 0.0, 1.0)
        chamfer = np.clip(1.0 - np.abs(distance - radius - 0.8), 0.0, 1.0)
        region = grey[top:bottom, left:right]
        region += (inside * (depth - region) + chamfer * rim * (1.0 - inside) * (dx + dy) / (distance + 1.0)).astype(
            np.float32
        )


def _exposed(grey: Grey, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light that falls off to one side, the camera's gain, a slight tint, and noise."""
    gain, angle, fall = rng.uniform(0.8, 1.2), rng.uniform(0.0, 2 * math.pi), rng.uniform(0.0, 0.16)
    light_x = np.linspace(-fall, fall, WIDTH_PX, dtype=np.float32) * np.float32(math.cos(angle))
    light_y = np.linspace(-fall, fall, HEIGHT_PX, dtype=np.float32) * np.float32(math.sin(angle))
    grey *= (light_x[None, :] + light_y[:, None] + 1.0) * np.float32(gain)
    noise = _crop(_tile("sensor"), rng)
    noise *= np.float32(rng.uniform(2.5, 5.0))
    grey += noise
    tint = rng.uniform(0.95, 1.05, size=3).astype(np.float32)
    image = cv2.merge([cv2.convertScaleAbs(np.maximum(grey, 0.0), alpha=float(channel)) for channel in tint])
    return np.asarray(image, dtype=np.uint8)


@functools.cache
def _tile(kind: str) -> Grey:
    """A large texture made once; parts show different pieces of it."""
    rng = np.random.Generator(np.random.PCG64((_TEXTURES.index(kind), 7)))
    noise = rng.standard_normal((_TILE, _TILE), dtype=np.float32)
    if kind == "belt":
        noise = 4.0 * _unit(cv2.GaussianBlur(noise, (0, 0), 1.2)) + 4.0 * _unit(cv2.GaussianBlur(noise, (0, 0), 6.0))
    elif kind == "brushed":
        lines = _unit(cv2.blur(noise, (61, 1)))
        noise = 4.0 * lines + 3.0 * _unit(cv2.GaussianBlur(noise, (0, 0), 20.0))
    noise.flags.writeable = False
    return noise


def _unit(values: NDArray[np.integer[Any] | np.floating[Any]]) -> Grey:
    return np.asarray(values / values.std(), dtype=np.float32)


def _crop(tile: Grey, rng: np.random.Generator) -> Grey:
    x, y = int(rng.integers(_TILE - WIDTH_PX)), int(rng.integers(_TILE - HEIGHT_PX))
    step = 1 if rng.random() < 0.5 else -1
    return tile[y : y + HEIGHT_PX, x : x + WIDTH_PX][:, ::step].copy()


def _fixed(points: NDArray[np.float32]) -> NDArray[np.int32]:
    return np.rint(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _polar(center: tuple[float, float], reach: float) -> tuple[int, int, int, int, Grey, Grey, Grey]:
    """Return the window around a place, and in it dx, dy and the square of the distance."""
    place = np.array(center, dtype=np.float32)
    left, top, right, bottom = _window(place - reach, place + reach)
    dx = np.arange(left, right, dtype=np.float32)[None, :] + np.float32(0.5 - center[0])
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - center[1])
    return left, top, right, bottom, dx, dy, dx * dx + dy * dy


def _window(low: NDArray[np.float32], high: NDArray[np.float32]) -> tuple[int, int, int, int]:
    left, top = (max(0, math.floor(v)) for v in low)
    return left, top, min(WIDTH_PX, math.ceil(high[0])), min(HEIGHT_PX, math.ceil(high[1]))
