"""What types cannot say about the agent's settings: keys that need or exclude each other (only files are looked at)."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from agent.capture.settings import SourceSettings, VitalsSettings
from agent.line.settings import (
    GpioOutputSettings,
    LineSettings,
    ModbusSettings,
    MqttLineSettings,
    OutputSettings,
    PartGateSettings,
)
from wire.inspection import Route

# Which key tells where a source of each kind is; the others of these keys have no meaning there.
_PLACE_OF_SOURCE: Final = {
    "simulated": "address",
    "video": "path",
    "folder": "path",
    "watched_folder": "path",
    "rtsp": "url",
    "v4l2": "path",
    "plugin": "plugin",
}
_EXAMPLES: Final = {
    "address": 'address = "127.0.0.1:7001"',
    "path": 'path = "..."',
    "url": 'url = "rtsp://camera.local/stream"',
    "plugin": 'plugin = "name-of-the-plug-in"',
}
_LINE_TABLES: Final = ("modbus", "mqtt", "gpio", "part_gate", "counter")
# Lines whose parts are not at a moment of their own: no frame has to be of that moment.
_NEXT_FRAME_KINDS: Final = frozenset({"each_frame", "interval", "part_gate"})
_OUTPUT_TABLES: Final = ("http", "mqtt", "gpio")


class Problem(NamedTuple):
    """One wrong value: its key, what is wrong, and what to do."""

    key: str
    sentence: str
    next_step: str


class View(Protocol):
    """What is looked at of a view's settings."""

    @property
    def id(self) -> str: ...
    @property
    def source(self) -> SourceSettings: ...
    @property
    def vitals(self) -> VitalsSettings: ...


def host_port(address: str) -> tuple[str, int]:
    """Take `host:port` apart; raises ValueError."""
    host, _, port = address.rpartition(":")
    number = int(port)
    if not host or not 1 <= number <= 65535:
        raise ValueError(address)
    return host, number


def of_fleet_url(url: str) -> list[Problem]:
    """Check that the fleet's address is a bare one."""
    parts = _http_url(url)
    if parts and parts[1] in {"", "/"}:
        return []
    return [Problem("fleet.url", f"{url!r} is not the address of a fleet.", 'Use the form url = "http://server:8080".')]


def of_tls(ca_file: str | None, certificate_file: str | None, key_file: str | None) -> list[Problem]:
    """Check the files of an encrypted connection to the broker."""
    if (certificate_file is None) != (key_file is None):
        return [Problem("mqtt", "certificate_file and key_file belong together.", "Give both or none.")]
    if certificate_file is not None and ca_file is None:
        return [Problem("mqtt.certificate_file", "without ca_file there is no TLS.", 'Add ca_file = "...".')]
    files = {"ca_file": ca_file, "certificate_file": certificate_file, "key_file": key_file}
    return [problem for key, path in files.items() for problem in _of_file(f"mqtt.{key}", path)]


def of_local(host: str, *, allow_network: bool) -> list[Problem]:
    """Check that the local address is not open to the network by mistake."""
    if allow_network or _is_loopback(host):
        return []
    return [
        Problem(
            "local.host",
            f"{host} can be reached from the network, and there are no passwords here.",
            'Use host = "127.0.0.1", or set allow_network = true where the network is your own.',
        )
    ]


def of_views(place: str, views: tuple[View, ...]) -> list[Problem]:
    """Check the views of one station."""
    found: list[Problem] = []
    names = [view.id for view in views]
    for number, view in enumerate(views):
        key = f"{place}.views[{number}]"
        if names.index(view.id) != number:
            found.append(Problem(f"{key}.id", f"the view {view.id!r} stands twice.", "Give each view its own id."))
        found += _of_source(f"{key}.source", view.source)
        if (view.vitals.width_px is None) != (view.vitals.height_px is None):
            found.append(Problem(f"{key}.vitals", "width_px and height_px belong together.", "Give both or none."))
    return found


