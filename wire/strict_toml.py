"""Reads TOML strictly: each error names file, line and key, what is allowed, and the nearest right key."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from wire.errors import LinesideError

T = TypeVar("T")
_KINDS: dict[Any, inspect.Type] = {}
_STEP = re.compile(r"[^.\[\]]+|\.\.\.")  # of a place in a message: `stations[0].id`, `parameters[...]`
_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A TOML file that has been parsed but not yet understood."""

    path: Path
    tables: dict[str, Any]
    lines: dict[str, int]

    def value_of(self, kind: type[T]) -> T:
        """Turn the document into a value.

        Raises:
            LinesideError: `config.unknown_key`, `config.missing_key`, `config.wrong_type` or `config.invalid_value`.
        """
        self._refuse_unknown(self.tables, _described(kind), "")
        try:
            return msgspec.convert(self.tables, kind, strict=True)
        except msgspec.ValidationError as error:
            raise self._explain(str(error), kind) from error

    def error(self, code: str, key: str, sentence: str, next_step: str = "") -> LinesideError:
        """Make an error that points at a key of this file."""
        return LinesideError(code, f"{self.path}:{self.line_of(key)}: {key}: {sentence}", next_step)

    def line_of(self, key: str) -> int:
        """Return the line a key stands on, or that of the nearest table around it."""
        while key and key not in self.lines:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self.lines.get(key, 1)

    def _refuse_unknown(self, value: Any, kind: inspect.Type, key: str) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error("config.invalid_value", key, f"{value} is not a number to count with.", "Write a number.")
        if isinstance(kind, inspect.Metadata):
            self._refuse_unknown(value, kind.type, key)
        elif isinstance(kind, inspect.UnionType):
            for member in kind.types:
                self._refuse_unknown(value, member, key)
        elif isinstance(kind, inspect.DataclassType) and isinstance(value, dict):
            known = {field.name: field for field in kind.fields}
            for name, inner in value.items():
                place = f"{key}.{name}" if key else name
                if name not in known:
                    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
                    hint = f"Did you mean {near[0]!r}? " if near else ""
                    allowed = ", ".join(sorted(known))
                    raise self.error("config.unknown_key", place, "unknown key.", f"{hint}Allowed here: {allowed}.")
                self._refuse_unknown(inner, known[name].type, place)
        elif isinstance(kind, inspect.VarTupleType | inspect.ListType) and isinstance(value, list):
            for index, inner in enumerate(value):
                self._refuse_unknown(inner, kind.item_type, f"{key}[{index}]")
        elif isinstance(kind, inspect.DictType) and isinstance(value, dict):
            for name, inner in value.items():
                self._refuse_unknown(inner, kind.value_type, f"{key}.{name}" if key else name)

    def _explain(self, text: str, kind: type) -> LinesideError:
        sentence, _, place = text.partition(" - at `")
        wrong_key = place.startswith("key` in `")
        place = place.removeprefix("key` in `")
        key = place.rstrip("`").removeprefix("$").removeprefix(".")
        missing = re.fullmatch(r"Object missing required field `([^`]+)`", sentence)
        if missing:
            name = f"{key}.{missing[1]}" if key else missing[1]
            return self.error("config.missing_key", name, "this key is required.", "Add it.")
        code = "config.wrong_type" if re.match(r"Expected `[a-z |]+`, got", sentence) else "config.invalid_value"
        sentence = f"{sentence[0].lower()}{sentence[1:]}."
        allowed = _allowed(_described(kind), _STEP.findall(key))
        if wrong_key:
            return self.error(code, key, f"one of its keys is wrong: {sentence}", "Correct the key.")
        wrong = re.fullmatch(r"invalid enum value '(.*)'\.", sentence)
        if wrong and isinstance(allowed, tuple):
            near = difflib.get_close_matches(wrong[1], allowed, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            return self.error(code, key, sentence, f"{hint}Allowed here: {', '.join(allowed)}.")
        if isinstance(allowed, str) and " matching regex " in sentence:
            return self.error(code, key, "this text is not allowed here.", allowed)
        return self.error(code, key, sentence, "Correct the value.")


def _allowed(kind: inspect.Type, steps: Sequence[str]) -> tuple[str, ...] | str | None:
    """Return what a value may be, some steps into a type: choices, or words about it; None where neither is known."""
    if isinstance(kind, inspect.UnionType):
        return next((found for member in kind.types if (found := _allowed(member, steps)) is not None), None)
    if isinstance(kind, inspect.Metadata):
        words = (kind.extra_json_schema or {}).get("description")
        return words if not steps and words else _allowed(kind.type, steps)
    if not steps:
        if isinstance(kind, inspect.EnumType):
            return tuple(str(member.value) for member in kind.cls)
        return tuple(str(value) for value in kind.values) if isinstance(kind, inspect.LiteralType) else None
    if isinstance(kind, inspect.DataclassType):
        return next((_allowed(field.type, steps[1:]) for field in kind.fields if field.name == steps[0]), None)
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return _allowed(kind.item_type, steps[1:])
    return _allowed(kind.value_type, steps[1:]) if isinstance(kind, inspect.DictType) else None


def _described(kind: Any) -> inspect.Type:
    """Return what msgspec knows of a type; asking it takes 20 ms for a manifest, so it is asked once."""
    if kind not in _KINDS:
        _KINDS[kind] = inspect.type_info(kind)
    return _KINDS[kind]


def read(path: Path) -> Document:
    """Parse a TOML file and note on which line each key stands.

    Raises:
        LinesideError: `config.missing_file` or `config.invalid_syntax`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors put a mark before the text
    except OSError as error:
        raise LinesideError(
            "config.missing_file", f"{path}: cannot be read ({error.strerror}).", "Check the path and its permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise LinesideError("config.invalid_syntax", f"{path}: is not UTF-8 text ({error.reason}).") from error
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, arrays in arrays in arrays
        line = re.search(r"line (\d+)", str(error))
        place = f":{line[1]}" if line else ""
        raise LinesideError(
            "config.invalid_syntax", f"{path}{place}: not valid TOML: {error}.", "Correct that line."
        ) from error
    return Document(path=path, tables=tables, lines=_lines_of(text))


def _lines_of(text: str) -> dict[str, int]:
    """Map each key, in the form `stations[0].views[1].camera`, to its line; inline tables count as their key."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        key = _KEY.match(line)
        if header:
            table = _indexed(_parts(header[2]), counts, opens_array=header[1] == "[[")
            for end, character in enumerate(table):  # `[a.b]` is also where `a` stands, unless it has a line already
                if character == ".":
                    lines.setdefault(table[:end], number)
            lines.setdefault(table, number)
        elif key:
            name = ".".join(_parts(key[1]))
            lines.setdefault(f"{table}.{name}" if table else name, number)
    return lines


def _parts(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in re.findall(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""", dotted)]


def _indexed(parts: list[str], counts: dict[str, int], *, opens_array: bool) -> str:
    place = ""
    for depth, part in enumerate(parts):
        place = f"{place}.{part}" if place else part
        if opens_array and depth == len(parts) - 1:
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = f"{place}[{counts[place]}]"
    return place
