"""The one place where a view's settings become a source."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from agent.capture.address import Redactor, credentials_in, secrets_of, with_credentials
from agent.capture.camera_messages import Demand, Task
from agent.capture.folder import FolderSource
from agent.capture.frame import Source, TimeClass
from agent.capture.live import LiveSource
from agent.capture.paced import PacedSource
from agent.capture.settings import SourceSettings
from agent.capture.simulated import SimulatedCamera
from agent.capture.supervision import Limits
from agent.capture.video import VideoSource
from agent.clock import Clock
from agent.uplink.backoff import Backoff
from wire.errors import LinesideError

# Beside the pictures that wait in the feed: one being written, one on its way, one looked at by each of four threads.
_SLOTS_LATEST: Final = 1 + 6
_SLOTS_EVERY: Final = 8 + 6


def source_of(view: str, settings: SourceSettings, clock: Clock, *, backoff: Backoff | None = None) -> Source:
    """Build a view's source, unopened.

    Args:
        view: its id; the frames carry it as the camera's name.
        backoff: between two attempts at a lost camera; the default waits half a second at first, 30 s at most.

    Raises:
        LinesideError: `config.missing_key` where the kind needs a setting that is not there, `config.invalid_value`
            where an address is none.
    """
    if settings.kind == "simulated":
        host, port = _host_port(view, settings.address)
        return SimulatedCamera(host, port, view, settings.camera)
    if settings.kind in {"video", "folder"}:
        return _recorded(view, settings, clock)
    return LiveSource(
        view,
        task=partial(_task, view, settings),
        limits=Limits(
            open_s=settings.open_timeout_s,
            read_s=settings.read_timeout_s,
            unchanged_s=_unchanged_s(settings),
            steady=settings.kind in {"rtsp", "v4l2"},
        ),
        time_class=_time_class(settings),
        clock=clock,
        backoff=backoff,
    )


def _recorded(view: str, settings: SourceSettings, clock: Clock) -> Source:
    path = _needed(view, "path", settings.path)
    kind: Callable[..., Source] = VideoSource if settings.kind == "video" else FolderSource
    recorded = kind(path, view, every_nth=settings.every_nth, clock=clock)
    return recorded if settings.frames_per_s is None else PacedSource(recorded, settings.frames_per_s)


def _task(view: str, settings: SourceSettings, demand: Demand) -> tuple[Task, Redactor]:
    """What the process of a live camera is told, and what hides its secrets; the credentials file is read each time."""
    url = settings.url or ""
    if settings.kind == "rtsp":
        url = _needed(view, "url", settings.url)
        if settings.credentials_file is not None:
            url = with_credentials(url, *credentials_in(settings.credentials_file))
    task = Task(
        camera=view,
        kind=settings.kind,
        url=url,
        path=_needed(view, "path", settings.path) if settings.kind in {"v4l2", "watched_folder"} else "",
        plugin=_needed(view, "plugin", settings.plugin) if settings.kind == "plugin" else "",
        options=settings.options,
        v4l2=settings.v4l2,
        open_timeout_s=settings.open_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        max_frame_bytes=settings.max_frame_mb << 20,
        slots=_SLOTS_LATEST if settings.policy == "latest" else _SLOTS_EVERY,
        watch_changes=_unchanged_s(settings) > 0,
        demand=demand,
    )
    return task, Redactor(secrets_of(url, settings.options))


def _time_class(settings: SourceSettings) -> TimeClass | None:
    if settings.kind == "v4l2" and settings.options.get("time_class") != TimeClass.ARRIVAL_ONLY.value:
        return TimeClass.DEVICE_TIMESTAMPED
    return None if settings.kind == "plugin" else TimeClass.ARRIVAL_ONLY


def _unchanged_s(settings: SourceSettings) -> float:
    # The same picture may well be put into a folder twice.
    return 0.0 if settings.kind == "watched_folder" else settings.unchanged_after_s


def _needed(view: str, key: str, value: str | None) -> str:
    if value is None:
        raise LinesideError("config.missing_key", f"The source of view {view} needs {key}.", f'Add {key} = "...".')
    return value


def _host_port(view: str, address: str | None) -> tuple[str, int]:
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdigit():
        raise LinesideError("config.invalid_value", f"The source of view {view} needs an address host:port.")
    return host, int(port)
