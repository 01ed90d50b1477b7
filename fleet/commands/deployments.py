"""`lineside-fleet deployments`: list deployments, and take one back."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from fleet.commands import client, table
from wire import command_line


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("deployments", help="list deployments, and take one back")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = verbs.add_parser("list", help="list the newest deployments, of all devices or of one")
    listing.add_argument("--device", metavar="DEVICE")
    listing.add_argument("--state", metavar="STATE", help="only those in this state")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="how many at most (default: 50)")
    client.add_arguments(listing)
    client.add_json(listing)
    listing.set_defaults(run=run_list)
    cancel = verbs.add_parser("cancel", help="take one back: the device goes back to what ran before")
    cancel.add_argument("deployment", metavar="ID")
    cancel.add_argument("--reason", required=True, metavar="TEXT", help="what whoever wonders should know")
    client.add_arguments(cancel)
    cancel.set_defaults(run=run_cancel)


def run_list(args: argparse.Namespace) -> int:
    """List deployments."""
    from wire.deployment import DeploymentState
    from wire.errors import LinesideError

    states = [state.value for state in DeploymentState]
    if args.state is not None and args.state not in states:
        raise LinesideError(
            "usage.invalid", f"{args.state!r} is no state of a deployment.", f"The states are: {', '.join(states)}."
        )
    params = {"device": args.device, "state": args.state, "limit": str(min(max(args.limit, 1), client.PAGE))}
    with client.Client(args) as api:
        given = {name: value for name, value in params.items() if value is not None}
        items = api.send("GET", "/deployments", params=given).json()["items"]
    if args.json:
        client.print_json("deployments", {"items": items})
        return 0
    rows = [
        [one["id"], one["device"], one["model"], release(one), one["state"], asked_by(one), why(one)] for one in items
    ]
    table.print_table(("ID", "DEVICE", "MODEL", "RELEASE", "STATE", "ASKED BY", "WHY"), rows)
    return 0


def run_cancel(args: argparse.Namespace) -> int:
    """Cancel a deployment."""
    with client.Client(args) as api:
        answer = api.send("POST", f"/deployments/{args.deployment}/cancel", json={"reason": args.reason})
        one = answer.json()
        desired = api.send("GET", f"/devices/{one['device']}/desired").json()
    models = {model["model"]: model["release"] for model in desired["models"]}
    now = f"release {models[one['model']]}" if one["model"] in models else "no version"
    command_line.say(
        f"{one['model']} release {release(one)} on {one['device']} is canceled; "
        f"{one['device']} is asked for {now} now (revision {desired['revision']})."
    )
    command_line.say(str(one["reason"]))
    print(one["id"])
    return 0


def release(one: Mapping[str, Any]) -> str:
    """Return a deployment's release in words."""
    return str(one["release"]) if one["release"] is not None else "unknown"


def asked_by(one: Mapping[str, Any]) -> str:
    """Return who asked for a deployment."""
    if one["origin"] == "device":
        return f"{one['by'] or 'somebody'} at the device"
    return "unknown (no record of it here)" if one["created_by"] == "unknown" else str(one["created_by"])


def why(one: Mapping[str, Any]) -> str:
    """Return what a deployment waits for, what probation has seen, or why it ended."""
    parts = []
    if one["hold_reason"]:
        until = f" until {one['hold_until']}" if one["hold_until"] else ""
        parts.append(f"waits: {one['hold_reason'].replace('_', ' ')}{until}. {one['hold_text']}".strip())
    seen = one["probation"]
    if seen and one["state"] == "probation":
        parts.append(f"{seen['parts']} of {seen['parts_needed']} parts, {seen['faults']} without verdict")
    parts.append(": ".join(part for part in (one["code"], one["reason"]) if part))
    return "; ".join(part for part in parts if part)
