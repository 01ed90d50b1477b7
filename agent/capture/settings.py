"""Settings of a view's source and of what is asked of its pictures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
SourceKind = Literal["simulated", "video", "folder", "watched_folder", "rtsp", "v4l2", "plugin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class V4l2Settings:
    """How a local camera is opened; what is not given stays as the camera has it.

    Args:
        width_px, height_px, frames_per_s: asked for; the camera may answer with others, which `cameras probe` shows.
        pixel_format: four characters, for example MJPG or YUYV.
    """

    width_px: Annotated[int, msgspec.Meta(ge=1)] | None = None
    height_px: Annotated[int, msgspec.Meta(ge=1)] | None = None
    frames_per_s: Positive | None = None
    pixel_format: Annotated[str, msgspec.Meta(min_length=4, max_length=4)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """Where a view's frames come from.

    Args:
        kind: `simulated` (address of a simulated line), `video` (path of a file), `folder` (path of a folder of
            pictures), `watched_folder` (path of a folder that another program puts pictures into), `rtsp` (url), `v4l2`
            (path of the device, best one of /dev/v4l/by-id), `plugin` (plugin, with its options).
        policy: `every` keeps the order and loses none; `latest` lets the newest frame win.
        every_nth: of a file: 1 takes every frame.
        frames_per_s: plays a file at this pace, as a live camera would: it waits for nobody.
        url: rtsp:// or rtsps://; user and password may stand in it, or come from the file `credentials_file`.
        credentials_file: a file with one line USER:PASSWORD.
        address: host:port of a simulated line.
        path: of a file, a folder or a device.
        plugin: name of the entry point in the group `lineside.sources`.
        options: handed to the plug-in.
        camera: which of the cameras of a simulated line.
        open_timeout_s: of live sources; beyond it the camera is away, and opened anew after a while.
        read_timeout_s: of live sources; beyond it the camera is lost, and opened anew.
        unchanged_after_s: a live camera whose picture has not changed by a single bit for so long is frozen; 0 turns
            the watch off (a camera in front of a still, noise-free scene).
        stream_latency_ms: of a source that knows no exposure times: a frame that arrives this much after the trigger
            was surely exposed after it.
        max_frame_mb: the largest frame in memory, in 2**20 bytes.
    """

    kind: SourceKind
    address: str | None = None
    path: str | None = None
    policy: Literal["every", "latest"] = "every"
    every_nth: Annotated[int, msgspec.Meta(ge=1)] = 1
    frames_per_s: Positive | None = None
    url: str | None = dataclasses.field(default=None, repr=False)  # may hold a password
    credentials_file: str | None = None
    camera: str | None = None
    plugin: str | None = None
    options: dict[str, str | int | float | bool] = dataclasses.field(default_factory=dict, repr=False)
    v4l2: V4l2Settings = V4l2Settings()
    open_timeout_s: Positive = 5.0
    read_timeout_s: Positive = 3.0
    unchanged_after_s: Annotated[float, msgspec.Meta(ge=0.0)] = 10.0
    stream_latency_ms: Annotated[float, msgspec.Meta(ge=0.0)] = 500.0
    max_frame_mb: Annotated[int, msgspec.Meta(ge=1, le=512)] = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class VitalsSettings:
    """What a picture must be like to be judged at all; a limit of 0 (for shares: 1) turns a check off.

    Args:
        enabled: whether pictures are watched at all.
        frozen_after: so many frames in a row that are equal to the last bit.
        max_dark_share: share of pixels below 16 of 255.
        max_saturated_share: share of pixels above 250 of 255.
        max_corrupt_share: share of the picture that looks like what a decoder with lost packets delivers, above that of
            the reference view.
        min_sharpness: as a share of the reference view's.
        max_shift_px: from the reference view, in source pixels.
        width_px, height_px: the size frames must have; None: that of the reference view, or any.
        raise_after, clear_after: frames in a row until a trouble is raised, or cleared, as an alarm.
    """

    enabled: bool = True
    frozen_after: Annotated[int, msgspec.Meta(ge=0)] = 3
    max_dark_share: Share = 0.98
    max_saturated_share: Share = 0.5
    max_corrupt_share: Share = 0.03
    min_sharpness: Annotated[float, msgspec.Meta(ge=0.0)] = 0.35
    max_shift_px: Annotated[float, msgspec.Meta(ge=0.0)] = 20.0
    width_px: Annotated[int, msgspec.Meta(ge=1)] | None = None
    height_px: Annotated[int, msgspec.Meta(ge=1)] | None = None
    raise_after: Annotated[int, msgspec.Meta(ge=1)] = 3
    clear_after: Annotated[int, msgspec.Meta(ge=1)] = 5
