"""The page on adding a decoder shows the shipped example as it is, and the example is one file and one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.vision.decoders import registry
from agent.vision.decoders.contract import Decoder

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "how-to" / "add-a-decoder.md").read_text(encoding="utf-8")
DECODERS = REPO / "agent" / "vision" / "decoders"


def test_the_page_shows_the_whole_file_and_the_line() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)

    assert blocks[0] == (DECODERS / "nanodet.py").read_text(encoding="utf-8")
    assert blocks[1] in (DECODERS / "registry.py").read_text(encoding="utf-8")


def test_nothing_else_knows_the_example_by_name() -> None:
    mentions = {
        (path.relative_to(REPO).as_posix(), line.strip())
        for room in ("agent", "wire", "fleet")
        for path in (REPO / room).rglob("*.py")
        # What `lineside model init` guesses by shapes is a convenience; a decoder works without it.
        if path.name != "nanodet.py" and not path.name.startswith("draft_")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "nanodet" in line  # a module or a name in a manifest; prose may speak of NanoDet
    }

    assert mentions == {("agent/vision/decoders/registry.py", '"nanodet": "nanodet",')}


@pytest.mark.parametrize("name", registry.DECODERS)
def test_every_registered_decoder_keeps_the_contract(name: str) -> None:
    decoder = registry.get(name)

    assert isinstance(decoder, Decoder)
    options = list(decoder.known_options())
    assert len({option.name for option in options}) == len(options)
    for option in options:
        assert option.help.endswith(".")
        assert option.allowed
        assert option.default in (None, ()) or option.accepts(option.default), option
