"""What a manifest says of the way from a picture to the network's inputs: sizes, pixels, region, tiles, more inputs."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from wire.inspection import LabelText

Pixels = Annotated[int, msgspec.Meta(ge=1, le=16384)]
MAX_TENSOR_BYTES: Final = 512 * 1024 * 1024


class Layout(enum.StrEnum):
    """Order of the input's axes."""

    NCHW = "NCHW"
    NHWC = "NHWC"


class Color(enum.StrEnum):
    """Order of the input's channels."""

    BGR = "BGR"
    RGB = "RGB"
    GRAY = "GRAY"


class Dtype(enum.StrEnum):
    """Element type of the input."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    UINT8 = "uint8"


class Resize(enum.StrEnum):
    """How a picture of any size becomes the network's size."""

    STRETCH = "stretch"
    LETTERBOX_CENTER = "letterbox_center"
    LETTERBOX_TOP_LEFT = "letterbox_top_left"
    CROP_CENTER = "crop_center"


class Interpolation(enum.StrEnum):
    """How pixels are made of pixels; `nearest` takes the pixel whose centre is nearest, as Pillow does."""

    LINEAR = "linear"
    AREA = "area"
    NEAREST = "nearest"
    CUBIC = "cubic"


class Unit(enum.StrEnum):
    """What a region's numbers count."""

    FRACTION = "fraction"
    PX = "px"


class Outside(enum.StrEnum):
    """What happens where a region reaches beyond the picture."""

    REFUSE = "refuse"
    CLIP = "clip"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRegion:
    """The part of the source picture the network sees; nothing outside it is ever found.

    Args:
        left, top, width, height: fractions of the picture's width and height, or source pixels; rounded to whole
            pixels.
        unit: of the four numbers.
        outside: `refuse` gives no verdict for a picture the region reaches beyond; `clip` uses what is left of it.
    """

    left: Annotated[float, msgspec.Meta(ge=0.0, le=16384.0)] = 0.0
    top: Annotated[float, msgspec.Meta(ge=0.0, le=16384.0)] = 0.0
    width: Annotated[float, msgspec.Meta(gt=0.0, le=16384.0)] = 1.0
    height: Annotated[float, msgspec.Meta(gt=0.0, le=16384.0)] = 1.0
    unit: Unit = Unit.FRACTION
    outside: Outside = Outside.REFUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """The picture input: element = (pixel * scale - mean) / std, per channel, in the channel order of `color`.

    Args:
        width_px, height_px: of the network's input; with `dynamic`, the largest it may be.
        name: of the graph's input; empty means the only one that is no extra input.
        shorter_side_px: `crop_center` scales the picture's shorter side to this before it cuts out the middle (256 for
            ImageNet models of 224); without it, the picture is scaled until it just covers the network's input.
        pad_value: grey level of the border a letterbox leaves, before scaling.
        dynamic: the network's size follows the picture's shape: the picture is scaled to fit into width_px and
            height_px, and each side is then a multiple of `multiple_px` (filled up by a letterbox, rounded by
            `stretch`).
        region: the part of the picture that is looked at; without it, all of it.
    """

    width_px: Pixels
    height_px: Pixels
    name: str = ""
    dtype: Dtype = Dtype.FLOAT32
    layout: Layout = Layout.NCHW
    color: Color = Color.BGR
    resize: Resize = Resize.STRETCH
    shorter_side_px: Pixels | None = None
    interpolation: Interpolation = Interpolation.LINEAR
    pad_value: Annotated[int, msgspec.Meta(ge=0, le=255)] = 114
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dynamic: bool = False
    multiple_px: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 32
    region: InputRegion | None = None


class ExtraKind(enum.StrEnum):
    """What a further input is told; sizes are those of the region of the source, or of the tile, that is looked at."""

    SOURCE_SIZE_HW = "source_size_hw"
    SOURCE_SIZE_WH = "source_size_wh"
    NETWORK_SIZE_HW = "network_size_hw"
    NETWORK_SIZE_WH = "network_size_wh"
    SCALE_HW = "scale_hw"
    CONSTANT = "constant"


class ExtraDtype(enum.StrEnum):
    """Element type of a further input."""

    FLOAT32 = "float32"
    INT32 = "int32"
    INT64 = "int64"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraInput:
    """An input of the graph besides the picture; its shape is the graph's, one row for each picture of a batch.

    Args:
        name: of the graph's input.
        kind: `scale_hw` is network pixels for each source pixel.
        values: of the kind `constant` only.
    """

    name: Annotated[str, msgspec.Meta(min_length=1)]
    kind: ExtraKind
    dtype: ExtraDtype = ExtraDtype.FLOAT32
    values: Annotated[tuple[float, ...], msgspec.Meta(max_length=1000)] = ()


class Merge(enum.StrEnum):
    """What becomes of boxes of one label that overlap, also where they come from two tiles."""

    NMS = "nms"
    UNION = "union"


