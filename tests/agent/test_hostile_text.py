"""What a stick, a bundle or another person brings is shown as text: it moves no cursor, and ends no command."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from agent import cli
from agent.clock import SystemClock
from agent.deploy import line_busy
from agent.deploy.selftest import SelfTestResult
from agent.uplink.outbox import Outbox
from tests.support.deploying import make_package
from tests.support.device_at_hand import DeviceAtHand
from wire import archive, package

# It clears the screen, rings, goes back to the line's beginning and below it; the last is a byte that is no UTF-8.
HOSTILE = "\x1b[2J\x07\r\nwell\x9b1m\u202e\udce4"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceAtHand]:
    made = DeviceAtHand(tmp_path)
    monkeypatch.setenv("LINESIDE_DATA_DIR", str(made.data_dir))
    monkeypatch.delenv("SUDO_USER", raising=False)
    yield made
    made.end()
    logging.getLogger("agent").setLevel(logging.NOTSET)


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; returns its exit status and all it wrote, which holds nothing that a terminal would obey."""

    def body(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        status = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        written = captured.out + captured.err
        assert [one for one in written if not one.isprintable() and one != "\n"] == []
        return status, written

    return body


def hostile_package(folder: Path, release: int) -> package.Package:
    """Return a version whose own words are hostile, as far as TOML can say them."""
    words = json.dumps(HOSTILE[:-1])
    made = make_package(folder, release)
    manifest = made.folder / "manifest.toml"
    text = manifest.read_text().replace(
        'labels = ["good", "bad"]', f'labels = ["good", {words}]\ndescription = {words}'
    )
    manifest.write_text(text)
    return package.read_folder(made.folder)


@pytest.mark.parametrize("beside", [True, False])
def test_the_names_of_files_on_a_stick(
    tmp_path: Path, device: DeviceAtHand, stick: Path, run: Run, *, beside: bool
) -> None:
    device.install(make_package(tmp_path / "v1", 1))
    cut = stick / f"{HOSTILE}.tar"
    archive.pack(make_package(tmp_path / "v4", 4).folder, cut)
    cut.write_bytes(cut.read_bytes()[:-2048])
    if beside:
        archive.pack(make_package(tmp_path / "v2", 2).folder, stick / "parts-2.tar")
        archive.pack(make_package(tmp_path / "v3", 3).folder, stick / f"parts-3{HOSTILE}.tar")
    status, written = run("import", stick, "--yes")
    assert status == (2 if beside else 6)
    assert "?[2J" in written
    assert "well" in written


def test_the_words_of_a_bundle(tmp_path: Path, device: DeviceAtHand, run: Run) -> None:
    device.install(make_package(tmp_path / "v1", 1))
    made = hostile_package(tmp_path / "v2", 2)
    device.tester = lambda *_: SelfTestResult(
        ok=False, code="model.golden_mismatch", reason=f"It found {HOSTILE[:-1]}."
    )
    device.begin()
    status, written = run("import", made.folder, "--yes")
    assert status == 6
    assert "It found ?[2J?  well" in written
    for command in (["models", "list"], ["models", "show", "parts"], ["models", "verify"], ["status"]):
        assert "Traceback" not in run(*command)[1]


def test_the_words_of_a_bundle_that_runs(tmp_path: Path, device: DeviceAtHand, run: Run) -> None:
    device.install(make_package(tmp_path / "v1", 1), hostile_package(tmp_path / "v2", 2))
    assert "labels      good, ?[2J?  well" in run("models", "show", "parts")[1]


def test_who_ordered_and_why(tmp_path: Path, device: DeviceAtHand, run: Run) -> None:
    device.install(make_package(tmp_path / "v1", 1), make_package(tmp_path / "v2", 2))
    assert run("models", "rollback", "parts", "--yes", "--by", HOSTILE, "--reason", HOSTILE)[0] == 0
    assert "ordered by ?[2J?" in run("models", "list")[1]
    device.begin()
    assert run("models", "rollback", "parts", "--yes", "--by", f"again {HOSTILE}", "--reason", HOSTILE)[0] == 0
    assert "asked for by again ?[2J?" in run("models", "show", "parts")[1]


def test_why_the_line_is_busy(device: DeviceAtHand, run: Run) -> None:
    assert run("line", "busy", "--for", "1h", "--why", HOSTILE)[0] == 0
    assert "?[2J?  well" in run("line")[1]
    path = device.data_dir / line_busy.FILE_NAME
    path.write_bytes(path.read_bytes().replace(b"?[2J?", rb"\u001b[2J\u0007"))
    assert "?[2J?  well" in run("line")[1], "another system may have written it"


def test_the_file_that_reports_are_carried_in(device: DeviceAtHand, stick: Path, run: Run) -> None:
    file = stick / f"{HOSTILE}.ndjson"
    device.begin()
    Outbox(device.data_dir / "outbox.db", SystemClock(), device="cell-1").close()
    for more in ((), ("--json",)):
        status, written = run("export", file, *more)
        assert status == 0, written
        file.unlink()


def test_an_error_is_said_in_text_alone(tmp_path: Path, run: Run) -> None:
    status, written = run("models", "list", "--data-dir", tmp_path / HOSTILE)
    assert status == 7
    assert "?[2J" in written


def test_a_package_that_is_looked_at_before_it_is_imported(tmp_path: Path, run: Run) -> None:
    made = hostile_package(tmp_path / "v1", 1)
    model = made.folder / "model.onnx"
    model.write_bytes(
        helper.make_model(
            helper.make_graph(
                [helper.make_node("Identity", ["in"], [HOSTILE[:-1]])],
                HOSTILE[:-1],
                [helper.make_tensor_value_info("in", TensorProto.FLOAT, [1])],
                [helper.make_tensor_value_info(HOSTILE[:-1], TensorProto.FLOAT, [1])],
            ),
            ir_version=8,
        ).SerializeToString()
    )
    status, written = run("model", "show", made.folder)
    assert status == 0, written
    assert "release 1: ?[2J?  well" in written
    assert "output      ?[2J?  well" in written
    status, written = run("model", "check", made.folder)
    assert status == 6, written
