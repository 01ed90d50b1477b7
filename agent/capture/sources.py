"""Which source a view's settings mean, and its name in words."""

from __future__ import annotations

import importlib
from typing import Final

from agent.capture.frame import Source
from agent.capture.settings import SourceSettings
from agent.clock import Clock
from agent.settings_checks import host_port

# Where each setting is that tells the place of a source; the first one given is shown.
_PLACES: Final = ("url", "path", "address", "plugin")


def source_of(name: str, settings: SourceSettings, clock: Clock) -> Source:
    """Make the source; nothing is opened yet.

    Args:
        name: of the view or camera, for logs and threads.
        settings: as they were checked when they were read.
        clock: of the device.
    """
    if settings.kind == "simulated":
        from agent.capture.simulated import SimulatedCamera

        host, port = host_port(settings.address or "")
        return SimulatedCamera(host, port, name, settings.camera)
    if settings.kind in {"video", "folder"}:
        return _recorded(name, settings)
    live: Source = importlib.import_module("agent.capture.live").LiveSource(settings, name, clock)
    return live


def words_of(settings: SourceSettings) -> str:
    """Return kind and place of a source for a person; never a user or a password."""
    from agent.capture.address import redact

    place = next((text for key in _PLACES if (text := getattr(settings, key))), "")
    camera = f" {settings.camera}" if settings.camera else ""
    words = redact(place)
    return f"{words}{camera}" if words.startswith(settings.kind) else f"{settings.kind} {words}{camera}".rstrip()


def _recorded(name: str, settings: SourceSettings) -> Source:
    from agent.capture.folder import FolderSource
    from agent.capture.paced import PacedSource
    from agent.capture.video import VideoSource

    kind = VideoSource if settings.kind == "video" else FolderSource
    recorded: Source = kind(settings.path or "", name, every_nth=settings.every_nth)
    return PacedSource(recorded, settings.frames_per_s) if settings.frames_per_s is not None else recorded
