"""A wrong configuration names file, line, key, what is allowed, and the nearest right key."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import settings
from wire.errors import LinesideError

GOOD = """\
[device]
id = "press-1"
data_dir = "/tmp/lineside"

[[stations]]
id = "gauge"

[stations.line]
kind = "simulated"
address = "127.0.0.1:7001"

[[stations.views]]
id = "top"
model = "demo-parts"

[stations.views.source]
kind = "simulated"
address = "127.0.0.1:7001"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    loaded = settings.load(write(tmp_path, GOOD), environment={})
    assert loaded.health.interval_s == 10.0
    assert loaded.runtime.threads == 1
    assert loaded.stations[0].floor_rate == 0.01


def test_environment_wins_over_the_file_and_a_flag_over_both(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    environment = {"LINESIDE_DEVICE_ID": "press-9", "LINESIDE_DATA_DIR": "/tmp/env"}
    assert settings.load(path, environment).device.id == "press-9"
    assert settings.load(path, environment).data_dir == Path("/tmp/env")
    assert settings.load(path, environment, data_dir="/tmp/flag").data_dir == Path("/tmp/flag")


@pytest.mark.parametrize(
    ("old", "new", "code", "place", "words"),
    [
        ('data_dir = "/tmp', 'data_dirr = "/tmp', "config.unknown_key", ":3: device.data_dirr:", "'data_dir'"),
        ('id = "gauge"', "id = 7", "config.wrong_type", ":6: stations[0].id:", "expected `str`, got `int`"),
        ('id = "gauge"', 'id = "Gauge 1"', "config.invalid_value", ":6: stations[0].id:", ""),
        ('kind = "simulated"\naddress = "127.0.0.1:7001"\n\n[[', 'kind = "plc"\n\n[[', "config.invalid_value",
         ":9: stations[0].line.kind:", "plc"),
        ('model = "demo-parts"\n', "", "config.missing_key", ":12: stations[0].views[0].model:", "required"),
        ('address = "127.0.0.1:7001"\n\n[[', "\n[[", "config.invalid_value", ":8: stations[0].line.address:",
         "127.0.0.1:7001"),
        ('kind = "simulated"\naddress = "127.0.0.1:7001"\n', 'kind = "each_frame"\n', "config.invalid_value",
         ":9: stations[0].line.kind:", "or a live camera"),
        ("[device]", "[device", "config.invalid_syntax", ":1:", "TOML"),
        ('kind = "simulated"', 'kind = "simulatde"', "config.invalid_value", ":9: stations[0].line.kind:",
         "Did you mean 'simulated'? Allowed here: each_frame, gpio, http, interval,"),
        ('id = "press-1"', 'id = "Press 1"', "config.invalid_value", ":2: device.id:", "Small letters, digits"),
        ('id = "gauge"', 'id = "gauge"\ndeadline_ms = inf', "config.invalid_value", ":7: stations[0].deadline_ms:",
         "inf"),
        ('model = "demo-parts"', 'model = "demo-parts"\nparameters = {ok = nan}', "config.invalid_value",
         ":15: stations[0].views[0].parameters.ok:", "nan"),
        ('model = "demo-parts"', 'model = "demo-parts"\nparameters = {ok = "high"}', "config.wrong_type",
         ":15: stations[0].views[0].parameters", "expected `float`"),
        *(("[[stations]]", f'[fleet]\nurl = "{url}"\n\n[[stations]]', "config.invalid_value", ":6: fleet.url:",
           'url = "http://server:8080"')
          for url in ("server", "ftp://server", "http://", "http://server:80800", "http://server/api/v1")),
    ],
)  # fmt: skip
def test_an_error_names_the_place_and_the_way_out(
    tmp_path: Path, old: str, new: str, code: str, place: str, words: str
) -> None:
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(LinesideError) as caught:
        settings.load(path, environment={})
    assert caught.value.code == code
    assert str(path) in caught.value.message
    assert place in caught.value.message
    assert words in str(caught.value)


LINE = 'kind = "simulated"\naddress = "127.0.0.1:7001"\n\n[['
SOURCE = 'source]\nkind = "simulated"\naddress = "127.0.0.1:7001"\n'
OUTPUT = '[[stations.outputs]]\nkind = "{}"\n'


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        (LINE, 'kind = "modbus"\n\n[[', "stations[0].line.modbus:", "[stations.line.modbus]"),
        (LINE, 'kind = "http"\n[stations.line.mqtt]\naddress = "a:1"\ntopic = "t"\n\n[[', "stations[0].line.mqtt:",
         "no meaning for the kind http"),
        (LINE, 'kind = "mqtt"\n[stations.line.mqtt]\naddress = "a:1"\ntopic = "t"\n\n[[',
         "stations[0].line.mqtt.verdict_topic:", "verdicts have no topic"),
        (LINE, 'kind = "mqtt"\n[stations.line.mqtt]\naddress = "a:1"\ntopic = "t/#"\nverdict_topic = "v"\n\n[[',
         "stations[0].line.mqtt.topic:", "wildcard"),
        (LINE, 'kind = "modbus"\n[stations.line.modbus]\naddress = "plc"\n\n[[', "stations[0].line.modbus.address:",
         "'plc' is no address"),
        (LINE, 'kind = "part_gate"\n[stations.line.part_gate]\nview = "side"\n\n[[',
         "stations[0].line.part_gate.view:", "It has top."),
        (LINE, 'kind = "part_gate"\n[stations.line.part_gate]\nview = "top"\noff_share = 0.9\n\n[[',
         "stations[0].line.part_gate.off_share:", "end before it begins"),
        (LINE, 'kind = "part_gate"\n[stations.line.part_gate]\nview = "top"\nband = [0.5, 0.2]\n\n[[',
         "stations[0].line.part_gate.band:", "two shares"),
        (LINE, 'kind = "http"\n[stations.line.counter]\naddress = "a:1"\n\n[[', "stations[0].line.counter:",
         "counts by itself"),
        ("[[stations]]", "[local]\nenabled = false\n[[stations]]", "", ""),
        ("[[stations]]", '[mqtt]\ncertificate_file = "/a"\n[[stations]]', "mqtt:", "belong together"),
        ("[[stations]]", '[mqtt]\nca_file = "/no/ca.pem"\n[[stations]]', "mqtt.ca_file:", "no file"),
        ("[[stations]]", '[mqtt]\ncertificate_file = "/a"\nkey_file = "/b"\n[[stations]]', "mqtt.certificate_file:",
         "no TLS"),
        ("[[stations]]", '[local]\nhost = "0.0.0.0"\n[[stations]]', "local.host:", "allow_network"),
        ('id = "gauge"', 'id = "gauge"\nstandstill = true\ndeadline_ms = 400', "", ""),
        (SOURCE, 'source]\nkind = "rtsp"\n', "source.url:", "rtsp://"),
        (SOURCE, 'source]\nkind = "rtsp"\nurl = "http://user:secret@camera/"\n', "source.url:", "rtsps://"),
        (SOURCE, 'source]\nkind = "v4l2"\npath = "0"\n', "source.path:", "/dev/v4l/by-id"),
        (SOURCE, 'source]\nkind = "plugin"\n', "source.plugin:", "name-of-the-plug-in"),
        (SOURCE, 'source]\nkind = "watched_folder"\npath = "/no/such"\n', "source.path:", "does not exist"),
        (SOURCE, 'source]\nkind = "rtsp"\nurl = "rtsp://c/"\ncredentials_file = "/no/file"\n',
         "source.credentials_file:", "no file"),
        (SOURCE, SOURCE + "[stations.views.vitals]\nwidth_px = 640\n", "views[0].vitals:", "belong together"),
        ("[[stations.views]]", OUTPUT.format("gpio") + "[[stations.views]]", "stations[0].outputs[0].gpio:",
         "[stations.outputs.gpio]"),
        ("[[stations.views]]", OUTPUT.format("http") + '[stations.outputs.http]\nurl = "gate"\n[[stations.views]]',
         "stations[0].outputs[0].http.url:", "no http address"),
        ("[[stations.views]]", OUTPUT.format("gpio") + '[stations.outputs.gpio]\nchip = "c"\nline = 1\n'
         'routes = ["reject"]\n[[stations.views]]', "stations[0].outputs[0].gpio.routes:", 'Add "divert"'),
        ("[[stations.views]]", OUTPUT.format("gpio") + '[stations.outputs.gpio]\nchip = "c"\nline = 1\n'
         "delay_ms = 5\n[[stations.views]]", "stations[0].outputs[0].gpio.delay_ms:", "only a pulse"),
        ("[[stations.views]]", OUTPUT.format("gpio") + '[stations.outputs.gpio]\nchip = "c"\nline = 1\n'
         'action = "pulse"\ndelay_ms = 500\n[[stations.views]]', "stations[0].outputs[0].gpio.delay_ms:",
         "may come 500 ms after the trigger"),
        ("[[stations.views]]", OUTPUT.format("http")
         + '[stations.outputs.http]\nurl = "http://mes/?token=secret"\n[[stations.views]]',
         "stations[0].outputs[0].http.url:", "has a query"),
        (SOURCE, 'source]\nkind = "rtsp"\nurl = "rtsp://c/"\npath = "/dev/video0"\n', "source.path:",
         "no meaning for a source of kind rtsp"),
        (LINE, 'kind = "mqtt"\n[stations.line.mqtt]\naddress = "a:1"\ntopic = "t"\nverdict_topic = "t"\n\n[[',
         "stations[0].line.mqtt.verdict_topic:", "come back as triggers"),
    ],
)  # fmt: skip
def test_keys_that_need_or_exclude_each_other_are_told(
    tmp_path: Path, old: str, new: str, place: str, words: str
) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    if not place:
        settings.load(path, environment={})
        return
    with pytest.raises(LinesideError) as caught:
        settings.load(path, environment={})
    assert caught.value.code == "config.invalid_value"
    assert place in caught.value.message
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_wrong_name_of_a_threshold_is_found_on_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + '\n[stations.views.parameters]\n"Scratch NG" = 0.5\n')
    with pytest.raises(LinesideError) as caught:
        settings.load(path, environment={})
    assert f":{GOOD.count(chr(10)) + 2}: stations[0].views[0].parameters: one of its keys" in caught.value.message


