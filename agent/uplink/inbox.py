"""What comes down to a device: taken apart strictly, within the byte budgets of the topic table."""

from __future__ import annotations

from wire import codec, topics
from wire.errors import LinesideError
from wire.messages import Command, HostState, RangeAck, Wake


def read(device: str, topic: str, payload: bytes) -> RangeAck | Wake | Command | HostState:
    """Return the message a payload holds.

    Args:
        device: this device; a message for another is refused.
        topic: the full topic it came on.
        payload: JSON, plain or compressed.

    Raises:
        LinesideError: `message.too_large`, `message.undecodable` or `message.foreign_id`.
    """
    if topic == topics.HOST:
        row = topics.TABLE["host"]
    else:
        address = topics.parse(topic)
        row = address.topic
        if address.device != device:
            raise LinesideError("message.foreign_id", f"{topic!r} is meant for {address.device!r}.")
    if len(payload) > row.max_bytes:
        raise LinesideError(
            "message.too_large", f"{topic!r} brought {len(payload)} bytes; {row.max_bytes} is the limit."
        )
    message: object = codec.decode(payload, row.message)
    if not isinstance(message, RangeAck | Wake | Command | HostState):
        raise LinesideError("message.undecodable", f"{topic!r} goes up, not down.")
    return message
