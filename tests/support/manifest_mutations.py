"""Seeded damage to manifests, indexes and golden sets: of their values, and of their text."""

from __future__ import annotations

import copy
import json
import math
import random
from datetime import UTC, datetime
from typing import Any

_TEXTS = (
    "",
    "a",
    "x" * 70_000,
    "../../etc/passwd",
    "/dev/zero",
    "é̀💥\u202e\ufeff",
    "a\nb",
    "nan",
    "true",
    "classify",
    "\u0000",
    "-",
    "score",
)
_NUMBERS = (
    0,
    -1,
    1,
    300,
    16384,
    16385,
    2**31,
    2**53 + 1,
    2**63,
    -(2**63) - 1,
    10**400,
    0.0,
    -0.0,
    1e308,
    5e-324,
    math.nan,
    math.inf,
    -math.inf,
)


def _value(generator: random.Random) -> Any:
    kind = generator.randrange(6)
    if kind == 0:
        return generator.choice(_TEXTS)
    if kind in (1, 2):
        return generator.choice(_NUMBERS)
    if kind == 3:
        return generator.choice((True, False, datetime(2026, 11, 21, tzinfo=UTC)))
    if kind == 4:
        return [generator.choice((*_TEXTS, *_NUMBERS, True))] * generator.choice((0, 1, 2, 4, 400))
    return {generator.choice(("a", "name", "default", "min", "x y", "é")): generator.choice((1, "a", 0.5, True))}


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, inner in children for place in _places(inner, (*path, key))]


def mutant(base: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return a document in which one to three values are changed, removed, added, doubled or exchanged."""
    generator = random.Random(seed)
    document = copy.deepcopy(base)
    for _ in range(generator.choice((1, 1, 2, 3))):
        places = _places(document)
        if not places:
            return document
        *way, last = generator.choice(places)
        holder: Any = document
        for key in way:
            holder = holder[key]
        kind = generator.randrange(8)
        if kind <= 3:
            holder[last] = _value(generator)
        elif kind == 4:
            del holder[last]
        elif kind == 5 and isinstance(holder, dict):
            holder[generator.choice(("unknown", "Name", "nam", "schema ", "é", "rules", "x" * 300))] = _value(generator)
        elif kind == 6 and isinstance(holder, list):
            holder.extend([holder[last]] * generator.choice((1, 3, 500)))
        else:
            other = generator.choice(_places(document))
            inner: Any = document
            for key in other:
                inner = inner[key]
            holder[last] = copy.deepcopy(inner)
    return document


def damaged_text(text: str, seed: int) -> bytes:
    """Return a text with bytes flipped, removed, doubled, or made deep, long or of another encoding."""
    generator = random.Random(seed)
    data = bytearray(text.encode())
    at = generator.randrange(len(data) + 1)
    kind = generator.randrange(8)
    if kind <= 1:
        for _ in range(generator.choice((1, 2, 8))):
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    elif kind == 2:
        del data[at : at + generator.randrange(1, 40)]
    elif kind == 3:
        data[at:at] = data[at : at + generator.randrange(1, 200)]
    elif kind == 4:
        data[at:at] = generator.choice((b"\xff\xfe", b"\0", b"\r", b"\xed\xa0\x80", b'"""', b"'''", b"#", b"[", b"="))
    elif kind == 5:
        deep = generator.choice((100, 3_000, 100_000))
        opening, closing = generator.choice(((b"[", b"]"), (b"{a=", b"}"), (b'{"a":', b"}")))
        data += b"\ndeep = " + opening * deep + b"1" + closing * deep if generator.random() < 0.5 else opening * deep
    elif kind == 6:
        data += b"\nlong = " + b"9" * generator.choice((20, 400, 5_000, 200_000))
    else:
        return text.encode(generator.choice(("utf-16", "utf-32", "utf-8-sig")))
    return bytes(data)


def toml(document: dict[str, Any]) -> str:
    """Write a document as TOML; tables of tables as inline tables, for the reader must take both."""
    lines = [f"{_key(key)} = {_toml(value)}" for key, value in document.items() if not isinstance(value, dict)]
    for key, value in document.items():
        if isinstance(value, dict):
            lines += ["", f"[{_key(key)}]", *(f"{_key(inner)} = {_toml(item)}" for inner, item in value.items())]
    return "\n".join(lines) + "\n"


def _key(key: object) -> str:
    return json.dumps(str(key))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str):
        return (
            json.dumps(value).replace("\x7f", "\\u007f") if value.isascii() else json.dumps(value, ensure_ascii=False)
        )
    if isinstance(value, float):
        return "nan" if math.isnan(value) else ("-inf" if value < 0 else "inf") if math.isinf(value) else repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    return str(value)


def as_json(document: dict[str, Any]) -> bytes:
    """Write a document as JSON, as Python does: with NaN and Infinity."""
    return json.dumps(document, default=str).encode("utf-8", errors="surrogatepass")
