"""`lineside-fleet models`: push versions to the registry, and list them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from fleet.commands import client, table


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser("models", help="bring in model versions, and list them")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    push = verbs.add_parser("push", help="upload a model package and register its version")
    push.add_argument("folder", type=Path, metavar="FOLDER", help="of the model package")
    client.add_arguments(push)
    push.set_defaults(run=run_push)
    listing = verbs.add_parser("list", help="list models, or the versions of one")
    listing.add_argument("name", nargs="?", metavar="NAME", help="list this model's versions")
    client.add_arguments(listing)
    client.add_json(listing)
    listing.set_defaults(run=run_list)


def run_push(args: argparse.Namespace) -> int:
    """Upload what is missing, then the index; done twice it changes nothing."""
    from http import HTTPStatus

    from wire import package

    found = package.read_folder(args.folder)
    sent = 0
    with client.Client(args) as api:
        for digest, file in {file.digest: file for file in found.index.files}.items():
            if api.send("HEAD", f"/blobs/{digest}", allow=(404,)).status_code != HTTPStatus.NOT_FOUND:
                continue
            with (args.folder / file.path).open("rb") as stream:
                api.send("PUT", f"/blobs/{digest}", content=stream, headers={"Content-Length": str(file.bytes)})
            sent += 1
        answer = api.send(
            "POST",
            f"/models/{found.index.model}/versions",
            content=package.index_bytes(found.index),
            headers={"Content-Type": "application/json"},
        )
    state = "registered" if answer.status_code == HTTPStatus.CREATED else "was there already"
    sys.stderr.write(
        f"{found.index.model} release {found.index.release} {state}; "
        f"{sent} of {len(found.index.files)} files were uploaded.\n"
    )
    print(found.digest)
    return 0


def run_list(args: argparse.Namespace) -> int:
    """List models or versions."""
    with client.Client(args) as api:
        path = "/models" if args.name is None else f"/models/{args.name}/versions"
        items = list(api.items(path))
    if args.json:
        client.print_json("models" if args.name is None else "model-versions", {"items": items})
    elif args.name is None:
        rows = [[one["name"], str(one["versions"]), str(one["newest_release"] or "-")] for one in items]
        table.print_table(("MODEL", "VERSIONS", "NEWEST"), rows)
    else:
        rows = [
            [
                str(one["release"]),
                one["digest"][:12],
                one["task"],
                str(one["bytes"]),
                one["created_at"],
                one["created_by"],
            ]
            for one in items
        ]
        table.print_table(("RELEASE", "DIGEST", "TASK", "BYTES", "PUSHED", "BY"), rows)
    return 0
