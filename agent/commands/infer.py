"""`lineside infer`: one model on a video, a picture or a folder of pictures, one line per frame."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.commands import frames
from wire import manifest, package
from wire.errors import LinesideError

if TYPE_CHECKING:
    from agent.capture.frame import Frame
    from agent.inspection.judge import Judgement
    from agent.vision.pipeline import Look, Pipeline
    from wire.inspection import Finding

_TAKE_TIMEOUT_S = 30.0


def add_parser(subparsers: Any) -> None:
    """Mount the command."""
    parser = subparsers.add_parser(
        "infer",
        help="run a model package on a video, a picture or a folder of pictures",
        description="Run a model package on a video, a picture or a folder of pictures, and judge each frame.",
    )
    parser.add_argument("package", type=Path, metavar="PACKAGE", help="folder of a model package")
    parser.add_argument("source", type=Path, metavar="SOURCE", help="video file, picture, or folder of pictures")
    parser.add_argument("--jsonl", action="store_true", help="write one JSON object per frame")
    parser.add_argument("--every-nth", type=_positive, default=1, metavar="N", help="use frames 0, N, 2N, ...")
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="threads of the runtime (default: 1)")
    parser.add_argument("--limit", type=_positive, metavar="N", help="stop after N frames")
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="set a threshold within its bounds"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judge each frame; results go to standard output, the summary to standard error."""
    import cv2

    from agent.capture.feed import Feed
    from agent.capture.frame import Ended, NoFrame
    from agent.inspection import judge, regions
    from agent.vision.runtime import RuntimeOptions

    cv2.setNumThreads(1)
    found = package.read_folder(args.package)
    parameters, refused = manifest.parameters_of(found.manifest, _overrides(args.parameter))
    if refused:
        raise LinesideError("deployment.out_of_bounds", " ".join(refused), "Choose a value within the bounds.")
    source = frames.source_of(args.source, args.every_nth)
    feed = Feed(source)
    feed.open()
    pipeline = _pipeline(found, RuntimeOptions(threads=args.threads), parameters)
    rules = judge.rules_of(found.manifest, parameters)
    labels: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    try:
        while args.limit is None or verdicts.total() < args.limit:
            taken = feed.take(_TAKE_TIMEOUT_S)
            if isinstance(taken, Ended):
                break
            if isinstance(taken, NoFrame):
                sys.stderr.write(f"no frame: {taken.reason}\n")
                continue
            with taken:
                look = pipeline.look(taken.frame.image_bgr)
                judgement = judge.judge(look.findings, rules, regions.size_of(taken.frame.image_bgr))
            findings = look.findings if isinstance(look.findings, tuple) else ()
            labels.update(finding.label for finding in findings)
            verdicts[judgement.verdict] += 1
            picture = frames.picture_of(source, taken.frame)
            print(
                _json_line(taken.frame, picture, look, judgement, findings)
                if args.jsonl
                else _text_line(taken.frame, picture, look, judgement, findings)
            )
    finally:
        feed.close()
        pipeline.close()
    return _summarise(verdicts, labels, feed.counts().dropped)


def _pipeline(found: package.Package, options: Any, parameters: dict[str, float]) -> Pipeline:
    """Check the package in a child process, then load it here."""
    from agent.vision import check, runtime
    from agent.vision.pipeline import Pipeline

    result = check.check_file(found.folder)
    if not result.ok:
        raise LinesideError(result.code, result.reason, result.next_step)
    return Pipeline(runtime.load(found, options), found, parameters)


def _json_line(
    frame: Frame, picture: str | None, look: Look, judgement: Judgement, findings: tuple[Finding, ...]
) -> str:
    line: dict[str, Any] = {"frame": frame.number}
    if picture is not None:
        line["picture"] = picture
    line |= {
        "verdict": judgement.verdict,
        "score": judgement.score,
        "reason": judgement.reason,
        "rule": judgement.fired or None,
        "detail": judgement.why or None,
        "findings": [
            {"label": finding.label, "score": round(finding.score, 6), "box_xyxy_px": _box(finding), **_shape(finding)}
            for finding in findings
        ],
        "timings_ms": {
            "preprocess": round(look.preprocess_ms, 3),
            "run": round(look.run_ms, 3),
            "decode": round(look.decode_ms, 3),
        },
    }
    return json.dumps(line)


def _text_line(
    frame: Frame, picture: str | None, look: Look, judgement: Judgement, findings: tuple[Finding, ...]
) -> str:
    seen = ", ".join(f"{finding.label} {finding.score:.2f}" for finding in findings) or "nothing"
    if not isinstance(look.findings, tuple):
        seen = look.findings.reason
    why = f" ({judgement.fired})" if judgement.fired else ""
    total_ms = look.preprocess_ms + look.run_ms + look.decode_ms
    return f"{picture or frame.number}\t{judgement.verdict}{why}\t{seen}\t{total_ms:.1f} ms"


def _box(finding: Finding) -> list[float] | None:
    box = finding.box
    return None if box is None else [round(side, 2) for side in (box.x1_px, box.y1_px, box.x2_px, box.y2_px)]


def _shape(finding: Finding) -> dict[str, Any]:
    """Return what is known of the shape; most findings have a box only."""
    known = {"area_px": finding.area_px, "mask_rle": finding.mask_rle, "polygon_px": finding.polygon_px}
    return {name: value for name, value in known.items() if value is not None}


def _summarise(verdicts: Counter[str], labels: Counter[str], dropped: dict[str, int]) -> int:
    if not verdicts:
        raise LinesideError("source.unreadable", "None of the pictures could be read.", "The lines above say why.")
    parts = [f"{verdicts.total()} frames", ", ".join(f"{verdict} {count}" for verdict, count in verdicts.items())]
    parts.append(", ".join(f"{label} {count}" for label, count in labels.most_common(10)) or "no findings")
    parts += [f"{count} {reason}" for reason, count in dropped.items()]
    sys.stderr.write("; ".join(parts) + "\n")
    return 0


def _overrides(texts: list[str]) -> dict[str, float]:
    overrides: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            overrides[name.strip()] = float(value)
        except ValueError as error:
            raise LinesideError(
                "usage.invalid", f"--parameter {text!r} is not NAME=VALUE.", "For example: --parameter score=0.5"
            ) from error
    return overrides


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number
