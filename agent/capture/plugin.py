"""A camera that somebody else's package brings: an entry point in the group `lineside.sources`.

The entry point names a factory, called as `factory(options, camera)`; it returns a `Source` (agent.capture.frame). It
runs in the camera's own process, where it may block, leak or crash without harm to others. The whole contract is
docs/reference/source-plugins.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.capture.camera import Exposure
from agent.capture.camera_messages import Opened
from agent.capture.frame import Ended, Frame, NoFrame, Source, TimeClass
from wire.desired import CameraSettings
from wire.errors import LinesideError

GROUP: Final = "lineside.sources"
_MOST_LOST: Final = 1_000_000

Options = Mapping[str, str | int | float | bool]


class PluginCamera:
    """Wraps a plug-in's source.

    Args:
        name: of the entry point.

    Raises:
        LinesideError: `source.unavailable` where there is no such plug-in; whatever the plug-in raises when loaded.
    """

    settling_frames = 0

    def __init__(self, name: str, options: Options, camera: str) -> None:
        self._name = name
        self._options = options
        self._camera = camera
        self._factory = _load(name)
        self.time_class = TimeClass(getattr(self._factory, "time_class", TimeClass.ARRIVAL_ONLY))
        if self.time_class is TimeClass.RECORDED:
            raise LinesideError("source.unavailable", f"The plug-in {name!r} calls itself recorded; it must be live.")
        default = self.time_class is not TimeClass.HARDWARE_TRIGGERED
        self.steady = bool(getattr(self._factory, "steady", default))
        self._source: Source | None = None
        self._frame: Frame | None = None
        self._expected: int | None = None

    def open(self) -> Opened:
        """Build the source and open it."""
        self._source = self._factory(dict(self._options), self._camera)
        info = self._source.open()
        if info.time_class is not self.time_class:
            raise LinesideError(
                "source.unavailable",
                f"The plug-in {self._name!r} declares {self.time_class.value} and opens as {info.time_class.value}.",
                "Tell its author: the factory's time_class must be that of SourceInfo.",
            )
        return Opened(
            width_px=info.width_px, height_px=info.height_px, frames_per_s=info.frames_per_s, backend=self._name
        )

    def grab(self, timeout_s: float) -> Exposure | NoFrame:
        """Return the next frame's exposure.

        Raises:
            LinesideError: the source has ended, or says itself that it is lost.
        """
        if self._source is None:
            raise LinesideError("source.unavailable", f"The plug-in {self._name!r} is not open.")
        self._drop()
        answer = self._source.read(timeout_s)
        if isinstance(answer, NoFrame):
            return answer
        if isinstance(answer, Ended):
            raise LinesideError("source.unavailable", f"The plug-in {self._name!r} has no more frames.")
        self._frame = answer
        lost = 0 if self._expected is None else answer.number - self._expected
        self._expected = answer.number + 1
        return Exposure(exposed_ns=answer.exposed_ns, lost=lost if 0 < lost <= _MOST_LOST else 0, vitals=answer.vitals)

    def retrieve(self, into: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:  # noqa: ARG002  (copied by the caller)
        """Return the plug-in's own picture, which stays its until the next grab."""
        return None if self._frame is None else self._frame.image_bgr

    def lock(self, settings: CameraSettings) -> str:
        """Pass the settings on to the source's own `lock`; one that has none cannot be told."""
        lock = getattr(self._source, "lock", None)
        if lock is None:
            return f"the plug-in {self._name!r} cannot lock exposure, gain or white balance"
        return str(lock(settings))

    def close(self) -> None:
        """Close the source."""
        self._drop()
        if self._source is not None:
            self._source.close()
            self._source = None

    def _drop(self) -> None:
        frame, self._frame = self._frame, None
        if frame is not None and frame.free is not None:
            frame.free()


def _load(name: str) -> Any:
    found = metadata.entry_points(group=GROUP)
    if name not in found.names:
        installed = ", ".join(sorted(found.names)) or "none"
        raise LinesideError(
            "source.unavailable",
            f"There is no camera plug-in {name!r} (installed: {installed}).",
            "Install it into the agent's own environment.",
        )
    return found[name].load()
