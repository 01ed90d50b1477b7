"""The pictures of a self-test: the golden ones, and beside them what every camera shows one day."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SEED: Final = 5
_DARKER: Final = 4
_WHITE: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPicture:
    """One picture and its name in a sentence.

    Args:
        image_bgr: (H, W, 3) uint8.
    """

    name: str
    image_bgr: NDArray[np.uint8]


def extras(shown: Sequence[TrialPicture]) -> Iterator[TrialPicture]:
    """Yield the pictures that are shown beside `shown`: no answer is expected of them but a usable one.

    For the first picture of each size a black, a saturated white and a noisy one; then each picture darkened to a
    quarter, as a lamp that fails darkens it. Those that find most come first.
    """
    first_of_size = {picture.image_bgr.shape: picture for picture in reversed(shown)}
    for picture in reversed(first_of_size.values()):
        shape = picture.image_bgr.shape
        size = f"{shape[1]} x {shape[0]} pixels"
        yield TrialPicture(name=f"a black picture of {size}", image_bgr=np.zeros(shape, dtype=np.uint8))
        yield TrialPicture(name=f"a white picture of {size}", image_bgr=np.full(shape, _WHITE, dtype=np.uint8))
        yield _darkened(picture)
        noise = np.random.default_rng(_SEED).integers(0, _WHITE + 1, shape, dtype=np.uint8)
        yield TrialPicture(name=f"a picture of noise of {size}", image_bgr=noise)
    firsts = {id(picture) for picture in first_of_size.values()}
    yield from (_darkened(picture) for picture in shown if id(picture) not in firsts)


def _darkened(picture: TrialPicture) -> TrialPicture:
    return TrialPicture(
        name=f"{picture.name} darkened to a quarter", image_bgr=np.asarray(picture.image_bgr // _DARKER, dtype=np.uint8)
    )
