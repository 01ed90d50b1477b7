"""Addresses of cameras and the secrets in them: joined only where the camera is opened, hidden everywhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from wire.errors import LinesideError

HIDDEN: Final = "***"
_MAX_FILE_BYTES: Final = 4096
_SECRET_WORDS: Final = ("pass", "pwd", "user", "token", "secret", "key")
# Up to the last @ of the word: a password with a slash or an @ that nobody escaped must not show either.
_USER_INFO: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://)[^\s\"'<>]*@")
# Cheap cameras take user and password as a query, some of them as a path (`/user=a_password=b_channel=1`).
_NAMED: Final = re.compile(
    r"(?i)\b((?:[a-z0-9]+_)?(?:user(?:name)?|usr|login|pass(?:word|wd)?|pwd|token|secret|key|auth)=)[^&\s\"'<>]*"
)


def redact(text: str) -> str:
    """Return the text with user, password and the like of every address in it hidden."""
    return _NAMED.sub(rf"\g<1>{HIDDEN}", _USER_INFO.sub(rf"\g<1>{HIDDEN}@", text))


class Redactor:
    """Hides the secrets of one camera, also where they stand outside any address.

    Args:
        secrets: literal texts, such as a password; those of fewer than three characters are left to `redact`.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first, so that what is left of one that holds another is hidden too.
        self._secrets = sorted({secret for secret in secrets if len(secret) >= 3}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return redact(text)


def secrets_in(url: str) -> tuple[str, ...]:
    """Return user and password of an address, as they are written and as they are meant."""
    try:
        parts = urlsplit(url)
        written = [part for part in (parts.username, parts.password) if part]
    except ValueError:
        return ()
    return tuple(dict.fromkeys([*written, *(unquote(part) for part in written)]))


def secrets_of(url: str, options: Mapping[str, object]) -> tuple[str, ...]:
    """Return what must not show of a source: what its address holds, and the options whose names say so."""
    named = (str(value) for key, value in options.items() if any(word in key.lower() for word in _SECRET_WORDS))
    return (*secrets_in(url), *named)


def credentials_in(path: Path | str) -> tuple[str, str]:
    """Read a file with one line USER:PASSWORD.

    Raises:
        LinesideError: `source.unavailable`, without a word of what the file holds.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            line = file.read(_MAX_FILE_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise LinesideError(
            "source.unavailable",
            f"The credentials in {path} cannot be read: {reason}.",
            "Check the file and its owner.",
        ) from None
    user, colon, password = line.partition(":")
    if not colon or not user or "\n" in line:
        raise LinesideError(
            "source.unavailable", f"{path} does not hold one line USER:PASSWORD.", "Write user, colon and password."
        )
    return user, password


def with_credentials(url: str, user: str, password: str) -> str:
    """Return the address with this user and password instead of those it may have."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{host.rpartition('@')[2]}{slash}{path}"
