"""A wrong configuration names file, line and key, what is allowed, and the nearest right key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from wire import package, strict_toml
from wire.errors import LinesideError


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    name: str
    rate_hz: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    host: str
    port: int = 1883


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    device: str
    broker: Broker
    cameras: tuple[Camera, ...] = ()
    limits: dict[str, float] = field(default_factory=dict)


GOOD = """\
device = "press-7"

[broker]
host = "127.0.0.1"
port = 1884

[[cameras]]
name = "top"

[[cameras]]
name = "side"   # the second one
rate_hz = 5.0

[limits]
latency = 50.0
"""


def error_of(folder: Path, text: str) -> LinesideError:
    path = folder / "agent.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LinesideError) as caught:
        strict_toml.read(path).value_of(Settings)
    return caught.value


def test_a_right_file_becomes_a_value(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(GOOD)
    settings = strict_toml.read(path).value_of(Settings)
    assert settings.broker == Broker(host="127.0.0.1", port=1884)
    assert [camera.name for camera in settings.cameras] == ["top", "side"]


@pytest.mark.parametrize(
    ("right", "wrong", "code", "line", "key", "hint"),
    [
        ("port = 1884", "prot = 1884", "config.unknown_key", 5, "broker.prot", "Did you mean 'port'?"),
        ("port = 1884", "prot = 1884", "config.unknown_key", 5, "broker.prot", "Allowed here: host, port."),
        ("rate_hz = 5.0", "rate = 5.0", "config.unknown_key", 12, "cameras[1].rate", "Did you mean 'rate_hz'?"),
        ("[broker]", "[brokr]", "config.unknown_key", 3, "brokr", "Did you mean 'broker'?"),
        ("port = 1884", 'port = "1884"', "config.wrong_type", 5, "broker.port", "expected `int`, got `str`"),
        ("rate_hz = 5.0", 'rate_hz = "5.0"', "config.wrong_type", 12, "cameras[1].rate_hz", "expected `float`"),
        ('host = "127.0.0.1"\n', "", "config.missing_key", 3, "broker.host", "required"),
        ('device = "press-7"', "", "config.missing_key", 1, "device", "required"),
    ],
)
def test_a_wrong_key_or_value_is_shown_with_its_place(
    tmp_path: Path, right: str, wrong: str, code: str, line: int, key: str, hint: str
) -> None:
    assert right in GOOD
    error = error_of(tmp_path, GOOD.replace(right, wrong))
    assert error.code == code
    assert error.message.startswith(f"{tmp_path}/agent.toml:{line}: {key}: ")
    assert hint in str(error)


def test_a_key_like_no_other_still_lists_what_is_allowed(tmp_path: Path) -> None:
    error = error_of(tmp_path, GOOD + "\n[zzz]\n")
    assert "Did you mean" not in str(error)
    assert "Allowed here: broker, cameras, device, limits." in str(error)


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    error = error_of(tmp_path, GOOD.replace("port = 1884", "port = = 1884"))
    assert error.code == "config.invalid_syntax"
    assert f"{tmp_path}/agent.toml:5: " in error.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LinesideError) as caught:
        strict_toml.read(tmp_path / "none.toml")
    assert caught.value.code == "config.missing_file"
    assert f"{tmp_path}/none.toml" in caught.value.message


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LinesideError) as caught:
        strict_toml.read(tmp_path / "agent.toml")
    assert caught.value.code == "config.invalid_syntax"


MANIFEST = """\
schema = 1
name = "parts"
release = 1
task = "classify"
labels = ["good", "bad"]
minimum_score = "sure"

[input]
width_px = 64
height_px = 64

[decoder]
name = "classify"

[thresholds.sure]
default = 0.6
min = 0.5
max = 0.9

[[rules]]
name = "bad-part"
labels = ["bad"]
ng_at = "sure"
"""


def manifest_error(folder: Path, text: str) -> LinesideError:
    path = folder / "manifest.toml"
    path.write_text(text)
    with pytest.raises(LinesideError) as caught:
        package.read_manifest(path)
    return caught.value


def test_a_right_manifest_is_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.toml").write_text(MANIFEST)
    assert package.read_manifest(tmp_path / "manifest.toml").labels == ("good", "bad")


@pytest.mark.parametrize(
    ("right", "wrong", "place"),
    [
        ("width_px = 64", "witdh_px = 64", ":9: input.witdh_px: unknown key."),
        ("default = 0.6", "default = 0.4", ":16: thresholds.sure.default: is outside 0.5 to 0.9."),
        ('labels = ["bad"]', 'labels = ["worse"]', ":22: rules[0].labels: names 'worse'"),
        ('ng_at = "sure"', 'ng_at = "none"', ":23: rules[0].ng_at: names the threshold 'none'"),
        ('labels = ["good", "bad"]', 'labels_file = "labels.txt"\nlabels = ["good", "bad"]', ":6: labels: give either"),
        ("height_px = 64", "height_px = 64\nstd = [0.0]", ":11: input.std: holds a zero"),
        ("height_px = 64", "height_px = 64\nmean = [0.5, 0.5]", ":11: input.mean: needs 1 or 3 numbers"),
        ('minimum_score = "sure"', 'minimum_score = "none"', ":6: minimum_score: names the threshold"),
    ],
)
def test_a_wrong_manifest_points_at_the_line(tmp_path: Path, right: str, wrong: str, place: str) -> None:
    assert right in MANIFEST
    error = manifest_error(tmp_path, MANIFEST.replace(right, wrong))
    assert error.code == "model.manifest_invalid"
    assert f"{tmp_path}/manifest.toml{place}" in error.message
