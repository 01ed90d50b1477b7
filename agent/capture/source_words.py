"""A view's source in words, for people."""

from __future__ import annotations

from typing import Final

from agent.capture.address import redact
from agent.capture.settings import SourceSettings

# The settings that say where a source is; the first one given is shown.
_PLACES: Final = ("url", "path", "address", "plugin")


def words_of(settings: SourceSettings) -> str:
    """Return kind and place of a source; never a user or a password."""
    place = redact(next((text for key in _PLACES if (text := getattr(settings, key))), ""))
    camera = f" {settings.camera}" if settings.camera else ""
    return f"{place}{camera}" if place.startswith(settings.kind) else f"{settings.kind} {place}{camera}".rstrip()
