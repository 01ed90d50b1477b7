"""What a decoder is: one function, the parameters it knows, and what must follow it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from agent.vision.candidates import Decode, DecoderParams, OptionValue
from wire.manifest import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A parameter that is one of several texts."""

    name: str
    choices: tuple[str, ...]
    default: str
    help: str

    def of(self, params: DecoderParams) -> str:
        """Return the value in force."""
        return str(params.options.get(self.name, self.default))

    def accepts(self, value: OptionValue) -> bool:
        """Tell whether a manifest may say so."""
        return isinstance(value, str) and value in self.choices

    @property
    def allowed(self) -> str:
        """What a manifest may say, in words."""
        return " | ".join(f'"{choice}"' for choice in self.choices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A parameter that is true or false."""

    name: str
    default: bool
    help: str

    def of(self, params: DecoderParams) -> bool:
        """Return the value in force."""
        return bool(params.options.get(self.name, self.default))

    def accepts(self, value: OptionValue) -> bool:
        """Tell whether a manifest may say so."""
        return isinstance(value, bool)

    @property
    def allowed(self) -> str:
        """What a manifest may say, in words."""
        return "true | false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A parameter that is a number within bounds."""

    name: str
    default: float
    help: str
    least: float = -math.inf
    most: float = math.inf
    whole: bool = False

    def of(self, params: DecoderParams) -> float:
        """Return the value in force."""
        value = params.options.get(self.name, self.default)
        return float(value) if isinstance(value, (int, float)) else self.default

    def accepts(self, value: OptionValue) -> bool:
        """Tell whether a manifest may say so."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return math.isfinite(value) and self.least <= value <= self.most and (not self.whole or value == int(value))

    @property
    def allowed(self) -> str:
        """What a manifest may say, in words."""
        kind = "a whole number" if self.whole else "a number"
        above = f" from {self.least:g}" if math.isfinite(self.least) else ""
        return f"{kind}{above}{f' to {self.most:g}' if math.isfinite(self.most) else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """A parameter that is a list of positive whole numbers, such as strides."""

    name: str
    default: tuple[int, ...]
    help: str
    most: int = 1024

    def of(self, params: DecoderParams) -> tuple[int, ...]:
        """Return the value in force."""
        value = params.options.get(self.name, self.default)
        return tuple(int(number) for number in value) if isinstance(value, tuple) else self.default

    def accepts(self, value: OptionValue) -> bool:
        """Tell whether a manifest may say so."""
        return (
            isinstance(value, tuple)
            and 1 <= len(value) <= 16
            and all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= self.most for n in value)
        )

    @property
    def allowed(self) -> str:
        """What a manifest may say, in words."""
        return f"a list of 1 to 16 whole numbers, each from 1 to {self.most}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A parameter that says which output is meant: its place (from 0) or its name in the graph.

    Args:
        default: the place; None where the decoder does without it unless the manifest names it.
    """

    name: str
    default: int | None
    help: str

    def of(self, params: DecoderParams) -> int | str | None:
        """Return the value in force."""
        value = params.options.get(self.name, self.default)
        return value if isinstance(value, (int, str)) else self.default

    def accepts(self, value: OptionValue) -> bool:
        """Tell whether a manifest may say so."""
        return _names_output(value)

    @property
    def allowed(self) -> str:
        """What a manifest may say, in words."""
        return "place or name of an output"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputList:
    """A parameter that names several outputs, one for each stride."""

    name: str
    default: tuple[int, ...]
    help: str

    def of(self, params: DecoderParams) -> tuple[int | str, ...]:
        """Return the value in force."""
        value = params.options.get(self.name, self.default)
        return tuple(n for n in value if isinstance(n, (int, str))) if isinstance(value, tuple) else self.default

    def accepts(self, value: OptionValue) -> bool:
        """Tell whether a manifest may say so."""
        return isinstance(value, tuple) and 1 <= len(value) <= 16 and all(_names_output(one) for one in value)

    @property
    def allowed(self) -> str:
        """What a manifest may say, in words."""
        return "a list of places or names of outputs"


Option = Choice | Flag | Number | Numbers | Output | OutputList

CLASS_AGNOSTIC_NMS = Flag(
    name="class_agnostic_nms", default=False, help="Boxes of different labels are compared when overlaps are merged."
)
OUTLINE = Choice(
    name="outline",
    choices=("mask", "polygon", "both", "none"),
    default="mask",
    help="How findings carry the shape: run lengths, the corners of its outline, both, or only box and area.",
)
MIN_AREA_PX = Number(
    name="min_area_px", default=0.0, least=0.0, help="Findings with a smaller mask, in source pixels, are left out."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """One way to read outputs.

    Args:
        decode: outputs to candidates.
        task: what a manifest that names the decoder must declare.
        summary: what it reads, in one sentence.
        options: the decoder's own parameters.
        makes_boxes: its candidates have boxes, which need `thresholds.score`.
        merges_overlaps: overlapping boxes are merged unless the manifest's `nms-iou` says otherwise; a network that
            names each thing once needs that only where the manifest declares `nms-iou`.
        makes_masks: its candidates may have masks.
    """

    decode: Decode
    task: Task
    summary: str
    options: tuple[Option, ...] = ()
    makes_boxes: bool = False
    merges_overlaps: bool = False
    makes_masks: bool = False

    def known_options(self) -> Iterator[Option]:
        """Yield all parameters a manifest may give, the decoder's own first."""
        yield from self.options
        if self.makes_boxes:
            yield CLASS_AGNOSTIC_NMS
        if self.makes_masks:
            yield OUTLINE
            yield MIN_AREA_PX


def _names_output(value: object) -> bool:
    if isinstance(value, str):
        return 1 <= len(value) <= 200
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 64
