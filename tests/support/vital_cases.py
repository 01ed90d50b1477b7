"""What vitals are tried on: shared clips and pictures, whole and spoiled on purpose, with what must be found.

A case counts the pictures it showed, how many of them had the trouble it is about and were not told (`missed`), and how
many were told a trouble they did not have (`false`).
"""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture import decoder_damage
from agent.capture import reference as references
from agent.capture.frame import Vital
from agent.capture.reference import Reference
from agent.capture.settings import VitalsSettings
from agent.capture.vitals import VitalsWatch
from tests.support import damaged_video

Image = NDArray[np.uint8]
FIXED_CLIPS: Final = ("bottle-detection", "car-detection")
MARGIN_PX: Final = 80  # of clips: cut off, so that a moved camera sees what was there beside the picture
WEAR_RUN: Final = "277500_315/"
SIZE_CHANGE: Final = 58  # the picture, counted from 1, from which on the wear run's camera has another setting
# A decoded picture counts as damaged where an area of so many pixels differs by so many grey levels on average.
DAMAGE_AREA_PX, DAMAGE_LEVELS = 32, 10.0
NOW: Final = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of one case."""

    shown: int = 0
    missed: int = 0
    false: int = 0
    told: Counter[str] = field(default_factory=Counter)


def run(
    images: Iterable[Image],
    wanted: Vital | None,
    *,
    reference: Reference | None = None,
    settings: VitalsSettings | None = None,
    tolerated: frozenset[Vital] = frozenset(),
) -> Outcome:
    """Show pictures to one watch.

    Args:
        wanted: the trouble each of them has; None: none.
        tolerated: what may be told besides, and is true in a way.
    """
    watch = VitalsWatch(settings or VitalsSettings(), reference)
    outcome = Outcome()
    for image in images:
        told = set(watch.see(image))
        outcome.shown += 1
        outcome.told.update(vital.value for vital in told)
        outcome.missed += wanted is not None and wanted not in told
        outcome.false += bool(told - tolerated - {wanted})
    return outcome


def clip(shared_data: Path, name: str, *, every: int = 1) -> list[Image]:
    """Return a clip's pictures."""
    whole = damaged_video.frames(shared_data / "video" / f"{name}.mp4")
    return [image for number, image in enumerate(whole) if number % every == 0]


def inner(image: Image, dx_px: int = 0, dy_px: int = 0) -> Image:
    """Return the picture without its margins, as a camera sees it whose content lies this far right and down."""
    height, width = image.shape[:2]
    top, left = MARGIN_PX - dy_px, MARGIN_PX - dx_px
    return np.ascontiguousarray(image[top : height - 2 * MARGIN_PX + top, left : width - 2 * MARGIN_PX + left])


