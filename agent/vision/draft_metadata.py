"""What an exporter wrote into the metadata; Ultralytics says most: names, task, stride, imgsz, end2end (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MAX_NAMES: Final = 20_000
MAX_NAME_CHARACTERS: Final = 100  # as `wire.inspection.LabelText`
# One entry of a Python dict as text: a number, a colon, a text in either kind of quotes.
_NAME: Final = re.compile(r"""(\d{1,6})\s*:\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")""")
_ESCAPE: Final = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What the file says beside its graph; None or empty where it says nothing.

    Args:
        task: detect, segment, classify, pose or obb.
        height_px, width_px: of the network's input.
        is_end_to_end: the graph suppresses overlaps itself.
    """

    is_ultralytics: bool = False
    task: str = ""
    names: tuple[str, ...] | None = None
    height_px: int | None = None
    width_px: int | None = None
    is_end_to_end: bool = False


def read(metadata: Mapping[str, str]) -> Metadata:
    """Read the metadata; what is not in the form expected is as if it were not there."""
    is_ultralytics = metadata.get("author", "").strip() == "Ultralytics" or {"names", "stride", "task"} <= set(metadata)
    size = re.fullmatch(r"\[(\d{1,5}), ?(\d{1,5})\]", metadata.get("imgsz", "").strip())
    return Metadata(
        is_ultralytics=is_ultralytics,
        task=metadata.get("task", "").strip() if is_ultralytics else "",
        names=_names(metadata.get("names", "")),
        height_px=int(size[1]) if size else None,
        width_px=int(size[2]) if size else None,
        is_end_to_end=metadata.get("end2end", "").strip() == "True" or "'nms': True" in metadata.get("args", ""),
    )


def _names(text: str) -> tuple[str, ...] | None:
    """Read `{0: 'person', 1: "driver's cab"}` without evaluating it; None unless it numbers its names from 0."""
    names: list[str] = []
    for found in _NAME.finditer(text):
        if int(found[1]) != len(names) or len(names) >= MAX_NAMES:
            return None
        raw = found[2] if found[2] is not None else found[3]
        name = " ".join(_ESCAPE.sub(r"\1", raw).split())[:MAX_NAME_CHARACTERS]
        names.append(name or f"class-{len(names)}")
    return tuple(names) or None
