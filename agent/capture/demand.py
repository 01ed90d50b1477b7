"""What the recipe in force asks of one view's camera and picture."""

from __future__ import annotations

from dataclasses import dataclass

from wire.desired import CameraSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewDemand:
    """Told to a feed when its station takes a recipe.

    Args:
        recipe: id of the recipe; the reference view is the one stored for it.
        camera: what the camera is locked to; None leaves it as it is and asks for nothing back.
    """

    recipe: str
    camera: CameraSettings | None = None

    @property
    def locks_camera(self) -> bool:
        """Whether any setting must be read back as asked for."""
        asked = self.camera
        return asked is not None and (
            asked.exposure_us is not None or asked.gain_db is not None or asked.white_balance_k is not None
        )
