"""mosquitto as our broker: finds it and writes its configuration."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from wire import topics

# Debian puts it where a user's PATH does not look.
_SERVER_FOLDERS: Final = "/usr/sbin:/usr/local/sbin:/sbin:/opt/homebrew/sbin"
_SPARE_BYTES: Final = 4096  # for topic and header
MAX_PACKET_BYTES: Final = max(topic.max_bytes for topic in topics.TABLE.values()) + _SPARE_BYTES
INFLIGHT: Final = 1_000
QUEUED: Final = 20_000
QUEUED_BYTES: Final = 64 * 1024 * 1024


def find() -> Path | None:
    """Return the installed mosquitto, None where there is none."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path=_SERVER_FOLDERS)
    return Path(found) if found else None


def configuration(host: str, port: int, *, is_root: bool | None = None) -> str:
    """Return mosquitto's configuration.

    Persistence is off: no promise rests on it (a PUBACK is not durable), and devices keep what is not acknowledged by
    the fleet itself. Everything a client can make the broker hold is bounded.

    Args:
        host: address to listen on.
        port: TCP port.
        is_root: whether it runs as root, by default whether we do; mosquitto then drops to a user of its own, who can
            neither read this file nor be ended with us, unless told to stay.
    """
    stays = os.geteuid() == 0 if is_root is None else is_root
    lines = [
        "# Written by lineside-fleet at each start; changes here are lost.",
        f"listener {port} {host}",
        "allow_anonymous true",
        "persistence false",
        f"max_packet_size {MAX_PACKET_BYTES}",
        f"max_inflight_messages {INFLIGHT}",
        f"max_queued_messages {QUEUED}",
        f"max_queued_bytes {QUEUED_BYTES}",
        "set_tcp_nodelay true",
        "connection_messages false",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        *(["user root"] if stays else []),
    ]
    return "\n".join(lines) + "\n"


def command(program: Path, folder: Path, host: str, port: int) -> list[str]:
    """Write the configuration into `folder` and return the command that runs with it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mosquitto.conf"
    path.write_text(configuration(host, port), encoding="utf-8")
    return [str(program), "-c", str(path)]