def test_http_triggers_need_the_local_address(tmp_path: Path) -> None:
    text = GOOD.replace(LINE, 'kind = "http"\n\n[[').replace("[[stations]]", "[local]\nenabled = false\n\n[[stations]]")
    with pytest.raises(LinesideError, match=r"enabled = true in \[local\]"):
        settings.load(write(tmp_path, text), environment={})


def test_a_wrong_address_from_the_environment_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(LinesideError, match=r"^LINESIDE_FLEET_URL: 'server'"):
        settings.load(write(tmp_path, GOOD), environment={"LINESIDE_FLEET_URL": "server"})


def test_the_mark_some_editors_put_before_the_text_does_no_harm(tmp_path: Path) -> None:
    assert settings.load(write(tmp_path, "\ufeff" + GOOD), environment={}).device.id == "press-1"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LinesideError) as caught:
        settings.load(tmp_path / "absent.toml", environment={})
    assert caught.value.code == "config.missing_file"
    assert "absent.toml" in caught.value.message


def test_a_source_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    text = GOOD.replace('kind = "simulated"\naddress = "127.0.0.1:7001"\n\n[[', 'kind = "each_frame"\n\n[[', 1)
    text = text.replace('kind = "simulated"\naddress = "127.0.0.1:7001"', 'kind = "video"\npath = "/no/clip.mp4"')
    with pytest.raises(LinesideError) as caught:
        settings.load(write(tmp_path, text), environment={})
    assert ":17: stations[0].views[0].source.path: /no/clip.mp4 does not exist" in caught.value.message


def test_a_station_may_not_stand_twice(tmp_path: Path) -> None:
    second = GOOD[GOOD.index("[[stations]]") :]
    with pytest.raises(LinesideError) as caught:
        settings.load(write(tmp_path, GOOD + "\n" + second), environment={})
    assert "stations[1].id: the station 'gauge' stands twice" in caught.value.message


def test_a_deadline_that_no_stream_can_keep_is_told(tmp_path: Path) -> None:
    text = GOOD.replace('id = "gauge"', 'id = "gauge"\nstandstill = true\ndeadline_ms = 400')
    text = text.replace(SOURCE, 'source]\nkind = "rtsp"\nurl = "rtsp://camera/live"\n')
    with pytest.raises(LinesideError, match="500 ms after its trigger") as caught:
        settings.load(write(tmp_path, text), environment={})
    assert "stations[0].deadline_ms:" in caught.value.message
    settings.load(write(tmp_path, text.replace("= 400", "= 900")), environment={})
