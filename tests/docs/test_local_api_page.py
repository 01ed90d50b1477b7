"""The pages on the local address and on HTTP, MQTT and GPIO say what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from agent import settings
from agent.line.messages import TriggerMessage, VerdictMessage
from agent.local.api import LocalApi

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "reference" / "local-api.md").read_text(encoding="utf-8")
HOW_TO = (DOCS / "how-to" / "http-mqtt-gpio.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```toml\n(.*?)^```", HOW_TO, re.MULTILINE | re.DOTALL)
BASE = """
[device]
id = "press-7"

[[stations]]
id = "gauge"

[[stations.views]]
id = "top"
model = "demo-parts"
source = { kind = "simulated", address = "127.0.0.1:7001" }
"""


def test_every_route_is_on_the_page_and_no_other() -> None:
    nothing: Any = {}
    api = LocalApi(
        device="d", status=lambda: None, metrics=str, counters=nothing, desks=nothing, views=nothing,
        keep_reference=lambda *_: "",
    )  # fmt: skip
    told = set(re.findall(r"^\| `((?:GET|POST) [^`]+)` \|", PAGE, re.MULTILINE))
    assert told == {f"{route.method} {route.pattern}" for route in api.routes()}


@pytest.mark.parametrize("kind", [TriggerMessage, VerdictMessage])
def test_every_key_of_the_bodies_is_on_the_page(kind: type) -> None:
    for field in fields(kind):
        assert f"`{field.name}`" in PAGE or field.name == "schema", f"{field.name} is not explained"


@pytest.mark.parametrize("block", BLOCKS, ids=["http", "mqtt", "gpio"])
def test_the_settings_shown_are_accepted(tmp_path: Path, block: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(BASE + block)
    (station,) = settings.load(path, {}).stations
    assert station.outputs
