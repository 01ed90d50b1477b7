"""A real pair on DeepPCB pictures: a float network for grey patches gives way to an int8 one for colour, and back.

`pcb_simple_cnn_fp32` takes 1 channel, `pcb_mobilenet_v2_int8` takes 3. Each record is held against what its version
says of the patch in a session of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.vision import runtime
from agent.vision.candidates import Unusable
from agent.vision.pipeline import Pipeline
from tests.support import pcb
from tests.support.pcb_pair import MODEL, PARTS, PairStand, version
from wire.deployment import DeploymentState as S
from wire.deployment import Origin
from wire.inspection import Finding, Inspection, Verdict
from wire.manifest import parameters_of
from wire.package import Package

BOARDS = 12


class Alone:
    """What a version says of a patch, in a session of its own."""

    def __init__(self, package: Package) -> None:
        parameters, _ = parameters_of(package.manifest, {})
        self._pipeline = Pipeline(runtime.load(package, runtime.RuntimeOptions()), package, parameters)

    def says(self, patch: pcb.Patch) -> Finding:
        findings = self._pipeline.look(patch.image_bgr).findings
        assert not isinstance(findings, Unusable)
        return findings[0]


@pytest.fixture(scope="module")
def patches(shared_data: Path) -> list[pcb.Patch]:
    cut = pcb.patches(pcb.boards(shared_data, BOARDS))
    # Spread, so that defects do not come in a row: the line's mix is the same all the time.
    return [cut[(number * 37) % len(cut)] for number in range(len(cut))]


@pytest.fixture
def pair(shared_data: Path, tmp_path: Path) -> tuple[Package, Package]:
    first = version("pcb-cnn", 1, shared_data, tmp_path / "models")
    second = version("pcb-mobilenet-int8", 2, shared_data, tmp_path / "models")
    assert (first.manifest.input.color, second.manifest.input.color) == ("GRAY", "RGB")
    return first, second


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[PairStand]:
    (tmp_path / "device").mkdir()
    with PairStand(tmp_path / "device") as made:
        yield made


def holds(records: list[Inspection], package: Package, shown: list[pcb.Patch]) -> None:
    """Fail unless each record names this version, and its answer is the one this version gives alone."""
    alone = Alone(package)
    assert len(records) == len(shown) > 0
    for record, patch in zip(records, shown, strict=True):
        view, expected = record.views[0], alone.says(patch)
        assert view.model_digest == package.digest
        assert view.findings[0].label == expected.label
        assert view.findings[0].score == pytest.approx(expected.score, abs=1e-4)


def test_shadowed_activated_and_rolled_back(
    stand: PairStand, pair: tuple[Package, Package], patches: list[pcb.Patch]
) -> None:
    first, second = pair
    lot = 60

    stand.want(first, 1)
    assert stand.deploy(patches).state is S.SUCCEEDED
    assert len(stand.inspections) == PARTS, "its probation took so many parts"
    holds(stand.inspections, first, patches[:PARTS])

    # Beside the first: the second sees the same patches, and judges none.
    stand.want(first, 1, shadow=second)
    stand.settle()
    stand.inspections.clear()
    judged = [stand.show(patch) for patch in patches[:lot]]
    holds(judged, first, patches[:lot])
    (health,) = stand.shadows.health("gauge")
    assert (health.chosen, health.digest) == (lot, second.digest)
    assert health.compared + sum(health.skipped.values()) == lot, "what was left out is counted"
    pairs = {one.inspection_id: one for one in stand.pairs()}
    assert len(pairs) == health.compared >= lot // 2, health.skipped
    candidate = Alone(second)
    differ = Counter[bool]()
    for record, patch in zip(judged, patches[:lot], strict=True):
        if record.id in pairs:
            both = pairs[record.id]
            assert (both.active_digest, both.digest) == (first.digest, second.digest)
            assert both.active_verdict is record.verdict
            assert both.verdict is (Verdict.OK if candidate.says(patch).label == "normal" else Verdict.NG)
            differ[both.verdict is not both.active_verdict] += 1
    assert differ[False] > differ[True], "both know boards"

    # In its place.
    stand.inspections.clear()
    stand.want(second, 2)
    assert stand.deploy(patches).state is S.SUCCEEDED
    holds(stand.inspections, second, patches[:PARTS])
    assert stand.stations.inferring(MODEL) == second.digest
    assert stand.store.installed(MODEL).previous == first.digest

    # And back, by a person, with no fleet.
    stand.fleet.blobs.clear()
    answer = stand.roll_back()
    assert answer.done, answer.text
    assert stand.stations.inferring(MODEL) == first.digest
    stand.inspections.clear()
    for patch in patches[:lot]:
        stand.show(patch)
    holds(stand.inspections, first, patches[:lot])
    last = stand.reports[-1]
    assert (last.state, last.origin, last.digest) == (S.SUCCEEDED, Origin.DEVICE, first.digest)
    assert last.inferring_digest == first.digest
    assert stand.store.installed(MODEL).current == first.digest


def test_a_recipe_fits_both_or_the_second_is_refused_in_words(
    stand: PairStand, pair: tuple[Package, Package], patches: list[pcb.Patch], shared_data: Path, tmp_path: Path
) -> None:
    first, second = pair
    stand.want(first, 1, **{"defect-ng": 0.7})
    assert stand.deploy(patches).state is S.SUCCEEDED
    narrow = version("pcb-mobilenet-int8", 3, shared_data, tmp_path / "narrow", ng_most=0.6)
    stand.inspections.clear()
    stand.want(narrow, 3, **{"defect-ng": 0.7})
    end = stand.deploy(patches)
    assert end.state is S.FAILED_NO_CHANGE
    assert "defect-ng = 0.7 is outside 0.0 to 0.6" in end.reason
    assert stand.show(patches[0]).views[0].model_digest == first.digest

    stand.want(second, 2, **{"defect-ng": 0.7})
    assert stand.deploy(patches).state is S.SUCCEEDED
    setup = stand.worker.setup
    assert (setup.views[0].digest, setup.recipe.revision) == (second.digest, 1)
    rules = setup.views[0].rules
    assert rules is not None
    assert [rule.ng_at for rule in rules.rules] == [0.7]
