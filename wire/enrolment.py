"""Enrolment: a device shows a one-use claim token and gets a credential of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from wire.ids import Name, ShortText

MIN_TOKEN_CHARS: Final = 16
MAX_TOKEN_CHARS: Final = 200
Secret = Annotated[str, msgspec.Meta(min_length=MIN_TOKEN_CHARS, max_length=MAX_TOKEN_CHARS)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRequest:
    """What a device sends to `POST /api/v1/enrolments`."""

    claim_token: Secret
    device: Name
    agent_version: ShortText
    architecture: ShortText


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What it gets: the credential is shown this once and stored hashed."""

    device: Name
    credential: Secret
    mqtt_host: ShortText
    mqtt_port: Port