def of_line(place: str, line: LineSettings, views: tuple[View, ...], *, local_enabled: bool) -> list[Problem]:
    """Check what triggers one station."""
    key = f"{place}.line"
    found = _of_line_tables(key, line)
    if line.kind == "simulated":
        found += _of_address(f"{key}.address", line.address)
    if line.kind == "each_frame" and any(view.source.kind == "simulated" for view in views):
        found.append(
            Problem(
                f"{key}.kind",
                "the camera of a simulated line exposes only when the line triggers.",
                "Use a source of kind video or folder, or a live camera.",
            )
        )
    if line.kind == "http" and not local_enabled:
        found.append(
            Problem(
                f"{key}.kind",
                "http triggers come in at the local address, which is off.",
                "Set enabled = true in [local].",
            )
        )
    if line.modbus is not None:
        found += _of_modbus(f"{key}.modbus", line.modbus)
    if line.counter is not None:
        found += _of_modbus(f"{key}.counter", line.counter)
    if line.mqtt is not None:
        found += _of_mqtt(f"{key}.mqtt", line.mqtt)
        if line.kind == "mqtt" and line.mqtt.verdict_topic is None:
            found.append(Problem(f"{key}.mqtt.verdict_topic", "verdicts have no topic.", 'Add verdict_topic = "...".'))
        elif line.mqtt.verdict_topic == line.mqtt.topic:
            sentence = "verdicts would come back as triggers."
            found.append(Problem(f"{key}.mqtt.verdict_topic", sentence, "Use another topic than that of the triggers."))
    if line.part_gate is not None:
        found += _of_part_gate(f"{key}.part_gate", line.part_gate, views)
    return found


def of_standstill(
    place: str, line: LineSettings, views: tuple[View, ...], *, deadline_ms: float, standstill: bool
) -> list[Problem]:
    """Check that a stream's picture of a part that stands still can arrive before the part's deadline."""
    if not standstill or line.kind in _NEXT_FRAME_KINDS:
        return []
    return [
        Problem(
            f"{place}.deadline_ms",
            f"view {view.id} shows a part only {view.source.stream_latency_ms:g} ms after its trigger, when the "
            f"deadline of {deadline_ms:g} ms is over.",
            "Use a longer deadline_ms, or a shorter stream_latency_ms where the stream is measured to be quicker.",
        )
        for view in views
        if view.source.kind == "rtsp" and view.source.stream_latency_ms >= deadline_ms
    ]


def of_outputs(place: str, outputs: tuple[OutputSettings, ...], *, deadline_ms: float) -> list[Problem]:
    """Check who else is told the verdicts of one station."""
    found: list[Problem] = []
    for number, output in enumerate(outputs):
        key = f"{place}.outputs[{number}]"
        for table in _OUTPUT_TABLES:
            found += _belongs(
                key, table, given=getattr(output, table) is not None, wanted=output.kind == table, kind=output.kind
            )
        if output.http is not None:
            if _http_url(output.http.url) is None:
                # Not shown: a password may stand in it.
                sentence = "this is no http address, or has a query."
                found.append(Problem(f"{key}.http.url", sentence, 'Use the form url = "http://server/path".'))
            found += _of_file(f"{key}.http.credentials_file", output.http.credentials_file)
        if output.mqtt is not None:
            found += _of_mqtt(f"{key}.mqtt", output.mqtt)
        if output.gpio is not None:
            found += _of_gpio_output(f"{key}.gpio", output.gpio, deadline_ms)
    return found


def _of_gpio_output(key: str, gpio: GpioOutputSettings, deadline_ms: float) -> list[Problem]:
    if gpio.action == "level" and gpio.delay_ms:
        return [Problem(f"{key}.delay_ms", "only a pulse has a delay.", 'Use action = "pulse".')]
    if 0 < gpio.delay_ms <= deadline_ms:
        sentence = f"a verdict may come {deadline_ms:g} ms after the trigger, when the pulse has begun."
        return [Problem(f"{key}.delay_ms", sentence, "Use a shorter deadline_ms, or an ejector further down the belt.")]
    if Route.DIVERT.value not in gpio.routes and Route.ACCEPT.value not in gpio.routes:
        return [
            Problem(
                f"{key}.routes",
                "parts without a verdict are diverted, and this line would not tell them from good ones.",
                'Add "divert" to routes.',
            )
        ]
    return []


def _of_source(key: str, source: SourceSettings) -> list[Problem]:
    wanted = _PLACE_OF_SOURCE[source.kind]
    place: str | None = getattr(source, wanted)
    for other in _EXAMPLES:
        if other != wanted and getattr(source, other) is not None:
            sentence = f"this key has no meaning for a source of kind {source.kind}."
            return [Problem(f"{key}.{other}", sentence, f"Remove it, and say {wanted} = ... instead.")]
    if wanted == "address":
        return _of_address(f"{key}.address", source.address)
    found = _of_file(f"{key}.credentials_file", source.credentials_file)
    if place is None:
        found.append(
            Problem(f"{key}.{wanted}", f"a source of kind {source.kind} needs it.", f"Add {_EXAMPLES[wanted]}.")
        )
    elif source.kind == "rtsp":
        found += _of_rtsp_url(f"{key}.url", place)
    elif source.kind == "v4l2":
        if not place.startswith("/dev/"):
            found.append(
                Problem(
                    f"{key}.path",
                    f"{place!r} is no device.",
                    "Take one of /dev/v4l/by-id, which stays the same after a restart.",
                )
            )
    elif wanted == "path" and not Path(place).exists():
        found.append(Problem(f"{key}.path", f"{place} does not exist.", "Correct the path."))
    return found


