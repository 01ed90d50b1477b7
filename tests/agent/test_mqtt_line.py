"""MQTT triggers and verdicts against a real mosquitto: repetitions, recipes, a broker that dies, one that swallows."""

from __future__ import annotations

import dataclasses
import json
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent.line import mqtt_peer
from agent.line.mqtt_line import MqttLine
from agent.line.mqtt_output import MqttOutput
from agent.line.settings import MqttLineSettings
from agent.line.trigger import LineEvent, LinePosition, RecipeRequest, StationState, Trigger
from tests.support import brokers, station
from tests.support.brokers import RunningBroker
from tests.support.relay import Relay
from wire.errors import LinesideError
from wire.inspection import Verdict
from wire.mint import Mint


def until(done: Callable[[], object], timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.005)


class Peer:
    """The line's side: publishes triggers, hears everything the agent says."""

    def __init__(self, broker: RunningBroker, *, user: str = "", password: str = "") -> None:
        self.heard: queue.Queue[tuple[str, Any, bool]] = queue.Queue()
        self._ready = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        if user:
            self._client.username_pw_set(user, password)
        self._client.on_connect = lambda client, *_: client.subscribe([("line/#", 1)])
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _data, message: self.heard.put(
            (message.topic, json.loads(message.payload), message.retain)
        ) if message.topic.startswith("line/verdict") else None  # fmt: skip
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        assert self._ready.wait(5)

    def say(self, topic: str, payload: bytes | dict[str, Any], *, retain: bool = False) -> None:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self._client.publish(topic, data, qos=1, retain=retain).wait_for_publish(5)

    def hear(self, topic: str, timeout_s: float = 5.0) -> Any:
        """Return the next message of a topic, and forget those before it."""
        end = time.monotonic() + timeout_s
        while True:
            got, body, _ = self.heard.get(timeout=max(0.001, end - time.monotonic()))
            if got == topic:
                return body

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RunningBroker]:
    running = brokers.mosquitto(tmp_path).start()
    yield running
    running.stop()


def settings_of(broker: RunningBroker, **more: Any) -> MqttLineSettings:
    fields = {"topic": "line/trigger", "verdict_topic": "line/verdict", **more}
    return MqttLineSettings(address=f"{broker.host}:{broker.port}", **fields)


@pytest.fixture
def line(broker: RunningBroker) -> Iterator[MqttLine]:
    made = MqttLine(settings_of(broker), station.CLOCK, Mint(), device="press-1", station="gauge", rng=random.Random(1))
    until(lambda: made.connected)
    yield made
    made.close()


@pytest.fixture
def peer(broker: RunningBroker) -> Iterator[Peer]:
    made = Peer(broker)
    yield made
    made.close()


def taken(line: MqttLine, kind: type[LineEvent] = Trigger) -> Any:
    """The next event of the line, of this kind."""
    event = line.take(5.0)
    assert isinstance(event, kind)
    return event


def test_a_message_is_a_part_and_its_verdict_a_message(line: MqttLine, peer: Peer) -> None:
    before_ns = time.monotonic_ns()
    peer.say("line/trigger", {"id": "a", "part_id": "S-1", "lot": "L-2"})
    trigger = taken(line)
    assert (trigger.id, trigger.part_id, trigger.lot, trigger.sequence) == ("a", "S-1", "L-2", None)
    assert before_ns <= trigger.at_ns <= time.monotonic_ns()
    line.answer(station.answer_to(trigger, Verdict.OK))
    verdict = peer.hear("line/verdict")
    assert (verdict["schema"], verdict["station"]) == ("lineside.verdict/1", "gauge")
    assert (verdict["trigger_id"], verdict["part_id"], verdict["verdict"], verdict["route"]) == (
        "a", "S-1", "OK", "accept",
    )  # fmt: skip
    until(lambda: line.counts().sent == 1)


