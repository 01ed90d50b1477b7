"""The agent that runs on this device, for commands: its last word, and its local address."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wire.errors import REGISTER, LinesideError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.status import StationStatus, Status, ViewStatus
    from wire.messages import ViewHealth

FRESH_S: Final = 10.0
_DATA_DIR_VARIABLE: Final = "LINESIDE_DATA_DIR"
_DATA_DIR_DEFAULT: Final = "/var/lib/lineside"
_ANSWER_MOST_BYTES: Final = 64 * 1024 * 1024
_TIMEOUT_S: Final = 10.0


def add_arguments(parser: argparse.ArgumentParser, *, below: bool = False) -> None:
    """Add --config and --data-dir, which say where the agent keeps its files.

    Args:
        below: the parser above has them too; what was given there holds unless it is given here again.
    """
    default = argparse.SUPPRESS if below else None
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", type=Path, metavar="FILE", default=default, help="the agent's settings (TOML)")
    where.add_argument(
        "--data-dir",
        type=Path,
        default=default,
        metavar="DIR",
        help=f"the agent's data folder (default: the variable {_DATA_DIR_VARIABLE}, or {_DATA_DIR_DEFAULT})",
    )


def add_json(parser: argparse.ArgumentParser, *, below: bool = False) -> None:
    """Add --json to a command that reads; `below` as in `add_arguments`."""
    parser.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS if below else False,
        help="write JSON, with the id of its schema",
    )


def data_dir_of(args: argparse.Namespace) -> Path:
    """Return the folder that the arguments mean."""
    if args.config is not None:
        from agent import settings

        return settings.load(args.config).data_dir
    return Path(args.data_dir or os.environ.get(_DATA_DIR_VARIABLE) or _DATA_DIR_DEFAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWord:
    """What the agent wrote last.

    Args:
        age_s: how long ago.
        runs: its process is there; only asked where the word is not fresh.
    """

    status: Status
    age_s: float
    runs: bool

    @property
    def is_fresh(self) -> bool:
        """It runs, and says so."""
        return self.age_s <= FRESH_S

    @property
    def is_silent(self) -> bool:
        """It runs, and says nothing."""
        return self.runs and not self.is_fresh

    def end(self) -> int:
        """Say on standard error where this is not the present; return a reading command's exit status."""
        if self.is_fresh:
            return 0
        sys.stderr.write(f"{self.sentence}\n")
        return 9 if self.is_silent else 7

    @property
    def sentence(self) -> str:
        """Why this is not the present."""
        if self.is_silent:
            return (
                f"The agent (process {self.status.pid}) runs, but has written nothing for {words_of_s(self.age_s)}: "
                "look at its log, and whether the disk is full."
            )
        return f"The agent does not run: its last word is {words_of_s(self.age_s)} old."


def read(args: argparse.Namespace) -> LastWord:
    """Return the agent's last word.

    Raises:
        LinesideError: `resource.not_found` where no agent has run with this data folder.
    """
    from datetime import UTC, datetime

    from agent import status

    folder = data_dir_of(args)
    try:
        found = status.read(folder)
    except LinesideError as error:
        if error.code == "resource.not_found" and args.config is None and args.data_dir is None:
            error.next_step = "Name its settings or its data folder: --config agent.toml, or --data-dir DIR."
        raise
    age_s = abs((datetime.now(UTC) - found.at).total_seconds())  # a word of the future: the clock was set back
    return LastWord(status=found, age_s=age_s, runs=age_s <= FRESH_S or _runs(found))


def running(args: argparse.Namespace) -> Status:
    """Return the present status of an agent that runs.

    Raises:
        LinesideError: `resource.not_found` where none does.
    """
    word = read(args)
    if not word.is_fresh:
        next_step = "" if word.is_silent else "Start it: lineside run --config FILE."
        raise LinesideError("resource.not_found", word.sentence, next_step)
    return word.status


def _runs(found: Status) -> bool:
    """Whether the process that wrote the status is still there; a later one of the same number is another."""
    import psutil

    try:
        return psutil.Process(found.pid).create_time() <= found.at.timestamp()
    except psutil.Error:
        return False


