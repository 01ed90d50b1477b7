"""Measure the shared PCB patch classifiers through the product's pipeline, on patches and on whole boards.

python3 scripts/measure_pcb.py [--data FOLDER] [--boards N] [--patches-only]

Prints what it does on standard error and one JSON object on its last line. The protocol is in tests/support/pcb.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2

from agent.vision import runtime
from agent.vision.candidates import Unusable
from agent.vision.pipeline import Pipeline
from wire.inspection import Finding
from wire.manifest import parameters_of

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from tests.support import pcb, shared_packages  # noqa: E402  (the tests are no installed package)

UNSEEN_GROUP = "group90100"  # no board of it is in the official training part
CLASSIFIERS = ("pcb-cnn", "pcb-cnn-int8", "pcb-mobilenet-int8")
PUBLISHED = {"pcb-cnn": 0.9265, "pcb-cnn-int8": 0.9267, "pcb-mobilenet-int8": 0.9635}
SETS: dict[str, dict[str, Any]] = {
    "centred": {"jitter_px": 0},
    "jittered": {"jitter_px": 16},
    "centred, normals of the template": {"jitter_px": 0, "normals": "template"},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    shared = Path(os.environ.get("LINESIDE_SHARED") or REPO.parent / "shared")
    parser.add_argument("--data", type=Path, default=shared / "data", help="folder of the shared data")
    parser.add_argument("--boards", type=int, help="use only so many boards")
    parser.add_argument("--patches-only", action="store_true", help="leave out whole boards")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    found = pcb.boards(args.data, args.boards)
    result: dict[str, Any] = {
        "boards": len(found),
        "groups": dict(Counter(board.group for board in found)),
        "defects": sum(len(board.defects) for board in found),
        "runtime": runtime.RUNTIME_VERSION,
        "patches": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in CLASSIFIERS:
            result["patches"][name] = of_patches(name, found, args.data, Path(folder))
        if not args.patches_only:
            result["whole_boards"] = of_boards(found, args.data, Path(folder))
    print(json.dumps(result))
    return 0


def of_patches(name: str, found: list[pcb.Board], data: Path, folder: Path) -> dict[str, Any]:
    """Classify every patch, one look each."""
    pipeline = pipeline_of(name, data, folder, {})
    answer: dict[str, Any] = {"published_on_500_boards": PUBLISHED[name]}
    unseen = {board.id for board in found if board.group == UNSEEN_GROUP}
    for set_name, cut in SETS.items():
        patches = pcb.patches(found, **cut)
        started = time.process_time()
        seen = [findings_of(pipeline, patch.image_bgr)[0].label for patch in patches]
        cpu_ms = 1000 * (time.process_time() - started) / len(patches)
        right = [label == patch.label for label, patch in zip(seen, patches, strict=True)]
        alarm = [label != "normal" for label in seen]
        rows: dict[str, Any] = {
            "counts": dict(Counter(patch.label for patch in patches)),
            "cpu_ms_per_patch": round(cpu_ms, 3),
            "accuracy": pcb.count(patches, right.__getitem__, lambda _: True),
            "accuracy_unseen_group": pcb.count(patches, right.__getitem__, lambda patch: patch.board in unseen),
            "accuracy_other_groups": pcb.count(patches, right.__getitem__, lambda patch: patch.board not in unseen),
            "defect_recall": pcb.count(patches, alarm.__getitem__, lambda patch: patch.label != "normal"),
            "false_alarm": pcb.count(patches, alarm.__getitem__, lambda patch: patch.label == "normal"),
            "by_label": {
                label: pcb.count(patches, right.__getitem__, lambda patch, label=label: patch.label == label)["share"]
                for label in pcb.LABELS
            },
        }
        answer[set_name] = rows
        say(f"{name}, {set_name}: {rows['accuracy']}")
    return answer


def of_boards(found: list[pcb.Board], data: Path, folder: Path) -> dict[str, Any]:
    """Judge every board by tiles and by comparison with its twin."""
    answer: dict[str, Any] = {}
    for score in (0.5, 0.8, 0.95):
        pipeline = pipeline_of("pcb-board", data, folder / f"{score}", {"score": score, "defect-ng": score})
        timings: list[float] = []
        boxes = {board.id: boxes_of(pipeline, board.image_bgr, timings) for board in found}
        twins = {board.id: boxes_of(pipeline, board.template_bgr, timings) for board in found}
        answer[f"tiles, union, score {score}"] = of_method(found, boxes, twins)
        answer[f"tiles, union, score {score}"]["ms_per_board_p50"] = round(sorted(timings)[len(timings) // 2], 1)
        say(f"tiles {score}: {answer[f'tiles, union, score {score}']}")
    compared = {board.id: [(box, "") for box in pcb.template_difference(board)] for board in found}
    answer["template difference"] = of_method(found, compared, None)
    return answer


def of_method(
    found: list[pcb.Board],
    boxes: dict[str, list[tuple[pcb.Box, str]]],
    twins: dict[str, list[tuple[pcb.Box, str]]] | None,
) -> dict[str, Any]:
    """Count what was found, by a middle that lies inside and by overlap, over defects, findings and boards."""
    answer: dict[str, Any] = {}
    criteria: dict[str, Callable[[pcb.Box, pcb.Box], bool]] = {
        "middle": pcb.hits,
        "iou_0.33": lambda one, other: pcb.iou(one, other) >= 0.33,
    }
    for name, same in criteria.items():
        recall = {
            board.id: (
                sum(any(same(box, defect) for box, _ in boxes[board.id]) for defect, _ in board.defects),
                len(board.defects),
            )
            for board in found
        }
        precision = {
            board.id: (
                sum(any(same(box, defect) for defect, _ in board.defects) for box, _ in boxes[board.id]),
                len(boxes[board.id]),
            )
            for board in found
        }
        answer[name] = {
            "recall": pcb.share(recall),
            "precision": pcb.share(precision),
            "boards_with_every_defect": sum(good == total for good, total in recall.values()),
            "boards_without_false_finding": sum(good == total for good, total in precision.values()),
            "boards_exactly_right": sum(
                recall[board.id][0] == recall[board.id][1] and precision[board.id][0] == precision[board.id][1]
                for board in found
            ),
        }
    if any(label for each in boxes.values() for _, label in each):
        answer["recall_with_label"] = pcb.share(
            {
                board.id: (
                    sum(
                        any(label == kind and pcb.hits(box, defect) for box, label in boxes[board.id])
                        for defect, kind in board.defects
                    ),
                    len(board.defects),
                )
                for board in found
            }
        )
    answer["findings_per_board"] = round(sum(len(each) for each in boxes.values()) / len(found), 2)
    answer["boards_ng"] = sum(bool(each) for each in boxes.values())
    if twins is not None:
        answer["good_twins_passed"] = pcb.share({name: (int(not each), 1) for name, each in twins.items()})
        answer["false_findings_per_good_twin"] = round(sum(len(each) for each in twins.values()) / len(found), 2)
    return answer


def pipeline_of(name: str, data: Path, folder: Path, overrides: dict[str, float]) -> Pipeline:
    """Load a package with thresholds of its manifest replaced."""
    package = shared_packages.read(name, data, folder)
    parameters, refused = parameters_of(package.manifest, overrides)
    if refused:
        raise SystemExit(" ".join(refused))
    return Pipeline(runtime.load(package, runtime.RuntimeOptions()), package, parameters)


def findings_of(pipeline: Pipeline, image_bgr: Any) -> tuple[Finding, ...]:
    """Look once; an output that cannot be used ends the measurement."""
    findings = pipeline.look(image_bgr).findings
    if isinstance(findings, Unusable):
        raise SystemExit(findings.reason)
    return findings


def boxes_of(pipeline: Pipeline, image_bgr: Any, timings: list[float]) -> list[tuple[pcb.Box, str]]:
    """Return boxes and labels of what is found on a board."""
    started = time.perf_counter()
    findings = findings_of(pipeline, image_bgr)
    timings.append(1000 * (time.perf_counter() - started))
    boxes = [(finding.box, finding.label) for finding in findings]
    return [((box.x1_px, box.y1_px, box.x2_px, box.y2_px), label) for box, label in boxes if box is not None]


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
