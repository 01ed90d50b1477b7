"""A candidate sees what its hash chooses, never stands in the way of the line, and every part it misses is counted."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agent.capture.encode import jpeg
from agent.inspection import shadow, shadow_look, shadow_pictures
from agent.inspection.shadow_mailbox import Picture
from agent.inspection.shadow_pair import Skip
from agent.vision.runtime import OnnxSession
from tests.support.shadowing import MODEL, ShadowStand, SlowSession, stand
from tests.support.station import trigger
from wire.desired import Desired, DesiredStation, Recipe, ViewRecipe
from wire.errors import LinesideError
from wire.inspection import Inspection, Reason, Verdict
from wire.messages import Lane
from wire.package import read_folder


@pytest.fixture
def two(tmp_path: Path) -> Iterator[ShadowStand]:
    with stand(tmp_path) as made:
        yield made


def is_meant(digest: str, inspection: Inspection, rate: float) -> bool:
    """The fleet's own words for the same: 53 leading bits of SHA-256(digest ":" id) below the rate."""
    drawn = hashlib.sha256(f"{digest}:{inspection.id}".encode()).digest()
    return (int.from_bytes(drawn[:8], "big") >> 11) / 2**53 < rate


def test_the_parts_a_candidate_sees_are_those_the_fleets_formula_names(two: ShadowStand) -> None:
    active, other = two.version(), two.version("swapped", 2)
    two.stations.activate(active)
    candidate = two.candidate(other, rate=0.4)
    shown = []
    for number in range(60):
        shown.append(two.show(("blue", "green", "red")[number % 3]))
        two.idle()
    meant = [one for one in shown if is_meant(other.digest, one, 0.4)]
    assert 10 < len(meant) < 40
    pairs = two.pairs()
    assert [pair.inspection_id for pair in pairs] == [one.id for one in meant]
    assert {(pair.active_digest, pair.digest, pair.rate) for pair in pairs} == {(active.digest, other.digest, 0.4)}
    for pair, inspection in zip(pairs, meant, strict=True):
        (view,) = pair.views
        label = inspection.views[0].findings[0].label
        expected = {"blue": Verdict.NG, "green": Verdict.OK, "red": Verdict.OK}[label]
        assert (pair.active_verdict, pair.verdict) == (inspection.verdict, expected)
        assert bool(view.findings) == (pair.verdict is not pair.active_verdict), "findings only where they disagree"
        assert view.active_score == inspection.score
    (account,) = two.accounts()
    assert (account.chosen, account.compared, account.skipped) == (len(meant), len(meant), {})
    assert account.disagreed == sum(pair.verdict is not pair.active_verdict for pair in pairs)
    assert candidate.failures_in_row == 0


def test_the_accounts_add_up_at_any_moment_under_load(two: ShadowStand) -> None:
    two.stations.activate(two.version())
    two.candidate(two.version("swapped", 2), rate=0.7, wrap=lambda session: SlowSession(session, 0.004))
    done = threading.Event()
    seen: list[int] = []

    def watch() -> None:
        while not done.is_set():
            seen.append(two.waiting())
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    for number in range(400):
        two.show("red")
        time.sleep(0.01 * (number % 20 == 0))
    two.idle()
    done.set()
    watcher.join()
    assert set(seen) <= {0, 1, 2}, "more on their way than there are places, the part being offered included"
    (account,) = two.accounts()
    meant = [one for one in two.inspections if is_meant(account.digest, one, 0.7)]
    assert account.chosen == len(meant)
    assert account.compared + sum(account.skipped.values()) == account.chosen
    assert account.skipped[Skip.BUSY] > 0
    assert account.compared == len(two.pairs()) > 0


def test_nothing_is_copied_for_parts_that_are_not_to_be_judged_next(
    two: ShadowStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.stations.activate(two.version())
    candidate = two.candidate(two.version("swapped", 2), rate=0.5, wrap=lambda session: SlowSession(session, 0.1))
    copies: list[int] = []
    copy = two.shadows._mailbox.copy

    def counted(pictures: Mapping[str, Picture]) -> dict[str, Picture]:
        copies.append(1)
        return copy(pictures)

    monkeypatch.setattr(two.shadows._mailbox, "copy", counted)
    for _ in range(40):
        two.show("red")
    two.idle()
    (account,) = two.accounts()
    assert len(copies) == account.chosen - account.skipped.get(Skip.BUSY, 0) < 0.5 * account.chosen
    assert candidate.digest == account.digest


@pytest.mark.parametrize("floor_rate", [1e-9, 1.0], ids=["not sampled", "sampled"])
def test_the_picture_of_a_part_they_disagree_about_is_kept_once_and_outside_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, floor_rate: float
) -> None:
    encoded: list[int] = []
    encode = jpeg

    def counted(picture: Picture) -> tuple[bytes, str]:
        encoded.append(1)
        return encode(picture)

    monkeypatch.setattr(shadow_pictures, "jpeg", counted)
    with stand(tmp_path, floor_rate=floor_rate) as made:
        made.stations.activate(made.version())
        made.candidate(made.version("swapped", 2))
        for colour in ("green", "red"):
            shown = made.show(colour)
            made.idle()
        agreed, differing = made.pairs()
        assert agreed.views[0].picture_digest is None
        digest = differing.views[0].picture_digest
        assert digest is not None
        (waiting,) = [path for path in (tmp_path / "pictures").iterdir() if path.name.startswith(digest)]
        if floor_rate == 1.0:
            assert digest == shown.views[0].picture_digest, "the record has the picture already"
            assert not encoded
        else:
            assert shown.views[0].picture_digest is None
            assert not shown.sampling.kept, "the plan knows nothing of this picture"
            assert waiting.name.split("_")[2] == "2"
        assert made.spool.windows() == ()


