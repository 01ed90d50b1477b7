"""Complete a trained release with the product's own pipeline: manifest, golden set, card. Needs no PyTorch.

`python models/recipe/measure.py 2` writes manifest.toml, golden/ and card.md beside model.onnx, in place of
older ones. `--calibrate` writes the manifest only and shows, on parts of the calibration run, what each
threshold would give; the ones in releases.py were read off that table.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from statistics import median

import cv2

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(Path(__file__).resolve().parent)]

from paperwork import Seen, card_of, manifest_of  # noqa: E402
from releases import CALIBRATION_SEED, CARD_DEFECT_RATE, CARD_SEED, GOLDEN_SEED, RELEASES, Release  # noqa: E402

from agent.inspection import judge  # noqa: E402
from agent.simulator import parts  # noqa: E402
from agent.vision.pipeline import Pipeline  # noqa: E402
from agent.vision.runtime import RuntimeOptions, load  # noqa: E402
from wire import codec  # noqa: E402
from wire.inspection import Verdict  # noqa: E402
from wire.manifest import FILE_NAME, GOLDEN_NAME, GoldenSample, GoldenSet, Tolerance, parameters_of  # noqa: E402
from wire.package import Package, read_folder  # noqa: E402

CARD_PARTS = 3000
GOLDEN_WANTED = ("", "scratch", "dent", "missing_hole", "", "scratch")
GOLDEN_TRIES = 1000
TOLERANCE = Tolerance(score=0.05, box_px=3.0)


class Eye:
    """A package at work, as on a device: one session, and thresholds that may be overridden within the bounds."""

    def __init__(self, package: Package, overrides: dict[str, float] | None = None) -> None:
        parameters, refused = parameters_of(package.manifest, overrides or {})
        if refused:
            raise SystemExit("\n".join(refused))
        self._session = load(package, RuntimeOptions(threads=1))
        self._pipeline = Pipeline(self._session, package, parameters)
        self._rules = judge.rules_of(package.manifest, parameters)

    def see(self, part: parts.Part) -> Seen:
        look = self._pipeline.look(parts.render(part))
        if not isinstance(look.findings, tuple):
            raise SystemExit(f"part {part.number}: {look.findings.reason}")
        return Seen(
            number=part.number,
            kinds=tuple(defect.kind.value for defect in part.truth.defects),
            findings=look.findings,
            verdict=judge.judge(look.findings, self._rules).verdict,
            run_ms=look.run_ms,
        )


def write_manifest(release: Release) -> None:
    (release.folder / FILE_NAME).write_text(manifest_of(release), encoding="utf-8")


def golden_of(package: Package, release: Release) -> list[tuple[parts.Part, Seen]]:
    """Choose the first parts of the golden run that show what is wanted and whose findings are far from a threshold."""
    eye = Eye(package)
    looser = Eye(package, {"score": package.manifest.thresholds["score"].default - 1.5 * TOLERANCE.score})
    chosen: list[tuple[parts.Part, Seen]] = []
    number = 0
    for kind in GOLDEN_WANTED:
        for number in range(number, number + GOLDEN_TRIES):  # noqa: B020 - goes on where the last one was found
            part = parts.plan_part(GOLDEN_SEED, number, 0.5)
            seen = eye.see(part)
            wanted = (kind,) if kind else ()
            if seen.kinds == wanted == tuple(finding.label for finding in seen.findings) and _is_stable(
                seen, looser.see(part), release
            ):
                chosen.append((part, seen))
                break
        else:
            raise SystemExit(f"no golden part of kind {kind!r} in {GOLDEN_TRIES} parts")
        number += 1
    return chosen


def _is_stable(seen: Seen, looser: Seen, release: Release) -> bool:
    margin = 1.5 * TOLERANCE.score
    edges = (release.unsure_at, release.ng_at)
    far = all(abs(finding.score - edge) > margin for finding in seen.findings for edge in edges)
    wanted = Verdict.NG if seen.kinds else Verdict.OK
    return far and seen.verdict is wanted and len(looser.findings) == len(seen.findings)


def write_golden(folder: Path, chosen: list[tuple[parts.Part, Seen]]) -> None:
    """Write the pictures, and what was found in them."""
    samples = []
    (folder / GOLDEN_NAME).parent.mkdir(exist_ok=True)
    for part, seen in chosen:
        picture = f"golden/{seen.kinds[0] if seen.kinds else 'good'}-{part.number:04d}.png"
        cv2.imwrite(str(folder / picture), parts.render(part), [cv2.IMWRITE_PNG_COMPRESSION, 9])
        samples.append(GoldenSample(picture=picture, verdict=seen.verdict, findings=seen.findings))
    (folder / GOLDEN_NAME).write_bytes(codec.encode(GoldenSet(tolerance=TOLERANCE, samples=tuple(samples))) + b"\n")


def calibrate(release: Release, count: int) -> None:
    """Print what each NG threshold would give on the calibration run."""
    write_manifest(release)
    eye = Eye(read_folder(release.folder))
    seen = [eye.see(parts.plan_part(CALIBRATION_SEED, number, CARD_DEFECT_RATE)) for number in range(count)]
    best = [(bool(s.kinds), max((finding.score for finding in s.findings), default=0.0)) for s in seen]
    for hundredths in range(40, 90, 2):
        at = hundredths / 100
        escapes = sum(bad and score < at for bad, score in best)
        overkill = sum(not bad and score >= at for bad, score in best)
        print(f"at {at:.2f}: {escapes} escapes, {overkill} overkill, accuracy {1 - (escapes + overkill) / count:.4f}")


def measure(release: Release) -> None:
    """Write everything of the package but the model."""
    folder = release.folder
    write_manifest(release)
    shutil.rmtree(folder / "golden", ignore_errors=True)
    package = read_folder(folder)
    write_golden(folder, golden_of(package, release))
    started = time.monotonic()
    eye = Eye(package)
    seen = [eye.see(parts.plan_part(CARD_SEED, number, CARD_DEFECT_RATE)) for number in range(CARD_PARTS)]
    (folder / "card.md").write_text(card_of(release, seen), encoding="utf-8")
    package = read_folder(folder)
    print((folder / "card.md").read_text(encoding="utf-8"))
    print(f"{package.index.total_bytes} bytes, digest {package.digest}")
    print(f"median run {median(s.run_ms for s in seen):.2f} ms; measured in {time.monotonic() - started:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=int, choices=sorted(RELEASES))
    parser.add_argument("--calibrate", type=int, metavar="PARTS", help="show what each threshold would give")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    release = RELEASES[arguments.release]
    if arguments.calibrate:
        calibrate(release, arguments.calibrate)
    else:
        measure(release)


if __name__ == "__main__":
    main()
