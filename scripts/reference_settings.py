"""The page of all settings of the agent, from the dataclasses' own types, defaults and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
import typing
from typing import Any

import msgspec

from agent.settings import ENVIRONMENT, Settings

_BOUNDS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}


def tables(kind: type = Settings, path: str = "") -> list[tuple[str, type]]:
    """Return each TOML table with the dataclass behind it, outer ones first; each dataclass once for each place."""
    found: list[tuple[str, type]] = []
    for name, hint in typing.get_type_hints(kind).items():
        inner, many = _dataclass_in(hint)
        if inner is not None:
            place = f"{path}.{name}" if path else name
            found.append((f"[[{place}]]" if many else f"[{place}]", inner))
            found += tables(inner, place)
    return found


def meanings(kind: type) -> dict[str, str]:
    """Return what the docstring's Args say of each field."""
    doc = inspect.cleandoc(kind.__doc__ or "")
    _, _, args = doc.partition("\nArgs:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in args.splitlines():
        start = re.match(r"    ([a-z_0-9]+(?:, [a-z_0-9]+)*): (.*)", line)
        if start:
            names = start[1].split(", ")
            found |= dict.fromkeys(names, start[2])
        elif names and line.strip():
            for name in names:
                found[name] += f" {line.strip()}"
    return found


def summary(kind: type) -> str:
    """Return the docstring's first sentence."""
    return inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def rows(kind: type) -> list[tuple[str, str, str, str]]:
    """Return key, type, default and meaning of each key that is not a table of its own."""
    said = meanings(kind)
    hints = typing.get_type_hints(kind, include_extras=True)
    return [
        (f"`{field.name}`", _type_of(hints[field.name]), _default_of(field), said.get(field.name, ""))
        for field in dataclasses.fields(kind)
        if _dataclass_in(hints[field.name])[0] is None
    ]


def page(made: str, table: Any) -> str:
    """Return the whole page."""
    variables = [(f"`{name}`", f"`{key}` of `[{inner}]`") for name, (inner, key) in ENVIRONMENT.items()]
    parts = [
        f"# Settings\n\n{made}\n"
        "One TOML file per device, read strictly: an unknown key, a value of another type or one out of bounds is\n"
        "refused with file, line and key. Flags win over the environment, the environment over the file, the file\n"
        "over the defaults. `lineside run --config FILE` reads it once.\n\n"
        + table(("Variable", "Stands for"), variables)
    ]
    seen: dict[type, str] = {}
    for name, kind in tables():
        parts.append(f"\n## {name}\n\n{summary(kind)}\n\n")
        if kind in seen:
            parts.append(f"The keys are those of `{seen[kind]}`.\n")
        elif rows(kind):
            parts.append(table(("Key", "Is", "Otherwise", "Meaning"), rows(kind)))
        seen.setdefault(kind, name)
    return "".join(parts)


def _dataclass_in(hint: Any) -> tuple[type | None, bool]:
    hint = _plain(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return hint, False
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _dataclass_in(arguments[0])[0], True
    if origin in (typing.Union, types.UnionType):
        for argument in arguments:
            if argument is not type(None):
                return _dataclass_in(argument)
    return None, False


def _plain(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _type_of(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Annotated:
        inner, *marks = typing.get_args(hint)
        bounds = [
            text.format(f"{value:g}" if isinstance(value, float) else value)
            for mark in marks
            if isinstance(mark, msgspec.Meta)
            for name, text in _BOUNDS.items()
            if (value := getattr(mark, name)) is not None
        ]
        bounds += [
            mark.description or "small letters, digits and hyphens"
            for mark in marks
            if isinstance(mark, msgspec.Meta) and mark.pattern
        ]
        return ", ".join([_type_of(inner), *bounds])
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_of(one) for one in arguments if one is not type(None))
    if origin is tuple:
        return f"list of {_type_of(arguments[0])}"
    if origin is dict:
        return "table"
    return {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}.get(hint, hint.__name__)


def _default_of(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "required"
    value = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
    return "none" if value is None or value in ((), {}) else f"`{json.dumps(value)}`"