def test_a_repetition_is_no_second_part_but_tells_the_verdict_again(line: MqttLine, peer: Peer) -> None:
    for _ in range(3):
        peer.say("line/trigger", {"id": "a"})
    trigger = taken(line)
    assert line.take(0.2) is None
    line.answer(station.answer_to(trigger, Verdict.NG))
    assert peer.hear("line/verdict")["verdict"] == "NG"
    peer.say("line/trigger", {"id": "a"})
    assert peer.hear("line/verdict")["verdict"] == "NG"
    assert line.take(0.1) is None


def test_what_was_retained_is_of_long_ago_and_no_part(broker: RunningBroker, peer: Peer) -> None:
    peer.say("line/trigger", {"id": "old"}, retain=True)
    line = MqttLine(settings_of(broker), station.CLOCK, Mint(), device="press-1", station="gauge")
    until(lambda: line.connected)
    peer.say("line/trigger", {"id": "new"})
    assert taken(line).id == "new"
    line.close()


def test_a_counted_trigger_tells_first_what_passed_while_we_were_away(
    broker: RunningBroker, line: MqttLine, peer: Peer
) -> None:
    peer.say("line/trigger", {"run": "r", "sequence": 5})
    assert taken(line, LinePosition) == LinePosition(run="r", sequence=4)
    assert taken(line).id == "r-5"
    peer.say("line/trigger", {"run": "r", "sequence": 7})
    assert taken(line).sequence == 7, "a gap while we were connected is the worker's to tell"
    broker.kill()
    until(lambda: not line.connected)
    broker.start()
    until(lambda: line.connected)
    again = Peer(broker)
    again.say("line/trigger", {"run": "r", "sequence": 12})
    assert taken(line, LinePosition) == LinePosition(run="r", sequence=11)
    assert taken(line).sequence == 12
    again.close()


def test_recipes_are_asked_for_by_json_or_by_what_a_barcode_says(line: MqttLine, peer: Peer) -> None:
    peer.say("line/trigger/recipe", b"4006381333931\r\n")
    request = taken(line, RecipeRequest)
    assert request == RecipeRequest(code="4006381333931", source="mqtt")
    line.answer_recipe(request, "")
    assert peer.hear("line/verdict/recipe")["refusal"] == ""
    peer.say("line/trigger/recipe", {"recipe": 7})
    request = taken(line, RecipeRequest)
    assert request == RecipeRequest(number=7, source="mqtt")
    line.answer_recipe(request, "There is no recipe 7.")
    answer = peer.hear("line/verdict/recipe")
    assert (answer["asked"], answer["refusal"]) == (7, "There is no recipe 7.")


def test_a_part_whose_recipe_is_refused_is_told_and_may_come_again(line: MqttLine, peer: Peer) -> None:
    peer.say("line/trigger", {"id": "a", "recipe": "lid"})
    line.answer_recipe(taken(line, RecipeRequest), "There is no recipe lid.")
    refused = peer.hear("line/verdict/refused")
    assert (refused["trigger_id"], refused["code"]) == ("a", "recipe.refused")
    assert line.take(0.1) is None
    peer.say("line/trigger", {"id": "a", "recipe": "default"})
    line.answer_recipe(taken(line, RecipeRequest), "")
    assert taken(line).id == "a"


@pytest.mark.parametrize(
    ("topic", "payload", "code"),
    [
        ("line/trigger", b"", "message.undecodable"),
        ("line/trigger", b"\xff\xfe", "message.undecodable"),
        ("line/trigger", b'{"serial": "1"}', "message.invalid_value"),
        ("line/trigger", b'{"id": "' + b"a" * 70_000 + b'"}', "message.undecodable"),
        ("line/trigger/recipe", b"", "message.undecodable"),
        ("line/trigger/recipe", b"a\x00b", "message.undecodable"),
        ("line/trigger/recipe", b'{"recipe": "lid", "code": "1"}', "message.invalid_value"),
    ],
)
def test_what_is_no_message_of_ours_is_told_and_harms_nothing(
    line: MqttLine, peer: Peer, topic: str, payload: bytes, code: str
) -> None:
    peer.say(topic, payload)
    assert peer.hear("line/verdict/refused")["code"] == code
    peer.say("line/trigger", {"id": "a"})
    assert taken(line).id == "a"


