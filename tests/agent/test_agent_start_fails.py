"""A start that fails is no run: the next one must not take it for a crash, and take a version back for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import identity
from agent.clock import SystemClock
from agent.uplink import ending
from agent.uplink.ending import Ending
from agent.uplink.outbox import Outbox
from tests.support import ports
from wire.enrolment import Enrolment

CONFIG = """\
[device]
id = "press-1"
data_dir = "{data_dir}"

[fleet]
url = "http://127.0.0.1:{port}"

[local]
port = 0

[[stations]]
id = "outlet"

[stations.line]
kind = "each_frame"

[[stations.views]]
id = "top"
model = "demo-parts"

[stations.views.source]
kind = "video"
path = "{video}"
"""


@pytest.mark.parametrize("before", [Ending.CLEAN, Ending.KILLED])
def test_a_start_that_fails_leaves_the_word_on_how_the_last_run_ended(tmp_path: Path, before: Ending) -> None:
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"no video")
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    file = tmp_path / "agent.toml"
    file.write_text(CONFIG.format(data_dir=data_dir, port=ports.free_port(), video=video), encoding="utf-8")
    identity.write(
        data_dir, Enrolment(device="press-1", credential="c" * 40, mqtt_host="127.0.0.1", mqtt_port=ports.free_port())
    )
    with_outbox(data_dir, ending.begin)
    if before is Ending.CLEAN:
        with_outbox(data_dir, ending.end)
    command = [sys.executable, "-m", "agent.cli", "run", "--config", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "holds no video" in ran.stderr
    assert with_outbox(data_dir, ending.begin) is before


def with_outbox(data_dir: Path, look: Callable[[Outbox], Ending | None]) -> Ending | None:
    outbox = Outbox(data_dir / "outbox.db", SystemClock(), device="press-1", max_bytes=1 << 24, resend_after_s=5.0)
    try:
        return look(outbox)
    finally:
        outbox.close()
