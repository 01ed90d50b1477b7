"""Measure what it costs to turn a picture into a network's input, beside the usual ways to write it.

python3 scripts/measure_preprocess.py [--width PX] [--height PX]

Prints one JSON object: processor milliseconds for each picture, the median of several rounds, ways alternating.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from agent.vision.preprocess import Preprocessor
from wire.manifest import Color, Dtype, Input, Layout, Resize
from wire.model_input import Interpolation

ROUNDS, PICTURES = 9, 40
_LETTERBOX: dict[str, Any] = {"resize": Resize.LETTERBOX_CENTER, "color": Color.RGB, "std": (255.0,)}
_IMAGENET: dict[str, Any] = {
    "width_px": 224,
    "height_px": 224,
    "resize": Resize.CROP_CENTER,
    "color": Color.RGB,
    "scale": 1 / 255,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
INPUTS = {
    "letterbox 320": Input(width_px=320, height_px=320, **_LETTERBOX),
    "letterbox 640": Input(width_px=640, height_px=640, **_LETTERBOX),
    "letterbox 320, 8 bit": Input(
        width_px=320, height_px=320, resize=Resize.LETTERBOX_CENTER, color=Color.RGB, dtype=Dtype.UINT8
    ),
    "letterbox 320, NHWC": Input(width_px=320, height_px=320, layout=Layout.NHWC, **_LETTERBOX),
    "stretch 352": Input(width_px=352, height_px=352, std=(255.0,)),
    "crop 224 of 256": Input(shorter_side_px=256, **_IMAGENET),
    "crop 224, area": Input(interpolation=Interpolation.AREA, **_IMAGENET),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--width", type=int, default=1280, help="of the picture, in pixels")
    parser.add_argument("--height", type=int, default=720, help="of the picture, in pixels")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    noise = np.random.default_rng(0).integers(0, 256, (args.height, args.width, 3), dtype=np.uint8)
    picture = cv2.GaussianBlur(noise, (9, 9), 0)
    ways: dict[str, Callable[[], object]] = {name: _ours(spec, picture) for name, spec in INPUTS.items()}
    for side in (320, 640):
        ways[f"usual letterbox {side}"] = _usual(picture, side)
    figures: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            way()
            started = time.process_time()
            for _ in range(PICTURES):
                way()
            figures[name].append(1000 * (time.process_time() - started) / PICTURES)
    medians = {name: round(statistics.median(values), 3) for name, values in figures.items()}
    print(json.dumps({"width_px": args.width, "height_px": args.height, "cpu_ms": medians}))
    return 0


def _ours(spec: Input, picture: Any) -> Callable[[], object]:
    preprocess = Preprocessor(spec)
    return lambda: preprocess(picture)


def _usual(picture: Any, side: int) -> Callable[[], object]:
    """Letterbox, exchange the channels, transpose, divide, in new arrays: as tutorials write it."""

    def way() -> object:
        ratio = min(side / picture.shape[0], side / picture.shape[1])
        small = cv2.resize(picture, (round(picture.shape[1] * ratio), round(picture.shape[0] * ratio)))
        canvas = np.full((side, side, 3), 114, dtype=np.uint8)
        top, left = (side - small.shape[0]) // 2, (side - small.shape[1]) // 2
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        return np.ascontiguousarray((canvas[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) / 255.0)[np.newaxis])

    return way


if __name__ == "__main__":
    sys.exit(main())
