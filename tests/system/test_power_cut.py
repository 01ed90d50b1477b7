"""A power cut at any moment costs the records of the last 100 ms at most, and what it cost shows as a hole.

The power is cut in a written model: the system calls of a real outbox are traced, and the files rebuilt as they may be
on the disk when all that was not synced is lost, or is there in random pieces (tests/support/power_cut.py, and
docs/explanation/durability.md).
"""

from __future__ import annotations

import bisect
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.deploy.attempt import Attempt
from agent.deploy.journal import Journal
from agent.inspection.ledger import Ledger
from agent.uplink import ending
from agent.uplink.ending import SYNC_WITHIN_MS, Ending
from agent.uplink.outbox import Outbox
from tests.support import power_cut, records
from tests.support.power_cut import Call, Disk
from wire import codec
from wire.inspection import Inspection, Reason
from wire.messages import Lane

pytestmark = pytest.mark.alone("how much is unsynced at a moment depends on the writer's pace")

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 4.0
CUTS = 40
KEPT = (0.0, 0.5, 0.95)
SEED = 20261125


@dataclass(kw_only=True)
class Story:
    """One traced run: its disk, and what its child said and when.

    Args:
        said: the call that wrote each line, the line's words, and seconds since 1970 by the child's own clock.
    """

    disk: Disk
    box: str
    said: list[tuple[Call, list[str], float]]
    stalls: list[tuple[float, float]] = field(default_factory=list)

    def lines(self, word: str) -> list[tuple[Call, list[str], float]]:
        return [line for line in self.said if line[1][0] == word]

    def stalled_s(self, start_s: float, end_s: float) -> float:
        """How long the machine gave the child nothing between two moments."""
        return sum(max(0.0, min(end, end_s) - max(start, start_s)) for start, end in self.stalls)


def traced(folder: Path, module: str, *arguments: str, sync_takes_ms: float = 0.0) -> list[Call]:
    """Run a child under strace to its end, and return its system calls."""
    program = power_cut.require_strace()
    child = [sys.executable, "-m", module, *arguments]
    command = power_cut.command(program, folder / "trace", child, sync_takes_ms=sync_takes_ms)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return power_cut.read(folder / "trace")


