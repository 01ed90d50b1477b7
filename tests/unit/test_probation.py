"""What follows from a version's first parts: each guard, its numbers, and what it must not fire at."""

from __future__ import annotations

import dataclasses
import math

import pytest

from agent.deploy import evidence, probation
from agent.deploy.figures import Figures, looks_of
from agent.deploy.probation import Faulty, Passed, ProbationLimits, Shifted, Watching
from agent.deploy.settings import DeploySettings, ProbationSettings, problems_of

LIMITS = ProbationLimits(parts=100, watch_s=600.0, most_s=36_000.0)
FORMER, VERSION = "a" * 64, "b" * 64
BEFORE = Figures(
    digest=FORMER, verdicts={"OK": 490, "NG": 10}, looks=looks_of([10.0] * 490 + [14.0] * 10), rss_mb=300.0
)


def seen(ok: int = 0, ng: int = 0, unsure: int = 0, **more: object) -> Figures:
    verdicts = {"OK": ok, "NG": ng, "UNSURE": unsure}
    return dataclasses.replace(Figures(digest=VERSION, verdicts=verdicts), **more)  # type: ignore[arg-type]


def judged(
    figures: Figures,
    baseline: Figures | None = BEFORE,
    limits: ProbationLimits = LIMITS,
    *,
    watched_s: float = 600.0,
    confirmed: bool = False,
) -> probation.Finding:
    return probation.judge(figures, baseline, limits, watched_s=watched_s, confirmed=confirmed, memory_limit_mb=512.0)


def test_a_version_passes_when_enough_parts_came_and_enough_time_passed() -> None:
    assert judged(seen(98, 2)) == Passed()
    assert judged(seen(97, 2)) == Watching()
    assert judged(seen(98, 2), watched_s=599.0) == Watching()


def test_a_way_back_passes_at_once() -> None:
    assert judged(seen(), limits=ProbationLimits(parts=0, watch_s=0.0), watched_s=0.0) == Passed()


def test_a_version_that_too_few_parts_came_for_does_not_stay() -> None:
    assert judged(seen(99), watched_s=35_999.0) == Watching()
    assert judged(seen(99), watched_s=36_000.0) == Faulty(
        code="deployment.unproven", reason="It judged 99 parts in 10 h; 100 are needed."
    )
    assert judged(seen(99, 1), watched_s=36_000.0) == Passed()


def test_one_part_without_verdict_takes_nothing_back() -> None:
    for count in range(1, 5):
        assert judged(seen(0, faults={"runtime_error": count})) == Watching()


def test_a_version_that_gives_no_verdict_is_faulty_after_five_parts() -> None:
    found = judged(seen(0, faults={"unusable_output": 3, "runtime_error": 2}))
    assert found == Faulty(
        code="deployment.no_verdicts",
        reason="No verdict for 5 of 5 parts (runtime_error 2, unusable_output 3), 0 of 500 before.",
    )