def views_of(status: Status) -> Iterator[tuple[StationStatus, ViewHealth, ViewStatus | None]]:
    """Return each view with its station, and where its frames come from."""
    for station in status.stations:
        sources = {source.view: source for source in station.views}
        for view in station.health.views:
            yield station, view, sources.get(view.view)


def station_of(status: Status, name: str) -> StationStatus:
    """Return the station of that name; raises `resource.not_found`, with the nearest that there is."""
    stations = {station.health.station: station for station in status.stations}
    if name not in stations:
        raise _no_such("station", name, list(stations))
    return stations[name]


def view_of(status: Status, name: str) -> tuple[StationStatus, ViewHealth, ViewStatus | None]:
    """Return the view that STATION/VIEW names, or VIEW alone where only one station has it.

    Raises:
        LinesideError: `resource.not_found`, with the nearest that there is.
    """
    views = {
        f"{station.health.station}/{view.view}": (station, view, source) for station, view, source in views_of(status)
    }
    meant = [known for known in views if known == name or known.partition("/")[2] == name]
    if len(meant) != 1:
        raise _no_such("view", name, list(views))
    return views[meant[0]]


def _no_such(kind: str, name: str, known: list[str]) -> LinesideError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}? " if near else ""
    there = f"This device has: {', '.join(known)}." if known else f"This device has no {kind} yet."
    return LinesideError("resource.not_found", f"There is no {kind} {name}.", f"{hint}{there}")


def troubles_of(view: ViewHealth, without: tuple[str, ...] = ()) -> list[str]:
    """Return what is wrong with a view, in sentences."""
    found = [f"no frames: {view.trouble.rstrip('.')}."] if view.trouble else []
    if not view.vitals:
        return found
    from agent.health.troubles import VITAL_WORDS

    return found + [f"{VITAL_WORDS.get(vital, vital)}." for vital in view.vitals if vital not in without]


def ask(status: Status, method: str, path: str, body: object = None, timeout_s: float = _TIMEOUT_S) -> bytes:
    """Send a request to the agent's local address; return the answer's body.

    Raises:
        LinesideError: the agent's own problem, `network.unreachable` or `network.bad_answer`.
    """
    import http.client

    from wire import codec

    if status.local_address is None:
        raise LinesideError(
            "network.unreachable",
            "The agent has no local address to be asked at.",
            "Remove enabled = false under [local] in its settings, and start it again.",
        )
    host, _, port = status.local_address.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104  (nothing is bound here)
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
    try:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, codec.encode(body) if body is not None else None, headers)
        answer = connection.getresponse()
        content = answer.read(_ANSWER_MOST_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        raise LinesideError(
            "network.unreachable",
            f"The agent does not answer at {status.local_address}: {error or type(error).__name__}.",
            "See `lineside status`, and the agent's log.",
        ) from error
    finally:
        connection.close()
    if len(content) > _ANSWER_MOST_BYTES:
        raise LinesideError("network.bad_answer", f"The answer of {status.local_address} is too large.")
    if answer.status >= http.client.BAD_REQUEST:
        raise _problem_of(answer.status, content, status.local_address)
    return content


def _problem_of(http_status: int, content: bytes, address: str) -> LinesideError:
    import json

    try:
        problem: dict[str, Any] = json.loads(content)
        code, detail = str(problem["code"]), str(problem["detail"])
        next_step = str(problem.get("next_step", ""))
    except (ValueError, KeyError, TypeError):
        code, detail, next_step = "", f"{address} answered {http_status}.", "Is it a Lineside agent that listens there?"
    return LinesideError(code if code in REGISTER else "network.bad_answer", detail, next_step)


def words_of_s(seconds: float) -> str:
    """Return a duration for a person: `0.04 s`, `12 s`, `3 min`, `5 h`, `2 d`."""
    if seconds < 1:
        return f"{max(seconds, 0.0):.2f} s"
    for unit_s, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds:.0f} s"
