"""The agent starts as soon as the disk has room, and not with another trouble."""

from __future__ import annotations

import threading
from typing import cast

import pytest

from agent import app
from agent.app import Agent
from wire.errors import LinesideError


def test_a_full_disk_at_the_start_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app, "_ROOM_AGAIN_S", 0.01)
    tries = []
    agent = cast("Agent", object())

    def build() -> Agent:
        tries.append(1)
        if len(tries) < 4:
            raise LinesideError("storage.full", "No room.")
        return agent

    assert app._when_there_is_room(build, threading.Event()) is agent
    assert len(tries) == 4
    assert [getattr(r, "event", "") for r in caplog.records].count("agent.waits_for_room") == 1, "told once"


def test_another_trouble_at_the_start_ends_it() -> None:
    def build() -> Agent:
        raise LinesideError("source.unavailable", "No file.")

    with pytest.raises(LinesideError, match="No file"):
        app._when_there_is_room(build, threading.Event())


def test_who_waits_for_room_can_be_stopped() -> None:
    stop = threading.Event()

    def build() -> Agent:
        stop.set()
        raise LinesideError("storage.full", "No room.")

    assert app._when_there_is_room(build, stop) is None
