"""How the picture input is drafted: sizes and types from the graph, pixels by the convention of the family (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agent.vision.draft_metadata import Metadata
from agent.vision.draft_reading import Size
from agent.vision.onnx_walk import OnnxFacts, TensorInfo
from wire.model_input import ExtraKind

READ, GUESS, FILL_IN = "read", "guess", "fill_in"
_255: Final = 1 / 255
_IMAGENET: Final = {"scale": _255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_IMAGENET_BGR_255: Final = {"mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395]}
_HALF: Final = {"scale": _255, "mean": [0.5], "std": [0.5]}
_UNIT: Final = {"scale": _255}
_RAW: Final = {"scale": 1.0}
_OWN_ARITHMETIC: Final = frozenset({"Sub", "Div", "Mul", "Cast", "BatchNormalization"})
_IMAGENET_SIDE_PX: Final = 128
_EXTRA_KINDS: Final = {
    "im_shape": ExtraKind.NETWORK_SIZE_HW,  # PaddleDetection
    "scale_factor": ExtraKind.SCALE_HW,
    "image_shape": ExtraKind.SOURCE_SIZE_HW,  # Keras YOLO
    "orig_target_sizes": ExtraKind.SOURCE_SIZE_WH,  # RT-DETR
    "orig_size": ExtraKind.SOURCE_SIZE_WH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One key of [input]; `origin` is one of `read`, `guess` and `fill_in`."""

    key: str
    value: object
    origin: str = READ
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """How a family's own exporter and examples prepare a picture."""

    color: str
    resize: str
    numbers: Mapping[str, object]
    words: str


_CONVENTIONS: Final = {
    "yolo": Convention(color="RGB", resize="letterbox_center", numbers=_UNIT, words="Ultralytics' way"),
    "yolox": Convention(color="BGR", resize="letterbox_top_left", numbers=_RAW, words="YOLOX's own way"),
    "nanodet": Convention(color="BGR", resize="stretch", numbers=_IMAGENET_BGR_255, words="NanoDet's own way"),
    "fastestdet": Convention(color="BGR", resize="stretch", numbers=_UNIT, words="FastestDet's own way"),
    "yunet": Convention(
        color="BGR", resize="letterbox_top_left", numbers={"pad_value": 0, **_RAW}, words="YuNet's way"
    ),
    "ssd": Convention(
        color="RGB",
        resize="stretch",
        numbers={"mean": [127.0], "std": [128.0]},
        words="usual for SSD exported by PyTorch",
    ),
    "detr": Convention(
        color="RGB", resize="stretch", numbers=_UNIT, words="RT-DETR's way; DETR takes ImageNet's numbers"
    ),
    "map": Convention(color="RGB", resize="stretch", numbers=_IMAGENET, words="usual for networks begun from ImageNet"),
    "classify": Convention(
        color="RGB", resize="crop_center", numbers=_IMAGENET, words="usual for ImageNet classifiers"
    ),
    "ultralytics-classify": Convention(color="RGB", resize="crop_center", numbers=_UNIT, words="Ultralytics' way"),
    "": Convention(color="RGB", resize="stretch", numbers=_UNIT, words="the commonest way"),
}


def size_of(picture: TensorInfo, metadata: Metadata) -> Size:
    """Return the network's size as far as graph and metadata say it."""
    is_planes_first, _ = _layout(picture.shape)
    rows, columns = picture.shape[2:4] if is_planes_first else picture.shape[1:3]
    return Size(
        height_px=rows if isinstance(rows, int) else metadata.height_px,
        width_px=columns if isinstance(columns, int) else metadata.width_px,
    )


