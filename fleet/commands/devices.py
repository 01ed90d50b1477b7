"""`lineside-fleet devices`: list, show and revoke devices, and take the files they exported."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fleet.commands import client, table
from fleet.commands import deployments as words
from wire import command_line
from wire.errors import REGISTER, LinesideError
from wire.export import MAX_LINE_BYTES, ExportHead

ABSORB_TIMEOUT_S: Final = 3600.0


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("devices", help="see devices, and revoke them")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = verbs.add_parser("list", help="list all devices")
    show = verbs.add_parser("show", help="show one device, what it runs and its deployments")
    revoke = verbs.add_parser("revoke", help="take a device's access away")
    for verb, run in ((listing, run_list), (show, run_show), (revoke, run_revoke)):
        if verb is not listing:
            verb.add_argument("device", metavar="DEVICE")
        client.add_arguments(verb)
        verb.set_defaults(run=run)
    absorb = verbs.add_parser("absorb", help="take a file that `lineside export` wrote on a device without a network")
    absorb.add_argument("file", type=Path, metavar="FILE")
    client.add_arguments(absorb)
    client.add_json(absorb)
    absorb.set_defaults(run=run_absorb)
    client.add_json(listing)
    client.add_json(show)


def run_list(args: argparse.Namespace) -> int:
    """List devices."""
    with client.Client(args) as api:
        items = list(api.items("/devices"))
    if args.json:
        client.print_json("devices", {"items": items})
        return 0
    rows = [
        [one["id"], _state(one), one["last_seen_at"] or "never", one["agent_version"], _runs(one, {})] for one in items
    ]
    table.print_table(("DEVICE", "STATE", "LAST SEEN", "AGENT", "RUNS"), rows)
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Show one device."""
    with client.Client(args) as api:
        device = api.send("GET", f"/devices/{args.device}").json()
        deployments = list(api.send("GET", f"/devices/{args.device}/deployments?limit=20").json()["items"])
        newest = api.send("GET", f"/devices/{args.device}/health?limit=1").json()["items"]
        events = list(api.send("GET", f"/devices/{args.device}/events?limit=10").json()["items"])
    health = newest[0] if newest else None
    if args.json:
        content = {"device": device, "deployments": deployments, "health": health, "events": events}
        client.print_json("device", content)
        return 0
    command_line.show(f"{device['id']}  {_state(device)}  last seen {device['last_seen_at'] or 'never'}")
    command_line.show(f"agent {device['agent_version']} on {device['architecture']}, enrolled {device['enrolled_at']}")
    releases = {one["digest"]: one["release"] for one in deployments if one["release"] is not None}
    command_line.show(f"runs {_runs(device, releases)}")
    for one in device["deviations"]:
        command_line.show(f"{one['model']} {one['text']}")
    rows = [
        [one["model"], words.release(one), one["state"], words.asked_by(one), words.why(one)] for one in deployments
    ]
    table.print_table(("MODEL", "RELEASE", "STATE", "ASKED BY", "WHY"), rows)
    for sentence in _wrong(device, health):
        command_line.show(sentence)
    if events:
        print()
        table.print_table(("EVENT", "AT", "TEXT"), [[one["name"], one["at"], one["text"]] for one in events])
    return 0


def run_revoke(args: argparse.Namespace) -> int:
    """Revoke a device."""
    with client.Client(args) as api:
        api.send("POST", f"/devices/{args.device}/revocation")
    sys.stderr.write(f"{args.device} is revoked. A new claim lets it in again.\n")
    return 0


def run_absorb(args: argparse.Namespace) -> int:
    """Send an exported file to the fleet; sent twice it changes nothing."""
    with args.file.open("rb") if args.file.is_file() else _missing(args.file) as stream:
        device = _device_of(stream.readline(MAX_LINE_BYTES + 1), args.file)
        stream.seek(0)
        headers = {"Content-Type": "application/x-ndjson", "Content-Length": str(args.file.stat().st_size)}
        with client.Client(args) as api:
            found = api.send(
                "POST", f"/devices/{device}/exports", content=stream, headers=headers, timeout=ABSORB_TIMEOUT_S
            ).json()
    if args.json:
        client.print_json("export", found)
    else:
        command_line.show(
            f"{found['device']}, exported {found['written_at']}: {found['batches']} of {found['expected']} batches"
        )
        rows = [
            [lane, *(str(one[count]) for count in ("records", "new", "known", "refused", "failed"))]
            for lane, one in found["lanes"].items()
        ]
        table.print_table(("LANE", "RECORDS", "NEW", "KNOWN", "REFUSED", "FAILED"), rows)
    if found["trouble"]:
        command_line.say(f"warning: {found['trouble']}")
    return 0 if not found["trouble"] else REGISTER["source.unreadable"].exit_status


def _missing(path: Path) -> Any:
    raise LinesideError(
        "source.unavailable", f"There is no file {path}.", "`lineside export` on the device writes one."
    )


def _device_of(line: bytes, path: Path) -> str:
    from wire import codec

    try:
        return codec.decode(line, ExportHead).device
    except LinesideError as error:
        raise LinesideError(
            "source.unreadable", f"{path} is no export of a device: {error.message}", "`lineside export` writes one."
        ) from error


def _wrong(device: dict[str, Any], health: dict[str, Any] | None) -> list[str]:
    """Return what the device refuses, and what was wrong when it last told how it is."""
    found = [f"refused: {sentence}" for sentence in (device["reported"] or {}).get("refusals", [])]
    found += [
        f"shadow of {model['model']}: {model['shadow_trouble']}"
        for model in (device["reported"] or {}).get("models", [])
        if model.get("shadow_trouble")
    ]
    for station in health["health"]["stations"] if health is not None else ():
        if station.get("not_ready"):
            found.append(f"{station['station']}: not ready: {station['not_ready']}")
        found += [_shadow(station["station"], one) for one in station.get("shadows", ())]
        for view in station.get("views", ()):
            place = f"{station['station']}/{view['view']}"
            if view["trouble"]:
                found.append(f"{place}: no frames: {view['trouble']}")
            found += [f"{place}: the picture is wrong: {vital.replace('_', ' ')}" for vital in view["vitals"]]
    return found


def _shadow(station: str, one: dict[str, Any]) -> str:
    skipped = sum(one["skipped"].values())
    return (
        f"{station}: shadow of {one['model']} {one['digest'][:12]}: {one['compared']} of {one['chosen']} chosen parts "
        f"compared, {skipped} skipped, {one['disagreed']} differ"
    )


def _state(device: dict[str, Any]) -> str:
    if device["revoked"]:
        return "revoked"
    state = "online" if device["online"] else "offline"
    return f"{state}, drift" if device["drift"] else state


def _runs(device: dict[str, Any], releases: Mapping[str, int]) -> str:
    """Return what a device runs, with the releases that are known of digests."""
    found = []
    for one in (device["reported"] or {}).get("models", []):
        digest = one["digest"] or ""
        named = f"release {releases[digest]} ({digest[:12]})" if digest in releases else digest[:12] or "nothing"
        found.append(f"{one['model']} {named}")
    return ", ".join(found) or "-"