def test_the_retained_state_says_whether_anybody_judges(broker: RunningBroker, line: MqttLine, peer: Peer) -> None:
    line.set_state(StationState(ready=True, recipe="lid", recipe_number=3))
    until(lambda: peer.hear("line/verdict/state")["ready"])
    late = Peer(broker)
    assert late.hear("line/verdict/state")["recipe"] == "lid"
    line.set_state(StationState(ready=False, not_ready="A view has no model."))
    assert late.hear("line/verdict/state")["not_ready"] == "A view has no model."
    line.close()
    assert late.hear("line/verdict/state")["not_ready"] == "The agent is gone."
    late.close()


_AGENT = """
import sys, time
from agent.clock import SystemClock
from agent.line.mqtt_line import MqttLine
from agent.line.settings import MqttLineSettings
from agent.line.trigger import StationState
from wire.mint import Mint
settings = MqttLineSettings(address=sys.argv[1], topic="line/trigger", verdict_topic="line/verdict")
line = MqttLine(settings, SystemClock(), Mint(), device="press-1", station="gauge")
line.set_state(StationState(ready=True))
time.sleep(60)
"""


def test_the_broker_speaks_for_an_agent_that_was_killed(broker: RunningBroker, peer: Peer) -> None:
    agent = subprocess.Popen([sys.executable, "-c", _AGENT, f"{broker.host}:{broker.port}"])
    while not peer.hear("line/verdict/state", 30)["ready"]:
        pass
    killed = time.monotonic()
    agent.kill()
    agent.wait(5)
    assert peer.hear("line/verdict/state", 10) == {
        "schema": "lineside.station-state/1", "device": "press-1", "station": "gauge", "ready": False,
        "not_ready": "The agent is gone.", "recipe": "", "recipe_number": 0,
    }  # fmt: skip
    assert time.monotonic() - killed < mqtt_peer.KEEPALIVE_S * 1.5


def test_a_verdict_that_missed_its_part_is_not_sent_later(
    broker: RunningBroker, line: MqttLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    line._peer._stale_after_s = 0.2
    broker.kill()
    until(lambda: not line.connected)
    line.answer(station.answer_to(station.trigger(1), Verdict.OK))
    time.sleep(0.3)
    broker.start()
    until(lambda: line.connected)
    again = Peer(broker)
    line.answer(station.answer_to(station.trigger(2), Verdict.OK))
    assert again.hear("line/verdict")["trigger_id"] == "r1-2"
    assert line.counts().dropped == 1
    again.close()


# Output


@pytest.mark.alone("eight verdicts must not wait 100 ms, of which a busy machine may take some")
def test_an_output_keeps_verdicts_for_a_broker_that_is_away_and_counts_what_finds_no_room(
    broker: RunningBroker, peer: Peer
) -> None:
    relay = Relay((broker.host, broker.port))  # so that the peer listens before the output is let in
    relay.refuses.set()
    settings = dataclasses.replace(settings_of(broker, topic="line/verdict"), address=f"127.0.0.1:{relay.port}")
    output = MqttOutput(
        settings, name="gauge-mqtt-1", device="press-1", station="gauge", capacity=5, rng=random.Random(1)
    )
    started = time.monotonic()
    for number in range(8):
        output.answer(station.answer_to(station.trigger(number), Verdict.OK))
    assert time.monotonic() - started < 0.1
    until(lambda: output.counts().trouble)
    assert (output.counts().dropped, output.counts().sent) == (3, 0)
    relay.refuses.clear()
    got = [peer.hear("line/verdict", 10)["trigger_id"] for _ in range(5)]
    assert got == [f"r1-{number}" for number in range(5)]
    until(lambda: output.counts().sent == 5)
    assert output.counts().trouble == ""
    output.close()
    relay.close()


@pytest.mark.alone("no single verdict may wait 100 ms, of which a busy machine may take some")
def test_a_broker_that_swallows_everything_delays_no_verdict(broker: RunningBroker) -> None:
    output = MqttOutput(
        settings_of(broker, topic="line/verdict"), name="gauge-mqtt-1", device="press-1", station="gauge", capacity=50
    )
    until(lambda: output.counts().trouble == "")
    broker.pause()
    slowest_s = 0.0
    for number in range(500):
        started = time.monotonic()
        output.answer(station.answer_to(station.trigger(number), Verdict.OK))
        output.set_state(StationState(ready=number % 2 == 0))
        slowest_s = max(slowest_s, time.monotonic() - started)
    assert slowest_s < 0.1
    counts = output.counts()
    assert counts.dropped >= 500 - 50 - 20 - 1
    broker.resume()
    until(lambda: output.counts().sent + output.counts().dropped == 500)
    output.close()


def test_a_broker_that_wants_a_password_gets_it_and_nobody_else_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    passwords = tmp_path / "passwords"
    try:
        subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "line", "s3cret"], check=True)
    except FileNotFoundError:
        pytest.skip("mosquitto_passwd is not installed")
    passwords.chmod(0o644)
    broker = brokers.mosquitto(tmp_path, extra=f"password_file {passwords}\n")
    configuration = tmp_path / "mosquitto.conf"
    configuration.write_text(configuration.read_text().replace("allow_anonymous true", "allow_anonymous false"))
    broker.start()
    credentials = tmp_path / "credentials"
    credentials.write_text("line:wrong-s3cret\n")
    line = MqttLine(
        settings_of(broker, credentials_file=str(credentials)), station.CLOCK, Mint(), device="d", station="gauge",
        rng=random.Random(1),
    )  # fmt: skip
    until(lambda: "refused us" in line.counts().trouble)
    credentials.write_text("line:s3cret\n")
    until(lambda: line.connected)
    line.close()
    broker.stop()
    assert "s3cret" not in caplog.text + line.counts().trouble


