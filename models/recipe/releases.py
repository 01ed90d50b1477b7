"""What the two releases differ in: picture size, network, and how long they learn."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

MODELS: Final = Path(__file__).resolve().parents[1]
NAME: Final = "demo-parts"

# Runs of the simulated line; no two of these draw the same parts.
TRAINING_SEED: Final = 1_000
CALIBRATION_SEED: Final = 2_000
CARD_SEED: Final = 3_000
GOLDEN_SEED: Final = 4_000

CARD_DEFECT_RATE: Final = 0.25
TRAINING_DEFECT_RATE: Final = 0.6  # many defects, so that they are learnt quickly; a line has few


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One release of the model.

    Args:
        steps: of training, each with a batch of new parts.
        learning_rate: the highest, a third of the way through.
        ng_at, unsure_at: scores from which a finding makes a part NG or UNSURE, read off the calibration run.
        score_at: score under which nothing is reported at all.
    """

    release: int
    width_px: int
    height_px: int
    width: int
    dilations: tuple[int, ...]
    steps: int
    batch: int
    learning_rate: float
    ng_at: float
    unsure_at: float
    score_at: float
    created_at: datetime

    @property
    def training_seed(self) -> int:
        return TRAINING_SEED + self.release

    @property
    def folder(self) -> Path:
        return MODELS / f"{NAME}-{self.release}"


RELEASES: Final = {
    1: Release(
        release=1,
        width_px=160,
        height_px=120,
        width=7,
        dilations=(1, 2, 4),
        steps=1200,
        batch=16,
        learning_rate=4e-3,
        ng_at=0.68,
        unsure_at=0.6,
        score_at=0.55,
        created_at=datetime(2026, 11, 20, 8, 0, tzinfo=UTC),
    ),
    2: Release(
        release=2,
        width_px=256,
        height_px=192,
        width=10,
        dilations=(1, 2, 4, 2),
        steps=2000,
        batch=16,
        learning_rate=4e-3,
        ng_at=0.72,
        unsure_at=0.6,
        score_at=0.45,
        created_at=datetime(2026, 11, 21, 8, 0, tzinfo=UTC),
    ),
}
