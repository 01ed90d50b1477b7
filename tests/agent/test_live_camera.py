"""A camera's process may die, hang, freeze or lie: frames come again, each has its account, and nothing remains."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from agent.capture.accounts import Supervised
from agent.capture.demand import ViewDemand
from agent.capture.feed import Lease
from agent.capture.frame import Frame, TimeClass, Vital
from agent.capture.settings import SourceSettings
from agent.capture.sources import source_of
from agent.clock import SystemClock
from scripts import footprint
from tests.support import fake_cameras, processes
from tests.support.cameras import Consumer, adds_up, descriptors, eventually, feed_of, is_gone, shared_frames
from wire.desired import CameraSettings
from wire.errors import LinesideError

Options = dict[str, str | int | float | bool]


@pytest.fixture(autouse=True)
def _plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugins").mkdir()
    fake_cameras.install(tmp_path / "plugins")
    monkeypatch.setenv("PYTHONPATH", fake_cameras.python_path(tmp_path / "plugins"))


def camera(options: Options, plugin: str = "ticking", **more: object) -> SourceSettings:
    given: dict[str, object] = {"open_timeout_s": 2.0, "read_timeout_s": 0.5, **more}
    return SourceSettings(kind="plugin", plugin=plugin, options=options, **given)  # type: ignore[arg-type]


def test_frames_come_from_the_cameras_process_without_a_copy_and_in_order() -> None:
    numbers: list[int] = []
    wrong: list[int] = []

    def look(lease: Lease) -> None:
        image, number = lease.frame.image_bgr, lease.frame.number
        numbers.append(number)
        if image.base is None or image.flags.writeable or not (image == number % 251).all():
            wrong.append(number)

    feed = feed_of("front", camera({"fps": 200, "width": 320, "height": 240}))
    info = feed.open()
    consumer = Consumer(feed, look)
    eventually(lambda: consumer.taken >= 150)
    health = feed.health()
    consumer.close()

    assert (info.time_class, info.live) == (TimeClass.DEVICE_TIMESTAMPED, True)
    assert not wrong
    assert numbers == sorted(set(numbers))
    assert health.connected
    assert health.process_id is not None
    assert health.process_id != os.getpid()


def test_a_picture_stays_as_it_is_for_as_long_as_somebody_looks_at_it() -> None:
    feed = feed_of("front", camera({"fps": 300, "width": 64, "height": 48}))
    feed.open()
    held: list[Lease] = []
    while len(held) < 4:
        if isinstance(answer := feed.take(2.0), Lease):
            held.append(answer)
    seen = feed.counts().frames_in
    eventually(lambda: feed.counts().frames_in > seen + 300)

    assert all((lease.frame.image_bgr == lease.frame.number % 251).all() for lease in held)
    feed.close()
    assert all((lease.frame.image_bgr == lease.frame.number % 251).all() for lease in held), "gone with its process"
    for lease in held:
        lease.release()
    assert adds_up(feed.counts())


def test_a_camera_that_nobody_reads_fast_enough_goes_on_and_counts_what_found_no_room() -> None:
    feed = feed_of("front", camera({"fps": 400}))
    feed.open()
    held: list[Lease] = []
    deadline = time.monotonic() + 5
    while len(held) < 14 and time.monotonic() < deadline:  # hold every slot of the ring
        if isinstance(answer := feed.take(0.1), Lease):
            held.append(answer)
    eventually(lambda: feed.counts().dropped.get("overflow", 0) > 50)
    assert adds_up(feed.counts())
    assert feed.health().restarts == 0

    for lease in held:
        lease.release()
    numbers = [lease.frame.number for lease in held]
    answer = feed.take(2.0)
    while isinstance(answer, Lease) and answer.frame.number <= numbers[-1] + 1:
        answer.release()
        answer = feed.take(2.0)
    assert isinstance(answer, Lease)
    answer.release()
    feed.close()
    assert adds_up(feed.counts())


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("die", "status 3"),
        ("crash", "signal 11"),
        ("hang", "process hangs"),
        ("sleep", "process hangs"),
        ("lose", "the cable is out"),
        ("raise", "ZeroDivisionError"),
        ("end", "no more frames"),
        ("freeze", "has not changed"),
    ],
)
def test_a_camera_that_fails_is_started_anew_and_says_why(fault: str, says: str, tmp_path: Path) -> None:
    options: Options = {"fault": fault, "after": 20, "once": str(tmp_path / "happened"), "fps": 100}
    feed = feed_of("front", camera(options, unchanged_after_s=0.3))
    feed.open()
    troubles: list[str] = []
    consumer = Consumer(feed)
    eventually(lambda: consumer.taken >= 10)

    def restarted() -> bool:
        health = feed.health()
        if health.trouble and health.trouble not in troubles:
            troubles.append(health.trouble)
        return health.restarts == 1 and health.connected

    eventually(restarted, 15)
    taken = consumer.taken
    eventually(lambda: consumer.taken >= taken + 20)
    consumer.close()

    assert any(says in trouble for trouble in troubles), troubles


def test_a_stopped_process_is_killed_and_the_others_do_not_notice() -> None:
    front, side = feed_of("front", camera({"fps": 60})), feed_of("side", camera({"fps": 60}))
    consumers = [Consumer(front), Consumer(side)]
    for consumer in consumers:
        consumer.feed.open()
    eventually(lambda: all(consumer.taken > 10 for consumer in consumers))
    stuck = front.health().process_id
    assert stuck is not None
    os.kill(stuck, signal.SIGSTOP)
    began, before = time.monotonic(), side.counts().frames_in
    eventually(lambda: front.health().restarts == 1 and front.health().connected, 15)
    rate = (side.counts().frames_in - before) / (time.monotonic() - began)

    assert is_gone(stuck)
    assert rate > 40, f"the other camera fell to {rate:.0f} frames a second"
    assert side.health().restarts == 0
    for consumer in consumers:
        consumer.close()


def test_a_camera_that_only_says_that_it_has_trouble_is_not_killed_before_it_is_silent() -> None:
    feed = feed_of("front", camera({"fault": "mute", "after": 5}, plugin="triggered"))
    feed.open()
    consumer = Consumer(feed)
    eventually(lambda: feed.health().trouble == "the lens cap is on")
    time.sleep(1.0)

    assert not feed.health().connected
    assert feed.health().restarts == 0
    assert consumer.close().frames_in == 5


def test_a_triggered_camera_may_be_silent_and_a_free_running_one_may_not() -> None:
    silent = feed_of("silent", camera({"fps": 0.05}, plugin="triggered"))
    absent = feed_of("absent", camera({"fps": 0.05}))
    for feed in (silent, absent):
        feed.open()
    eventually(lambda: absent.health().restarts >= 1, 10)

    assert silent.health().connected
    assert silent.health().restarts == 0
    assert silent.health().trouble == ""
    for feed in (silent, absent):
        feed.close()


def test_a_larger_picture_gets_a_new_ring_and_both_sizes_are_right(tmp_path: Path) -> None:
    options: Options = {"fault": "grow", "after": 30, "fps": 100, "once": str(tmp_path / "happened")}
    wrong: list[int] = []

    def look(lease: Lease) -> None:
        if not (lease.frame.image_bgr == lease.frame.number % 251).all():
            wrong.append(lease.frame.number)

    feed = feed_of("front", camera(options))
    feed.open()
    consumer = Consumer(feed, look)
    eventually(lambda: len(consumer.shapes) == 2)
    taken = consumer.taken
    eventually(lambda: consumer.taken > taken + 30)
    assert feed.health().restarts == 0
    counts = consumer.close()

    assert consumer.shapes == [(24, 32, 3), (48, 64, 3)]
    assert not wrong
    assert set(counts.dropped) <= {"closed"}


def test_frames_that_the_cameras_own_count_misses_are_in_the_accounts() -> None:
    feed = feed_of("front", camera({"fault": "skip", "after": 10, "fps": 100}))
    feed.open()
    consumer = Consumer(feed)
    eventually(lambda: consumer.taken >= 20)

    assert consumer.close().dropped["lost"] == 3


def test_frames_carry_a_trouble_until_the_camera_has_the_settings_it_must_have() -> None:
    feed = feed_of("front", camera({"fps": 100, "say_settings": True}))
    feed.open()
    eventually(lambda: feed.health().connected)
    wrong: list[tuple[int, tuple[Vital, ...]]] = []
    sound = threading.Event()

    def look(lease: Lease) -> None:
        level = int(lease.frame.image_bgr[0, 0, 0])
        if lease.frame.vitals == () and level != 50:
            wrong.append((level, lease.frame.vitals))
        if lease.frame.vitals == ():
            sound.set()

    feed.demand(ViewDemand(recipe="default", camera=CameraSettings(exposure_us=500.0)))
    while isinstance(answer := feed.take(0.0), Lease):  # those exposed before the demand
        answer.not_used()
    consumer = Consumer(feed, look)
    assert sound.wait(5)
    consumer._stop.set()
    consumer._thread.join()
    feed.close()

    assert not wrong


def test_a_camera_that_does_not_keep_its_settings_is_never_trusted(caplog: pytest.LogCaptureFixture) -> None:
    feed = feed_of("front", camera({"fps": 100, "stubborn": True}))
    feed.demand(ViewDemand(recipe="default", camera=CameraSettings(exposure_us=500.0)))
    feed.open()
    vitals: set[tuple[Vital, ...]] = set()
    consumer = Consumer(feed, lambda lease: vitals.add(lease.frame.vitals))
    eventually(lambda: consumer.taken > 20)
    raised = feed.health().raised
    feed.demand(ViewDemand(recipe="other"))
    eventually(lambda: feed.health().raised == ())
    consumer.close()

    assert vitals == {(Vital.SETTINGS,), ()}
    assert raised == (Vital.SETTINGS,)
    assert "exposure_us is 100 instead of 500" in caplog.text


@pytest.mark.parametrize(
    ("plugin", "says"),
    [("absent", "There is no camera plug-in 'absent' (installed: arriving, broken"), ("broken", "AttributeError")],
)
def test_a_plugin_that_is_not_there_or_cannot_be_loaded_is_an_error_at_once(plugin: str, says: str) -> None:
    source = source_of("front", camera({}, plugin=plugin), SystemClock())

    with pytest.raises(LinesideError) as refused:
        source.open()

    assert refused.value.code == "source.unavailable"
    assert says in refused.value.message


def test_a_plugin_that_declares_nothing_knows_only_arrivals_and_an_absent_camera_is_no_error() -> None:
    feed = feed_of("front", camera({"fault": "refuse", "password": "open-sesame"}, plugin="arriving"))
    info = feed.open()
    eventually(lambda: feed.health().restarts >= 2)
    health = feed.health()
    feed.close()

    assert info.time_class is TimeClass.ARRIVAL_ONLY
    assert health.trouble == "refused for ***."


def test_a_camera_is_given_back_in_good_order_when_its_feed_closes(tmp_path: Path) -> None:
    feed = feed_of("front", camera({"closed": str(tmp_path / "closed")}))
    feed.open()
    consumer = Consumer(feed)
    eventually(lambda: consumer.taken > 5)
    process = feed.health().process_id
    consumer.close()

    assert (tmp_path / "closed").exists()
    assert process is not None
    assert is_gone(process)


def test_thirty_restarts_leave_no_memory_descriptor_thread_or_process_behind() -> None:
    feed = feed_of("front", camera({"fault": "die", "after": 3, "fps": 200, "width": 640, "height": 480}))
    feed.open()
    consumer = Consumer(feed)

    def measure(restarts: int) -> tuple[int, int, int]:
        eventually(lambda: feed.health().restarts >= restarts, 60)
        gc.collect()
        return threading.active_count(), shared_frames(), psutil.Process().memory_info().rss

    threads, _, memory = measure(10)
    threads_after, rings_after, memory_after = measure(30)
    running = processes.children("camera_process")
    open_now = descriptors()
    counts = consumer.close()
    gc.collect()

    assert threads_after == threads
    assert rings_after <= 2
    assert len(running) <= 1
    assert memory_after - memory < 6 * 2**20
    assert open_now < 60
    assert shared_frames() == 0
    # Each process shows three frames and tells of them before it dies; what nobody had read by then was dropped.
    assert counts.frames_in >= 3 * 30 - 3
    assert set(counts.dropped) <= {"restarted", "overflow", "closed"}


def test_descriptors_are_as_many_after_ten_more_restarts() -> None:
    feed = feed_of("front", camera({"fault": "die", "after": 1, "fps": 200}))
    feed.open()
    consumer = Consumer(feed)

    def between_two_processes() -> int:
        """The fewest descriptors while there is no camera's process; one that is being started has some already."""
        counted: list[int] = []

        def have_counted() -> bool:
            if feed.health().process_id is None:
                found = descriptors()
                if feed.health().process_id is None:
                    counted.append(found)
            return len(counted) == 5

        eventually(have_counted, 60, "a count between two processes")
        return min(counted)

    eventually(lambda: feed.health().restarts >= 3, 60)
    before = between_two_processes()
    eventually(lambda: feed.health().restarts >= 13, 60)
    after = between_two_processes()
    consumer.close()

    assert after <= before