@pytest.mark.alone("fifty messages must be there before the next look at the connection is due")
def test_tls_holds_the_broker_against_its_ca(tmp_path: Path) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=tmp_path)

    try:
        for name in ("ca", "other"):
            openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN=test {name}",
                    "-keyout", f"{name}.key", "-out", f"{name}.crt")  # fmt: skip
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=broker", "-keyout", "b.key", "-out", "b.csr")
    (tmp_path / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "b.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "ext", "-out", "b.crt")  # fmt: skip
    broker = brokers.mosquitto(tmp_path, extra=f"certfile {tmp_path}/b.crt\nkeyfile {tmp_path}/b.key\n").start()
    wrong = MqttLine(
        settings_of(broker, ca_file=str(tmp_path / "other.crt")), station.CLOCK, Mint(), device="d", station="gauge"
    )
    right = MqttLine(
        settings_of(broker, ca_file=str(tmp_path / "ca.crt")), station.CLOCK, Mint(), device="d", station="lid"
    )
    until(lambda: right.connected)
    until(lambda: "certificate" in wrong.counts().trouble.lower())
    # Many messages at once arrive in one TLS record; none may stay inside it unseen.
    peer = mqtt.Client(CallbackAPIVersion.VERSION2)
    peer.tls_set(ca_certs=str(tmp_path / "ca.crt"))
    peer.connect(broker.host, broker.port)
    peer.loop_start()
    peer.publish("line/trigger", b'{"id": "first"}', qos=1).wait_for_publish(5)
    assert taken(right).id == "first"
    started = time.monotonic()
    for number in range(50):
        peer.publish("line/trigger", json.dumps({"id": f"p{number}"}), qos=1)
    assert [taken(right).id for _ in range(50)] == [f"p{number}" for number in range(50)]
    assert time.monotonic() - started < 0.9 * mqtt_peer._TICK_S, "they waited for the next look at the connection"
    peer.disconnect()
    peer.loop_stop()
    wrong.close()
    right.close()
    broker.stop()


@pytest.mark.parametrize("topic", ["line/#", "line/+/trigger", "$SYS/trigger"])
def test_a_topic_nobody_can_publish_to_is_refused(topic: str) -> None:
    with pytest.raises(LinesideError, match="no topic"):
        MqttLine(
            MqttLineSettings(address="127.0.0.1:1883", topic=topic), station.CLOCK, Mint(), device="d", station="gauge"
        )
