"""`lineside enroll` and the files it leaves: a claim token works once, so nothing may fail after it was shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import cli, identity, status
from tests.support.ports import free_port
from wire.enrolment import Enrolment
from wire.errors import LinesideError

SETTINGS = """\
[device]
id = "press-7"
data_dir = "{folder}"

[fleet]
url = "http://127.0.0.1:{port}"

[[stations]]
id = "outlet"
line = {{kind = "simulated", address = "127.0.0.1:7001"}}

[[stations.views]]
id = "top"
model = "demo-parts"
source = {{kind = "simulated", address = "127.0.0.1:7001"}}
"""
CLAIM = "lsc_" + "c" * 40


def enroll(tmp_path: Path, folder: Path, token: str) -> int:
    config = tmp_path / "agent.toml"
    config.write_text(SETTINGS.format(folder=folder, port=free_port()), encoding="utf-8")  # where nobody listens
    return cli.main(["enroll", "--config", str(config), "--token", token])


def test_a_folder_that_cannot_be_used_is_found_before_the_token_is_shown_to_the_fleet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    assert enroll(tmp_path, tmp_path / "file" / "data", CLAIM) == 9
    assert "(storage.unusable)" in capsys.readouterr().err  # not network.unreachable: the fleet was not asked
    assert enroll(tmp_path, tmp_path / "data", CLAIM) == 4
    assert "(network.unreachable)" in capsys.readouterr().err


@pytest.mark.parametrize("token", ["", "lsc_short", "c" * 300])
def test_what_cannot_be_a_claim_token_is_told_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], token: str
) -> None:
    assert enroll(tmp_path, tmp_path / "data", token) == 8
    said = capsys.readouterr().err
    assert "That is no claim token." in said
    assert "claim create --device press-7" in said


def test_room_held_for_the_credential_is_used_and_leaves_nothing_behind(tmp_path: Path) -> None:
    enrolment = Enrolment(device="press-7", credential="c" * 40, mqtt_host="127.0.0.1", mqtt_port=1883)
    identity.reserve(tmp_path)
    identity.write(tmp_path, enrolment)
    assert identity.read(tmp_path, "press-7") == enrolment
    assert [path.name for path in tmp_path.iterdir()] == ["enrolment.json"]


def test_damaged_files_are_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "enrolment.json").write_bytes(b'{"device":"pre')
    with pytest.raises(LinesideError, match=r"enrolment\.json is damaged") as caught:
        identity.read(tmp_path, "press-7")
    assert "lineside enroll" in caught.value.next_step
    (tmp_path / "status.json").write_bytes(b"\x00")
    with pytest.raises(LinesideError, match=r"status\.json is damaged"):
        status.read(tmp_path)
