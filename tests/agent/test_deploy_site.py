"""When a version may be swapped: windows, the lock of the line, its command, and the settings behind them."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import cli, settings, status
from agent.clock import FakeClock
from agent.commands import status as status_command
from agent.deploy import line_busy
from agent.deploy.attempt import Attempt, Fault, FaultKind
from agent.deploy.facts import Limits
from agent.deploy.settings import WindowSettings
from agent.deploy.site import Site
from agent.deploy.store import Store
from tests.support.deploying import MemoryFleet, TestDevice, check_reports, make_package, wanted
from wire.deployment import DeploymentState as S
from wire.deployment import Hold, HoldReason
from wire.errors import LinesideError

NIGHT = WindowSettings(start="22:00", end="05:00")
BASE = """
[device]
id = "press-1"
[[stations]]
id = "s"
[stations.line]
kind = "interval"
interval_s = 1.0
[[stations.views]]
id = "v"
model = "m"
[stations.views.source]
kind = "folder"
path = "{pictures}"
"""


def test_a_closed_window_and_then_a_busy_line_speak_against_a_swap(tmp_path: Path) -> None:
    clock = FakeClock(datetime(2026, 1, 1, 12, tzinfo=UTC))
    site = Site((NIGHT,), "Europe/Berlin", tmp_path, clock)
    line_busy.take(tmp_path, line_busy.LineBusy(until=datetime(2026, 1, 1, 23, tzinfo=UTC)))
    assert site.not_now() is HoldReason.MAINTENANCE_WINDOW
    clock.advance(9.5 * 3600)
    assert site.not_now() is HoldReason.LINE_BUSY
    clock.advance(2 * 3600)
    assert site.not_now() is None
    assert Site((), "UTC", tmp_path, clock).not_now() is None


def test_no_window_is_open_while_the_clock_is_wrong_and_a_person_reads_why(tmp_path: Path) -> None:
    """A dead battery and no network: 1970-01-01T00:00Z is one o'clock at night in Berlin, in the middle of a shift."""
    clock, right = FakeClock(datetime(1970, 1, 1, tzinfo=UTC)), [False]
    site = Site((NIGHT,), "Europe/Berlin", tmp_path, clock, lambda: right[0])
    assert site.not_now() is HoldReason.MAINTENANCE_WINDOW
    assert site.words() == (
        "The clock of this device is wrong: it says 1970-01-01 01:00 (Europe/Berlin). No window counts until it is "
        "set, by a time server or by hand."
    )
    anytime = Site((), "Europe/Berlin", tmp_path, clock, lambda: right[0])
    assert anytime.not_now() is None
    assert anytime.words() == ""
    right[0] = True
    assert site.not_now() is None
    assert site.words() == ""


def test_a_deployment_that_waited_for_the_clock_is_swapped_in_the_next_window(tmp_path: Path) -> None:
    packages = [make_package(tmp_path / f"v{release}", release) for release in (1, 2)]
    fleet = MemoryFleet()
    for found in packages:
        fleet.publish(found)
    device, right = TestDevice(root=tmp_path / "device", fleet=fleet), [False]
    device.clock = FakeClock(datetime(1970, 1, 1, tzinfo=UTC))
    device.not_now = Site((NIGHT,), "Europe/Berlin", tmp_path, device.clock, lambda: right[0]).not_now
    device.boot()
    device.run(wanted(packages[0]))
    device.run(wanted(packages[1]))
    assert device.states()[-1] is S.STAGED
    device.clock.jump((datetime(2027, 1, 4, 12, tzinfo=UTC) - device.clock.now_utc()).total_seconds())
    right[0] = True
    hours = []
    for _ in range(24):
        device.runner.step(wanted(packages[1]))
        hours += [report.at.hour for report in device.reports if report.state is S.ACTIVATING and report.release == 2]
        device.clock.advance(3600.0)
    holds = [report.hold.deadline.year for report in device.reports if report.hold is not None]
    assert holds == [1970, 2027], "until when it waits is told anew when the clock is set"
    assert hours[0] == 21, "22:00 in Berlin"
    assert device.activator.in_use == packages[1].digest


