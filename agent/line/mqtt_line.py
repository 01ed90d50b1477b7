"""MQTT triggers: a message is a part, its verdict is a message (docs/how-to/http-mqtt-gpio.md)."""

from __future__ import annotations

import logging
import random
import threading
from collections import OrderedDict
from typing import Final

from agent.clock import Clock
from agent.line import messages
from agent.line.intake import Intake
from agent.line.mqtt_peer import MqttPeer
from agent.line.settings import MqttLineSettings
from agent.line.trigger import Answer, LineEvent, OutputCounts, RecipeRequest, StationState, Trigger
from wire import codec
from wire.errors import LinesideError
from wire.mint import Mint

log = logging.getLogger(__name__)

RECIPE_LEVEL: Final = "recipe"
STATE_LEVEL: Final = "state"
REFUSED_LEVEL: Final = "refused"
# A verdict this old has missed its part; whoever waits for it has diverted the part long ago.
STALE_AFTER_S: Final = 5.0
_CAPACITY: Final = 1000
_REMEMBERED: Final = 4096


def check_topics(settings: MqttLineSettings) -> None:
    """Refuse topics that cannot be published to; raises LinesideError `config.invalid_value`."""
    for topic in (settings.topic, settings.verdict_topic or settings.topic):
        if any(sign in topic for sign in "#+\0") or topic.startswith("$"):
            raise LinesideError(
                "config.invalid_value", f"{topic!r} is no topic to publish to.", "Leave out #, + and a $ at the start."
            )


def state_message(state: StationState | None, device: str, station: str) -> bytes:
    """Return the retained state; None is an agent that is gone."""
    return codec.encode(
        {
            "schema": messages.STATE_SCHEMA,
            "device": device,
            "station": station,
            "ready": state is not None and state.ready,
            "not_ready": "The agent is gone." if state is None else state.not_ready,
            "recipe": state.recipe if state is not None else "",
            "recipe_number": state.recipe_number if state is not None else 0,
        }
    )


class MqttLine:
    """Hears `topic` and `topic`/recipe; publishes to the verdict topic, and its levels state, recipe and refused.

    A message whose id (or run and sequence) was seen before is the same part: its verdict is published once more.

    Args:
        device, station: for the messages; the client id at the broker is made of them.
        rng: a seeded source of jitter for tests.
    """

    def __init__(
        self,
        settings: MqttLineSettings,
        clock: Clock,
        mint: Mint,
        *,
        device: str,
        station: str,
        rng: random.Random | None = None,
    ) -> None:
        check_topics(settings)
        self._topic = settings.topic
        self._recipe_topic = f"{settings.topic}/{RECIPE_LEVEL}"
        self._verdict_topic = settings.verdict_topic or f"{settings.topic}/verdict"
        self._clock = clock
        self._mint = mint
        self._device = device
        self._station = station
        self._intake = Intake(self._refuse)
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, bytes | None] = OrderedDict()  # its verdict, None while there is none
        self.refused_count = 0
        self._peer = MqttPeer(
            settings,
            client_id=f"lineside-{device}-{station}-line",
            name=f"mqtt-line-{station}",
            topics=(self._topic, self._recipe_topic),
            on_message=self._hear,
            on_connected=self._intake.note_connected,
            state_topic=f"{self._verdict_topic}/{STATE_LEVEL}",
            gone=state_message(None, device, station),
            capacity=_CAPACITY,
            stale_after_s=STALE_AFTER_S,
            rng=rng,
        )

    @property
    def connected(self) -> bool:
        """Whether triggers can reach us now."""
        return self._peer.connected

    def counts(self) -> OutputCounts:
        """Return what became of the verdicts, and why they do not get through, if so."""
        return self._peer.counts()

    def take(self, timeout_s: float) -> LineEvent | None:
        """Return the next event; None when none came in time."""
        return self._intake.take(timeout_s)

    def answer(self, answer: Answer) -> None:
        """Queue the verdict for the broker."""
        payload = codec.encode(messages.verdict_of(answer, self._device, self._station))
        self._remember(answer.trigger.id, payload)
        self._peer.publish(self._verdict_topic, payload)

    def answer_recipe(self, request: RecipeRequest, refusal: str) -> None:
        """Publish what became of a request, and let the trigger that waited for it go on."""
        asked = request.recipe or request.code or request.number
        body = {"schema": messages.RECIPE_SCHEMA, "station": self._station, "asked": asked, "refusal": refusal}
        self._peer.publish(f"{self._verdict_topic}/{RECIPE_LEVEL}", codec.encode(body))
        self._intake.settle(request, refusal)

    def set_state(self, state: StationState) -> None:
        """Keep the retained state as it is."""
        self._peer.set_state(state_message(state, self._device, self._station))

    def close(self) -> None:
        """Leave the retained state `ready: false` behind."""
        self._peer.close()

    def _hear(self, topic: str, payload: bytes) -> None:
        try:
            if topic == self._recipe_topic:
                self._take_recipe(payload)
            else:
                self._take_trigger(payload)
        except LinesideError as error:
            self._tell_refused("", error.code, error.message)

    def _take_recipe(self, payload: bytes) -> None:
        """JSON, or the plain text that a barcode reader sends."""
        text = payload.decode("utf-8", "replace").strip()
        if text.startswith("{"):
            request = messages.read_recipe(payload, "mqtt")
        elif 0 < len(text) <= 200 and text.isprintable():
            request = RecipeRequest(code=text, source="mqtt")
        else:
            raise LinesideError("message.undecodable", "This is neither JSON nor a code of at most 200 characters.")
        if not self._intake.offer(None, request):
            self.answer_recipe(request, "The station is too far behind.")

    def _take_trigger(self, payload: bytes) -> None:
        message = messages.read_trigger(payload)
        known_id = messages.id_of(message)
        if known_id is not None:
            with self._lock:
                known, verdict = known_id in self._seen, self._seen.get(known_id)
            if verdict is not None:
                self._peer.publish(self._verdict_topic, verdict)
            if known:
                return
        trigger = Trigger(
            id=known_id or self._mint.uuid7(),
            run=message.run,
            sequence=message.sequence,
            at_ns=self._clock.monotonic_ns(),
            at_utc=self._clock.now_utc(),
            part_id=message.part_id,
            lot=message.lot,
            mode=message.mode,
        )
        self._remember(trigger.id, None)
        if not self._intake.offer(trigger, messages.recipe_of(message.recipe, message.code, "mqtt")):
            self._forget(trigger.id)
            self._tell_refused(trigger.id, "request.too_many", "The station is too far behind to take the part.")

    def _refuse(self, trigger: Trigger, refusal: str) -> None:
        self._forget(trigger.id)
        self._tell_refused(trigger.id, "recipe.refused", refusal)

    def _tell_refused(self, trigger_id: str, code: str, detail: str) -> None:
        if self.refused_count == 0:
            log.warning("A message was refused: %s", detail, extra={"event": "line.message_refused"})
        self.refused_count += 1
        body = {"schema": messages.REFUSAL_SCHEMA, "trigger_id": trigger_id, "code": code, "detail": detail}
        self._peer.publish(f"{self._verdict_topic}/{REFUSED_LEVEL}", codec.encode(body))

    def _remember(self, trigger_id: str, verdict: bytes | None) -> None:
        with self._lock:
            self._seen[trigger_id] = verdict
            while len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)

    def _forget(self, trigger_id: str) -> None:
        """It was no part: its sender may try again."""
        with self._lock:
            self._seen.pop(trigger_id, None)
