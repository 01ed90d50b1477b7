"""Decoders by the name a manifest gives them: one file each, one line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.vision.candidates import Decode
from agent.vision.decoders import classify, fastestdet
from wire.errors import LinesideError
from wire.manifest import DecoderSpec, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """One way to read outputs.

    Args:
        decode: outputs to candidates.
        task: what a manifest that names the decoder must declare.
        options: the decoder's own parameters, each with the texts it may be.
        makes_boxes: its candidates have boxes, which need `thresholds.score` and suppression; the parameter
            `class_agnostic_nms` is then known too.
    """

    decode: Decode
    task: Task
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    makes_boxes: bool = False


DECODERS: Final[dict[str, Decoder]] = {
    "classify": Decoder(decode=classify.decode, task=Task.CLASSIFY, options=classify.OPTIONS),
    "fastestdet": Decoder(decode=fastestdet.decode, task=Task.DETECT, options=fastestdet.OPTIONS, makes_boxes=True),
}
CLASS_AGNOSTIC: Final = "class_agnostic_nms"


def find(spec: DecoderSpec) -> Decoder:
    """Return the decoder a manifest names.

    Raises:
        LinesideError: `model.manifest_invalid` where there is no such decoder, or it has no such parameter.
    """
    decoder = DECODERS.get(spec.name)
    if decoder is None:
        raise LinesideError(
            "model.manifest_invalid",
            f"decoder.name: there is no decoder {spec.name!r}.",
            f"Decoders: {', '.join(sorted(DECODERS))}.",
        )
    for name, value in spec.parameters.items():
        if name == CLASS_AGNOSTIC and decoder.makes_boxes and isinstance(value, bool):
            continue
        if value not in decoder.options.get(name, ()):
            known = [f"{option} = {' | '.join(texts)}" for option, texts in decoder.options.items()]
            known += [f"{CLASS_AGNOSTIC} = true | false"] if decoder.makes_boxes else []
            raise LinesideError(
                "model.manifest_invalid",
                f"decoder.parameters.{name}: {value!r} is not known to the decoder {spec.name!r}.",
                f"It knows: {'; '.join(known) or 'no parameters'}.",
            )
    return decoder
