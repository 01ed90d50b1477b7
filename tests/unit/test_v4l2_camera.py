"""A local camera through a fake of the kernel's interface: set, read back, and not trusted where the two differ."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.capture.camera import Exposure
from agent.capture.frame import TimeClass
from agent.capture.settings import V4l2Settings
from agent.capture.v4l2 import V4l2Camera
from wire.desired import CameraSettings
from wire.errors import LinesideError


class FakeDevice:
    """Keeps what it is told, but for the properties in `stuck`; exposure moves in steps, as sensors do."""

    def __init__(self, *, opens: bool = True, stuck: dict[int, float] | None = None, behind_s: float = 0.01) -> None:
        self.opens = opens
        self.values: dict[int, float] = {cv2.CAP_PROP_AUTO_EXPOSURE: 3.0, cv2.CAP_PROP_AUTO_WB: 1.0}
        self.stuck = stuck or {}
        self.behind_s = behind_s
        self.gives = True
        self.released = 0
        self.picture = np.full((4, 6, 3), 9, dtype=np.uint8)

    def isOpened(self) -> bool:  # noqa: N802
        return self.opens

    def grab(self) -> bool:
        return self.gives

    def retrieve(self, image: NDArray[np.uint8] | None = None) -> tuple[bool, NDArray[np.uint8]]:
        return True, self.picture

    def get(self, property_id: int) -> float:
        if property_id == cv2.CAP_PROP_POS_MSEC:
            return (time.monotonic() - self.behind_s) * 1000
        return self.stuck.get(property_id, self.values.get(property_id, 0.0))

    def set(self, property_id: int, value: float) -> bool:
        self.values[property_id] = float(round(value)) if property_id == cv2.CAP_PROP_EXPOSURE else value
        return True

    def release(self) -> None:
        self.released += 1


def camera(device: FakeDevice, settings: V4l2Settings | None = None, *, stamped: bool = True) -> V4l2Camera:
    return V4l2Camera(
        "/dev/v4l/by-id/fake",
        settings or V4l2Settings(),
        read_timeout_s=1,
        stamped=stamped,
        opener=lambda path: device,
    )


def test_a_device_gets_the_format_it_must_have_and_its_stamps_are_exposure_times() -> None:
    device = FakeDevice(behind_s=0.03)
    found = camera(device, V4l2Settings(width_px=1280, height_px=720, frames_per_s=30, pixel_format="MJPG"))

    opened = found.open()
    exposure = found.grab(1)

    assert (opened.width_px, opened.height_px, opened.frames_per_s, opened.backend) == (1280, 720, 30, "V4L2")
    assert device.values[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    assert found.time_class is TimeClass.DEVICE_TIMESTAMPED
    assert isinstance(exposure, Exposure)
    assert 0.02 < (time.monotonic_ns() - exposure.exposed_ns) / 1e9 < 0.5
    found.close()
    found.close()
    assert device.released == 1


def test_a_device_that_takes_another_size_is_refused_and_given_back() -> None:
    device = FakeDevice(stuck={cv2.CAP_PROP_FRAME_WIDTH: 640.0})

    with pytest.raises(LinesideError, match="width") as refused:
        camera(device, V4l2Settings(width_px=1280)).open()

    assert refused.value.code == "source.unavailable"
    assert device.released == 1


def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(LinesideError, match="cannot be opened"):
        camera(FakeDevice(opens=False)).open()


def test_stamps_of_another_clock_are_refused_and_arrivals_serve_where_the_settings_say_so() -> None:
    strange = camera(FakeDevice(behind_s=1e6))
    strange.open()
    with pytest.raises(LinesideError, match="another clock"):
        strange.grab(1)

    arriving = camera(FakeDevice(behind_s=1e6), stamped=False)
    arriving.open()
    exposure = arriving.grab(1)
    assert arriving.time_class is TimeClass.ARRIVAL_ONLY
    assert isinstance(exposure, Exposure)
    assert abs(time.monotonic_ns() - exposure.exposed_ns) < 1e9


def test_a_device_that_gives_no_frame_is_lost() -> None:
    device = FakeDevice()
    found = camera(device)
    found.open()
    device.gives = False

    with pytest.raises(LinesideError, match="no frame"):
        found.grab(1)


def test_settings_are_set_with_the_automatics_off_and_read_back() -> None:
    device = FakeDevice()
    found = camera(device)
    found.open()

    assert found.lock(CameraSettings(exposure_us=500.0, gain_db=3.0, white_balance_k=5000.0)) == ""
    assert device.values[cv2.CAP_PROP_AUTO_EXPOSURE] == 1.0
    assert device.values[cv2.CAP_PROP_EXPOSURE] == 5.0
    assert device.values[cv2.CAP_PROP_AUTO_WB] == 0.0
    assert device.values[cv2.CAP_PROP_WB_TEMPERATURE] == 5000.0


@pytest.mark.parametrize(
    ("stuck", "asked", "says"),
    [
        ({cv2.CAP_PROP_EXPOSURE: 80.0}, CameraSettings(exposure_us=500.0), "exposure_us is 8000 instead of 500"),
        ({cv2.CAP_PROP_AUTO_EXPOSURE: 3.0}, CameraSettings(exposure_us=500.0), "automatic exposure"),
        ({cv2.CAP_PROP_GAIN: 0.0}, CameraSettings(gain_db=3.0), "gain_db"),
        ({cv2.CAP_PROP_AUTO_WB: 1.0}, CameraSettings(white_balance_k=5000.0), "automatic white balance"),
        ({cv2.CAP_PROP_GAIN: float("nan")}, CameraSettings(gain_db=3.0), "gain_db"),
    ],
)
def test_a_setting_that_the_device_does_not_keep_is_named(
    stuck: dict[int, float], asked: CameraSettings, says: str
) -> None:
    found = camera(FakeDevice(stuck=stuck))
    found.open()

    assert says in found.lock(asked)


@pytest.mark.parametrize(("asked_us", "tolerance", "kept"), [(540.0, 0.1, True), (540.0, 0.01, False)])
def test_the_recipe_says_how_far_a_setting_may_differ(asked_us: float, tolerance: float, kept: bool) -> None:
    found = camera(FakeDevice())
    found.open()

    assert (found.lock(CameraSettings(exposure_us=asked_us, tolerance=tolerance)) == "") is kept
