"""No user and no password of a camera shows, however the address is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.capture.address import Redactor, credentials_in, redact, secrets_in, secrets_of, with_credentials
from wire.errors import LinesideError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://u:p@10.0.0.1/live", "rtsp://***@10.0.0.1/live"),
        ("RTSPS://u:p@cam:322/a/b?x=1", "RTSPS://***@cam:322/a/b?x=1"),
        ("rtsp://u:p/a:s@s@cam/live", "rtsp://***@cam/live"),
        ("rtsp://only-user@cam/live", "rtsp://***@cam/live"),
        ("rtsp://cam/live", "rtsp://cam/live"),
        ("two: rtsp://a:b@c/ and rtsp://d:e@f/.", "two: rtsp://***@c/ and rtsp://***@f/."),
        ("http://cam/video?user=a&password=b&channel=1", "http://cam/video?user=***&password=***&channel=1"),
        ("rtsp://cam/user=admin_password=tlJwpbo6_channel=1.sdp", "rtsp://cam/user=***"),
        ("mail to a@b about pass through", "mail to a@b about pass through"),
    ],
)
def test_what_an_address_holds_is_hidden(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_a_secret_is_hidden_outside_any_address_too_however_it_is_written() -> None:
    url = with_credentials("rtsp://old:one@cam:554/live", "inspector", "p@ss:w/rd")
    assert url == "rtsp://inspector:p%40ss%3Aw%2Frd@cam:554/live"

    hide = Redactor([*secrets_in(url), "x"])

    assert hide("401 for inspector (p@ss:w/rd, sent as p%40ss%3Aw%2Frd) x") == "401 for *** (***, sent as ***) x"


def test_options_whose_names_say_so_are_secrets() -> None:
    assert set(secrets_of("", {"serial": "4711", "api_token": "abc", "Password": "def", "fps": 5})) == {"abc", "def"}


@pytest.mark.parametrize("content", ["", "no colon", ":only-password", "two:lines\nof:them"])
def test_a_credentials_file_of_another_form_is_refused_without_repeating_it(content: str, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(content, encoding="utf-8")

    with pytest.raises(LinesideError) as refused:
        credentials_in(file)

    assert refused.value.code == "source.unavailable"
    assert not content or content not in refused.value.message


def test_a_password_may_hold_colons_and_an_absent_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("user:pass:word\n", encoding="utf-8")

    assert credentials_in(file) == ("user", "pass:word")
    with pytest.raises(LinesideError, match="No such file"):
        credentials_in(tmp_path / "absent")
