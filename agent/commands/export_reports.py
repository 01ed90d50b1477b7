"""`lineside export`: carry to the fleet by hand what the network has not."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from agent.commands import models_scene as scenes
from agent.commands import running
from wire import command_line
from wire.errors import LinesideError

if TYPE_CHECKING:
    from agent.uplink.outbox_reader import OutboxReader
    from wire.export import ExportHead

SCHEMA: Final = "lineside.export-summary/1"
_MOST: Final = 2**53


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser(
        "export",
        help="write everything the fleet has not confirmed into one file, to be carried to it",
        description="Write everything the fleet has not confirmed into one file: inspections, counts, reports on "
        "deployments, events, health, and what shadows made of parts. Pictures are not among it: they stay and "
        "travel when the network is back. Nothing is settled by an export; what the fleet gets twice it takes once. "
        "The agent may run meanwhile.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="to write, for example on a stick; replaced whole")
    parser.add_argument("--force", action="store_true", help="replace FILE where it is there already")
    running.add_arguments(parser)
    running.add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    from agent.uplink import outbox_reader

    data_dir = running.data_dir_of(args)
    outbox = data_dir / "outbox.db"
    file: Path = args.file
    if file.is_dir():
        raise LinesideError("usage.invalid", f"{file} is a folder.", f"Name a file in it: {file}/press-7.export")
    if file.exists() and not args.force:
        raise LinesideError("resource.conflict", f"{file} is there already.", "Choose another name, or say --force.")
    device = _device(args, data_dir)
    draft = file.with_name(f".{file.name}.{os.getpid()}.draft")
    try:
        for left in file.parent.glob(f".{file.name}.*.draft"):  # of an export that was killed
            left.unlink(missing_ok=True)
        with outbox_reader.OutboxReader(outbox, device) as reader, draft.open("xb") as stream:
            head, by_lane = _write(stream, reader, device)
            stream.flush()
            os.fsync(stream.fileno())
            size_bytes = stream.tell()
        outbox_reader.make_durable(outbox)
        draft.replace(file)
        _sync_folder(file.parent)
    except OSError as error:
        raise _cannot_write(file, error) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    _tell(args, file, head, by_lane, size_bytes)
    return 0


def _write(stream: IO[bytes], reader: OutboxReader, device: str) -> tuple[ExportHead, Counter[str]]:
    """Write the batches after room for the head, then the head, which counts them."""
    from agent.version import VERSION
    from wire import codec
    from wire.export import ExportHead

    at = datetime.now(UTC)

    def head_of(batches: int, entries: int) -> ExportHead:
        return ExportHead(device=device, at=at, agent_version=VERSION, batches=batches, entries=entries)

    room = len(codec.encode(head_of(_MOST, _MOST)))
    stream.write(b" " * room + b"\n")
    by_lane: Counter[str] = Counter()
    batches = 0
    for batch in reader.batches():
        stream.write(codec.encode(batch) + b"\n")
        batches += 1
        by_lane[batch.lane.value] += len(batch.entries)
    head = head_of(batches, by_lane.total())
    stream.seek(0)
    stream.write(codec.encode(head).ljust(room))
    stream.seek(0, os.SEEK_END)
    return head, by_lane


def _device(args: argparse.Namespace, data_dir: Path) -> str:
    """Return the name of the device whose records these are."""
    if args.config is not None:
        from agent import settings

        return settings.load(args.config).device.id
    status, _ = scenes.last_word(args)
    if status is not None:
        return status.device
    from agent import identity

    try:
        return identity.name(data_dir)
    except LinesideError as error:
        raise LinesideError(
            "resource.not_found",
            f"{data_dir}: whose device this is is not known there.",
            "Name its settings: --config agent.toml.",
        ) from error


def _tell(args: argparse.Namespace, file: Path, head: ExportHead, by_lane: Counter[str], size_bytes: int) -> None:
    status, agent_runs = scenes.last_word(args)
    pictures = status.pictures_waiting if status is not None else 0
    if args.json:
        command_line.print_json(
            SCHEMA,
            {
                "file": command_line.plain(str(file)),
                "device": head.device,
                "at": head.at,
                "bytes": size_bytes,
                "batches": head.batches,
                "entries": head.entries,
                "entries_by_lane": dict(by_lane),
                "pictures_left_out": pictures,
                "agent_runs": agent_runs,
            },
        )
        return
    command_line.show(f"made        {file}, {scenes.mb(size_bytes)}")
    lanes = ", ".join(f"{count} {lane}" for lane, count in by_lane.items())
    command_line.show(f"holds       {head.entries} records of {head.device}{f': {lanes}' if lanes else ''}")
    if not head.entries:
        sys.stderr.write("The fleet has confirmed everything; the file says so.\n")
    if pictures:
        sys.stderr.write(f"{pictures} pictures are not in it; they wait here for the network.\n")
    command_line.say(f"Carry it to the fleet: lineside-fleet devices absorb {file.name}")
    sys.stderr.write("Here everything stays until the fleet itself confirms it.\n")


def _sync_folder(folder: Path) -> None:
    """Make the file's name durable; some sticks' file systems cannot."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _cannot_write(file: Path, error: OSError) -> LinesideError:
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LinesideError("storage.full", f"{file} finds no room there.", "Use a larger stick, or make room on it.")
    return LinesideError(
        "storage.unusable", f"{file} cannot be written: {error.strerror or error}.", "Is the stick still plugged in?"
    )
