"""Decoders by the name a manifest gives them: one file each, one line here."""

from __future__ import annotations

import difflib
import importlib
from typing import Final

from agent.vision.decoders.contract import CLASS_AGNOSTIC_NMS, Decoder
from wire.errors import LinesideError
from wire.manifest import DecoderSpec

# name: module of agent.vision.decoders, which has a `DECODER`; imported when a manifest names it
DECODERS: Final[dict[str, str]] = {
    "anomaly": "anomaly",
    "classify": "classify",
    "detection-rows": "detection_rows",
    "detections": "detections",
    "detr": "detr",
    "fastestdet": "fastestdet",
    "nanodet": "nanodet",
    "semantic": "semantic",
    "ssd": "ssd",
    "yolov5": "yolov5",
    "yolov8": "yolov8",
    "yolov8-seg": "yolov8_seg",
    "yolox": "yolox",
    "yunet": "yunet",
}
CLASS_AGNOSTIC: Final = CLASS_AGNOSTIC_NMS.name


def get(name: str) -> Decoder:
    """Return a decoder by its name.

    Raises:
        LinesideError: `model.manifest_invalid` where there is no such decoder.
    """
    module = DECODERS.get(name)
    if module is None:
        near = difflib.get_close_matches(name, DECODERS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise LinesideError(
            "model.manifest_invalid",
            f"decoder.name: there is no decoder {name!r}.",
            f"{hint}Decoders: {', '.join(sorted(DECODERS))}.",
        )
    decoder: Decoder = importlib.import_module(f"agent.vision.decoders.{module}").DECODER
    return decoder


def find(spec: DecoderSpec) -> Decoder:
    """Return the decoder a manifest names, after checking the parameters it gives.

    Raises:
        LinesideError: `model.manifest_invalid` where there is no such decoder, or it does not take a parameter.
    """
    decoder = get(spec.name)
    known = {option.name: option for option in decoder.known_options()}
    for name, value in spec.parameters.items():
        option = known.get(name)
        if option is None:
            raise LinesideError(
                "model.manifest_invalid",
                f"decoder.parameters.{name}: the decoder {spec.name!r} has no such parameter.",
                f"It knows: {', '.join(known)}.",
            )
        if not option.accepts(value):
            raise LinesideError(
                "model.manifest_invalid",
                f"decoder.parameters.{name}: {value!r} is not allowed.",
                f"It is {option.allowed}. {option.help}",
            )
    return decoder
