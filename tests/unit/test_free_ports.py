"""The ports that tests get: free, and no two of them the same, also in several processes at a time."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests.support import ports

REPO = Path(__file__).resolve().parents[2]
ASK = (
    "from tests.support import ports\nports._next = {start}\n"
    "print(*(ports.free_port() for _ in range(50)), flush=True)\ninput()"
)


def test_two_processes_that_ask_for_the_same_ports_get_different_ones() -> None:
    start = ports._next
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", ASK.format(start=start)],
            cwd=REPO,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    given = [process.stdout.readline().split() for process in asking if process.stdout]
    for process in asking:
        process.communicate("\n", timeout=10)
    assert [len(each) for each in given] == [50, 50]
    assert len({*given[0], *given[1]}) == 100


def test_a_port_where_somebody_listens_is_not_given() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", ports.free_port()))
        listening.listen()
        taken = listening.getsockname()[1]
        for claim in [*ports._claims]:
            if claim.getsockname()[1] == taken:
                claim.close()
                ports._claims.remove(claim)
        assert not ports._claim(taken)
    assert ports._claim(taken)


def test_a_process_that_asks_for_many_ports_holds_a_hundred() -> None:
    assert len({ports.free_port() for _ in range(150)}) == 150
    assert len(ports._claims) == ports._CLAIMED_MAX
