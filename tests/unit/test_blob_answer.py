"""What is made of each answer to "the rest of this blob, please", and of the wait that an answer asks for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agent.uplink import blob_answer
from agent.uplink.blob_answer import Begins, Unfit

DIGEST = "a" * 64
ETAG, OTHER = f'"{DIGEST}"', f'"{"b" * 64}"'
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def rest(content_range: str = "bytes 40-99/100", etag: str = ETAG) -> dict[str, str]:
    return {"ETag": etag, "Content-Range": content_range}


# status, headers, what is there of 100 bytes; then where the body belongs: "spoils" and "unfit" where nowhere
CASES: dict[str, tuple[int, dict[str, str], int, Begins | str]] = {
    "the whole, nothing was there": (200, {"ETag": ETAG, "Content-Length": "100"}, 0, Begins.ANEW),
    "the whole, though a part was there": (200, {"ETag": ETAG, "Content-Length": "100"}, 40, Begins.ANEW),
    "the whole without its length": (200, {"ETag": ETAG}, 0, Begins.ANEW),
    "the whole with the weak tag of a proxy": (200, {"ETag": f"W/{ETAG}"}, 0, Begins.ANEW),
    "the whole of something else": (200, {"ETag": OTHER}, 40, "unfit"),
    "a whole that nobody vouches for": (200, {"Content-Length": "100"}, 0, "unfit"),
    "a whole of another length": (200, {"ETag": ETAG, "Content-Length": "99"}, 40, "unfit"),
    "a packed whole": (200, {"ETag": ETAG, "Content-Encoding": "br"}, 0, "unfit"),
    "nothing": (204, {"ETag": ETAG}, 0, "unfit"),
    "not modified": (304, {"ETag": ETAG}, 40, "unfit"),
    "the rest": (206, rest(), 40, Begins.HERE),
    "the rest of an unknown whole": (206, rest("bytes 40-99/*"), 40, Begins.HERE),
    "some of the rest": (206, rest("bytes 40-50/100"), 40, Begins.HERE),
    "the rest of something else": (206, rest(etag=OTHER), 40, "spoils"),
    "the rest with a weak tag": (206, rest(etag=f"W/{ETAG}"), 40, "spoils"),
    "the rest without a tag": (206, {"Content-Range": "bytes 40-99/100"}, 40, "spoils"),
    "another rest": (206, rest("bytes 41-99/100"), 40, "spoils"),
    "the rest of a longer whole": (206, rest("bytes 40-100/101"), 40, "spoils"),
    "a part that does not say which": (206, {"ETag": ETAG}, 40, "spoils"),
    "several parts": (206, rest("multipart/byteranges"), 40, "spoils"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_body_goes_where_it_belongs_or_nowhere(name: str) -> None:
    status, headers, have, expected = CASES[name]
    found = blob_answer.judge(status, headers, DIGEST, have, 100, exact=True)
    if isinstance(found, Unfit):
        assert found.reason.endswith(".")
        assert ("spoils" if found.spoils else "unfit") == expected
    else:
        assert found is expected


def test_the_length_of_an_index_is_not_known_beforehand() -> None:
    headers = {"ETag": ETAG, "Content-Length": "37"}
    assert blob_answer.judge(200, headers, DIGEST, 0, 100, exact=False) is Begins.ANEW


def test_only_what_is_there_makes_it_a_request_for_the_rest() -> None:
    assert blob_answer.request_headers(DIGEST, 0) == {}
    assert blob_answer.request_headers(DIGEST, 40) == {"Range": "bytes=40-", "If-Range": ETAG}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("-5", 0.0),
        ("9" * 400, 999_999_999.0),
        ("Sun, 01 Mar 2026 12:02:00 GMT", 120.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("Sun, 01 Mar 2026 12:02:00 -0000", 120.0),
        ("soon", 0.0),
        ("Sun, 99 Mar 2026 12:02:00 GMT", 0.0),
        ("Sun, 01 Mar 99999999999999999999 12:02:00 GMT", 0.0),
        ("Sun, 01 Mar 2026 99999999999:02:00 GMT", 0.0),
        ("Sun, 01 Mar 2026 12:02:00 +99999999999999", 0.0),
    ],
)
def test_the_wait_that_is_asked_for_is_read_in_both_forms(header: str, seconds: float) -> None:
    assert blob_answer.retry_after_s(header, NOW) == seconds