def read(facts: OnnxFacts, picture: TensorInfo, size: Size, family: str, metadata: Metadata) -> list[Found]:
    """Return the keys of [input]."""
    is_planes_first, is_sure = _layout(picture.shape)
    channels = picture.shape[1 if is_planes_first else 3]
    found = [Found(key="name", value=picture.name)]
    for key, value in (("width_px", size.width_px), ("height_px", size.height_px)):
        why = "1 to 16384; the graph takes any size, so choose what it was trained with (`dynamic` for free shapes)"
        found.append(Found(key=key, value=value) if value else Found(key=key, value=None, origin=FILL_IN, why=why))
    found.append(Found(key="dtype", value=picture.element))
    layout = "NCHW" if is_planes_first else "NHWC"
    found.append(
        Found(key="layout", value=layout)
        if is_sure
        else Found(key="layout", value=layout, origin=GUESS, why="usual; the graph leaves the sizes free")
    )
    convention = _CONVENTIONS[family if family in _CONVENTIONS else ""]
    is_certain = metadata.is_ultralytics and family in ("yolo", "ultralytics-classify")
    origin, why = (READ, "") if is_certain else (GUESS, convention.words)
    if channels == 1:
        found.append(Found(key="color", value="GRAY"))
    else:
        found.append(Found(key="color", value=convention.color, origin=origin, why=why))
    resize, resize_why = _resize(convention, family, size, channels)
    found.append(Found(key="resize", value=resize, origin=origin, why="" if origin == READ else resize_why))
    return found + _numbers(facts, picture, size, family, convention, channels, is_certain=is_certain)


def _resize(convention: Convention, family: str, size: Size, channels: object) -> tuple[str, str]:
    is_small = (size.width_px or 0) < _IMAGENET_SIDE_PX
    if family == "classify" and (channels == 1 or is_small or size.width_px != size.height_px):
        return "stretch", "usual for small or oblong classifiers"
    return convention.resize, convention.words


def _numbers(
    facts: OnnxFacts,
    picture: TensorInfo,
    size: Size,
    family: str,
    convention: Convention,
    channels: object,
    *,
    is_certain: bool,
) -> list[Found]:
    first = {operator for operator, source in facts.makers.values() if source == picture.name}
    numbers, why = convention.numbers, f"{convention.words}; wrong numbers give findings that look merely weak"
    if picture.element == "uint8":
        numbers, why = _RAW, "the input takes bytes"
    elif not is_certain and first and first <= _OWN_ARITHMETIC:
        numbers, why = _RAW, "the graph begins with arithmetic of its own on the picture"
    elif facts.producer == "CNTK":
        numbers, why = _RAW, "CNTK's models take pixels as they are"
    elif family == "classify" and (channels == 1 or (size.width_px or 0) < _IMAGENET_SIDE_PX):
        numbers, why = _HALF, "usual for small classifiers; others take 0 to 1 or 0 to 255"
    elif channels == 1:
        numbers, why = _UNIT, "usual for grey pictures"
    origin = READ if is_certain or picture.element == "uint8" else GUESS
    return [
        Found(key=key, value=value, origin=origin, why="" if origin == READ else why) for key, value in numbers.items()
    ]


def extra_inputs(facts: OnnxFacts, picture: TensorInfo) -> list[Found]:
    """Return `extra_inputs`, where the graph has inputs besides the picture."""
    others = [tensor for tensor in facts.inputs if tensor.name != picture.name]
    if not others:
        return []
    kinds = [_EXTRA_KINDS.get(tensor.name.lower()) for tensor in others]
    if None in kinds or any(tensor.element not in ("float32", "int32", "int64") for tensor in others):
        shapes = ", ".join(f"{tensor.name} {list(tensor.shape)} {tensor.element}" for tensor in others[:4])
        why = f"the graph has further inputs: {shapes}; kinds: {' | '.join(ExtraKind)}"
        return [Found(key="extra_inputs", value=None, origin=FILL_IN, why=why)]
    value = [
        {"name": tensor.name, "kind": str(kind), "dtype": tensor.element}
        for tensor, kind in zip(others, kinds, strict=True)
    ]
    return [Found(key="extra_inputs", value=value, origin=GUESS, why="by their names")]


def _layout(shape: Sequence[int | str | None]) -> tuple[bool, bool]:
    """Return whether the channels come before rows and columns, and whether that is certain."""
    before, after = shape[1] in (1, 3), shape[3] in (1, 3)
    if before is not after:
        return before, True
    return not after, False