def reference_of(images: Sequence[Image], count: int = 9) -> Reference:
    """Return the reference view of some pictures, evenly among these."""
    return references.of_pictures(list(images[:: max(len(images) // count, 1)])[:count], NOW)


def blurred(image: Image, sigma_px: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), dtype=np.uint8)


def noisy(image: Image, deviation: float, seed: int) -> Image:
    noise = np.random.default_rng(seed).normal(0.0, deviation, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def smeared(image: Image, share: float) -> Image:
    """Return the picture with its lower part replaced by the row above it, column by column."""
    spoiled, first = image.copy(), round(image.shape[0] * (1 - share))
    spoiled[first:] = spoiled[first - 1]
    return spoiled


def filled(image: Image, share: float, bgr: tuple[int, int, int]) -> Image:
    """Return the picture with its lower part in one colour."""
    spoiled = image.copy()
    spoiled[round(image.shape[0] * (1 - share)) :] = bgr
    return spoiled


SPOILED: Final[dict[str, tuple[Vital | None, Callable[[Image, int], Image]]]] = {
    "whole": (None, lambda image, _: inner(image)),
    "noise 5": (None, lambda image, seed: noisy(inner(image), 5.0, seed)),
    "half the light": (None, lambda image, _: (inner(image) * 0.5).astype(np.uint8)),
    "1.3 times the light": (None, lambda image, _: np.clip(inner(image) * 1.3, 0, 255).astype(np.uint8)),
    "shift (8, 5)": (None, lambda image, _: inner(image, 8, 5)),
    "shift (30, 0)": (Vital.MOVED, lambda image, _: inner(image, 30, 0)),
    "shift (0, 30)": (Vital.MOVED, lambda image, _: inner(image, 0, 30)),
    "shift (40, 25)": (Vital.MOVED, lambda image, _: inner(image, 40, 25)),
    "shift (70, -60)": (Vital.MOVED, lambda image, _: inner(image, 70, -60)),
    "blur 2": (Vital.BLURRED, lambda image, _: blurred(inner(image), 2.0)),
    "blur 3": (Vital.BLURRED, lambda image, _: blurred(inner(image), 3.0)),
    "blur 5": (Vital.BLURRED, lambda image, _: blurred(inner(image), 5.0)),
    "blur 3, noise 5": (Vital.BLURRED, lambda image, seed: noisy(blurred(inner(image), 3.0), 5.0, seed)),
    "black, noise 2": (Vital.BLACK, lambda image, seed: noisy(inner(image) // 64, 2.0, seed)),
    "6 times the light": (Vital.SATURATED, lambda image, _: np.clip(inner(image) * 6.0, 0, 255).astype(np.uint8)),
    "lower third smeared": (Vital.CORRUPT, lambda image, _: smeared(inner(image), 1 / 3)),
    "lower tenth smeared": (Vital.CORRUPT, lambda image, _: smeared(inner(image), 1 / 10)),
    "lower third grey": (Vital.CORRUPT, lambda image, _: filled(inner(image), 1 / 3, (130, 130, 130))),
    "lower third green": (Vital.CORRUPT, lambda image, _: filled(inner(image), 1 / 3, (0, 135, 0))),
}


def spoiled(images: Sequence[Image], how: str, settings: VitalsSettings | None = None) -> Outcome:
    """Show a fixed camera's pictures, each spoiled in one way, against the reference of the whole ones."""
    wanted, spoil = SPOILED[how]
    reference = reference_of([inner(image) for image in images])
    return run(
        (spoil(image, seed) for seed, image in enumerate(images)), wanted, reference=reference, settings=settings
    )


def frozen(images: Sequence[Image], length: int = 10) -> Outcome:
    """Show each picture several times over; the first two of each are not frozen yet."""
    watch, outcome = VitalsWatch(VitalsSettings()), Outcome()
    for image in images:
        for again in range(length):
            told = set(watch.see(image))
            outcome.shown += 1
            outcome.missed += again >= 2 and Vital.FROZEN not in told
            outcome.false += again < 2 and bool(told)
    return outcome


def _index(shared_data: Path, dataset: str) -> list[dict[str, str]]:
    with (shared_data / "pictures" / "index.csv").open(newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if row["dataset"] == dataset]


def _read(shared_data: Path, row: dict[str, str]) -> Image:
    return np.asarray(cv2.imread(str(shared_data / "pictures" / row["file"])), dtype=np.uint8)


def wear_run(shared_data: Path) -> list[Image]:
    """Return the 69 pictures of BSData's whole run at one spot, in their order."""
    rows = [row for row in _index(shared_data, "bsdata") if row["group"].startswith(WEAR_RUN)]
    return [_read(shared_data, row) for row in sorted(rows, key=lambda row: row["capture"])]


def tiles(shared_data: Path) -> list[list[Image]]:
    """Return the magnetic tiles, each under its exposures, cut to one size from the middle."""
    sessions: dict[tuple[str, str], dict[str, dict[str, str]]] = defaultdict(dict)
    for row in _index(shared_data, "magnetic_tile"):
        sessions[row["group"], row["label"]].setdefault(row["capture"], row)
    return [
        _cut([_read(shared_data, row) for _, row in sorted(exposures.items())])
        for exposures in sessions.values()
        if len(exposures) > 2
    ]


def _cut(images: list[Image]) -> list[Image]:
    height, width = (min(image.shape[axis] for image in images) for axis in (0, 1))
    tops = [(image.shape[0] - height) // 2 for image in images]
    lefts = [(image.shape[1] - width) // 2 for image in images]
    return [
        np.ascontiguousarray(image[top : top + height, left : left + width])
        for image, top, left in zip(images, tops, lefts, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOutcome:
    """What came of one damaged stream, in pictures.

    Args:
        damaged: differ visibly from the whole stream's.
        by_log, by_picture, by_either: of these, told by the decoder's log, by the picture itself, by either.
        first_told: the first damaged picture was told by either.
        false: whole pictures told.
    """

    damaged: int
    by_log: int
    by_picture: int
    by_either: int
    first_told: bool
    false: int


def read_logged(path: Path) -> list[bool]:
    """Decode a stream and return for each picture whether the decoder's log tells damage."""
    return [told for _, told in _logged(path)]


@contextlib.contextmanager
def _complaints() -> Iterator[Callable[[], bool]]:
    """Take over the standard error output, and give a function that tells whether the decoder complained since."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    before = os.dup(2)
    os.dup2(writing, 2)
    os.close(writing)

    def heard() -> bool:
        try:
            return decoder_damage.tells_damage(os.read(reading, 1 << 20))
        except BlockingIOError:
            return False

    try:
        yield heard
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(reading)


def _logged(path: Path) -> Iterator[tuple[Image, bool]]:
    with _complaints() as heard:
        watch = decoder_damage.DamageWatch()
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        try:
            heard()  # what it said of the file as a whole
            while True:
                read, image = capture.read()
                if not read:
                    return
                alone = int(capture.get(cv2.CAP_PROP_FRAME_TYPE)) == ord("I")
                yield np.asarray(image, dtype=np.uint8), watch.see(complained=heard(), stands_alone=alone)
        finally:
            capture.release()


def _differs(image: Image, intact: Image) -> bool:
    difference = cv2.cvtColor(cv2.absdiff(image, intact), cv2.COLOR_BGR2GRAY)
    size = (image.shape[1] // DAMAGE_AREA_PX, image.shape[0] // DAMAGE_AREA_PX)
    return float(cv2.resize(difference, size, interpolation=cv2.INTER_AREA).max()) > DAMAGE_LEVELS


def damaged_stream(
    clip_path: Path, out: Path, kind: damaged_video.Kind, seed: int, first: int | None = None
) -> StreamOutcome:
    """Damage one picture of a clip, and see who tells.

    Args:
        first: which, in decoding order; None: one that stands alone for odd seeds, any for even ones.
    """
    places, alone = damaged_video.samples_of(clip_path.read_bytes())
    random = np.random.default_rng(seed)
    if first is None:
        first = int(random.choice(alone[1:])) if seed % 2 else int(random.integers(30, len(places) - 60))
    damaged_video.damage(clip_path, out, samples=[first], kind=kind, seed=seed)
    window = range(first - 20, first + 80)
    whole = [image if number in window else None for number, image in enumerate(damaged_video.frames(clip_path))]
    # What a stream of its own begins with is not held against the picture: the vitals need no reference for this.
    watch = VitalsWatch(VitalsSettings(frozen_after=0))
    rows = []
    for number, (image, by_log) in enumerate(_logged(out)):
        intact = whole[number] if number < len(whole) else None
        if intact is None:
            continue
        rows.append((_differs(image, intact), by_log, Vital.CORRUPT in watch.see(image)))
    damaged_rows = [row for row in rows if row[0]]
    return StreamOutcome(
        damaged=len(damaged_rows),
        by_log=sum(row[1] for row in damaged_rows),
        by_picture=sum(row[2] for row in damaged_rows),
        by_either=sum(row[1] or row[2] for row in damaged_rows),
        first_told=bool(damaged_rows) and (damaged_rows[0][1] or damaged_rows[0][2]),
        false=sum(row[2] for row in rows if not row[0]),
    )
