"""`lineside-fleet serve`: broker, ingest and API in one process, until it is told to stop."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from fleet.commands import local
from wire.errors import LinesideError

if TYPE_CHECKING:
    from fleet.settings import FleetSettings

GRACE_S: Final = 3
_BROKERS: Final = ("auto", "embedded", "mosquitto", "external")


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("serve", help="run the fleet: broker, ingest, API and pages")
    parser.add_argument("--host", help="address of the API and pages (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=int, help="default: 8080; 0 takes a free one")
    parser.add_argument("--broker", choices=_BROKERS, help="default: auto - mosquitto where it is, else embedded")
    parser.add_argument(
        "--ingest", choices=("inside", "elsewhere"), help="default: inside; elsewhere: `lineside-fleet ingest` does it"
    )
    parser.add_argument("--mqtt-host", metavar="HOST", help="address of the broker (default: 127.0.0.1)")
    parser.add_argument("--mqtt-port", type=int, metavar="PORT", help="default: 1883")
    parser.add_argument("--verbose", action="store_true", help="log more")
    local.add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    from fleet import log

    settings = local.settings_of(
        args,
        host=args.host,
        port=args.port,
        broker=args.broker,
        ingest=args.ingest,
        mqtt_host=args.mqtt_host,
        mqtt_port=args.mqtt_port,
    )
    log.set_up(verbose=args.verbose)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, _stop)
    try:
        with local.current_database(args) as engine, _only_one(settings.data_dir):
            _serve(settings, engine)
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def _serve(settings: FleetSettings, engine: Any) -> None:
    from dataclasses import replace

    import uvicorn

    from fleet import collector
    from fleet.app import create_app
    from fleet.blobs.store import FolderBlobs
    from fleet.broker import supervisor
    from fleet.deployments.ticker import Ticker
    from fleet.ingest import claim, shards
    from fleet.ingest.waker import Waker
    from fleet.ingest.worker import Ingest
    from wire import package

    blobs = FolderBlobs(settings.blobs_dir, package.MAX_FILE_BYTES)
    blobs.sweep()
    with contextlib.ExitStack() as stack:
        # Entered first, left last: from the first call to stop on, no second signal breaks the tidying up.
        listener = stack.enter_context(_listen(settings.host, settings.port))
        broker = supervisor.choose(settings)
        stack.callback(broker.stop)
        broker.start()
        host, port = broker.address
        announcer: Ingest | Waker
        if settings.ingest == "inside":
            stack.enter_context(claim.hold(settings.data_dir, shards.WHOLE))
            announcer = Ingest(engine, broker.address, broker.protocol)
        else:
            announcer = Waker(broker.address, broker.protocol)
        stack.callback(announcer.stop)
        announcer.start()
        ticker = Ticker(engine, settings.deployment_limits)
        stack.callback(ticker.stop)
        ticker.start()
        kind: Any = broker.kind
        app = create_app(replace(settings, broker=kind, mqtt_host=host, mqtt_port=port), engine, blobs, announcer)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
            timeout_keep_alive=30,
        )
        server = uvicorn.Server(config)
        stack.callback(_ignore_signals)
        collector.relax()
        _announce(settings, listener.getsockname()[1], broker.kind, broker.address)
        server.run(sockets=[listener])


def _announce(settings: FleetSettings, port: int, broker: str, address: tuple[str, int]) -> None:
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    say = sys.stderr.write
    say(f"Lineside fleet: http://{shown}:{port}\n")
    say(f"Broker: {broker} at {address[0]}:{address[1]}\n")
    if settings.ingest == "elsewhere":
        say("Ingest: elsewhere. Nothing devices send is taken until `lineside-fleet ingest` runs.\n")
    say(f"Data: {settings.data_dir}\n")
    if settings.is_loopback:
        say("Only this machine can reach them; --host and --mqtt-host change that.\n")
    else:
        say(
            "WARNING: other machines can reach them, and the transport is neither encrypted nor authenticated yet: "
            "whoever reads along can take tokens, and whoever reaches the broker can speak for any device.\n"
        )
    sys.stderr.flush()


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=512)
    except OSError as error:
        raise LinesideError(
            "network.address_unavailable",
            f"The API cannot listen on {host}:{port}: {error.strerror or error}.",
            "Choose another --port or --host, or end what uses it.",
        ) from error
    with listener:
        yield listener


@contextlib.contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Hold the folder: two fleets over one folder would take each other's messages."""
    with (data_dir / "serve.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LinesideError(
                "resource.conflict", f"Another fleet serves {data_dir} already.", "End it, or use another --data-dir."
            ) from error
        yield


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _ignore_signals() -> None:
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
