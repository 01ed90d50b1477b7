"""Writes docs/reference/ from the tables in the code, so that the two cannot disagree.

.venv/bin/python scripts/reference.py           # write the pages
.venv/bin/python scripts/reference.py --check   # exit 1 where a page is not current
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
import reference_health
import reference_registers
import reference_settings

from agent.vision.decoders import registry
from wire import codec, topics
from wire.errors import REGISTER
from wire.manifest import Manifest

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
MADE = "<!-- Made by scripts/reference.py; change the table in the code, then run it. -->\n"
EXIT_FAMILIES = {
    0: "done",
    2: "the command line or the request is wrong",
    3: "the configuration or the installation is wrong",
    4: "the network, the broker or a source failed",
    5: "refused by a rule",
    6: "the model or the package is not usable",
    7: "there is no such thing",
    8: "access denied",
    9: "something inside failed",
    130: "interrupted by Ctrl-C",
}


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    names = list(header)
    lines = [f"| {' | '.join(names)} |", f"|{'|'.join(' --- ' for _ in names)}|"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def topics_page() -> str:
    rows = [
        (
            f"`{topics.HOST}`"
            if row.direction is topics.Direction.HOST
            else f"`{topics.ROOT}/<shard>/<device>/{row.direction}/{row.name}`",
            {"up": "device to fleet", "down": "fleet to device", "host": "fleet to all devices"}[row.direction],
            row.qos,
            "yes" if row.retain else "no",
            f"`{row.message.__name__}`",
            f"{row.max_bytes // 1024} KiB",
            row.purpose,
        )
        for row in topics.TABLE.values()
    ]
    limit_mib = codec.MAX_INFLATED_BYTES // 1024 // 1024
    return f"""# Topics

{MADE}
Every MQTT topic that Lineside uses. The table is `wire/topics.py`, the messages are in `wire/messages.py`.

{table(("Topic", "Direction", "QoS", "Retained", "Message", "Budget", "Purpose"), rows)}
`<device>` is the device's id: small letters, digits and hyphens, at most 64. `<shard>` is two hexadecimal digits made
from the id; it never changes.

The budget is the largest payload that either side sends or accepts. A payload is JSON, plain or compressed with zlib;
inflated it may have {limit_mib} MiB. Unknown fields are ignored; a value of another type is refused.

Nothing rests on QoS, on retained messages or on the broker's memory: a device keeps each record until an `ack` message
says that it is a row in the fleet's database.
"""


def errors_page() -> str:
    rows = [(f"`{code}`", entry.title, entry.exit_status, entry.http_status) for code, entry in REGISTER.items()]
    return (
        f"# Error codes\n\n{MADE}\n"
        "One register for the command lines (exit status), the API (HTTP status and the `code` of a problem) and what\n"
        "devices report. The register is `wire/errors.py`. A code keeps its meaning for ever.\n\n"
        + table(("Code", "Meaning", "Exit status", "HTTP status"), rows)
        + "\n## Exit statuses\n\n"
        + table(("Status", "Meaning"), EXIT_FAMILIES.items())
    )


def decoders_page() -> str:
    intro = (
        f"# Decoders\n\n{MADE}\n"
        "A manifest names one under `[decoder]`, with `parameters` of its own. Outputs are named by place (from 0)\n"
        "or by name. How to add one: [add a decoder](../how-to/add-a-decoder.md).\n"
    )
    parts = [intro]
    for name in sorted(registry.DECODERS):
        decoder = registry.get(name)
        needs = "It needs the threshold `score`. " if decoder.makes_boxes else ""
        if decoder.merges_overlaps:
            needs += "Boxes that overlap by more than the threshold `nms-iou` (0.45 without one) count as one. "
        elif decoder.makes_boxes:
            needs += "Overlapping boxes are merged only where the manifest has the threshold `nms-iou`. "
        rows = [
            (f"`{one.name}`", one.allowed.replace(" | ", " or "), f"`{_toml(one.default)}`", one.help)
            for one in decoder.known_options()
        ]
        parts.append(
            f"\n## {name}\n\n{decoder.summary}\n\nTask `{decoder.task}`. {needs}".rstrip()
            + f"\n\n{table(('Parameter', 'Is', 'Otherwise', 'Meaning'), rows)}"
        )
    return "".join(parts)


def _toml(value: object) -> str:
    """Return a value as a manifest writes it; what a decoder does without is left out there."""
    if value is None or value == ():
        return "none"
    return json.dumps(value, default=list)


def manifest_schema() -> str:
    """Return the manifest's JSON Schema: strict, as its reader is."""
    schema = msgspec.json.schema(Manifest)
    for definition in schema["$defs"].values():
        if "properties" in definition:
            definition["additionalProperties"] = False
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:lineside:manifest:1",
        "$comment": "Made by scripts/reference.py from wire/manifest.py.",
    }
    return json.dumps(head | schema, indent=1) + "\n"


PAGES = {
    "topics.md": topics_page,
    "error-codes.md": errors_page,
    "decoders.md": decoders_page,
    "manifest.schema.json": manifest_schema,
    "register-map.md": lambda: reference_registers.page(MADE, table),
    "settings.md": lambda: reference_settings.page(MADE, table),
    "metrics.md": lambda: reference_health.metrics_page(MADE, table),
    "events.md": lambda: reference_health.events_page(MADE, table),
}


def main(arguments: list[str]) -> int:
    stale = []
    for name, page in PAGES.items():
        path = FOLDER / name
        text = page()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if arguments != ["--check"]:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    print(f"{'Not current' if arguments else 'Written'}: {', '.join(stale) or 'none'}", file=sys.stderr)
    return 1 if stale and arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
