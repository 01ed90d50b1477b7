"""`lineside model compare`: two packages on the same pictures."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.commands import frames
from wire import package
from wire.errors import LinesideError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wire.inspection import Finding, Verdict

SCHEMA: Final = "lineside.model-compare/1"


def add_verb(verbs: Any) -> None:
    """Mount the verb."""
    parser = verbs.add_parser(
        "compare",
        help="compare two packages on the same pictures",
        description="Run two packages on a video, a picture or a folder of pictures: agreement of verdicts and "
        "findings, and how far scores moved from A to B. Findings are one where boxes of one label overlap by "
        "half (IoU).",
        epilog="Exit status: 0 compared, whether or not they agree; 6 a package is refused; 4 SOURCE cannot be read.",
    )
    parser.add_argument("a", type=Path, metavar="A", help="folder of a model package")
    parser.add_argument("b", type=Path, metavar="B", help="folder of another")
    parser.add_argument("source", type=Path, metavar="SOURCE", help="video file, picture, or folder of pictures")
    parser.add_argument("--out", type=Path, metavar="DIR", help="save pictures on which they disagree, side by side")
    parser.add_argument("--max-pictures", type=_positive, default=50, metavar="N", help="at most (default: 50)")
    parser.add_argument("--every-nth", type=_positive, default=1, metavar="N", help="use frames 0, N, 2N, ...")
    parser.add_argument("--limit", type=_positive, metavar="N", help="stop after N frames")
    parser.add_argument("--json", action="store_true", help=f"write the result as JSON ({SCHEMA})")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check both packages, run them, say where they differ."""
    import cv2

    from agent.vision import compare

    cv2.setNumThreads(1)
    models = (_Model(args.a), _Model(args.b))
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    tally = compare.Tally()
    saved: list[str] = []
    source = frames.source_of(args.source, args.every_nth)
    try:
        for frame in frames.frames_of(source, args.limit):
            seen_a, seen_b = (model.see(frame.image_bgr) for model in models)
            agrees = tally.add(seen_a[0], seen_b[0], compare.match(seen_a[1], seen_b[1]))
            if not agrees and args.out is not None and len(saved) < args.max_pictures:
                name = f"{frame.number:06d}-{Path(frames.picture_of(source, frame) or 'frame').stem}.png"
                _save(args.out / name, frame.image_bgr, models, seen_a, seen_b)
                saved.append(name)
    finally:
        for model in models:
            model.close()
    if not tally.pictures:
        raise LinesideError("source.unreadable", f"{args.source} has no readable picture.", "The lines above say why.")
    document = {
        "schema": SCHEMA,
        "a": models[0].words(),
        "b": models[1].words(),
        "source": str(args.source),
        **tally.summary(),
        "saved": saved,
    }
    if args.json:
        print(json.dumps(document, indent=2))
    else:
        _print(document, args.out)
    return 0


class _Model:
    """A package that was checked, loaded, with its rules."""

    def __init__(self, folder: Path) -> None:
        from agent.inspection import judge
        from agent.vision import check, runtime
        from agent.vision.pipeline import Pipeline
        from wire.manifest import parameters_of

        self._found = package.read_folder(folder)
        result = check.check_file(folder)
        if not result.ok:
            raise LinesideError(result.code, f"{folder}: {result.reason}", result.next_step)
        parameters, _ = parameters_of(self._found.manifest, {})
        session = runtime.load(self._found, runtime.RuntimeOptions())
        self._pipeline = Pipeline(session, self._found, parameters)
        self._rules = judge.rules_of(self._found.manifest, parameters)

    @property
    def title(self) -> str:
        return f"{self._found.manifest.name} {self._found.manifest.release}"

    def see(self, image_bgr: NDArray[np.uint8]) -> tuple[Verdict, tuple[Finding, ...]]:
        from agent.inspection import judge, regions

        findings = self._pipeline.look(image_bgr).findings
        judgement = judge.judge(findings, self._rules, regions.size_of(image_bgr))
        return judgement.verdict, findings if isinstance(findings, tuple) else ()

    def words(self) -> dict[str, Any]:
        manifest = self._found.manifest
        return {"model": manifest.name, "release": manifest.release, "digest": self._found.digest}

    def close(self) -> None:
        self._pipeline.close()


def _save(path: Path, image_bgr: NDArray[np.uint8], models: tuple[_Model, _Model], *seen: Any) -> None:
    import cv2

    from agent.vision import compare_pictures

    sides = [(model.title, *one) for model, one in zip(models, seen, strict=True)]
    drawn = compare_pictures.side_by_side(image_bgr, sides[0], sides[1])
    if not cv2.imwrite(str(path), drawn):
        raise LinesideError("storage.full", f"{path} cannot be written.", "Make room, or check the path.")


def _print(document: dict[str, Any], out: Path | None) -> None:
    for side in ("a", "b"):
        model = document[side]
        print(f"{side.upper():<12}{model['model']}, release {model['release']} ({model['digest'][:12]})")
    print(
        f"pictures    {document['pictures']}, "
        f"the same in verdict and findings: {_percent(document['picture_agreement'])}"
    )
    print(f"verdicts    {_percent(document['verdict_agreement'])} the same")
    for row in document["verdicts"]:
        print(f"            A {row['a']}, B {row['b']}: {row['pictures']}")
    print(f"findings    {_percent(document['finding_agreement'])} the same")
    for row in document["labels"]:
        print(f"            {row['label']}: both {row['both']}, only A {row['only_a']}, only B {row['only_b']}")
    for row in document["relabelled"]:
        print(f"            A {row['a']}, B {row['b']}: {row['findings']} in one place")
    shift = document["score_shift"]
    if shift is not None:
        print(
            f"scores      B - A: mean {shift['mean']:+.3f}; size: median {shift['median_size']:.3f}, "
            f"95 % up to {shift['p95_size']:.3f}, largest {shift['largest_size']:.3f}"
        )
    if out is not None:
        sys.stderr.write(f"{len(document['saved'])} pictures in {out}\n")


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f} %"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number
