"""`lineside export`: everything the fleet has not confirmed in one file, beside an agent that runs and without one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent import status
from agent.clock import SystemClock
from agent.status import Status
from agent.uplink.outbox import Outbox
from tests.support import records
from wire import codec, enrolment, topics
from wire.deployment import DeploymentReport, DeploymentState
from wire.export import MAX_LINE_BYTES, ExportHead
from wire.inspection import Inspection
from wire.messages import BODY_OF_LANE, Batch, Event, Lane, SeqRange, Severity

REPO = Path(__file__).resolve().parents[2]
PLENTY = 1024 * 1024


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    last_word(folder)
    return folder


def last_word(folder: Path, pictures: int = 3) -> None:
    status.write(
        folder,
        Status(
            device="cell-1",
            pid=1,
            at=datetime.now(UTC),
            agent_version="0.1.0",
            connected=False,
            mqtt_protocol=None,
            desired_revision=1,
            outbox_unsettled=0,
            outbox_dropped=0,
            pictures_waiting=pictures,
        ),
    )


@pytest.fixture
def outbox(data_dir: Path) -> Iterator[Outbox]:
    box = Outbox(data_dir / "outbox.db", SystemClock(), device="cell-1")
    yield box
    box.close()


def export(*arguments: object) -> tuple[int, str, list[str]]:
    """Run the command in a process of its own, as beside a real agent."""
    ran = subprocess.run(
        [sys.executable, "-m", "agent.cli", "export", *map(str, arguments)],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ran.returncode, ran.stdout, ran.stderr.splitlines()


def contents(file: Path) -> tuple[ExportHead, list[Batch]]:
    """Read a file as strictly as the fleet does."""
    lines = file.read_bytes().split(b"\n")
    assert lines.pop() == b"", "the last line has its end"
    assert all(len(line) <= MAX_LINE_BYTES for line in lines)
    head = codec.decode(lines[0], ExportHead)
    batches = [codec.decode(line, Batch) for line in lines[1:]]
    assert head.batches == len(batches)
    assert head.entries == sum(len(batch.entries) for batch in batches)
    for line, batch in zip(lines[1:], batches, strict=True):
        assert len(line) <= topics.TABLE[batch.lane.value].max_bytes
        for entry in batch.entries:
            codec.decode(entry.body, BODY_OF_LANE[batch.lane])
    return head, batches


def seqs(batches: list[Batch], lane: Lane) -> list[int]:
    return [entry.seq for batch in batches if batch.lane is lane for entry in batch.entries]


def fill(outbox: Outbox, inspections: int = 300) -> None:
    for number in range(1, inspections + 1):
        outbox.put_inspection(records.inspection(sequence=number), line_run="r")
    outbox.emit_counters()
    for state in (DeploymentState.DOWNLOADING, DeploymentState.VERIFYING):
        outbox.put(
            Lane.DEPLOYMENTS,
            DeploymentReport(
                deployment_id=records.MINT.uuid7(),
                model="parts",
                digest=records.DIGEST,
                state=state,
                sequence=1,
                at=records.NOON,
            ),
        )
    outbox.put(Lane.EVENTS, Event(at=records.NOON, name="test.happened", severity=Severity.NOTE, text="a"))


def test_all_that_is_not_settled_is_in_the_file_in_the_order_of_its_lanes(
    data_dir: Path, outbox: Outbox, tmp_path: Path
) -> None:
    fill(outbox)
    assert outbox.settle(outbox.epoch, Lane.INSPECTIONS, [SeqRange(first=11, last=200)]) == 190
    code, out, said = export(tmp_path / "out.export", "--data-dir", data_dir)
    assert code == 0, said
    head, batches = contents(tmp_path / "out.export")
    assert (head.device, head.agent_version) == ("cell-1", "0.1.0")
    assert {batch.epoch for batch in batches} == {outbox.epoch}
    assert seqs(batches, Lane.INSPECTIONS) == [*range(1, 11), *range(201, 301)]
    assert seqs(batches, Lane.DEPLOYMENTS) == [1, 2]
    assert seqs(batches, Lane.EVENTS) == [1]
    assert len(seqs(batches, Lane.COUNTERS)) == 6
    assert len([batch for batch in batches if batch.lane is Lane.INSPECTIONS]) == 1
    assert out.splitlines()[0].startswith(f"made        {tmp_path}/out.export, 0.")
    assert out.splitlines()[1] == (
        "holds       119 records of cell-1: 110 inspections, 2 deployments, 1 events, 6 counters"
    )
    assert said == [
        "3 pictures are not in it; they wait here for the network.",
        "Carry it to the fleet: lineside-fleet devices absorb out.export",
        "Here everything stays until the fleet itself confirms it.",
    ]


def test_nothing_is_settled_or_marked_as_sent_by_an_export(data_dir: Path, outbox: Outbox, tmp_path: Path) -> None:
    fill(outbox, 50)
    before = outbox.stats()
    assert export(tmp_path / "out.export", "--data-dir", data_dir)[0] == 0
    assert outbox.stats() == before
    until = time.monotonic() + 10
    while (batch := outbox.next_batch(Lane.INSPECTIONS, PLENTY)) is None or len(batch.entries) < 50:
        assert time.monotonic() < until
    assert [entry.seq for entry in batch.entries] == list(range(1, 51))


def test_an_export_beside_an_agent_that_records_all_the_time_is_whole_and_holds_nobody_up(
    data_dir: Path, outbox: Outbox, tmp_path: Path
) -> None:
    fill(outbox, 2000)
    stop = threading.Event()
    slowest_s = [0.0]
    numbers = [2000]

    def record() -> None:
        while not stop.is_set():
            numbers[0] += 1
            began = time.perf_counter()
            outbox.put_inspection(records.inspection(sequence=numbers[0]), line_run="r")
            slowest_s[0] = max(slowest_s[0], time.perf_counter() - began)
            if numbers[0] % 50 == 0:
                outbox.emit_counters()

    thread = threading.Thread(target=record)
    thread.start()
    try:
        for number in range(3):
            before = numbers[0]
            assert export(tmp_path / f"{number}.export", "--data-dir", data_dir)[0] == 0
            _, batches = contents(tmp_path / f"{number}.export")
            found = seqs(batches, Lane.INSPECTIONS)
            assert found == list(range(1, found[-1] + 1))
            assert found[-1] >= before
            cells = Tally(entry.seq for batch in batches if batch.lane is Lane.COUNTERS for entry in batch.entries)
            assert max(cells.values()) == 1
    finally:
        stop.set()
        thread.join()
    assert slowest_s[0] < 2.0, "a reader never makes the line wait"


def test_after_a_kill_the_records_that_only_the_log_holds_are_exported(data_dir: Path, tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from agent.clock import SystemClock\n"
        "from agent.uplink.outbox import Outbox\n"
        "from tests.support import records\n"
        "box = Outbox(Path(sys.argv[1]), SystemClock(), device='cell-1')\n"
        "for number in range(1, 101):\n"
        "    box.put_inspection(records.inspection(sequence=number), line_run='r')\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    agent = subprocess.Popen(
        [sys.executable, "-c", script, str(data_dir / "outbox.db")], cwd=REPO, stdout=subprocess.PIPE, text=True
    )
    assert agent.stdout is not None
    assert agent.stdout.readline() == "ready\n"
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    assert (data_dir / "outbox.db-wal").stat().st_size > 0
    code, _, said = export(tmp_path / "out.export", "--data-dir", data_dir)
    assert code == 0, said
    assert seqs(contents(tmp_path / "out.export")[1], Lane.INSPECTIONS) == list(range(1, 101))
    box = Outbox(data_dir / "outbox.db", SystemClock(), device="cell-1")
    assert box.stats().unsettled_by_lane[Lane.INSPECTIONS] == 100
    box.close()


def test_after_an_orderly_end_the_file_alone_is_read(data_dir: Path, tmp_path: Path) -> None:
    box = Outbox(data_dir / "outbox.db", SystemClock(), device="cell-1")
    fill(box, 20)
    box.close()
    assert export(tmp_path / "out.export", "--data-dir", data_dir)[0] == 0
    assert seqs(contents(tmp_path / "out.export")[1], Lane.INSPECTIONS) == list(range(1, 21))


def test_large_records_are_spread_over_batches_within_the_budget_of_their_lane(
    data_dir: Path, outbox: Outbox, tmp_path: Path
) -> None:
    for number in range(40):
        text = "x" * 1000
        view = records.view(findings=records.view().findings * 200)
        outbox.put_inspection(records.inspection(sequence=number + 1, views=(view,)), line_run="r")
        outbox.put(Lane.EVENTS, Event(at=records.NOON, name="test.happened", severity=Severity.NOTE, text=text))
    assert export(tmp_path / "out.export", "--data-dir", data_dir)[0] == 0
    _, batches = contents(tmp_path / "out.export")
    lanes = Tally(batch.lane for batch in batches)
    assert lanes[Lane.INSPECTIONS] > 2
    assert lanes[Lane.EVENTS] == 2
    assert seqs(batches, Lane.INSPECTIONS) == list(range(1, 41))
    bodies = [entry.body for batch in batches if batch.lane is Lane.INSPECTIONS for entry in batch.entries]
    assert all(len(codec.decode(body, Inspection).views[0].findings) == 200 for body in bodies)


def test_a_device_with_nothing_to_tell_makes_a_file_that_says_so(
    data_dir: Path, outbox: Outbox, tmp_path: Path
) -> None:
    last_word(data_dir, pictures=0)
    code, out, said = export(tmp_path / "out.export", "--data-dir", data_dir)
    assert code == 0
    head, batches = contents(tmp_path / "out.export")
    assert (head.entries, batches) == (0, [])
    assert out.splitlines()[1] == "holds       0 records of cell-1"
    assert said[0] == "The fleet has confirmed everything; the file says so."


def test_the_summary_as_json_names_its_schema(data_dir: Path, outbox: Outbox, tmp_path: Path) -> None:
    fill(outbox, 10)
    found = json.loads(export(tmp_path / "out.export", "--data-dir", data_dir, "--json")[1])
    assert found["schema"] == "lineside.export-summary/1"
    assert found["entries_by_lane"]["inspections"] == 10
    assert found["pictures_left_out"] == 3
    assert found["bytes"] == (tmp_path / "out.export").stat().st_size


def test_a_file_that_is_there_is_not_replaced_unasked(data_dir: Path, outbox: Outbox, tmp_path: Path) -> None:
    (tmp_path / "out.export").write_text("another device's")
    code, _, said = export(tmp_path / "out.export", "--data-dir", data_dir)
    assert code == 5
    assert said[0] == f"error: {tmp_path}/out.export is there already."
    assert (tmp_path / "out.export").read_text() == "another device's"
    assert export(tmp_path / "out.export", "--data-dir", data_dir, "--force")[0] == 0
    contents(tmp_path / "out.export")


def test_a_folder_is_no_file(data_dir: Path, outbox: Outbox, tmp_path: Path) -> None:
    code, _, said = export(tmp_path, "--data-dir", data_dir)
    assert code == 2
    assert said[0] == f"error: {tmp_path} is a folder."


def test_a_stick_that_is_full_leaves_nothing_behind(data_dir: Path, outbox: Outbox, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(stick)], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs more rights than this user has")
    try:
        fill(outbox, 500)
        code, _, said = export(stick / "out.export", "--data-dir", data_dir)
        assert code == 9
        assert said[:2] == [
            f"error: {stick}/out.export finds no room there.",
            "       Use a larger stick, or make room on it.",
        ]
        assert list(stick.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", str(stick)], check=True)


def test_a_stick_that_is_not_there_is_named(data_dir: Path, outbox: Outbox, tmp_path: Path) -> None:
    code, _, said = export(tmp_path / "media" / "stick" / "out.export", "--data-dir", data_dir)
    assert code == 9
    assert said[0] == f"error: {tmp_path}/media/stick/out.export cannot be written: No such file or directory."
    assert said[1] == "       Is the stick still plugged in?"


def test_an_export_that_was_killed_leaves_no_draft_for_ever(data_dir: Path, outbox: Outbox, tmp_path: Path) -> None:
    (tmp_path / ".out.export.4711.draft").write_bytes(b"half")
    assert export(tmp_path / "out.export", "--data-dir", data_dir)[0] == 0
    assert not (tmp_path / ".out.export.4711.draft").exists()


def test_a_damaged_outbox_is_said_to_be_damaged(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "outbox.db").write_bytes(b"no database " * 1000)
    code, _, said = export(tmp_path / "out.export", "--data-dir", data_dir)
    assert code == 9
    assert "outbox.db cannot be read: file is not a database." in said[0]
    assert not (tmp_path / "out.export").exists()


def test_a_device_without_an_outbox_has_recorded_nothing(data_dir: Path, tmp_path: Path) -> None:
    code, _, said = export(tmp_path / "out.export", "--data-dir", data_dir)
    assert code == 7
    assert said[0].endswith("this device has recorded nothing yet.")


def test_the_device_is_known_by_its_enrolment_where_no_status_is_left(
    data_dir: Path, outbox: Outbox, tmp_path: Path
) -> None:
    (data_dir / "status.json").unlink()
    code, _, said = export(tmp_path / "out.export", "--data-dir", data_dir)
    assert code == 7
    assert said[0] == f"error: {data_dir}: whose device this is is not known there."
    found = enrolment.Enrolment(device="cell-1", credential="t" * 43, mqtt_host="fleet", mqtt_port=1883)
    (data_dir / "enrolment.json").write_bytes(codec.encode(found))
    assert export(tmp_path / "out.export", "--data-dir", data_dir)[0] == 0
    assert contents(tmp_path / "out.export")[0].device == "cell-1"