def test_a_candidate_that_always_disagrees_does_not_fill_the_way_to_the_fleet(two: ShadowStand) -> None:
    two.stations.activate(two.version())
    two.candidate(two.version("swapped", 2))
    for _ in range(shadow_pictures.AT_ONCE + 5):
        two.show("red")
        two.idle()
    pairs = two.pairs()
    assert len(pairs) == shadow_pictures.AT_ONCE + 5
    assert sum(pair.views[0].picture_digest is not None for pair in pairs) == shadow_pictures.AT_ONCE


def test_the_active_version_is_swapped_while_a_candidate_runs(two: ShadowStand) -> None:
    first, second, third = two.version(), two.version(release=2), two.version("swapped", 3)
    two.stations.activate(first)
    two.candidate(third)
    for package in (first, second):
        two.stations.activate(package)
        for _ in range(3):
            two.show("red")
            two.idle()
    assert [pair.active_digest for pair in two.pairs()] == [first.digest] * 3 + [second.digest] * 3
    two.stations.activate(third)
    two.show("red")
    (account,) = two.accounts()
    assert account.chosen == account.compared == 6, "the active version is no candidate beside itself"


def test_a_recipe_that_does_not_fit_the_candidate_is_told_and_counted_until_one_fits(two: ShadowStand) -> None:
    two.stations.activate(two.version())
    manifest = two.version("swapped", 2).folder / "manifest.toml"
    manifest.write_text(manifest.read_text().replace("max = 0.9", "max = 0.6"))
    two.candidate(read_folder(manifest.parent))

    def use(revision: int, ng: float) -> None:
        recipe = Recipe(id="default", revision=revision, views={"top": ViewRecipe(model=MODEL, parameters={"ng": ng})})
        station = DesiredStation(station="gauge", recipes=(recipe,))
        assert two.stations.apply(Desired(device="press-1", revision=revision, stations=(station,))) == []

    use(1, 0.8)
    for _ in range(3):
        two.show("red")
        two.idle()
    (account,) = two.accounts()
    assert account.skipped == {Skip.OUT_OF_BOUNDS: 3}
    (sentence,) = two.shadows.refusals(MODEL)
    assert "gauge, recipe default: View top: " in sentence
    assert "0.8 is outside 0.1 to 0.6" in sentence
    use(2, 0.55)
    two.show("red")
    two.idle()
    (account,) = two.accounts()
    assert (account.chosen, account.compared) == (4, 1)
    assert two.shadows.refusals(MODEL) == ()


def test_a_candidate_without_verdicts_is_evidence_at_first_and_then_stopped(two: ShadowStand) -> None:
    two.stations.activate(two.version())
    broken = two.version("nan", 2)
    two.candidate(broken)
    for _ in range(shadow.FAILURES_MOST + 3):
        assert two.show("green").verdict is Verdict.OK
        two.idle()
    pairs = two.pairs()
    assert len(pairs) == shadow.FAILURES_MOST
    assert {(pair.verdict, pair.views[0].reason) for pair in pairs} == {(Verdict.NO_VERDICT, Reason.UNUSABLE_OUTPUT)}
    failure = two.shadows.failure(MODEL)
    assert failure is not None
    assert failure.code == "model.unusable_output"
    assert "10 parts in a row" in failure.reason
    assert two.shadows.running(MODEL) is None
    assert two.accounts()[0].chosen == shadow.FAILURES_MOST, "its account stays as it ended"
    two.shadows.end(MODEL)
    assert two.shadows.failure(MODEL) is None


