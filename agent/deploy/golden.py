"""Compares what this device sees in a golden picture with what is expected, within the golden set's tolerance."""

from __future__ import annotations

from wire.inspection import Box, Finding, Verdict
from wire.manifest import GoldenSample, Tolerance


def difference(
    sample: GoldenSample,
    verdict: Verdict,
    findings: tuple[Finding, ...],
    tolerance: Tolerance,
    score_threshold: float | None,
) -> str | None:
    """Return how a result differs from the expected one, in a sentence; None where it is within the tolerance.

    Each expected finding needs one of the same label, near in score and place, and the reverse. A finding whose score
    is within the tolerance of the threshold under which findings are dropped may be there or not.

    Args:
        sample: what is expected.
        verdict, findings: what was found, boxes in source pixels.
        tolerance: how far score (0 to 1) and each edge of a box (pixels) may be off.
        score_threshold: under which the pipeline drops findings; None where it drops none.
    """
    left = list(findings)
    for expected in sample.findings:
        near = [found for found in left if _is_near(expected, found, tolerance)]
        if near:
            left.remove(min(near, key=lambda found: abs(found.score - expected.score)))
        elif not _is_on_the_edge(expected, tolerance, score_threshold):
            return f"{sample.picture}: expected {_words(expected)}, found {_all_words(findings)}."
    for found in left:
        if not _is_on_the_edge(found, tolerance, score_threshold):
            return f"{sample.picture}: found {_words(found)}, which is not expected."
    if verdict is not sample.verdict:
        return f"{sample.picture}: expected verdict {sample.verdict}, got {verdict}."
    return None


def _is_near(expected: Finding, found: Finding, tolerance: Tolerance) -> bool:
    if expected.label != found.label or abs(expected.score - found.score) > tolerance.score:
        return False
    if expected.box is None or found.box is None:
        return expected.box is found.box
    pairs = zip(_edges(expected.box), _edges(found.box), strict=True)
    return all(abs(one - other) <= tolerance.box_px for one, other in pairs)


def _is_on_the_edge(finding: Finding, tolerance: Tolerance, score_threshold: float | None) -> bool:
    return score_threshold is not None and abs(finding.score - score_threshold) <= tolerance.score


def _edges(box: Box) -> tuple[float, float, float, float]:
    return box.x1_px, box.y1_px, box.x2_px, box.y2_px


def _words(finding: Finding) -> str:
    where = "" if finding.box is None else " at " + " ".join(f"{edge:.0f}" for edge in _edges(finding.box))
    return f"{finding.label} {finding.score:.2f}{where}"


def _all_words(findings: tuple[Finding, ...]) -> str:
    return ", ".join(_words(finding) for finding in findings[:5]) or "nothing"
