"""What devices and other people have said is shown as text: no command of the fleet lets it move the cursor."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fleet import cli
from fleet.commands import client
from wire import codec
from wire.export import ExportHead

HOSTILE = "\x1b[2J\x07\r\nwell\x9b1m\u202e"


ANSWERS: dict[str, Any] = {
    "/devices/cell-1": {
        "id": "cell-1",
        "revoked": False,
        "online": True,
        "drift": False,
        "last_seen_at": None,
        "agent_version": HOSTILE,
        "architecture": HOSTILE,
        "enrolled_at": "then",
        "reported": {
            "models": [{"model": HOSTILE, "digest": HOSTILE, "shadow_trouble": HOSTILE}],
            "refusals": [HOSTILE],
        },
        "deviations": [{"model": "parts", "text": HOSTILE}],
    },
    "/devices/cell-1/health?limit=1": {"items": []},
    "/devices/cell-1/events?limit=10": {"items": [{"name": HOSTILE, "at": "then", "text": HOSTILE}]},
    "/devices/cell-1/deployments?limit=20": {"items": []},
    "/devices/cell-1/exports": {
        "device": "cell-1",
        "written_at": HOSTILE,
        "batches": 1,
        "expected": 2,
        "lanes": {HOSTILE: dict.fromkeys(("records", "new", "known", "refused", "failed"), 0)},
        "trouble": HOSTILE,
    },
    "/devices/cell-1/desired": {
        "device": "cell-1",
        "revision": 1,
        "models": [],
        "stations": [{"station": HOSTILE, "sampling": None, "recipes": []}],
    },
    "/devices/cell-1/models/parts/explain": {
        "facts": [{"at": None, "source": "device", "text": HOSTILE}],
        "answer": HOSTILE,
    },
    "/deployments": {
        "items": [
            {
                "id": "1",
                "device": "cell-1",
                "model": "parts",
                "release": 1,
                "state": "staged",
                "origin": "device",
                "by": HOSTILE,
                "created_by": "me",
                "hold_reason": "line_busy",
                "hold_until": HOSTILE,
                "hold_text": HOSTILE,
                "probation": None,
                "code": HOSTILE,
                "reason": HOSTILE,
            }
        ]
    },
    "/deployments/1/cancel": {
        "id": "1",
        "device": "cell-1",
        "model": "parts",
        "release": 1,
        "origin": "fleet",
        "reason": HOSTILE,
    },
    "/models/parts/versions/1/shadow": {
        "model": "parts",
        "release": 1,
        "digest": "d" * 64,
        "against": [],
        "evidence": [
            {
                "device": "cell-1",
                "asked": True,
                "runs": False,
                "trouble": HOSTILE,
                "chosen": 1,
                "compared": 0,
                "skipped": {HOSTILE: 1},
                "kept": 0,
            }
        ],
    },
    "/models/parts/versions/1/shadow/disagreements": {"items": []},
}


@pytest.mark.parametrize(
    "command",
    [
        ["devices", "show", "cell-1"],
        ["devices", "absorb", "FILE"],
        ["desired", "show", "cell-1"],
        ["why-not", "cell-1", "parts"],
        ["deployments", "list"],
        ["deployments", "cancel", "1", "--reason", "why"],
        ["shadow", "show", "parts", "--release", "1"],
    ],
    ids=" ".join,
)
def test_hostile_words_are_shown_as_text(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(client.TOKEN_VARIABLE, "token")
    monkeypatch.setattr(
        client.Client, "send", lambda _self, _method, path, **_: SimpleNamespace(json=lambda: ANSWERS[path])
    )
    file = tmp_path / "export.ndjson"
    at = datetime(2026, 12, 1, tzinfo=UTC)
    head = ExportHead(device="cell-1", at=at, agent_version="1", batches=0, entries=0)
    file.write_bytes(codec.encode(head) + b"\n")
    cli.main([str(file) if word == "FILE" else word for word in command])
    captured = capsys.readouterr()
    written = captured.out + captured.err
    assert "Traceback" not in written
    assert "?[2J?  well?1m?" in written
    assert [one for one in written if not one.isprintable() and one != "\n"] == []


def test_a_hostile_problem_of_whoever_answers_is_shown_as_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        body = {"code": "resource.not_found", "detail": HOSTILE, "next_step": HOSTILE}
        raise client._problem_of(SimpleNamespace(json=lambda: body))  # type: ignore[arg-type]

    monkeypatch.setenv(client.TOKEN_VARIABLE, "token")
    monkeypatch.setattr(client.Client, "send", refuse)
    assert cli.main(["devices", "show", "cell-1"]) == 7
    said = capsys.readouterr().err
    assert said.splitlines() == ["error: ?[2J?  well?1m?", "       ?[2J?  well?1m?", "       (resource.not_found)"]
