"""What to make of an answer to "the rest of this blob, please" (RFC 9110, sections 13.1.5, 14 and 15.3.7). Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


class Begins(enum.Enum):
    """Where an answer's body belongs."""

    HERE = "here"  # at the end of what has come
    ANEW = "anew"  # at the blob's first byte


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """The answer's body is of no use.

    Args:
        spoils: asking for the rest does not work with this server: what has come must go, so that all is asked for.
    """

    reason: str
    spoils: bool = False


def request_headers(digest: str, have_bytes: int) -> dict[str, str]:
    """Return the headers that ask for what follows after `have_bytes`, or for all where the blob is another one."""
    return {"Range": f"bytes={have_bytes}-", "If-Range": f'"{digest}"'} if have_bytes else {}


def judge(
    status: int, headers: Mapping[str, str], digest: str, have_bytes: int, max_bytes: int, *, exact: bool
) -> Begins | Unfit:
    """Decide where the body of a successful answer belongs.

    Every answer must name the blob by its strong ETag: a portal that answers for the fleet, or a server that has
    something else there, is known by that before a byte of it is taken. A whole answer may carry the weak form, which
    proxies make of it.

    Args:
        headers: looked up without regard to case.
        have_bytes: what was there when it was asked for the rest.
        max_bytes: the blob's length where `exact`, else a limit.
    """
    etag = headers.get("ETag", "")
    encoding = headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        return Unfit(reason=f"The answer is encoded ({encoding[:40]}), though it was asked not to be.")
    if status == HTTPStatus.PARTIAL_CONTENT:
        return _judge_rest(headers.get("Content-Range", ""), etag, digest, have_bytes, max_bytes, exact=exact)
    if status != HTTPStatus.OK:
        return Unfit(reason=f"The fleet answered with status {status}.")
    if etag.removeprefix("W/") != f'"{digest}"':
        return Unfit(
            reason=f"The answer is not marked as the blob that was asked for, but as {etag[:100] or 'nothing'}."
        )
    length = headers.get("Content-Length", "")
    if exact and length.isdecimal() and int(length) != max_bytes:
        return Unfit(reason=f"The answer has {length} bytes; the blob has {max_bytes}.")
    return Begins.ANEW


def _judge_rest(
    content_range: str, etag: str, digest: str, have_bytes: int, max_bytes: int, *, exact: bool
) -> Begins | Unfit:
    if etag != f'"{digest}"':
        return Unfit(reason=f"The rest of another blob came: {etag[:100] or 'without a mark'}.", spoils=True)
    found = _CONTENT_RANGE.fullmatch(content_range)
    if found is None or int(found[1]) != have_bytes or (exact and found[3] not in ("*", str(max_bytes))):
        return Unfit(reason=f"Another part came than was asked for: {content_range[:100] or '?'}.", spoils=True)
    return Begins.HERE


def retry_after_s(header: str, now_utc: datetime) -> float:
    """Return how long a Retry-After header asks to wait, in seconds or as a date; 0 where it says nothing useful."""
    if header.strip().isdecimal():
        return float(header.strip()[:9])
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, OverflowError):  # the latter for a year of twenty digits
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now_utc).total_seconds())