def test_the_line_is_not_made_busy_by_a_clock_that_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock would be over as soon as a time server sets the clock."""
    monkeypatch.setattr("agent.clock.SystemClock.now_utc", lambda _: datetime(1970, 1, 1, 0, 5, tzinfo=UTC))
    where = ["--data-dir", str(tmp_path)]
    assert cli.main(["line", "busy", "--for", "8h", *where]) == 5
    said = capsys.readouterr().err
    assert "The clock of this device is wrong: it says 1970-01-01 00:05 UTC" in said
    assert "Set it" in said
    assert list(tmp_path.iterdir()) == []
    assert cli.main(["line", "free", *where]) == 0


def test_a_user_who_may_not_write_there_is_told_who_may_lock_and_free_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--data-dir", str(tmp_path)]
    assert cli.main(["line", "busy", "--for", "8h", *where]) == 0
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # which root always may
    for command in (["busy", "--for", "1h"], ["free"]):
        capsys.readouterr()
        assert cli.main(["line", *command, *where]) == 9
        said = capsys.readouterr().err.splitlines()
        assert said[0] == f"error: This user may not write in {tmp_path}."
        assert said[1] == "       Do it as the user that the agent runs as, or with sudo."
    assert line_busy.read(tmp_path, datetime.now(UTC)) is not None


def test_the_lock_of_the_line_needs_no_model_runtime(tmp_path: Path) -> None:
    """Which takes a second to load, and says things of its own."""
    code = (
        "import sys; from agent import cli; cli.main(['line', 'busy', '--for', '1h', '--data-dir', sys.argv[1]]); "
        "print('onnxruntime' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert ran.stdout.splitlines()[-1] == "False", ran.stderr


def test_a_lock_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    (tmp_path / line_busy.FILE_NAME).write_bytes(b"{")
    assert line_busy.read(tmp_path, now) is None


def test_the_line_is_made_busy_and_free_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--data-dir", str(tmp_path)]
    assert cli.main(["line", *where, "busy", "--for", "8h", "--why", "lot 4711"]) == 0
    lock = line_busy.read(tmp_path, datetime.now(UTC))
    assert lock is not None
    assert timedelta(hours=7.9) < lock.until - datetime.now(UTC) <= timedelta(hours=8)
    capsys.readouterr()
    assert cli.main(["line", *where]) == 0
    assert "lot 4711" in capsys.readouterr().out
    assert cli.main(["line", "free", *where]) == 0
    assert line_busy.read(tmp_path, datetime.now(UTC)) is None
    assert cli.main(["line", "free", *where]) == 0, "it is free, as was asked for"


@pytest.mark.parametrize("time", ["8", "0h", "8d", "for ever", "-1h"])
def test_a_lock_without_a_sane_end_is_refused(tmp_path: Path, time: str) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["line", "busy", f"--for={time}", "--data-dir", str(tmp_path)])
    assert raised.value.code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_not_put_where_no_agent_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["line", "busy", "--for", "1h", "--data-dir", str(tmp_path / "nowhere")]) == 7
    assert "no agent" in capsys.readouterr().err


def test_a_deployment_waits_for_the_window_and_is_swapped_in_it(tmp_path: Path) -> None:
    packages = [make_package(tmp_path / f"v{release}", release) for release in (1, 2)]
    fleet = MemoryFleet()
    for found in packages:
        fleet.publish(found)
    device = TestDevice(root=tmp_path / "device", fleet=fleet)
    device.clock = FakeClock(datetime(2026, 1, 1, 12, tzinfo=UTC))
    device.not_now = Site((NIGHT,), "Europe/Berlin", tmp_path, device.clock).not_now
    device.boot()
    device.run(wanted(packages[0]))
    assert device.states()[-1] is S.SUCCEEDED, "a line without a version does not wait"
    device.run(wanted(packages[1]))
    assert device.states()[-1] is S.STAGED
    for _ in range(150):
        if not device.runner.step(wanted(packages[1])):
            device.clock.advance(300.0)
    assert device.states()[-3:] == [S.ACTIVATING, S.PROBATION, S.SUCCEEDED]
    assert device.reports[-1].at.astimezone(UTC).hour == 21
    check_reports(device.reports)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('[deploy]\ntimezone = "Europe/Atlantis"', "Europe/Atlantis"),
        ('[deploy]\ntimezone = "../../etc/passwd"', "time zone"),
        ('[[deploy.windows]]\nstart = "25:00"\nend = "05:00"', "start"),
        ('[[deploy.windows]]\nstart = "22:00"\nend = "5:00"', "end"),
        ('[[deploy.windows]]\nstart = "22:00"\nend = "05:00"\ndays = []', "days"),
        ('[[deploy.windows]]\nstart = "22:00"\nend = "05:00"\ndays = ["monday"]', "days"),
        ("[deploy]\nattempt_h = 0", "attempt_h"),
        ("[deploy]\nwindow = 1", "window"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_their_line(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(BASE.format(pictures=tmp_path) + f"\n{text}\n")
    with pytest.raises(LinesideError, match=word) as raised:
        settings.load(path, {})
    assert raised.value.code.startswith("config.")


def test_windows_come_from_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        BASE.format(pictures=tmp_path)
        + '\n[deploy]\ntimezone = "Europe/Berlin"\n[[deploy.windows]]\nstart = "22:00"\nend = "05:00"\n'
    )
    found = settings.load(path, {}).deploy
    assert found.windows == (NIGHT,)
    assert found.attempt_h * 3600 == Limits().attempt_s
    assert found.maintenance_window_h * 3600 == Limits().maintenance_window_s


def test_status_tells_what_a_deployment_waits_for() -> None:
    attempt = Attempt(
        deployment_id="00000000-0000-7000-8000-000000000001",
        model="parts",
        digest="a" * 64,
        release=2,
        state=S.DOWNLOADING,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        fault=Fault(kind=FaultKind.AWAY, code="network.unreachable", reason="Nobody answers."),
    )
    told = status.deployment_status(attempt)
    assert list(status_command._deployment(told)) == [
        "deploying   parts: aaaaaaaaaaaa  downloading, tried again: Nobody answers."
    ]
    hold = Hold(reason=HoldReason.NO_SPACE, deadline=datetime(2026, 1, 2, 12, tzinfo=UTC))
    told = status.DeploymentStatus(model="parts", digest="a" * 64, state="downloading", hold=hold)
    (line,) = status_command._deployment(told)
    assert "WAITS: no space, at most until 2026-01-02" in line


def test_the_room_on_disk_is_what_this_process_may_write(tmp_path: Path) -> None:
    free = Store(tmp_path).room_bytes()
    assert 0 < free < 1 << 60