def told(folder: Path, sync_takes_ms: float, *more: str) -> Story:
    """Trace an outbox at work."""
    box, log = folder / "box", folder / "said.txt"
    box.mkdir()
    module = "tests.support.power_cut_outbox"
    calls = traced(folder, module, str(box), str(log), str(SEED), str(SECONDS), *more, sync_takes_ms=sync_takes_ms)
    written = [
        (call, call.texts[0].decode().split()) for call in calls if call.name == "write" and call.path == str(log)
    ]
    # A line is written after its time was read: the smallest difference is that of the two clocks.
    apart_s = min(call.began_s - int(words[-1]) / 1e9 for call, words in written)
    said = [(call, words[:-1], int(words[-1]) / 1e9 + apart_s) for call, words in written]
    story = Story(disk=Disk(folder=str(box), calls=calls), box=str(box), said=said)
    story.stalls = [(at_s - int(words[1]) / 1e9, at_s) for _, words, at_s in story.lines("stalled")]
    return story


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory: the disk that matters here is the model's."""
    base = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=base if os.access(base, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module", params=[0.0, 70.0], ids=["fast disk", "disk of 70 ms a sync"])
def story(request: pytest.FixtureRequest, memory: Path) -> Story:
    folder = memory / f"run-{request.param:g}"
    folder.mkdir()
    return told(folder, request.param)


def moments(story: Story, rng: random.Random) -> list[int]:
    """Choose when to cut: around what syncs, truncates and renames, and anywhere."""
    last = max(call.began for call in story.disk.calls)
    turning = {
        place
        for call in story.disk.calls
        if call.path.startswith(story.box) and call.name in {"fsync", "fdatasync", "ftruncate"}
        for place in (call.began - 1, call.began, call.ended - 1, call.ended)
        if place <= last
    }
    chosen = rng.sample(sorted(turning), min(CUTS * 2 // 3, len(turning)))
    return sorted({*chosen, *(rng.randrange(last) for _ in range(CUTS - len(chosen))), last})


def test_a_cut_at_any_moment_leaves_an_outbox_that_opens_and_lacks_only_the_last_moment(
    story: Story, tmp_path: Path
) -> None:
    rng = random.Random(SEED)
    assert len(story.lines("put")) > 100, "the child did next to nothing"
    assert len(story.lines("sent")) > 10
    assert story.disk.durable_moments(f"{story.box}/outbox.db"), "the log was never copied"
    lost_any = 0
    for moment in moments(story, rng):
        for keep in KEPT:
            lost_any += check(story, moment, keep, rng) > 0
    assert lost_any > 5, "no cut cost anything: the model discards nothing"


def test_records_are_durable_within_the_time_the_documents_say(story: Story) -> None:
    syncs = story.disk.durable_moments(f"{story.box}/outbox.db-wal")
    began = [call.began for call in syncs]
    late = []
    for call, words, at_s in story.lines("put"):
        after = bisect.bisect_right(began, call.ended)
        if after == len(syncs):
            continue  # the run ended before
        sync = syncs[after]
        own_s = sync.ended_s - sync.began_s
        waited_ms = (sync.ended_s - at_s - own_s - story.stalled_s(at_s, sync.ended_s)) * 1e3
        if waited_ms > SYNC_WITHIN_MS:
            late.append((words[1], waited_ms))
    # A machine that is shared stalls single threads in ways that no other thread sees.
    assert len(late) <= len(story.lines("put")) / 50, f"{len(late)} records waited too long for a sync: {late[:5]}"


def check(story: Story, moment: int, keep: float, rng: random.Random) -> int:
    """Cut, open what is left, hold it against what the child said before; return how many records are gone."""
    files = story.disk.at(moment, rng if keep else None, keep)
    shared_memory = f"{story.box}/outbox.db-shm"
    if shared_memory in files:  # it is mapped, not written: on the disk there is anything
        files[shared_memory] = rng.randbytes(rng.choice((0, 100, 32768)))
    cut_s = max(call.began_s for call in story.disk.calls if call.began <= moment)
    with tempfile.TemporaryDirectory(dir=Path(story.box).parent) as folder:
        power_cut.write_files(files, story.box, Path(folder))
        box = Outbox(Path(folder) / "outbox.db", SystemClock(), device="cell-1")
        try:
            assert not list(Path(folder).glob("*.corrupt-*")), "the outbox was set aside"
            return hold_against(box, story, moment, cut_s)
        finally:
            box.close()


def hold_against(box: Outbox, story: Story, moment: int, cut_s: float) -> int:
    before = [(words, at_s, call) for call, words, at_s in story.said if call.began <= moment]
    puts = {int(words[1]): (int(words[2]), at_s, call) for words, at_s, call in before if words[0] == "put"}
    settled = {
        seq for words, _, _ in before if words[0] == "settling" for seq in range(int(words[1]), int(words[2]) + 1)
    }
    sent = max((int(words[2]) for words, _, _ in before if words[0] == "sent"), default=0)
    synced = max(
        (one.began for one in story.disk.durable_moments(f"{story.box}/outbox.db-wal") if one.ended <= moment),
        default=0,
    )
    rows = box._rows._connection
    bodies = rows.execute("SELECT place & 0xFFFFFFFFFFFF, body FROM entry WHERE place >> 48 = 1").fetchall()
    present = {seq: codec.decode(body, Inspection).trigger_sequence for seq, body in bodies}
    last = box._rows.last[Lane.INSPECTIONS]

    assert last >= sent, "a seq that was sent would be given out again"
    safe = {seq for seq, (_, _, call) in puts.items() if call.ended < synced}
    assert safe - settled - present.keys() == set(), "a record is gone that a sync had ended for"
    grace_s = SYNC_WITHIN_MS / 1e3 + slowest_sync_s(story)
    old = {seq for seq, (_, at_s, _) in puts.items() if at_s + grace_s + story.stalled_s(at_s, cut_s) < cut_s}
    assert old - settled - present.keys() == set(), "a record is gone that was older than the documents say"
    assert all(sequence == puts[seq][0] for seq, sequence in present.items() if seq in puts)
    (counted,) = rows.execute("SELECT coalesce(sum(count), 0) FROM counter").fetchone()
    assert counted == last, "counters and records differ"
    assert box.last_trigger("s1") == (("run7", last) if last else None)
    if any(words[0] == "sent" for words, _, _ in before):
        assert box.epoch == story.lines("epoch")[0][1][1], "another epoch than the one that was sent from"
        assert ending.begin(box, "boot-2") is Ending.POWER_CUT
    return holes_filled(box, max(last, *puts, 0), last)  # the line has counted at least what is on record


def holes_filled(box: Outbox, counted: int, last: int) -> int:
    """Meet the line as a restarted agent does: what it counted and no record stands for is NO_VERDICT(agent_down)."""

    def missed(run: str, sequence: int, reason: Reason) -> Inspection:
        return replace(records.inspection(sequence=sequence), trigger_id=f"{run}-{sequence}", reason=reason)

    Ledger("s1", box, missed, lambda inspection: inspection).meet("run7", counted)
    filled = [
        codec.decode(body, Inspection)
        for (body,) in box._rows._connection.execute(
            "SELECT body FROM entry WHERE place >> 48 = 1 AND place & 0xFFFFFFFFFFFF > ? ORDER BY place", (last,)
        )
    ]
    wanted = [(sequence, Reason.AGENT_DOWN) for sequence in range(last + 1, counted + 1)] if last else []
    assert [(one.trigger_sequence, one.reason) for one in filled] == wanted
    return len(filled)


def slowest_sync_s(story: Story) -> float:
    """What the disk needed for a sync at most, in this run."""
    syncs = [call for call in story.disk.calls if call.name == "fdatasync" and call.path.startswith(story.box)]
    return max(call.ended_s - call.began_s for call in syncs if call.result == 0)


def test_the_model_finds_an_outbox_that_only_says_it_syncs(memory: Path) -> None:
    folder = memory / "liar"
    folder.mkdir()
    story = told(folder, 0.0, "liar")
    rng = random.Random(SEED)
    found = 0
    for moment in moments(story, rng)[5:]:
        try:
            check(story, moment, 0.0, rng)
        except AssertionError:
            found += 1
    assert found >= 10


def test_the_journal_of_deployments_holds_the_old_or_the_new_word_after_a_cut(memory: Path) -> None:
    folder = memory / "journal"
    folder.mkdir()
    log = folder / "said.txt"
    calls = traced(folder, "tests.support.power_cut_journal", str(folder / "models"), str(log))
    disk = Disk(folder=str(folder / "models"), calls=calls)
    said = [call for call in calls if call.name == "write" and call.path == str(log)]
    assert len(said) == 40
    rng = random.Random(SEED)
    first = next(call.began for call in calls if "models" in "".join(map(repr, call.texts)))
    for moment in sorted(rng.sample(range(first, calls[-1].began), 120)):
        for keep in (0.0, 0.5):
            with tempfile.TemporaryDirectory(dir=folder) as target:
                power_cut.write_files(disk.at(moment, rng if keep else None, keep), disk.folder, Path(target))
                journal = Journal(Path(target), SystemClock())
                assert not list(Path(target).glob("*.damaged")), "a word was half written"
                attempt: Attempt | None = journal.of("parts").attempt
                done = sum(call.ended <= moment for call in said)
                holds = 0 if attempt is None else int(attempt.deployment_id[-4:], 16)
                assert done <= holds <= done + 1, "a word that was given is forgotten"