@pytest.mark.parametrize(("share", "parts"), [(1.0, 4), (0.5, 10), (0.2, 65), (0.1, 500)])
def test_the_fewer_parts_lack_a_verdict_the_more_it_takes_to_say_so(share: float, parts: int) -> None:
    """By about `parts` parts the odds cross 1000."""
    for total in (parts // 2, parts + 30):
        faults = round(share * total)
        found = judged(
            seen(total - faults, faults={"unusable_output": faults}), dataclasses.replace(BEFORE, verdicts={})
        )
        assert isinstance(found, Faulty) == (total > parts), (total, found)


def test_a_device_that_misses_deadlines_with_any_version_blames_none() -> None:
    before = dataclasses.replace(BEFORE, faults={"deadline": 125})  # 20 % of its parts
    worse = {"deadline": 70}
    assert not isinstance(judged(seen(160, 0, faults={"deadline": 40}), before), Faulty)
    assert isinstance(judged(seen(30, 0, faults=worse), before), Faulty)
    assert isinstance(judged(seen(160, 0, faults={"deadline": 40})), Faulty)


def test_deadlines_missed_by_looks_that_are_as_quick_as_before_are_not_the_versions_fault() -> None:
    late = {"deadline": 60}
    assert not isinstance(judged(seen(40, 0, faults=late, looks=looks_of([10.0] * 100))), Faulty)
    assert isinstance(judged(seen(40, 0, faults=late, looks=looks_of([20.0] * 100))), Faulty)
    broken = {"deadline": 60, "runtime_error": 40}
    assert isinstance(judged(seen(0, 0, faults=broken, looks=looks_of([10.0] * 60))), Faulty)
    first = dataclasses.replace(BEFORE, looks={})
    assert isinstance(judged(seen(40, 0, faults=late, looks=looks_of([10.0] * 100)), first), Faulty)


def test_faults_of_a_first_version_are_told_all_the_same() -> None:
    found = judged(seen(0, faults={"runtime_error": 8}), None)
    assert isinstance(found, Faulty)
    assert found.reason == "No verdict for 8 of 8 parts (runtime_error 8), no former version to compare."


def test_a_version_ten_times_slower_is_faulty_and_one_twice_as_slow_is_not() -> None:
    found = judged(seen(59, 1, looks=looks_of([100.0] * 60)))
    assert isinstance(found, Faulty)
    assert found.code == "deployment.too_slow"
    assert found.reason == "60 of 60 looks took longer than 29.8 ms (95 % within 103.1 ms, 9.9 ms before)."
    assert judged(seen(99, 1, looks=looks_of([20.0] * 100))) == Passed()
    assert judged(seen(49, 0, looks=looks_of([100.0] * 49))) == Watching(), "too few looks to say so"


def test_a_model_of_less_than_a_millisecond_is_not_taken_back_over_microseconds() -> None:
    quick = dataclasses.replace(BEFORE, looks=looks_of([0.2] * 500))
    assert judged(seen(98, 2, looks=looks_of([4.0] * 100)), quick) == Passed()
    assert isinstance(judged(seen(98, 2, looks=looks_of([6.5] * 100)), quick), Faulty)


def test_a_few_slow_looks_are_no_slow_version() -> None:
    assert judged(seen(98, 2, looks=looks_of([10.0] * 93 + [300.0] * 7))) == Passed()
    assert isinstance(judged(seen(98, 2, looks=looks_of([10.0] * 70 + [300.0] * 30))), Faulty)


def test_a_former_version_that_looked_at_next_to_nothing_is_no_measure() -> None:
    before = dataclasses.replace(BEFORE, looks=looks_of([1.0] * 5))
    assert judged(seen(98, 2, looks=looks_of([100.0] * 100)), before) == Passed()


def test_growing_memory_is_faulty() -> None:
    assert judged(seen(98, 2, grew_mb=127.0, rss_mb=500.0)) == Passed()
    found = judged(seen(98, 2, grew_mb=129.0, rss_mb=500.0))
    assert found == Faulty(
        code="deployment.grew", reason="The agent's memory grew by 129 MB in 100 parts; 128 MB are allowed."
    )


def test_a_version_that_takes_more_memory_than_its_manifest_says_is_faulty() -> None:
    assert judged(seen(98, 2, rss_mb=300.0 + 512.0 + 128.0)) == Passed()
    found = judged(seen(98, 2, rss_mb=941.0))
    assert isinstance(found, Faulty)
    assert found.reason == "The agent uses 941 MB, 300 MB before; 640 MB more are allowed."


def test_a_shift_asks_a_person_in_numbers() -> None:
    assert judged(seen(19, 41)) == Shifted(text="NG 41 of 60 parts (68.3%), 10 of 500 (2.0%) before.")
    assert judged(seen(30, 1, 29)) == Shifted(text="UNSURE 29 of 60 parts (48.3%), 0 of 500 (0.0%) before.")


def test_a_shift_to_always_ok_is_noticed_too() -> None:
    before = dataclasses.replace(BEFORE, verdicts={"OK": 450, "NG": 50})
    found = judged(seen(100), before)
    assert found == Shifted(text="NG 0 of 100 parts (0.0%), 50 of 500 (10.0%) before.")


def test_what_a_person_has_confirmed_is_asked_no_more_but_still_told() -> None:
    shifted = seen(60, 40)
    assert isinstance(judged(shifted), Shifted)
    assert judged(shifted, confirmed=True) == Passed()
    assert "NG 40 of 100" in probation.report(shifted, BEFORE, LIMITS).shift


def test_an_operational_fault_goes_before_a_shift_and_before_passing() -> None:
    assert isinstance(judged(seen(0, 100, grew_mb=500.0)), Faulty)
    assert isinstance(judged(seen(0, 100, grew_mb=500.0), confirmed=True), Faulty)


def test_without_a_former_version_no_mix_is_another() -> None:
    assert judged(seen(0, 100), None) == Passed()
    few = Figures(digest=FORMER, verdicts={"OK": 9})
    assert judged(seen(0, 100), few) == Passed(), "nine parts say nothing of a line"


def test_parts_without_verdict_do_not_enter_the_mix() -> None:
    before = dataclasses.replace(BEFORE, faults={"deadline": 400})
    assert judged(seen(98, 2), before) == Passed()


def test_a_line_whose_ng_come_in_heaps_takes_more_to_shift() -> None:
    """500 parts, 10 % NG: spread evenly over ten lots, or all of them in two."""
    plain = dataclasses.replace(
        BEFORE,
        verdicts={"OK": 450, "NG": 50},
        lots=10,
        lot_sums={"OK": 450, "NG": 50},
        lot_squares={"OK": 20_250, "NG": 250},
    )
    heaped = dataclasses.replace(plain, lot_squares={"OK": 8 * 2500 + 2 * 625, "NG": 1250})
    lot = seen(25, 25)
    assert isinstance(judged(lot, plain), Shifted)
    assert judged(lot, heaped) == Watching()
    assert isinstance(judged(seen(0, 600), heaped), Shifted)


def test_the_report_says_what_was_seen() -> None:
    report = probation.report(seen(57, 2, faults={"deadline": 1}, looks=looks_of([20.0] * 60)), BEFORE, LIMITS)
    assert (report.parts, report.faults, report.parts_needed, report.shift) == (60, 1, 100, "")
    assert report.look_p95_ms == pytest.approx(20.0, rel=0.05)
    assert report.former_look_p95_ms == pytest.approx(10.0, rel=0.05)
    assert probation.report(seen(), None, LIMITS).former_look_p95_ms is None


def test_the_odds_are_a_likelihood_ratio_whose_mean_is_one() -> None:
    """Over all sequences of twelve verdicts, each weighted by its probability under "the same mix"."""
    before, parts, mean, total = (40, 8, 2), 12, 0.0, 0.0
    for ng in range(parts + 1):
        for unsure in range(parts + 1 - ng):
            counts = (parts - ng - unsure, ng, unsure)
            ways = math.factorial(parts) / math.prod(math.factorial(count) for count in counts)
            prior = [count + 0.5 for count in before]
            same = math.gamma(sum(prior)) / math.gamma(sum(prior) + parts)
            same *= math.prod(math.gamma(a + n) / math.gamma(a) for a, n in zip(prior, counts, strict=True))
            total += ways * same
            mean += ways * same * math.exp(evidence.log_mix_odds(counts, before, weight_max=500.0))
    assert total == pytest.approx(1.0)
    assert mean == pytest.approx(1.0)


def test_figures_of_one_version_add_up_and_of_two_do_not() -> None:
    one = seen(10, 1, looks=looks_of([1.0, 2.0]), rss_mb=100.0, grew_mb=3.0, lots=1, lot_sums={"OK": 50})
    other = seen(5, 0, 2, looks=looks_of([2.0]), rss_mb=90.0, grew_mb=1.0, faults={"deadline": 1})
    both = one.plus(other)
    assert (both.parts, both.verdicts, both.faults) == (19, {"OK": 15, "NG": 1, "UNSURE": 2}, {"deadline": 1})
    assert (both.look_count, both.rss_mb, both.grew_mb, both.lots) == (3, 90.0, 3.0, 1)
    with pytest.raises(ValueError, match="cannot be added"):
        one.plus(BEFORE)


def test_settings_become_limits_and_a_probation_that_cannot_be_passed_is_refused() -> None:
    assert ProbationSettings().limits == ProbationLimits()
    assert problems_of(DeploySettings()) == []
    impossible = ProbationSettings(minutes=90.0, hours_max=1.0)
    (problem,) = problems_of(DeploySettings(probation=impossible))
    assert "before it could pass" in problem.sentence