PARENT = """
    import os, sys, time
    from agent.capture.settings import SourceSettings
    from tests.support.cameras import feed_of
    settings = SourceSettings(kind="plugin", plugin="ticking", options={options!r}, read_timeout_s=1.5)
    feed = feed_of("front", settings)
    feed.open()
    while not feed.health().connected:
        time.sleep(0.01)
    print(feed.health().process_id, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("options", "within_s"),
    [
        ({"fps": 50}, 3.0),
        ({"fps": 50, "fault": "sleep", "after": 5}, 3.0),
        ({"fps": 50, "fault": "hang", "after": 5}, 10.0),
    ],
    ids=["that works", "that sleeps", "that hangs and holds the interpreter"],
)
def test_a_camera_ends_with_an_agent_that_was_killed(options: Options, within_s: float) -> None:
    segments = footprint.named_segments()
    script = textwrap.dedent(PARENT).format(options=options)
    agent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert agent.stdout is not None
    process = int(agent.stdout.readline())
    time.sleep(0.3)  # the fault, where there is one, has happened
    assert not is_gone(process)

    agent.kill()
    agent.wait(5)
    agent.stdout.close()

    took_s = eventually(lambda: is_gone(process), within_s, "the end of the camera's process")
    assert took_s < within_s
    # What other tests have there meanwhile goes by itself; what a camera left would stay.
    eventually(lambda: footprint.named_segments() <= segments, 5.0, "the end of its named pieces of shared memory")


def test_secrets_of_a_plugin_reach_neither_log_nor_health_nor_any_process_list(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "s3cr3t-of-the-camera"
    settings = camera({"fault": "raise", "after": 3, "password": secret, "once": str(tmp_path / "happened")})
    feed = feed_of("front", settings)
    feed.open()
    consumer = Consumer(feed)
    eventually(lambda: feed.health().process_id is not None)
    shown = [repr(settings)]
    for process in processes.children(""):
        with contextlib.suppress(psutil.NoSuchProcess):
            shown += [" ".join(process.cmdline()), repr(process.environ())]
    eventually(lambda: feed.health().restarts >= 1)
    shown.append(repr(feed.health()))
    consumer.close()

    assert "ZeroDivisionError: no luck with ***" in caplog.text
    assert secret not in "".join(shown) + caplog.text


def test_what_a_process_told_and_nobody_read_is_in_the_accounts_when_it_is_closed() -> None:
    source = source_of("front", camera({"fps": 400}), SystemClock())
    source.open()
    frame = source.read(5.0)
    while not isinstance(frame, Frame):
        frame = source.read(5.0)
    time.sleep(0.5)  # every slot of the ring is told by now, and the camera goes on
    source.close()

    assert isinstance(source, Supervised)
    dropped = source.dropped()
    assert dropped["closed"] == 13  # and one was read
    assert dropped["overflow"] > 50
