"""The story of `run.py demo`: three devices on a simulated line, and one model version after another.

1. Fleet, broker, three lines, three agents; release 1 judges parts.
2. Release 2 goes to one device, then to the others, while the belts run; each judges a few parts on probation first.
3. Release 3 is pushed in good order, then a bit of it flips on the server's disk; the device refuses it and goes on.
With --once the story ends there, checks its own books and writes a summary; otherwise it runs until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.plant import MODEL, Device, Plant, PlantError, wait_for  # noqa: E402
from wire import package  # noqa: E402

DEVICES = (("press-1", 3.0), ("press-2", 3.0), ("lathe-1", 2.0))
WATCH_S = 7.0
# Few, so that the story goes on; a line has a hundred by default.
PROBATION_PARTS = 10
# An ONNX file is a protobuf message: a doc string (field 6) put behind it leaves the network as it is.
_DOC_STRING = b"\x32\x09retrained"


def main() -> int:
    """Tell the story; 0 when everything in it came true."""
    args = _arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    keep = args.keep is not None
    folder = args.keep if args.keep is not None else Path(tempfile.mkdtemp(prefix="lineside-demo-"))
    if keep and folder.exists() and any(folder.iterdir()):
        print(f"error: {folder} is not empty. Name a new folder.", file=sys.stderr)
        return 2
    options = {} if args.port is None else {"http_port": args.port}
    plant = Plant(folder=folder, broker=args.broker, **options)
    started = time.monotonic()
    status = 1
    try:
        summary = tell(plant, started, once=args.once)
        if args.once:
            status = _report(summary, args.json)
        else:
            _stay(plant)
    except KeyboardInterrupt:
        status = 0 if not args.once else 130
        print("\nStopping ...", flush=True)
    except PlantError as error:
        print(f"error: {error}\nThe logs are in {folder}.", file=sys.stderr)
        keep = True
    finally:
        plant.close()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return status


def tell(plant: Plant, started: float, *, once: bool) -> dict[str, Any]:
    """Run the story on a plant."""

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {text}", flush=True)

    plant.start_fleet()
    kind = plant.get("/api/v1/healthz").get("broker", plant.broker)
    say(f"The fleet runs (broker: {kind}). Open the live page:\n\n    {plant.url}/sign-in#token={plant.token}\n")
    plant.push(ROOT / "models" / "demo-parts-1")
    for number, (name, rate) in enumerate(DEVICES, start=1):
        device = plant.add_device(name, seed=number, parts_per_s=rate, probation_parts=PROBATION_PARTS)
        plant.desire(device, 1)
        device.agent.start()
    for device in plant.devices:
        wait_until_runs(plant, device, 1)
    say("Three devices are enrolled and judge parts with release 1. The belts run and never stop from here on.")
    _watch(once=once)

    plant.push(ROOT / "models" / "demo-parts-2")
    first, *others = plant.devices
    plant.desire(first, 2)
    wait_until_runs(plant, first, 2)
    say(f"{first.name} runs release 2; the others still run release 1.")
    _watch(once=once)
    for device in others:
        plant.desire(device, 2)
    for device in others:
        wait_until_runs(plant, device, 2)
    say("All three run release 2.")
    _watch(once=once)

    digest = push_damaged_release_3(plant)
    plant.desire(first, 3)
    refusal = wait_for(f"{first.name} refuses release 3", lambda: refusal_of(plant, first, digest), 30)
    say(f"{first.name} refused release 3 ({refusal['code']}): {refusal['reason']}")
    _watch(once=once)
    if digest_of(plant, first) != version_digest(plant, 2):
        raise PlantError(f"{first.name} no longer runs release 2.")
    say(f"{first.name} goes on with release 2.")
    return _end(plant) if once else {}


def wait_until_runs(plant: Plant, device: Device, release: int) -> None:
    """Wait until the fleet knows, from the device's session, that it infers with a release whose probation is over."""
    digest = version_digest(plant, release)

    def runs() -> bool:
        if not device.agent.running:
            raise PlantError(f"the agent of {device.name} ended:\n{device.agent.tail()}")
        status = device.status()
        is_done = status is not None and not status["deployments"] and status["models"][0]["digest"] == digest
        return is_done and digest_of(plant, device) == digest

    wait_for(f"{device.name} runs release {release}", runs, 60)


def version_digest(plant: Plant, release: int) -> str:
    """Return the digest of a release of the demo model."""
    versions = plant.get(f"/api/v1/models/{MODEL}/versions")["items"]
    return next(str(version["digest"]) for version in versions if version["release"] == release)


def digest_of(plant: Plant, device: Device) -> str | None:
    """Return the digest a device says it infers with."""
    reported = plant.get(f"/api/v1/devices/{device.name}").get("reported") or {}
    models = {model["model"]: model["digest"] for model in reported.get("models", [])}
    return models.get(MODEL)


def refusal_of(plant: Plant, device: Device, digest: str) -> dict[str, Any] | None:
    """Return the deployment of a version on a device once it has ended as refused."""
    for deployment in plant.get(f"/api/v1/devices/{device.name}/deployments")["items"]:
        if deployment["digest"] == digest and deployment["state"] == "refused":
            return dict(deployment)
    return None


def push_damaged_release_3(plant: Plant) -> str:
    """Push a sound release 3, then flip one bit of its model in the fleet's blob folder."""
    folder = plant.folder / "demo-parts-3"
    shutil.copytree(ROOT / "models" / "demo-parts-2", folder)
    manifest = folder / "manifest.toml"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("release = 2", "release = 3"), encoding="utf-8")
    with (folder / "model.onnx").open("ab") as stream:
        stream.write(_DOC_STRING)
    plant.push(folder)
    found = package.read_folder(folder)
    entry = found.index.file("model.onnx")
    if entry is None:
        raise PlantError("release 3 has no model")
    (blob,) = [path for path in (plant.fleet_dir / "blobs").rglob(f"*{entry.digest}") if path.is_file()]
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(data)
    return found.digest


