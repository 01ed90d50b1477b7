"""The fleet's settings: flags over file over defaults, and every mistake named by file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet import settings
from wire.errors import LinesideError


def write(folder: Path, text: str) -> Path:
    path = folder / "fleet.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_said_means_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = settings.load(None, {})
    assert found.data_dir == tmp_path / "fleet-data"
    assert (found.host, found.port, found.mqtt_host, found.mqtt_port) == ("127.0.0.1", 8080, "127.0.0.1", 1883)
    assert found.is_loopback


def test_a_flag_rules_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    path = write(tmp_path, 'data_dir = "mine"\nport = 9000\nmqtt_port = 2000\n')
    found = settings.load(path, {"port": 9001, "mqtt_port": None, "data_dir": None})
    assert (found.port, found.mqtt_port, found.host) == (9001, 2000, "127.0.0.1")
    assert found.data_dir == tmp_path / "mine"  # seen from the file, wherever the program was started
    assert settings.load(path, {"data_dir": Path("/elsewhere")}).data_dir == Path("/elsewhere")


@pytest.mark.parametrize(("host", "mqtt_host"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")])
def test_one_open_address_is_enough_not_to_be_loopback(tmp_path: Path, host: str, mqtt_host: str) -> None:
    assert not settings.load(None, {"data_dir": tmp_path, "host": host, "mqtt_host": mqtt_host}).is_loopback


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("prot = 9000\n", "config.unknown_key", ["fleet.toml:1: prot", "Did you mean 'port'?"]),
        ('host = "::1"\nport = "9000"\n', "config.wrong_type", ["fleet.toml:2: port"]),
        ('\nbroker = "kafka"\n', "config.invalid_value", ["fleet.toml:2: broker"]),
        ("port = \n", "config.invalid_syntax", ["fleet.toml:1"]),
        ("mqtt_port = 0\n", "config.invalid_value", ["fleet.toml:1: mqtt_port"]),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, code: str, words: list[str]) -> None:
    with pytest.raises(LinesideError) as caught:
        settings.load(write(tmp_path, text), {})
    assert caught.value.code == code
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_and_a_wrong_flag_are_named(tmp_path: Path) -> None:
    with pytest.raises(LinesideError) as missing:
        settings.load(tmp_path / "none.toml", {})
    assert missing.value.code == "config.missing_file"
    with pytest.raises(LinesideError, match="port") as wrong:
        settings.load(None, {"data_dir": tmp_path, "port": 70000})
    assert wrong.value.code == "usage.invalid"
