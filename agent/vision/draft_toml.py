"""A drafted manifest as TOML, each guess with its reason behind it, each gap as a comment that says what is allowed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Final

from agent.vision.draft import Draft, Line, Origin

_HEAD: Final = """\
# Drafted by `lineside model init`. What follows `GUESS:` was not in the file: compare it with how the model was trained
# and exported, then remove the remark. Every key is explained in Lineside's reference of the manifest.
"""
_NO_RULES: Final = """\
# There are no rules yet, so every part that gives a usable output is OK. For example:
# [[rules]]
# name = "defect"
# labels = [{label}]
# ng_at = "defect-ng"          # with, under [thresholds]: defect-ng = {{ default = 0.7, min = 0.4, max = 0.9 }}
"""
_TABLES: Final = ("", "input", "decoder", "decoder.parameters", "thresholds", "requires")


def text(draft: Draft) -> str:
    """Return the manifest's text."""
    parts = [_HEAD]
    for table in _TABLES:
        lines = [_line(line) for line in draft.lines if line.table == table]
        if lines:
            parts.append("\n".join(([f"[{table}]"] if table else []) + lines) + "\n")
    labels = draft.value("", "labels")
    first = labels[-1] if isinstance(labels, list) and labels else "scratch"
    parts.append(_NO_RULES.format(label=_value(first)))
    return "\n".join(parts)


def key_of(line: Line) -> str:
    """Return a line's key with its table."""
    return f"{line.table}.{line.key}" if line.table else line.key


def _line(line: Line) -> str:
    why = " ".join(line.why.split())
    if line.origin is Origin.FILL_IN:
        return f"# {line.key} =  # FILL IN: {why}"
    return f"{line.key} = {_value(line.value)}" + (f"  # GUESS: {why}" if line.origin is Origin.GUESS else "")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped too; lone surrogates cannot come this far.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no number of a manifest")
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_value(item)}' for key, item in value.items())} }}"
    return str(value)
