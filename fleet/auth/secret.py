"""Secrets of 256 random bits: how they are found again, stored and compared."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from wire import mint

OPERATOR: Final = "lso"
DEVICE: Final = "lsd"
CLAIM: Final = "lsc"
SESSION: Final = "lss"
LOOKUP_CHARS: Final = 12  # 4 of the prefix and 48 random bits: enough to find a row, useless to guess the rest


def make(prefix: str) -> str:
    """Return a new secret."""
    return mint.secret(prefix)


def lookup_of(secret: str) -> str:
    """Return the part of a secret that rows are found by."""
    return secret[:LOOKUP_CHARS]


def hash_of(secret: str) -> str:
    """Return what is stored: plain SHA-256, since 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, stored_hash: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(hash_of(secret), stored_hash)
