"""The texts of a package: its manifest, and the card with the accuracy measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from releases import CARD_DEFECT_RATE, CARD_SEED, NAME, TRAINING_DEFECT_RATE, Release

from agent.simulator import parts
from wire.inspection import Finding, Verdict

KINDS = tuple(kind.value for kind in parts.DefectKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One part: what it is, what the model found, and the verdict."""

    number: int
    kinds: tuple[str, ...]
    findings: tuple[Finding, ...]
    verdict: Verdict
    run_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A count out of a total, with the 95 % Wilson interval."""

    count: int
    total: int

    def __str__(self) -> str:
        if not self.total:
            return "none seen"
        low, high = wilson(self.count, self.total)
        return (
            f"{self.count} of {self.total} = {_percent(self.count / self.total)} ({_percent(low)} to {_percent(high)})"
        )


def wilson(count: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927)."""
    share, spread = count / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    reach = z * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def manifest_of(release: Release) -> str:
    """Return the manifest's text."""
    thresholds, rules = [], []
    for kind in KINDS:
        name = kind.replace("_", "-")
        thresholds.append(f"{name}-ng = {{ default = {release.ng_at}, min = 0.4, max = 0.9 }}")
        thresholds.append(f"{name}-unsure = {{ default = {release.unsure_at}, min = 0.35, max = 0.9 }}")
        rules.append(
            f'[[rules]]\nname = "{name}"\nlabels = ["{kind}"]\nng_at = "{name}-ng"\nunsure_at = "{name}-unsure"\n'
        )
    return f"""\
schema = 1
name = "{NAME}"
release = {release.release}
task = "detect"
description = "Scratches, dents and missing holes on the plates of the simulated line."
labels = [{", ".join(f'"{kind}"' for kind in KINDS)}]
max_findings = 20
created_at = {release.created_at.isoformat().replace("+00:00", "Z")}

[input]
name = "picture"
width_px = {release.width_px}
height_px = {release.height_px}
dtype = "float32"
layout = "NCHW"
color = "BGR"
resize = "stretch"
scale = {1 / 255!r}

[decoder]
name = "fastestdet"
parameters = {{ class_agnostic_nms = true }}

[thresholds]
score = {{ default = {release.score_at}, min = 0.2, max = 0.9 }}
nms-iou = {{ default = 0.3, min = 0.1, max = 0.9 }}
{chr(10).join(thresholds)}

{chr(10).join(rules)}
[limits]
latency_p95_ms = 100.0
memory_mb = 512.0

[requires]
opset = 17
"""


def card_of(release: Release, seen: list[Seen]) -> str:
    """Return the card's text with measured figures."""
    bad, good = [s for s in seen if s.kinds], [s for s in seen if not s.kinds]
    right = sum(s.verdict is (Verdict.NG if s.kinds else Verdict.OK) for s in seen)
    unsure = sum(s.verdict is Verdict.UNSURE for s in seen)
    escapes = Share(count=sum(s.verdict is Verdict.OK for s in bad), total=len(bad))
    overkill = Share(count=sum(s.verdict is Verdict.NG for s in good), total=len(good))
    lines = []
    for kind in KINDS:
        own = [s for s in bad if s.kinds == (kind,)]
        missed = Share(count=sum(s.verdict is Verdict.OK for s in own), total=len(own))
        lines.append(f"| parts with one {kind.replace('_', ' ')}: judged OK | {missed} |")
    return f"""\
# {NAME}, release {release.release}

**Intended use.** Shows what Lineside does on the simulated line: finds scratches, dents and missing holes on its plates
(320 x 240 pictures of `agent.simulator.parts`). It has never seen a real part and must not judge one.

**Training data.** {release.steps * release.batch:,} pictures drawn by `agent.simulator.parts` for this purpose
(run {release.training_seed}), each seen once, {_percent(TRAINING_DEFECT_RATE)} of them with a defect. No picture of
anybody else, no pre-trained weights. Apache-2.0, as all of Lineside.

**Network.** {release.width_px} x {release.height_px} BGR, {len(release.dilations)} residual steps, output laid out as
in FastestDet. `models/recipe/` makes it again.

**Measured** with the product's own pipeline and the manifest's default thresholds (NG at {release.ng_at}, UNSURE at
{release.unsure_at}), on {len(seen):,} parts of run {CARD_SEED}, which neither training nor the choice of thresholds
has seen. {_percent(CARD_DEFECT_RATE)} of the run's parts are made with a defect. Intervals are 95 % Wilson intervals.

| what | parts |
|---|---|
| right verdict (OK or NG) | {Share(count=right, total=len(seen))} |
| UNSURE | {Share(count=unsure, total=len(seen))} |
| right among those decided | {Share(count=right, total=len(seen) - unsure)} |
| escapes: defective, judged OK | {escapes} |
| overkill: good, judged NG | {overkill} |
{chr(10).join(lines)}

**Limits.** A dent or scratch about as faint as the handling marks that good parts have is missed or UNSURE. Escapes and
overkill are shares of the defective and of the good parts; how many that is on a line depends on its defect rate. Other
light, other plates, or another camera distance than the simulator's are outside what it can do.
"""


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %".replace(".00 %", " %")