def test_outputs_nobody_foresaw_are_a_counted_skip_and_stop_it_too(
    two: ShadowStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.stations.activate(two.version())
    two.candidate(two.version("swapped", 2))

    def explode(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(shadow_look, "_looked", explode)
    for _ in range(shadow.FAILURES_MOST):
        two.show("green")
        two.idle()
    assert two.accounts()[0].skipped == {Skip.ERROR: shadow.FAILURES_MOST}
    assert two.shadows.failure(MODEL) is not None


def test_a_full_outbox_costs_the_pair_and_nothing_else(two: ShadowStand, monkeypatch: pytest.MonkeyPatch) -> None:
    two.stations.activate(two.version())
    two.candidate(two.version("swapped", 2))
    put = two.outbox.put

    def refuse(lane: Lane, body: object) -> int:
        if lane is Lane.SHADOW:
            raise LinesideError("storage.full", "No room.")
        return put(lane, body)

    monkeypatch.setattr(two.outbox, "put", refuse)
    assert two.show("red").verdict is Verdict.NG
    two.idle()
    assert two.accounts()[0].skipped == {Skip.NO_ROOM: 1}


def test_with_one_core_a_look_of_the_line_ends_the_candidates_and_does_not_wait_for_it(tmp_path: Path) -> None:
    with stand(tmp_path, places=1) as made:
        made.stations.activate(made.version())
        slow: list[SlowSession] = []

        def wrapped(session: OnnxSession) -> SlowSession:
            slow.append(SlowSession(session, 5.0))
            return slow[0]

        made.candidate(made.version("swapped", 2), wrap=wrapped)
        made.show("red")
        until = time.monotonic() + 5
        while not slow[0].runs:
            assert time.monotonic() < until
            time.sleep(0.001)
        began = time.monotonic()
        assert made.show("red").verdict is Verdict.NG
        assert time.monotonic() - began < 2.5, "the line waited for the candidate"
        made.idle()
        assert made.accounts()[0].skipped[Skip.YIELDED] == 1


def test_a_candidate_that_always_has_to_yield_rests_ever_longer(tmp_path: Path) -> None:
    with stand(tmp_path, places=1) as made:
        made.stations.activate(made.version())
        made.candidate(made.version("swapped", 2), wrap=lambda session: SlowSession(session, 5.0))
        for _ in range(60):
            made.show("red")
            time.sleep(0.02)
        made.shadows.end(MODEL)
        made.idle()
        (account,) = made.accounts()
        assert account.compared == 0
        assert account.skipped[Skip.NO_CORE] > account.skipped[Skip.YIELDED] >= 3
        assert account.chosen == 60


def test_a_slow_candidate_beside_a_paced_line_makes_no_part_late(two: ShadowStand) -> None:
    two.stations.activate(two.version())
    two.candidate(two.version("swapped", 2), wrap=lambda session: SlowSession(session, 0.2))
    began = time.monotonic()
    for number in range(60):
        time.sleep(max(0.0, began + number * 0.05 - time.monotonic()))
        two.show("red")
    two.idle()
    assert {one.verdict for one in two.inspections} == {Verdict.NG}, "a part was late"
    (account,) = two.accounts()
    assert account.chosen == 60
    assert 8 <= account.compared <= 16, "five a second"
    assert account.skipped == {Skip.BUSY: 60 - account.compared}


def test_a_candidate_that_never_comes_back_is_stopped_and_the_line_goes_on(
    two: ShadowStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "LOOK_LIMIT_S", 0.2)
    two.stations.activate(two.version())
    two.candidate(two.version("swapped", 2), wrap=lambda session: SlowSession(session, 1.5, stubborn=True))
    two.show("red")
    until = time.monotonic() + 5
    while two.shadows.failure(MODEL) is None:
        assert time.monotonic() < until
        two.shadows.watch()
        assert two.show("red").verdict is Verdict.NG
    failure = two.shadows.failure(MODEL)
    assert failure is not None
    assert failure.code == "model.too_slow"
    two.idle()
    assert two.accounts()[0].skipped[Skip.STOPPED] == 1


def test_a_pair_names_the_rate_its_part_was_chosen_by(two: ShadowStand) -> None:
    two.stations.activate(two.version())
    two.candidate(two.version("swapped", 2), wrap=lambda session: SlowSession(session, 0.2))
    two.show("red")
    two.shadows.set_rate(MODEL, 1e-9)
    two.idle()
    (pair,) = two.pairs()
    assert pair.rate == 1.0
    two.show("red")
    assert two.accounts()[0].chosen == 1


def test_a_part_on_its_way_when_the_candidate_is_stopped_is_counted(two: ShadowStand) -> None:
    two.stations.activate(two.version())
    two.candidate(two.version("swapped", 2), wrap=lambda session: SlowSession(session, 5.0))
    two.show("red")
    time.sleep(0.05)
    two.shadows.end(MODEL)
    two.idle()
    assert two.accounts()[0].skipped == {Skip.STOPPED: 1}
    two.show("red")
    assert two.accounts()[0].chosen == 1


def test_a_late_part_says_nothing_about_a_candidate(two: ShadowStand) -> None:
    two.stations.activate(two.version())
    two.candidate(two.version("swapped", 2))
    assert two.show("red", at=trigger(900, age_ms=2000)).verdict is Verdict.NO_VERDICT
    assert two.accounts()[0].skipped == {Skip.NO_VERDICT_OF_ACTIVE: 1}


def test_all_views_of_a_part_are_judged_by_the_candidate(tmp_path: Path) -> None:
    with stand(tmp_path, views=("side", "top")) as made:
        made.stations.activate(made.version())
        made.candidate(made.version("swapped", 2))
        made.show("blue")
        made.idle()
        (pair,) = made.pairs()
        assert [(view.view, view.active_verdict, view.verdict) for view in pair.views] == [
            ("side", Verdict.OK, Verdict.NG),
            ("top", Verdict.OK, Verdict.NG),
        ]