def _of_rtsp_url(key: str, url: str) -> list[Problem]:
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in {"rtsp", "rtsps"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
    # The address itself is not shown: a password may stand in it.
    return (
        []
        if is_right
        else [Problem(key, "this is no rtsp:// or rtsps:// address.", f"Use the form {_EXAMPLES['url']}.")]
    )


def _of_line_tables(key: str, line: LineSettings) -> list[Problem]:
    found: list[Problem] = []
    for table in _LINE_TABLES:
        given = getattr(line, table) is not None
        if table == "counter":
            if given and line.kind != "part_gate":
                found.append(
                    Problem(f"{key}.counter", f"a line of kind {line.kind} counts by itself.", "Remove the table.")
                )
        else:
            found += _belongs(key, table, given=given, wanted=line.kind == table, kind=line.kind)
    return found


def _belongs(key: str, table: str, *, given: bool, wanted: bool, kind: str) -> list[Problem]:
    if given == wanted:
        return []
    if wanted:
        return [
            Problem(
                f"{key}.{table}",
                f"the kind {kind} needs this table.",
                f"Add it: docs/reference/settings.md shows [{_table_name(key)}.{table}].",
            )
        ]
    return [
        Problem(
            f"{key}.{table}", f"this table has no meaning for the kind {kind}.", f'Remove it, or use kind = "{table}".'
        )
    ]


def _table_name(key: str) -> str:
    """`stations[0].line` as TOML writes it: `stations.line`."""
    return re.sub(r"\[\d+\]", "", key)


def _of_part_gate(key: str, gate: PartGateSettings, views: tuple[View, ...]) -> list[Problem]:
    found: list[Problem] = []
    names = [view.id for view in views]
    if gate.view not in names:
        found.append(Problem(f"{key}.view", f"the station has no view {gate.view!r}.", f"It has {', '.join(names)}."))
    if not 0.0 <= gate.band[0] < gate.band[1] <= 1.0:
        found.append(
            Problem(f"{key}.band", f"{list(gate.band)} is no band.", "Give two shares from 0 to 1, the smaller first.")
        )
    if gate.off_share > gate.on_share:
        found.append(
            Problem(f"{key}.off_share", "a part would end before it begins.", "Use off_share of at most on_share.")
        )
    return found


def _of_modbus(key: str, modbus: ModbusSettings) -> list[Problem]:
    return _of_address(f"{key}.address", modbus.address)


def _of_mqtt(key: str, mqtt: MqttLineSettings) -> list[Problem]:
    found = _of_address(f"{key}.address", mqtt.address)
    for name in ("topic", "verdict_topic"):
        topic = getattr(mqtt, name)
        if topic is not None and ("#" in topic or "+" in topic):
            found.append(Problem(f"{key}.{name}", f"{topic!r} holds a wildcard.", "Name one topic."))
    return found + _of_file(f"{key}.credentials_file", mqtt.credentials_file) + _of_file(f"{key}.ca_file", mqtt.ca_file)


def _of_file(key: str, path: str | None) -> list[Problem]:
    if path is None or Path(path).is_file():
        return []
    return [Problem(key, f"there is no file {path}.", "Correct the path.")]


def _of_address(key: str, address: str | None) -> list[Problem]:
    try:
        host_port(address or "")
    except ValueError:
        return [Problem(key, f"{address!r} is no address.", f"Use the form {_EXAMPLES['address']}.")]
    return []


def _http_url(url: str) -> tuple[str, str] | None:
    """Return host and path of a http(s) address without query and fragment; None where it is none."""
    try:
        parts = urlsplit(url)
        if (
            parts.scheme in {"http", "https"}
            and parts.hostname
            and parts.port != 0
            and not parts.query
            and not parts.fragment
        ):
            return parts.hostname, parts.path
    except ValueError:  # a port that is none
        pass
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