def _watch(*, once: bool) -> None:
    """Give a person time to see it on the page."""
    time.sleep(WATCH_S / 2 if once else WATCH_S)


def _end(plant: Plant) -> dict[str, Any]:
    """Stop the belts, wait until all is delivered, and compare three books: lines, devices, database."""
    for device in plant.devices:
        device.line.stop()
    for device in plant.devices:
        wait_for(f"{device.name} has judged its last part", lambda device=device: _has_judged_all(device), 15)
        plant.wait_until_drained(device)
    return summary_of(plant)


def _has_judged_all(device: Device) -> bool:
    return judged_by(device) >= len(device.triggers())


def judged_by(device: Device) -> int:
    """Return how many verdicts a device says it has given since its agent started."""
    status = device.status()
    return sum(sum(station["verdicts"].values()) for station in status["stations"]) if status else 0


def stored_inspections(plant: Plant) -> list[dict[str, Any]]:
    """Read the inspections straight from the fleet's database."""
    with sqlite3.connect(f"file:{plant.fleet_dir / 'fleet.db'}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT record FROM inspection").fetchall()
    return [json.loads(row[0]) for row in rows]


def summary_of(plant: Plant) -> dict[str, Any]:
    """Compare the lines' count files with the devices and with the database."""
    truths: dict[str, str] = {}
    answers: Counter[str] = Counter()
    for device in plant.devices:
        for event in device.count_events():
            part = f"{event['run']}-{event['sequence']}"
            if event["event"] == "trigger":
                truths[part] = event["truth"]
            elif event["event"] == "verdict":
                answers[part] += 1
    stored = stored_inspections(plant)
    by_trigger = Counter(inspection["trigger_id"] for inspection in stored)
    verdicts = {inspection["trigger_id"]: inspection["verdict"] for inspection in stored}
    versions = plant.get(f"/api/v1/models/{MODEL}/versions")["items"]
    releases = {version["digest"]: version["release"] for version in versions}
    refused = [
        {"version": releases[deployment["digest"]], "code": deployment["code"], "reason": deployment["reason"]}
        for device in plant.devices
        for deployment in plant.get(f"/api/v1/devices/{device.name}/deployments")["items"]
        if deployment["state"] == "refused"
    ]
    return {
        "schema": "lineside.demo/1",
        "devices": len(plant.devices),
        "triggers": len(truths),
        "inspections_judged": sum(judged_by(device) for device in plant.devices),
        "inspections_stored": len(stored),
        "triggers_without_verdict": sum(answers[part] == 0 for part in truths),
        "triggers_with_two": sum(count > 1 for count in by_trigger.values()),
        "lost": sum(by_trigger[part] == 0 for part in truths),
        "uninspected": sum(verdict == "NO_VERDICT" for verdict in verdicts.values()),
        "versions": sorted({releases[digest] for inspection in stored for digest in _digests(inspection)}),
        "running": {device.name: releases.get(digest_of(plant, device) or "") for device in plant.devices},
        "refused": refused,
        "accuracy_vs_truth": accuracy(truths, verdicts),
    }


def _digests(inspection: dict[str, Any]) -> list[str]:
    return [view["model_digest"] for view in inspection["views"] if view.get("model_digest")]


def accuracy(truths: dict[str, str], verdicts: dict[str, str]) -> dict[str, Any]:
    """Cross the lines' truth with the verdicts; `right` counts OK for good and NG for defective parts."""
    cells = Counter((truth, verdicts[part]) for part, truth in truths.items() if part in verdicts)
    right = cells["OK", "OK"] + cells["NG", "NG"]
    return {
        "parts": cells.total(),
        "right": round(right / cells.total(), 4) if cells else None,
        "escapes": cells["NG", "OK"],
        "overkill": cells["OK", "NG"],
        "unsure": cells["OK", "UNSURE"] + cells["NG", "UNSURE"],
    }


def _report(summary: dict[str, Any], file: Path | None) -> int:
    text = json.dumps(summary, indent=2)
    print(text, flush=True)
    if file is not None:
        file.write_text(text + "\n", encoding="utf-8")
    wrong = [
        name for name in ("triggers_without_verdict", "triggers_with_two", "lost", "uninspected") if summary[name] != 0
    ]
    if len({summary[name] for name in ("triggers", "inspections_judged", "inspections_stored")}) != 1:
        wrong.append("triggers, inspections_judged and inspections_stored differ")
    if wrong:
        print(f"error: the books do not agree: {', '.join(wrong)}.", file=sys.stderr)
        return 1
    print("Every part has one verdict, and the lines, the devices and the database agree.", flush=True)
    return 0


def _stay(plant: Plant) -> None:
    print("The lines go on. Press Ctrl-C to stop everything.", flush=True)
    while plant.fleet.running:
        time.sleep(0.5)
    raise PlantError(f"the fleet ended:\n{plant.fleet.tail()}")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py demo", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--broker", choices=["auto", "embedded", "mosquitto"], default="auto")
    parser.add_argument("--once", action="store_true", help="end when the story is told, with a summary")
    parser.add_argument("--json", type=Path, metavar="FILE", help="with --once: write the summary to this file")
    parser.add_argument("--port", type=int, help="port of the page; a free one by default")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep all files and logs in this new folder")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
