"""The embedded broker: amqtt in a child process of ours, for one machine. Run as `python -m fleet.broker.embedded`.

It speaks MQTT 3.1.1 only and forgets everything at its end, which no promise of Lineside minds. It has no protection
worth the name, so it serves loopback addresses and nothing else, whoever asks.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import ipaddress
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any

from wire.errors import LinesideError


def is_installed() -> bool:
    """Tell whether amqtt is there, without importing it."""
    return importlib.util.find_spec("amqtt") is not None


def require_loopback(host: str) -> None:
    """Refuse any address that another machine could reach.

    Raises:
        LinesideError: `broker.not_loopback`.
    """
    try:
        loopback = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise LinesideError(
            "broker.not_loopback",
            f"The embedded broker serves this machine only; {host} is not a loopback address.",
            "Install mosquitto (`apt install mosquitto`) to serve other machines, or use 127.0.0.1.",
        )


def command(host: str, port: int) -> list[str]:
    """Return the command that runs it."""
    require_loopback(host)
    return [sys.executable, "-m", "fleet.broker.embedded", "--host", host, "--port", str(port)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m fleet.broker.embedded", description="Loopback MQTT broker.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    try:
        require_loopback(options.host)
    except LinesideError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the parent reads it there
        return error.entry.exit_status
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s")
    asyncio.run(_serve(options.host, options.port))
    return 0


async def _serve(host: str, port: int) -> None:
    from amqtt.broker import Broker

    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    configuration: dict[str, Any] = {
        "listeners": {"default": {"type": "tcp", "bind": place, "max_connections": 2000}},
        "timeout_disconnect_delay": 2,
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    broker = Broker(configuration)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    await broker.start()
    await stop.wait()
    await broker.shutdown()


if __name__ == "__main__":
    raise SystemExit(main())