class TileOf(enum.StrEnum):
    """What tiles are cut from."""

    SOURCE = "source"
    RESIZED = "resized"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """Windows that cover the whole region, each a picture of its own for the network; the last ones lie flush.

    Args:
        tile_px: width and height of a window; each is placed in the network's input by the input's resize rule.
        stride_px: from one window to the next; a thing no larger than tile_px - stride_px is whole in one of them.
        batch: windows in one run, where the graph's first axis allows it.
        merge: `nms` keeps the best of boxes that are one, and drops what a window's edge cut off a box that another
            window saw whole; `union` joins boxes that overlap into one that encloses them.
        of: `source` cuts the region's own pixels; `resized` first scales the region to resized_width_px and
            resized_height_px, or in proportion where only one is given.
        background_labels: a classifier's labels that are no finding; every other best label of a window becomes a
            finding with the window's box.
        max_tiles: a picture that needs more has no verdict.
    """

    tile_px: Pixels
    stride_px: Pixels
    batch: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    merge: Merge = Merge.NMS
    of: TileOf = TileOf.SOURCE
    resized_width_px: Pixels | None = None
    resized_height_px: Pixels | None = None
    background_labels: tuple[LabelText, ...] = ()
    max_tiles: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 4096


class BoxSpace(enum.StrEnum):
    """Which pixels the outputs' boxes count: the network's, or the source's where the graph was told its size."""

    NETWORK = "network"
    SOURCE = "source"


def problems_of_input(spec: Input) -> list[tuple[str, str]]:
    """Return what is wrong with an input beyond its types, as (key, sentence)."""
    found: list[tuple[str, str]] = []
    channels = 1 if spec.color is Color.GRAY else 3
    for key, values in (("input.mean", spec.mean), ("input.std", spec.std)):
        if len(values) not in (1, channels):
            found.append((key, f"needs 1 or {channels} numbers, has {len(values)}."))
    if any(value == 0 for value in spec.std):
        found.append(("input.std", "holds a zero, and the picture is divided by it."))
    if spec.shorter_side_px is not None:
        if spec.resize is not Resize.CROP_CENTER:
            found.append(("input.shorter_side_px", "is for resize = 'crop_center' only."))
        elif spec.shorter_side_px < max(spec.width_px, spec.height_px):
            found.append(
                ("input.shorter_side_px", f"is less than the {spec.width_px} x {spec.height_px} cut out of it.")
            )
    if spec.dynamic:
        if spec.resize is Resize.CROP_CENTER:
            found.append(("input.dynamic", "does not go with resize = 'crop_center', which makes one size of any."))
        for key, side in (("input.width_px", spec.width_px), ("input.height_px", spec.height_px)):
            if side % spec.multiple_px:
                found.append((key, f"is no multiple of multiple_px = {spec.multiple_px}."))
    if spec.region is not None:
        found.extend(_problems_of_region(spec.region))
    return found


def _problems_of_region(region: InputRegion) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for start, length in (("left", "width"), ("top", "height")):
        begin, extent = getattr(region, start), getattr(region, length)
        if region.unit is Unit.FRACTION:
            if begin >= 1.0:
                found.append((f"input.region.{start}", "leaves nothing of the picture; fractions go from 0 to 1."))
            elif begin + extent > 1.0 + 1e-9 and region.outside is Outside.REFUSE:
                found.append((f"input.region.{length}", f"reaches beyond the picture: {begin} + {extent} is over 1."))
        elif extent < 1.0:
            found.append((f"input.region.{length}", "is less than one pixel; unit = 'fraction' counts fractions."))
    return found


def problems_of_extra_inputs(picture_input: Input, extras: tuple[ExtraInput, ...]) -> list[tuple[str, str]]:
    """Return what is wrong with the further inputs, as (key, sentence)."""
    found: list[tuple[str, str]] = []
    seen = {picture_input.name} if picture_input.name else set()
    for index, extra in enumerate(extras):
        key = f"extra_inputs[{index}]"
        if extra.name in seen:
            found.append((f"{key}.name", f"{extra.name!r} is named twice."))
        seen.add(extra.name)
        if (extra.kind is ExtraKind.CONSTANT) != bool(extra.values):
            found.append((f"{key}.values", "go with kind = 'constant', which needs them, and with no other kind."))
        if extra.kind is ExtraKind.SCALE_HW and extra.dtype is not ExtraDtype.FLOAT32:
            found.append((f"{key}.dtype", "must be float32: scales are no whole numbers."))
    return found


def problems_of_tiling(spec: Input, tiling: Tiling) -> list[tuple[str, str]]:
    """Return what is wrong with a tiling, apart from its labels, as (key, sentence)."""
    found: list[tuple[str, str]] = []
    if tiling.stride_px > tiling.tile_px:
        found.append(
            ("tiling.stride_px", f"is more than tile_px = {tiling.tile_px}: pixels between the tiles go unseen.")
        )
    resized = tiling.resized_width_px or tiling.resized_height_px
    if (tiling.of is TileOf.RESIZED) != (resized is not None):
        found.append(
            ("tiling.of", "'resized' needs resized_width_px or resized_height_px, and 'source' has neither of them.")
        )
    channels = 1 if spec.color is Color.GRAY else 3
    size = {Dtype.FLOAT32: 4, Dtype.FLOAT16: 2, Dtype.UINT8: 1}[spec.dtype]
    needed = tiling.batch * channels * spec.width_px * spec.height_px * size
    if needed > MAX_TENSOR_BYTES:
        found.append(("tiling.batch", f"needs an input of {needed} bytes; {MAX_TENSOR_BYTES} are allowed."))
    return found
