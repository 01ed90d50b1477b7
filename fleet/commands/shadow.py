"""`lineside-fleet shadow`: how a candidate compares with the active version."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Final

from fleet.commands import client, table
from wire import command_line

_VERDICTS: Final = ("OK", "NG", "UNSURE", "NO_VERDICT")


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("shadow", help="see how a candidate compares with the active version")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    show = verbs.add_parser("show", help="show the verdicts of both, and the newest parts on which they disagree")
    show.add_argument("model", metavar="MODEL")
    show.add_argument("--release", type=int, required=True, metavar="N", help="of the candidate")
    show.add_argument("--device", metavar="DEVICE", help="of this device only")
    show.add_argument("--disagreements", type=int, default=10, metavar="N", help="how many to show (default: 10)")
    client.add_arguments(show)
    client.add_json(show)
    show.set_defaults(run=run_show)


def run_show(args: argparse.Namespace) -> int:
    """Show the comparison."""
    path = f"/models/{args.model}/versions/{args.release}/shadow"
    params = {"device": args.device} if args.device is not None else {}
    with client.Client(args) as api:
        found = api.send("GET", path, params=params).json()
        limit = {"limit": str(min(max(args.disagreements, 1), client.PAGE))}
        parts = api.send("GET", f"{path}/disagreements", params=params | limit).json()["items"]
    parts = parts[: max(args.disagreements, 0)]
    if args.json:
        client.print_json("shadow", {**found, "disagreements": parts})
        return 0
    command_line.show(f"{found['model']} release {found['release']} as shadow  {found['digest'][:12]}")
    for one in found["against"]:
        _print_against(one)
    if not found["against"]:
        print("No part has been judged by both yet.")
    _print_evidence(found["evidence"])
    if parts:
        print()
        rows = [
            [one["at"], one["device"], one["station"], one["active_verdict"], one["verdict"], _pictures(one)]
            for one in parts
        ]
        table.print_table(("PART AT", "DEVICE", "STATION", "ACTIVE", "CANDIDATE", "PICTURES"), rows)
    return 0


def _print_against(one: Mapping[str, Any]) -> None:
    active = f"release {one['active_release']}" if one["active_release"] is not None else "an unknown release"
    whole = one["matrix"]
    print()
    command_line.show(f"against {active}: {whole['compared']} parts, {whole['disagreed']} differ ({_share(whole)})")
    cells = {(cell["active_verdict"], cell["verdict"]): cell for cell in whole["cells"]}
    rows = [
        [active_verdict, *(_cell(cells.get((active_verdict, verdict))) for verdict in _VERDICTS)]
        for active_verdict in _VERDICTS
        if any((active_verdict, verdict) in cells for verdict in _VERDICTS)
    ]
    table.print_table(("ACTIVE", *(f"CANDIDATE {verdict}" for verdict in _VERDICTS)), rows)
    if len(one["devices"]) > 1:
        print()
        devices = [
            [part["device"], str(part["matrix"]["compared"]), str(part["matrix"]["disagreed"]), _share(part["matrix"])]
            for part in one["devices"]
        ]
        table.print_table(("DEVICE", "COMPARED", "DIFFER", "SHARE"), devices)


def _print_evidence(evidence: list[dict[str, Any]]) -> None:
    if not evidence:
        return
    print()
    rows = [
        [
            one["device"],
            "yes" if one["asked"] else "no",
            {True: "yes", False: one["trouble"] or "no", None: "not reported"}[one["runs"]],
            str(one["chosen"]),
            str(one["compared"]),
            " ".join(f"{reason}={count}" for reason, count in sorted(one["skipped"].items())) or "-",
            str(one["kept"]),
        ]
        for one in evidence
    ]
    table.print_table(("DEVICE", "ASKED FOR", "RUNS", "CHOSEN", "COMPARED", "SKIPPED", "PAIRS HERE"), rows)


def _share(matrix: Mapping[str, Any]) -> str:
    rate = matrix["disagreement_rate"]
    return f"{rate:.1%}" if rate is not None else "no evidence"


def _cell(cell: Mapping[str, Any] | None) -> str:
    return f"{cell['count']} ({cell['rate']:.1%})" if cell is not None else "-"


def _pictures(one: Mapping[str, Any]) -> str:
    return " ".join(picture["digest"][:12] for picture in one["pictures"]) or "-"
