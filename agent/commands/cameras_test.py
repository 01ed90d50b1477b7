"""`lineside cameras test`: watches the cameras of this device and says which of them are not good."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from agent.commands import cameras_probe, running
from wire import command_line
from wire.errors import LinesideError

if TYPE_CHECKING:
    from agent.capture.probe import Probed
    from agent.status import ViewStatus
    from wire.messages import ViewHealth

SCHEMA: Final = "lineside.camera-test/1"
_FAILED: Final = 4  # the family of sources that fail (wire/errors.py)
_Result = tuple[str, str, list[str]]  # view, what was seen, what is wrong


def add_parser(verbs: Any) -> None:
    """Mount the command."""
    test = verbs.add_parser("test", help="watch the cameras of this device; status 4 where one of them is not good")
    test.add_argument("view", nargs="?", metavar="STATION/VIEW", help="this one only")
    cameras_probe.add_seconds(test)
    running.add_arguments(test)
    running.add_json(test)
    test.set_defaults(run=run_test)


def run_test(args: argparse.Namespace) -> int:
    """Watch the running agent's cameras, or those of the settings where no agent runs."""
    cameras_probe.check_seconds(args.seconds)
    alone = args.config is not None and not _agent_runs(args)
    found = _test_without_agent(args) if alone else _test_of_agent(args)
    if args.json:
        listed = [
            {"view": name, "good": not wrong, "summary": summary, "wrong": wrong} for name, summary, wrong in found
        ]
        command_line.print_json(SCHEMA, {"cameras": listed})
    else:
        rows = [(name, "FAILED" if wrong else "good", " ".join([*wrong, summary])) for name, summary, wrong in found]
        for line in command_line.table(("VIEW", "RESULT", "WHAT WAS SEEN"), rows):
            print(line)
    return _FAILED if any(wrong for _, _, wrong in found) else 0


def _agent_runs(args: argparse.Namespace) -> bool:
    try:
        return running.read(args).is_fresh
    except LinesideError as error:
        if error.code != "resource.not_found":
            raise
        return False


def _test_of_agent(args: argparse.Namespace) -> list[_Result]:
    """Compare two words of the running agent; its accounts say what came between them."""
    before = running.running(args)
    names = [f"{station.health.station}/{view.view}" for station, view, _ in running.views_of(before)]
    if args.view is not None:
        station, view, _ = running.view_of(before, args.view)
        names = [f"{station.health.station}/{view.view}"]
    sys.stderr.write(f"Watching {', '.join(names) or 'no view'} for {args.seconds:g} s ...\n")
    time.sleep(args.seconds)
    after = running.running(args)
    seconds = max((after.at - before.at).total_seconds(), 0.001)
    results = []
    for name in names:
        _, last, source = running.view_of(after, name)
        results.append((name, *_difference(running.view_of(before, name)[1], last, source, seconds)))
    return results


def _difference(
    first: ViewHealth, last: ViewHealth, source: ViewStatus | None, seconds: float
) -> tuple[str, list[str]]:
    frames = last.frames_in - first.frames_in
    wrong = running.troubles_of(last)
    if frames == 0 and not wrong:
        fired = source is not None and source.time_class == "hardware_triggered"
        wrong.append("no frame came: did a part pass? The line fires this camera." if fired else "no frame came.")
    restarts = last.restarts - first.restarts
    if restarts > 0:
        wrong.append(f"Its process was started again {restarts} time{'' if restarts == 1 else 's'}.")
    return f"{frames} frames in {seconds:.1f} s, {frames / seconds:.1f} a second.", wrong


def _test_without_agent(args: argparse.Namespace) -> list[_Result]:
    """Open each camera of the settings by itself: before the device is enrolled, or while its agent is stopped."""
    from agent import settings
    from agent.capture import probe, sources
    from agent.clock import SystemClock

    cameras_probe.quiet()
    views = {
        f"{station.id}/{view.id}": view for station in settings.load(args.config).stations for view in station.views
    }
    if args.view is not None and args.view not in views:
        raise LinesideError(
            "resource.not_found", f"There is no view {args.view}.", f"The settings have: {', '.join(views)}."
        )
    sys.stderr.write(f"No agent runs: each camera is opened for {args.seconds:g} s by itself ...\n")
    results: list[_Result] = []
    for name, view in views.items():
        if args.view not in {None, name}:
            continue
        try:
            seen = probe.probe(
                sources.source_of(view.id, view.source, SystemClock()),
                seconds=args.seconds,
                open_timeout_s=view.source.open_timeout_s + view.source.read_timeout_s,
            )
        except LinesideError as error:
            results.append((name, "", [error.message]))
            continue
        results.append((name, *_seen_in_words(seen)))
    return results


def _seen_in_words(seen: Probed) -> tuple[str, list[str]]:
    if seen.frames == 0:
        return "", [f"no picture: {(seen.trouble or 'nothing came').rstrip('.')}."]
    return f"{cameras_probe.size_of(seen)}, {cameras_probe.pace_of(seen)}.", cameras_probe.wrong_with(seen)
