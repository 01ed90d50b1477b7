"""How many threads to use: more only where they pay."""

from __future__ import annotations

import pytest

from agent.vision.bench import Lap, Measured, Percentiles, Ready, choose, percentiles, summary


def measured(threads: int, p50: float, cpu_ms: float = 1.0) -> Measured:
    series = Percentiles(p50=p50, p95=p50, p99=p50)
    return Measured(threads=threads, looks=10, run_ms=series, look_ms=series, cpu_ms=cpu_ms, load_ms=1.0, memory_mb=1.0)


@pytest.mark.parametrize(
    ("medians", "best"),
    [
        ({1: 10.0}, 1),
        ({1: 10.0, 2: 9.1}, 1),
        ({1: 10.0, 2: 9.0}, 2),
        ({1: 10.0, 2: 12.0}, 1),
        ({1: 10.0, 2: 9.5, 3: 8.9}, 3),
        ({1: 10.0, 2: 6.0, 3: 5.9, 4: 5.0}, 4),
        ({1: 10.0, 2: 6.0, 3: 5.9, 4: 5.8}, 2),
        ({2: 6.0, 1: 10.0}, 2),
    ],
)
def test_more_threads_must_make_a_look_a_tenth_shorter(medians: dict[int, float], best: int) -> None:
    count, why = choose([measured(threads, p50) for threads, p50 in medians.items()])
    assert count == best
    assert why.startswith(f"{best} thread")
    assert f"{medians[best]:.2f} ms" in why


def test_percentiles_are_values_that_were_measured() -> None:
    found = percentiles([float(number) for number in range(100, 0, -1)])
    assert (found.p50, found.p95, found.p99) == (50.0, 95.0, 99.0)
    assert percentiles([7.0]) == Percentiles(p50=7.0, p95=7.0, p99=7.0)


def test_rounds_are_put_together() -> None:
    laps = [Lap(run=(1.0, 2.0), look=(3.0, 4.0), cpu=(5.0, 6.0)), Lap(run=(9.0,), look=(9.0,), cpu=(9.0,))]
    made = summary(2, laps, Ready(load_ms=12.0, memory_mb=3.0))
    assert (made.threads, made.looks, made.run_ms.p50, made.look_ms.p99, made.cpu_ms) == (2, 3, 2.0, 9.0, 6.0)
    assert (made.load_ms, made.memory_mb) == (12.0, 3.0)
