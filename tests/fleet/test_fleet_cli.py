"""The server's command line: results on standard output, talk and errors on standard error, and exit statuses."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from fleet import cli
from tests.support.fleet_stand import MANIFEST, Stand
from tests.support.ports import free_port


@pytest.fixture
def served(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The stand behind a real HTTP server; returns its address."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(stand.app, port=port, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    monkeypatch.setenv("LINESIDE_TOKEN", stand.token())
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small model package on disk."""
    folder = tmp_path / "parts-1"
    (folder / "golden").mkdir(parents=True)
    (folder / "manifest.toml").write_text(MANIFEST.format(name="parts", release=1))
    (folder / "model.onnx").write_bytes(b"onnx" * 1000)
    (folder / "card.md").write_text("# parts\n")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_new_folder_is_prepared_and_gives_secrets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "data")
    status, out, err = run(capsys, "--data-dir", folder, "claim", "create", "--device", "cell-1")
    assert (status, out) == (3, "")
    assert "lineside-fleet db upgrade" in err
    assert "(database.not_current)" in err
    assert run(capsys, "--data-dir", folder, "db", "upgrade")[0] == 0
    status, out, err = run(capsys, "db", "upgrade", "--data-dir", folder)
    assert status == 0
    assert "was current already" in err
    status, out, err = run(capsys, "--data-dir", folder, "claim", "create", "--device", "cell-1")
    assert (status, out.count("\n"), out[:4]) == (0, 1, "lsc_")
    assert out.strip() not in err
    status, out, err = run(capsys, "--data-dir", folder, "token", "create", "--name", "anna", "--role", "viewer")
    assert (status, out.count("\n"), out[:4]) == (0, 1, "lso_")


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["claim", "create", "--device", "Cell 1"], 2, "usage.invalid"),
        (["claim", "create", "--device", "cell-1", "--valid-minutes", "0"], 2, "usage.invalid"),
        (["claim", "create", "--device", "cell-1", "--valid-minutes", "999999999999"], 2, "usage.invalid"),
        (["token", "create", "--name", "admin", "--role", "admin"], 5, "resource.conflict"),
        (["token", "create", "--name", "x", "--role", "viewer", "--valid-days", "0"], 2, "usage.invalid"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_registers_status(
    stand: Stand, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, code: str
) -> None:
    stand.token()
    found, out, err = run(capsys, "--data-dir", str(stand.settings.data_dir), *arguments)
    assert (found, out) == (status, "")
    assert err.startswith("error: ")
    assert f"({code})" in err


def test_a_folder_or_file_that_cannot_be_used_is_told_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    status, _, err = run(capsys, "--data-dir", str(tmp_path / "file"), "db", "upgrade")
    assert (status, "(storage.unusable)" in err) == (9, True)
    (tmp_path / "fleet.db").write_text("no database, but more than a hundred bytes of something else. " * 4)
    for command in (["db", "upgrade"], ["claim", "create", "--device", "cell-1"], ["serve", "--port", "0"]):
        status, _, err = run(capsys, "--data-dir", str(tmp_path), *command)
        assert (status, "(storage.corrupt)" in err) == (9, True)
    (tmp_path / "fleet.db").unlink()
    (tmp_path / "fleet.db").mkdir()
    status, _, err = run(capsys, "--data-dir", str(tmp_path), "db", "upgrade")
    assert (status, "(storage.unusable)" in err) == (9, True)


def test_a_version_travels_from_a_folder_to_a_devices_desired_document(
    stand: Stand, served: str, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand.enrol("cell-1")
    status, out, err = run(capsys, "models", "push", str(package), "--url", served)
    assert status == 0
    assert "3 of 3 files were uploaded" in err
    assert len(out.strip()) == 64
    for blob in (path for path in stand.settings.blobs_dir.rglob("*") if path.is_file()):
        blob.write_bytes(blob.read_bytes() + b"damage")
    status, _, err = run(capsys, "models", "push", str(package), "--url", served)
    assert (status, "3 of 3 files were uploaded" in err) == (0, True), "pushing again mends what was damaged"
    again = run(capsys, "models", "push", str(package), "--url", served)
    assert (again[0], again[1]) == (0, out)
    assert "was there already; 0 of 3" in again[2]

    status, out, _ = run(capsys, "models", "list", "--url", served, "--json")
    listed = json.loads(out)
    assert listed["schema"] == "lineside.models.v1"
    assert [one["name"] for one in listed["items"]] == ["parts"]
    assert "parts" in run(capsys, "models", "list", "--url", served)[1]
    assert json.loads(run(capsys, "models", "list", "parts", "--url", served, "--json")[1])["items"][0]["release"] == 1

    set_it = ("desired", "set", "cell-1", "--url", served)
    assert run(capsys, *set_it, "--model", "parts=1")[:2] == (0, "1\n")
    assert run(capsys, *set_it, "--station", "st-1", "--sampling-floor", "0.25")[:2] == (0, "2\n")
    assert run(capsys, *set_it, "--model", "parts=1")[:2] == (0, "2\n")  # nothing changed
    shown: dict[str, Any] = json.loads(run(capsys, "desired", "show", "cell-1", "--url", served, "--json")[1])
    assert shown["schema"] == "lineside.desired.v1"
    assert shown["desired"]["models"][0]["release"] == 1  # naming the station left the model as it was
    assert shown["desired"]["stations"][0]["sampling"]["floor_rate"] == 0.25
    assert "revision 2" in run(capsys, "desired", "show", "cell-1", "--url", served)[1]
    assert run(capsys, *set_it, "--remove-model", "parts")[:2] == (0, "3\n")
    deadline = time.monotonic() + 5  # a wake follows the answer
    while len(stand.announcer.wakes) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stand.announcer.wakes == [("cell-1", 1), ("cell-1", 2), ("cell-1", 3)]


def test_devices_are_listed_shown_and_revoked(stand: Stand, served: str, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(3):
        stand.enrol(f"cell-{n}")
    listed = json.loads(run(capsys, "devices", "list", "--url", served, "--json")[1])
    assert [one["id"] for one in listed["items"]] == ["cell-0", "cell-1", "cell-2"]
    assert run(capsys, "devices", "revoke", "cell-1", "--url", served)[0] == 0
    table = run(capsys, "devices", "list", "--url", served)[1].splitlines()
    assert table[0].split()[:2] == ["DEVICE", "STATE"]
    assert table[2].split()[:2] == ["cell-1", "revoked"]
    shown = json.loads(run(capsys, "devices", "show", "cell-1", "--url", served, "--json")[1])
    assert shown["schema"] == "lineside.device.v1"
    assert shown["device"]["revoked"] is True


def test_failures_keep_the_fleets_code_and_the_registers_status(
    stand: Stand,
    served: str,
    package: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def check(status: int, code: str, *arguments: str) -> None:
        found, out, err = run(capsys, *arguments)
        assert (found, out) == (status, ""), err
        assert f"({code})" in err

    check(7, "resource.not_found", "devices", "show", "nobody", "--url", served)
    check(2, "usage.invalid", "desired", "set", "cell-1", "--model", "parts", "--url", served)
    check(2, "usage.invalid", "desired", "set", "cell-1", "--station", "st-1", "--url", served)
    check(2, "usage.invalid", "desired", "set", "cell-1", "--url", served)
    check(6, "package.incomplete", "models", "push", str(tmp_path / "none"), "--url", served)
    check(4, "network.unreachable", "devices", "list", "--url", f"http://127.0.0.1:{free_port()}")
    check(2, "usage.invalid", "devices", "list", "--url", "server:8080")
    check(3, "config.missing_file", "devices", "list", "--url", served, "--token-file", str(tmp_path / "none"))
    run(capsys, "models", "push", str(package), "--url", served)
    (package / "model.onnx").write_bytes(b"other")
    check(5, "resource.conflict", "models", "push", str(package), "--url", served)
    monkeypatch.setenv("LINESIDE_TOKEN", "lso_wrong")
    check(8, "access.unauthenticated", "devices", "list", "--url", served)
    monkeypatch.setenv("LINESIDE_TOKEN", "")
    check(8, "access.unauthenticated", "devices", "list", "--url", served)
    token = tmp_path / "token"
    token.write_text(stand.token() + "\n")
    assert run(capsys, "devices", "list", "--url", served, "--token-file", str(token))[0] == 0


def test_help_is_quick_since_it_loads_no_framework() -> None:
    import subprocess
    import sys

    program = (
        "import sys; from fleet import cli; cli.build_parser().format_help();"
        "print([name for name in ('fastapi', 'sqlmodel', 'httpx', 'alembic', 'uvicorn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
