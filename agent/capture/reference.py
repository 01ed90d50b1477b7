"""The reference view: how a camera saw its place when it was commissioned, and where that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.capture import commissioned, measures
from agent.capture.measures import Damage, Detail
from wire.errors import LinesideError

MAX_PICTURES: Final = 100
_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a view's pictures are held against.

    Args:
        view: (h, w) uint8 grey, as in `Sample`: of several pictures the median, in which what passes by disappears.
        width_px, height_px: of the pictures it was taken from.
        detail: the median of theirs.
        damage: the largest of theirs: what looks like damage and is none.
        pictures: how many there were.
        taken_at: when; aware UTC.
    """

    view: NDArray[np.uint8]
    width_px: int
    height_px: int
    detail: Detail
    damage: Damage
    pictures: int
    taken_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """The file of a reference; `view_png` is a PNG picture."""

    schema: int
    width_px: int
    height_px: int
    detail: Detail
    damage: Damage
    pictures: int
    taken_at: datetime
    view_png: bytes


def of_pictures(images_bgr: Sequence[NDArray[np.uint8]], taken_at: datetime) -> Reference:
    """Return the reference that some pictures of a view, (H, W, 3) uint8 each, give together.

    Args:
        images_bgr: 1 to 100; several, taken while parts pass, make what stands still stand out.

    Raises:
        LinesideError: `source.unreadable` where there is none, or their sizes differ.
    """
    seen = [measures.sample(image) for image in images_bgr[:MAX_PICTURES]]
    sizes = {(one.width_px, one.height_px) for one in seen}
    if len(sizes) != 1:
        told = "none was given" if not seen else "they have " + " and ".join(f"{w} x {h}" for w, h in sorted(sizes))
        raise LinesideError(
            "source.unreadable",
            f"A reference view needs pictures of one size; {told}.",
            "Look at the view with `lineside snapshot`, then take the reference again.",
        )
    damages = [measures.damage(one) for one in seen]
    details = [measures.detail(one.rows) for one in seen]
    return Reference(
        view=np.median([one.view for one in seen], axis=0).astype(np.uint8),
        width_px=seen[0].width_px,
        height_px=seen[0].height_px,
        detail=Detail(
            of_contrast=float(np.median([one.of_contrast for one in details])),
            of_light=float(np.median([one.of_light for one in details])),
        ),
        damage=Damage(
            smeared=max(one.smeared for one in damages),
            filled=max(one.filled for one in damages),
        ),
        pictures=len(seen),
        taken_at=taken_at,
    )


class ReferenceStore:
    """The reference views of a device: one for each view, or one for each of its recipes.

    Args:
        folder: of its own; made when the first reference is written.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)

    def read(self, station: str, view: str, recipe: str | None = None) -> Reference | None:
        """Return the recipe's own reference, or else the one for all recipes; None where neither was taken.

        Raises:
            LinesideError: `storage.corrupt` where the file is damaged.
        """
        for wanted in (recipe, None) if recipe is not None else (None,):
            data = commissioned.read(self._path(station, view, wanted))
            if data is not None:
                return _decoded(data, self._path(station, view, wanted))
        return None

    def write(self, station: str, view: str, reference: Reference, recipe: str | None = None) -> None:
        """Store a reference durably, for one recipe or for all that have none of their own."""
        commissioned.write(self._path(station, view, recipe), _encoded(reference))

    def remove(self, station: str, view: str, recipe: str | None = None) -> bool:
        """Forget a reference; False where there was none."""
        return commissioned.remove(self._path(station, view, recipe))

    def _path(self, station: str, view: str, recipe: str | None) -> Path:
        name = "reference" if recipe is None else f"reference-{commissioned.checked(recipe)}"
        return commissioned.folder_of(self._folder, station, view) / f"{name}.json"


def _encoded(reference: Reference) -> bytes:
    _, png = cv2.imencode(".png", reference.view)
    stored = _Stored(
        schema=_SCHEMA,
        width_px=reference.width_px,
        height_px=reference.height_px,
        detail=reference.detail,
        damage=reference.damage,
        pictures=reference.pictures,
        taken_at=reference.taken_at,
        view_png=png.tobytes(),
    )
    return msgspec.json.encode(stored)


def _decoded(data: bytes, path: Path) -> Reference:
    damaged = LinesideError(
        "storage.corrupt",
        f"The reference view {path} is damaged.",
        "Take it again with `lineside cameras reference`, or remove the file to check only what needs none.",
    )
    try:
        stored = msgspec.json.decode(data, type=_Stored)
        view = cv2.imdecode(np.frombuffer(stored.view_png, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    except (msgspec.DecodeError, cv2.error) as error:
        raise damaged from error
    if stored.schema != _SCHEMA or view is None:
        raise damaged
    return Reference(
        view=np.asarray(view, dtype=np.uint8),
        width_px=stored.width_px,
        height_px=stored.height_px,
        detail=stored.detail,
        damage=stored.damage,
        pictures=stored.pictures,
        taken_at=stored.taken_at,
    )
