"""`lineside status` tells an agent that runs from one that is silent and one that is gone."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from agent import cli, status


def leave_status(folder: Path, pid: int, at: datetime) -> None:
    status.write(
        folder,
        status.Status(
            device="press-7",
            pid=pid,
            at=at,
            agent_version="0.1.0",
            connected=True,
            mqtt_protocol="5",
            desired_revision=1,
            outbox_unsettled=0,
            outbox_dropped=0,
            pictures_waiting=0,
        ),
    )


def elder() -> int:
    """Return the number of a process that was there long before this test."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it may end while all are listed
            found.append((process.create_time(), process.pid))
    born, pid = min(found)
    assert time.time() - born > 60
    return pid


@pytest.mark.parametrize(
    ("pid", "age_s", "exit_status", "words"),
    [
        (os.getpid(), 0, 0, "connected (MQTT 5)"),
        (elder(), 30, 9, "SILENT"),
        (2**22 + 1, 30, 7, "NOT RUNNING"),
        (os.getpid(), 10**8, 7, "NOT RUNNING"),  # the number was given to another process since
        (2**22 + 1, -86400, 7, "NOT RUNNING"),
    ],
    ids=["runs", "is silent", "is gone", "is gone, and another process has its number", "is gone, the clock set back"],
)
def test_the_first_line_says_how_the_agent_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pid: int, age_s: float, exit_status: int, words: str
) -> None:
    leave_status(tmp_path, pid, datetime.now(UTC) - timedelta(seconds=age_s))
    assert cli.main(["status", "--data-dir", str(tmp_path)]) == exit_status
    assert words in capsys.readouterr().out.splitlines()[0]
