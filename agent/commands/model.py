"""`lineside model`: whether a model may run here, and what it says; the other verbs have files of their own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from agent.commands import model_bench, model_compare, model_init, model_pack
from wire import command_line, package
from wire.errors import REGISTER
from wire.rules import Rule

CHECK_SCHEMA: Final = "lineside.model-check/1"
SHOW_SCHEMA: Final = "lineside.model-show/1"


def add_parser(subparsers: Any) -> None:
    """Mount the commands."""
    parser = subparsers.add_parser("model", help="draft, check, show, measure, compare or pack a model")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = verbs.add_parser(
        "check",
        help="check an ONNX file or a package folder in a child process",
        description="Check an ONNX file or a package folder in a child process with limits on memory and time.",
        epilog="Exit status: 0 the model is good; 6 it is refused; 7 there is no such file. --json names the code.",
    )
    check.add_argument("path", type=Path, metavar="FILE_OR_PACKAGE", help="ONNX file, or folder of a model package")
    check.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds allowed (default: 60)")
    check.add_argument("--json", action="store_true", help=f"write the result as JSON ({CHECK_SCHEMA})")
    check.set_defaults(run=run_check)
    show = verbs.add_parser("show", help="show a package's manifest, or an ONNX file's inputs and outputs")
    show.add_argument("path", type=Path, metavar="PACKAGE_OR_FILE", help="folder of a model package, or ONNX file")
    show.add_argument("--json", action="store_true", help=f"write it as JSON ({SHOW_SCHEMA})")
    show.set_defaults(run=run_show)
    for module in (model_init, model_bench, model_compare, model_pack):
        module.add_verb(verbs)


def run(args: argparse.Namespace) -> int:
    """Run the verb that was chosen."""
    status: int = args.run(args)
    return status


def run_check(args: argparse.Namespace) -> int:
    """Check a model; 0 where it is good, otherwise the exit status of the reason's code."""
    from agent.vision import check

    result = check.check_file(args.path, check.CheckLimits(seconds=max(1.0, args.timeout)))
    if args.json:
        document = {
            "schema": CHECK_SCHEMA,
            "path": str(args.path),
            "ok": result.ok,
            "code": result.code,
            "reason": result.reason,
            "next_step": result.next_step,
            "facts": result.facts,
        }
        print(json.dumps(document, indent=2))
    elif result.ok:
        command_line.show(f"{args.path}: good")
        _print_facts(result.facts)
    if result.ok:
        return 0
    if not args.json:
        for sentence in (f"{args.path}: refused ({result.code})", result.reason, result.next_step):
            if sentence:
                command_line.say(sentence)
    return REGISTER[result.code].exit_status


def run_show(args: argparse.Namespace) -> int:
    """Show a package or a file; the model is read, not loaded."""
    from agent.vision import check, onnx_file

    found = package.read_folder(args.path) if args.path.is_dir() else None
    facts = check.facts_of(onnx_file.read(args.path if found is None else found.model_path))
    if args.json:
        document = {"schema": SHOW_SCHEMA, "package": None if found is None else _package(found), "model": facts}
        print(json.dumps(document, indent=2))
        return 0
    if found is not None:
        _print_package(found)
    _print_facts(facts)
    return 0


def _package(found: package.Package) -> dict[str, Any]:
    import msgspec

    return {
        "digest": found.digest,
        "labels": found.labels,
        "bytes": found.index.total_bytes,
        "files": [msgspec.to_builtins(file) for file in found.index.files],
        "golden_samples": len(found.golden().samples),
        "manifest": msgspec.to_builtins(found.manifest),
    }


def _print_package(found: package.Package) -> None:
    manifest = found.manifest
    picture = manifest.input
    labels = ", ".join(found.labels[:8]) + (f", ... ({len(found.labels)})" if len(found.labels) > 8 else "")
    command_line.show(
        f"model       {manifest.name}, release {manifest.release}: {manifest.description or 'no description'}"
    )
    command_line.show(f"digest      {found.digest}")
    command_line.show(
        f"task        {manifest.task}, decoder {manifest.decoder.name} {manifest.decoder.parameters or ''}".rstrip()
    )
    command_line.show(
        f"input       {picture.width_px} x {picture.height_px} px, {picture.color}, {picture.layout}, {picture.dtype}, "
        f"resize {picture.resize}"
    )
    command_line.show(f"labels      {labels}")
    for name, threshold in manifest.thresholds.items():
        command_line.show(
            f"threshold   {name} = {threshold.default:g} (allowed: {threshold.min:g} to {threshold.max:g})"
        )
    if manifest.tiling is not None:
        tiling = manifest.tiling
        command_line.show(f"tiles       {tiling.tile_px} px, every {tiling.stride_px} px, merged by {tiling.merge}")
    for rule in manifest.rules:
        command_line.show(f"rule        {rule.name}: {', '.join(rule.labels)}: {_rule_words(rule)}")
    command_line.show(f"package     {len(found.index.files)} files, {found.index.total_bytes} bytes")


def _rule_words(rule: Rule) -> str:
    words = [
        f"{rule.measure} {verdict} from {at}" for verdict, at in (("NG", rule.ng_at), ("UNSURE", rule.unsure_at)) if at
    ]
    if rule.expects_count:
        bounds = (("at least", rule.count_min), ("at most", rule.count_max))
        expected = " and ".join(f"{word} {number}" for word, number in bounds if number is not None)
        words.append(f"{expected}{' of each' if rule.each_label else ''} expected, otherwise {rule.otherwise}")
    filters = (("score", rule.min_score), ("area in px", rule.min_area_px), ("area in mm2", rule.min_area_mm2))
    words += [f"{what} at least {number}" for what, number in filters if number is not None]
    if rule.region is not None:
        words.append(f"{'outside' if rule.outside else 'in'} {rule.region}")
    return ", ".join(words)


def _print_facts(facts: dict[str, Any]) -> None:
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in facts["opsets"].items())
    command_line.show(
        f"graph       {facts['nodes']} nodes, IR {facts['ir_version']}, opset {opsets}, {facts['bytes']} bytes"
    )
    for kind in ("inputs", "outputs"):
        for tensor in facts[kind]:
            command_line.show(f"{kind[:-1]:<12}{tensor['name']} {tensor['shape']} {tensor['element']}")
    if "provider" in facts:
        command_line.show(f"runtime     onnxruntime {facts['runtime']}, {facts['provider']}")
