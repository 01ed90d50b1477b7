"""`lineside models show`: one version, what it needs, how its deployment stands and what came before."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from agent.commands import models_scene as scenes
from agent.commands import running
from wire import command_line
from wire.errors import LinesideError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.commands.models_scene import Scene
    from agent.deploy.attempt import Attempt
    from agent.deploy.inventory import Version
    from wire.manifest import Manifest

SCHEMA: Final = "lineside.model-version/1"
_LABELS_SHOWN: Final = 8
_WRITTEN_EVERY_S: Final = 60.0  # agent.deploy.logbook.KEEP_PROBATION_EVERY_S


def add_verb(verbs: Any) -> None:
    """Mount the verb."""
    parser = verbs.add_parser("show", help="show one version, its deployment, and the deployments before")
    parser.add_argument(
        "version", metavar="MODEL[@RELEASE]", help="of the version that runs, or of this release (or digest)"
    )
    running.add_arguments(parser, below=True)
    running.add_json(parser, below=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show a version."""
    from agent.deploy import inventory

    scene = scenes.look(args)
    model, version = inventory.find(scene.inventory, args.version)
    version = version or _meant(scene, model)
    attempt = scene.inventory.attempt(model)
    mine = attempt if attempt is not None and version is not None and attempt.digest == version.digest else None
    manifest, trouble = _manifest(scene, version)
    if args.json:
        command_line.print_json(
            SCHEMA,
            {
                "model": model,
                "version": version,
                "manifest": manifest,
                "trouble": trouble,
                "deployment": mine,
                "latest_deployment": attempt,
                "past": scene.inventory.journals[model].past if model in scene.inventory.journals else (),
            },
        )
        return 0
    for line in _lines(scene, model, version, mine, manifest, trouble):
        command_line.show(line)
    return 0


def _meant(scene: Scene, model: str) -> Version | None:
    """Return the version of a model that a person means who names none: what is on its way, else what runs."""
    attempt = scene.inventory.attempt(model)
    if attempt is not None and not attempt.has_ended:
        return scene.inventory.by_digest(attempt.digest)
    found = scene.inventory
    return found.having(model, "runs") or found.having(model, "current") or next(iter(found.of(model)), None)


def _manifest(scene: Scene, version: Version | None) -> tuple[Manifest | None, str]:
    from wire import manifest, package

    if version is None or not version.is_whole:
        return None, ""
    path: Path = scene.data_dir / "models" / "packages" / version.digest / manifest.FILE_NAME
    try:
        return package.read_manifest(path), ""
    except (LinesideError, OSError) as error:
        return None, f"{error}"


def _lines(
    scene: Scene,
    model: str,
    version: Version | None,
    mine: Attempt | None,
    manifest: Manifest | None,
    trouble: str,
) -> Iterator[str]:
    if version is None:
        yield f"model       {model}: no version of it is on this device"
    else:
        about = f": {manifest.description}" if manifest is not None and manifest.description else ""
        yield f"model       {model}, release {version.release if version.release is not None else 'unknown'}{about}"
        yield f"digest      {version.digest}"
        yield f"role        {', '.join(version.roles) or 'none: `lineside models gc` would remove it'}"
        if trouble or not (version.is_whole or mine is not None):
            yield f"DAMAGED     {trouble or 'its files are not on this device.'} See: lineside models verify {model}"
    if manifest is not None:
        yield from _of_manifest(manifest)
    if version is not None:
        yield f"package     {scenes.mb(version.bytes)}"
    if mine is not None:
        yield from _deployment(scene, mine)
    latest = scene.inventory.attempt(model)
    if latest is not None and latest is not mine:
        words = scenes.end_words(latest) if latest.has_ended else scenes.state_words(latest)
        yield f"latest      {words}"
    journal = scene.inventory.journals.get(model)
    for past in reversed(journal.past if journal is not None else ()):
        known = scene.inventory.by_digest(past.digest)
        release = f"release {known.release}" if known is not None and known.release is not None else "a release"
        code = f" ({past.code})" if past.code else ""
        yield f"before      {release} ({past.digest[:12]}): {past.state.value.replace('_', ' ')}{code}"


def _of_manifest(manifest: Manifest) -> Iterator[str]:
    picture = manifest.input
    yield f"task        {manifest.task}, decoder {manifest.decoder.name}"
    yield f"input       {picture.width_px} x {picture.height_px} px, {picture.color}"
    if manifest.labels is not None:
        labels = manifest.labels
        more = f", ... ({len(labels)})" if len(labels) > _LABELS_SHOWN else ""
        yield f"labels      {', '.join(labels[:_LABELS_SHOWN])}{more}"
    limits = manifest.limits
    yield f"limits      {limits.latency_p95_ms:g} ms a look (p95), {limits.memory_mb:g} MB"


def _deployment(scene: Scene, attempt: Attempt) -> Iterator[str]:
    who = "the fleet"
    if attempt.origin.value == "device":
        who = f"{attempt.by or 'a person'} at this device{f': {attempt.why}' if attempt.why else ''}"
    yield f"deployment  {attempt.deployment_id}, asked for by {who}"
    state = scenes.end_words(attempt).rstrip(".") if attempt.has_ended else attempt.state.value.replace("_", " ")
    yield f"state       {state} (since {attempt.at.astimezone():%Y-%m-%d %H:%M})"
    if attempt.tested is not None:
        tested = attempt.tested
        yield (
            f"self-test   p95 {tested.latency_p95_ms:.1f} ms a look, {tested.memory_mb:.0f} MB at most, "
            f"ready after {tested.load_ms / 1000:.1f} s"
        )
    seen = scenes.seen_of(attempt)
    if seen is not None and not (attempt.urgent and attempt.has_ended):  # a way back has none
        is_written = attempt.has_ended or attempt.watched_s >= _WRITTEN_EVERY_S
        watched = running.words_of_s(attempt.watched_s) if is_written else "less than a minute"
        yield f"probation   {scenes.progress_words(seen)}, watched for {watched}"
        if seen.look_p95_ms is not None:
            former = f", the former version {seen.former_look_p95_ms:.1f} ms" if seen.former_look_p95_ms else ""
            yield f"            looks take {seen.look_p95_ms:.1f} ms (p95){former}"
        if seen.shift:
            yield f"            {seen.shift}"
    hold = attempt.hold
    if hold is not None:
        yield f"WAITS       {scenes.hold_words(hold)}"
        if hold.text:
            yield f"            {hold.text}"
        if hold.reason.value == "line_busy":
            yield from _lock(scene)
        if hold.reason.value == "awaiting_confirmation":
            is_watched = attempt.state.value == "probation"  # what only awaits its swap has nothing to be taken out
            or_back = f"  or  lineside models rollback {attempt.model}" if is_watched else ""
            yield f"            lineside models confirm {attempt.model}{or_back}"
    elif attempt.fault is not None and not attempt.has_ended:
        yield f"trouble     {attempt.fault.reason} It is {scenes.then_words(attempt.state.value)}."


def _lock(scene: Scene) -> Iterator[str]:
    from datetime import UTC, datetime

    from agent.deploy import line_busy

    lock = line_busy.read(scene.data_dir, datetime.now(UTC))
    if lock is not None:
        why = f": {lock.why}" if lock.why else ""
        yield f"            it is busy until {lock.until.astimezone():%Y-%m-%d %H:%M}{why}"
