"""MQTT output: each verdict is a message; a retained state says whether anybody judges."""

from __future__ import annotations

import random

from agent.line import messages
from agent.line.mqtt_line import STATE_LEVEL, check_topics, state_message
from agent.line.mqtt_peer import MqttPeer
from agent.line.settings import MqttLineSettings
from agent.line.trigger import Answer, OutputCounts, StationState
from wire import codec


class MqttOutput:
    """Publishes `lineside.verdict/1` bodies to the topic, and the retained state to its level state.

    Verdicts wait for a broker that is away, as many as the queue holds, and leave in order when it is back.

    Args:
        name: of the output; the client id at the broker is made of it.
        device, station: for the body.
        capacity: verdicts that may wait.
    """

    def __init__(
        self,
        settings: MqttLineSettings,
        *,
        name: str,
        device: str,
        station: str,
        capacity: int,
        rng: random.Random | None = None,
    ) -> None:
        check_topics(settings)
        self._name = name
        self._topic = settings.topic
        self._device = device
        self._station = station
        self._peer = MqttPeer(
            settings,
            client_id=f"lineside-{device}-{name}",
            name=f"output-{name}",
            state_topic=f"{settings.topic}/{STATE_LEVEL}",
            gone=state_message(None, device, station),
            capacity=capacity,
            rng=rng,
        )

    @property
    def name(self) -> str:
        return self._name

    def answer(self, answer: Answer) -> None:
        """Queue the verdict; what finds no room is dropped and counted."""
        self._peer.publish(self._topic, codec.encode(messages.verdict_of(answer, self._device, self._station)))

    def counts(self) -> OutputCounts:
        """Return what became of the verdicts so far."""
        return self._peer.counts()

    def set_state(self, state: StationState) -> None:
        """Keep the retained state as it is."""
        self._peer.set_state(state_message(state, self._device, self._station))

    def close(self) -> None:
        """Leave the retained state `ready: false` behind."""
        self._peer.close()
