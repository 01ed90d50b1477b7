"""GPIO on the chip in memory: edges become parts, verdicts become levels and pulses, and what fails is fail-safe."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from agent.line import gpio_output, tap
from agent.line.gpio_chip import FakeChip, GpiodChip
from agent.line.gpio_line import GpioLine
from agent.line.gpio_output import GpioOutput
from agent.line.settings import GpioLineSettings, GpioOutputSettings
from agent.line.trigger import LinePosition, StationState, Trigger
from tests.support import station
from wire.errors import LinesideError
from wire.inspection import Route, Verdict
from wire.mint import Mint

WIRE = GpioOutputSettings(chip="/dev/gpiochip0", line=4)
PULSE = replace(WIRE, action="pulse", delay_ms=60.0, width_ms=30.0)
READY = StationState(ready=True)


def until(done: Callable[[], object], timeout_s: float = 3.0) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.002)


@pytest.fixture
def chip() -> FakeChip:
    return FakeChip()


@pytest.fixture
def drive(chip: FakeChip) -> Iterator[Callable[[GpioOutputSettings], GpioOutput]]:
    made: list[GpioOutput] = []

    def make(settings: GpioOutputSettings) -> GpioOutput:
        output = GpioOutput(
            settings, station.CLOCK, name="gate", capacity=50, open_chip=lambda _path: chip, rng=random.Random(1)
        )
        made.append(output)
        until(lambda: not output.counts().trouble or chip.gone)
        return output

    yield make
    for one in made:
        one.close()


def told(output: GpioOutput, event: Trigger, verdict: Verdict) -> None:
    answer = station.answer_to(event, verdict)
    output.answer(replace(answer, route=Route.REJECT) if verdict is Verdict.NG else answer)


# Triggers


@pytest.fixture
def wire(chip: FakeChip) -> Iterator[GpioLine]:
    line = GpioLine(
        GpioLineSettings(chip="/dev/gpiochip0", line=7, debounce_ms=5),
        station.CLOCK,
        Mint(),
        name="gauge",
        open_chip=lambda _path: chip,
        rng=random.Random(1),
    )
    until(lambda: line.connected or chip.gone)
    yield line
    line.close()
    assert not chip.listened(7)


def test_an_edge_is_a_part_at_the_moment_of_the_edge(chip: FakeChip, wire: GpioLine) -> None:
    at_ns = chip.press(7) - 3_000_000
    chip.press(7, at_ns=at_ns + 8_000_000)
    position, first, second = (wire.take(2.0) for _ in range(3))
    assert isinstance(position, LinePosition)
    assert position.sequence == 0
    assert isinstance(first, Trigger)
    assert isinstance(second, Trigger)
    assert (first.sequence, second.sequence) == (1, 2)
    assert second.at_ns == at_ns + 8_000_000
    assert first.run == second.run == position.run
    assert abs((first.at_utc - station.CLOCK.now_utc()).total_seconds()) < 2


def test_bouncing_contacts_make_one_part(chip: FakeChip, wire: GpioLine) -> None:
    start_ns = time.monotonic_ns()
    for at_ms in (0, 1, 3, 4):
        chip.press(7, at_ns=start_ns + at_ms * 1_000_000)
    assert isinstance(wire.take(1.0), LinePosition)
    event = wire.take(1.0)
    assert isinstance(event, Trigger)
    assert event.at_ns == start_ns
    assert wire.take(0.05) is None


def test_edges_that_the_kernel_lost_leave_a_gap_in_the_sequence(chip: FakeChip, wire: GpioLine) -> None:
    chip.press(7)
    assert isinstance(wire.take(1.0), LinePosition)
    first = wire.take(1.0)
    for _ in range(3):
        chip.press(7, lost=True)
    chip.press(7)
    second = wire.take(1.0)
    assert isinstance(first, Trigger)
    assert isinstance(second, Trigger)
    assert (first.sequence, second.sequence) == (1, 5)


def test_a_chip_that_goes_away_is_opened_again(chip: FakeChip, wire: GpioLine) -> None:
    chip.unplug()
    until(lambda: not wire.connected)
    assert "gone" in wire.trouble or "not there" in wire.trouble
    chip.unplug(gone=False)
    until(lambda: wire.connected)
    chip.press(7)
    assert isinstance(wire.take(1.0), LinePosition)
    assert isinstance(wire.take(1.0), Trigger)


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpiod", None)
    with pytest.raises(LinesideError, match="pip install") as caught:
        GpiodChip("/dev/gpiochip0")
    assert caught.value.code == "config.missing_extra"


def test_a_chip_that_does_not_exist_is_named() -> None:
    pytest.importorskip("gpiod", reason="the extra gpio is not installed")
    with pytest.raises(LinesideError, match="nochip") as caught:
        GpiodChip("/dev/nochip").open_input(3, "rising")
    assert caught.value.code == "source.unavailable"
    with pytest.raises(LinesideError, match="Line 3"):
        GpiodChip("/dev/nochip").open_output(3, active=True, active_low=False)


# Levels


def test_a_level_follows_the_verdicts_and_is_fail_safe_otherwise(
    chip: FakeChip, drive: Callable[[GpioOutputSettings], GpioOutput]
) -> None:
    output = drive(WIRE)
    assert chip.high(4) is True, "before anybody judges"
    output.set_state(READY)
    time.sleep(0.02)
    assert chip.high(4) is True, "before the first verdict"
    told(output, station.trigger(1), Verdict.OK)
    until(lambda: chip.high(4) is False)
    told(output, station.trigger(2), Verdict.NG)
    until(lambda: chip.high(4) is True)
    told(output, station.trigger(3), Verdict.OK)
    until(lambda: chip.high(4) is False)
    output.set_state(StationState(ready=False, not_ready="A view has no model."))
    until(lambda: chip.high(4) is True)
    output.set_state(READY)
    time.sleep(0.02)
    assert chip.high(4) is True, "a former part's verdict says nothing of the next one"
    told(output, station.trigger(4), Verdict.OK)
    until(lambda: chip.high(4) is False)
    output.close()
    assert [level.high for level in chip.levels[-2:]] == [True, None], "fail-safe first, then released"
    assert output.counts().sent == 4


@pytest.mark.parametrize(("active_low", "fail_safe", "high"), [(True, True, False), (True, False, True)])
def test_the_electrical_sense_and_the_fail_safe_level_are_as_set(
    chip: FakeChip, drive: Callable[[GpioOutputSettings], GpioOutput], active_low: bool, fail_safe: bool, high: bool
) -> None:
    output = drive(replace(WIRE, active_low=active_low, fail_safe_active=fail_safe))
    assert chip.high(4) is high
    output.set_state(READY)
    told(output, station.trigger(1), Verdict.NG)
    until(lambda: chip.high(4) is False)


def test_a_chip_that_comes_back_is_fail_safe_until_the_next_verdict(
    chip: FakeChip, drive: Callable[[GpioOutputSettings], GpioOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpio_output, "_TICK_S", 0.005)
    output = drive(WIRE)
    output.set_state(READY)
    told(output, station.trigger(1), Verdict.NG)
    until(lambda: chip.high(4) is True)
    chip.unplug()
    told(output, station.trigger(2), Verdict.OK)
    until(lambda: output.counts().trouble != "")
    told(output, station.trigger(3), Verdict.OK)
    assert output.counts().failed == 1
    chip.levels.clear()
    chip.unplug(gone=False)
    until(lambda: chip.high(4) is not None)
    time.sleep(0.02)
    assert chip.high(4) is True, "the verdict of a part of long ago must not open the gate"
    told(output, station.trigger(4), Verdict.OK)
    until(lambda: chip.high(4) is False)


# Pulses


def edges_of(chip: FakeChip) -> list[tuple[int, bool]]:
    return [(level.at_ns, bool(level.high)) for level in chip.levels if level.high is not None]


@pytest.mark.alone("a pulse has its moment, to hundredths of a second")
def test_a_pulse_comes_after_its_delay_and_lasts_its_width(
    chip: FakeChip, drive: Callable[[GpioOutputSettings], GpioOutput]
) -> None:
    output = drive(PULSE)
    output.set_state(READY)
    until(lambda: chip.high(4) is False)
    chip.levels.clear()
    event = station.trigger(1)
    output.expect(event)
    told(output, event, Verdict.NG)
    until(lambda: len(chip.levels) == 2)
    (up_ns, up), (down_ns, down) = edges_of(chip)
    assert (up, down) == (True, False)
    assert 0 <= (up_ns - event.at_ns) / 1e6 - 60.0 < 15.0
    assert 0 <= (down_ns - up_ns) / 1e6 - 30.0 < 20.0


@pytest.mark.alone("the verdict must be told before the pulse is due, 60 ms after the part")
def test_only_a_verdict_that_lets_the_part_pass_calls_the_pulse_off(
    chip: FakeChip, drive: Callable[[GpioOutputSettings], GpioOutput]
) -> None:
    output = drive(PULSE)
    line = tap.shown_to(station.ScriptedLine(good := station.trigger(1), station.trigger(2, age_ms=-130)), [output])
    output.set_state(READY)
    until(lambda: chip.high(4) is False)
    chip.levels.clear()
    assert line.take(0) is good
    told(output, good, Verdict.OK)
    time.sleep(0.12)
    assert chip.levels == [], "a good part was kicked out"
    unanswered = line.take(0)
    assert isinstance(unanswered, Trigger)
    until(lambda: len(chip.levels) == 2)
    assert output.counts().sent == 1


def test_a_line_without_timed_pulses_is_not_tapped(drive: Callable[[GpioOutputSettings], GpioOutput]) -> None:
    line = station.ScriptedLine()
    assert tap.shown_to(line, []) is line


def test_a_verdict_that_is_too_late_for_its_pulse_is_told(
    chip: FakeChip, drive: Callable[[GpioOutputSettings], GpioOutput]
) -> None:
    output = drive(PULSE)
    output.set_state(READY)
    until(lambda: chip.high(4) is False)
    chip.levels.clear()
    told(output, station.trigger(1, age_ms=100), Verdict.NG)
    time.sleep(0.05)
    assert chip.levels == [], "it would have hit the next part"
    assert output.counts().failed == 1


def test_an_untimed_pulse_comes_with_the_verdict(
    chip: FakeChip, drive: Callable[[GpioOutputSettings], GpioOutput]
) -> None:
    output = drive(replace(PULSE, delay_ms=0.0))
    output.set_state(READY)
    until(lambda: chip.high(4) is False)
    chip.levels.clear()
    told(output, station.trigger(1, age_ms=5000), Verdict.NG)
    until(lambda: len(chip.levels) == 2)


def test_a_station_that_is_not_ready_holds_the_ejector(
    chip: FakeChip, drive: Callable[[GpioOutputSettings], GpioOutput]
) -> None:
    output = drive(PULSE)
    assert chip.high(4) is True
    output.set_state(READY)
    until(lambda: chip.high(4) is False)
    output.set_state(StationState(ready=False))
    until(lambda: chip.high(4) is True)
    output.close()
    assert [level.high for level in chip.levels[-1:]] == [None]


def test_a_dead_chip_takes_no_time_from_a_verdict(
    chip: FakeChip, drive: Callable[[GpioOutputSettings], GpioOutput]
) -> None:
    output = drive(replace(PULSE, delay_ms=1.0))
    output.set_state(READY)
    chip.unplug()
    started = time.monotonic()
    for number in range(1000):
        event = station.trigger(number)
        output.expect(event)
        told(output, event, Verdict.NG)
    assert time.monotonic() - started < 1.0
    counts = output.counts()
    assert counts.sent + counts.failed >= 1000
    assert counts.failed > 0, "pulses that nobody gave must be told"
