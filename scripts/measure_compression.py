"""Measure whether compressing model blobs, or sharing chunks between versions of a model, would save a download.

python3 scripts/measure_compression.py [--data FOLDER] [--json]

Compression: each codec that is importable, on every model of the shared data: how much smaller, and what that costs of
one core. Chunks: content-defined ones of about 16 KiB, each file's share of bytes that another version holds as well.
The shared data has no two versions of one training run. So three are made of each network of 32-bit weights: one
exported anew (the same weights under another producer's name), one with its last layer trained anew, and one with all
weights moved by a hundredth of their spread, as a few more epochs move them.
"""

from __future__ import annotations

import argparse
import bz2
import hashlib
import importlib
import json
import lzma
import os
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

REPO = Path(__file__).resolve().parent.parent
MB: Final = 1e6
MEAN_CHUNK_BYTES: Final = 16 * 1024
LEAST_CHUNK_BYTES: Final = 4 * 1024
MOST_CHUNK_BYTES: Final = 64 * 1024
LEAST_MODEL_BYTES: Final = 100_000
WINDOW_BYTES: Final = 32
SEED: Final = 20261121
TWINS: Final = (("pcb_simple_cnn_fp32.onnx", "pcb_simple_cnn_int8.onnx"),)
FLOAT_NETWORKS: Final = ("pcb_simple_cnn_fp32.onnx", "ultraface_rfb_320.onnx", "fastestdet_coco_352.onnx")

Code = Callable[[bytes], bytes]


def codecs() -> dict[str, tuple[Code, Code]]:
    """Return those that are importable here: name to compress and decompress."""
    found: dict[str, tuple[Code, Code]] = {
        "zlib 1": (lambda data: zlib.compress(data, 1), zlib.decompress),
        "zlib 6": (lambda data: zlib.compress(data, 6), zlib.decompress),
        "bz2 9": (lambda data: bz2.compress(data, 9), bz2.decompress),
        "lzma 6": (lambda data: lzma.compress(data, preset=6), lzma.decompress),
    }
    for name in ("compression.zstd", "zstandard"):  # of Python 3.14, and from PyPI
        try:
            zstd = importlib.import_module(name)
        except ImportError:
            continue
        for level in (3, 19):
            compress = (
                (lambda data, level=level, zstd=zstd: zstd.compress(data, level))
                if name == "compression.zstd"
                else zstd.ZstdCompressor(level=level).compress
            )
            found[f"zstd {level}"] = (compress, zstd.decompress)
        break
    return found


def timed(code: Code, data: bytes) -> tuple[bytes, float]:
    """Return what comes out, and the CPU seconds of the best of two runs."""
    best = float("inf")
    for _ in range(2):
        begun = time.process_time()
        out = code(data)
        best = min(best, time.process_time() - begun)
    return out, best


def of_codec(compress: Code, decompress: Code, files: dict[str, bytes]) -> dict[str, Any]:
    """Return how small each file becomes, and what all of them cost."""
    ratios: dict[str, float] = {}
    packed_bytes, compress_s, decompress_s = 0, 0.0, 0.0
    for name, data in files.items():
        packed, took_s = timed(compress, data)
        plain, untook_s = timed(decompress, packed)
        if plain != data:
            raise SystemExit(f"{name} does not come back.")
        ratios[name] = round(len(packed) / len(data), 3)
        packed_bytes += len(packed)
        compress_s += took_s
        decompress_s += untook_s
    total = sum(map(len, files.values()))
    return {
        "ratio": round(packed_bytes / total, 3),
        "compress_s_per_mb": round(compress_s / total * MB, 4),
        "decompress_s_per_mb": round(decompress_s / total * MB, 4),
        "ratios": ratios,
    }


def chunks(data: bytes) -> list[bytes]:
    """Cut where the sum of random values of the last bytes has so many zeros, so that an insertion moves few cuts."""
    values = np.random.default_rng(SEED).integers(0, 1 << 63, 256, dtype=np.uint64)
    sums = np.cumsum(values[np.frombuffer(data, np.uint8)], dtype=np.uint64)
    window = sums.copy()
    window[WINDOW_BYTES:] -= sums[:-WINDOW_BYTES]
    cuts = np.flatnonzero((window >> np.uint64(20)) % np.uint64(MEAN_CHUNK_BYTES - LEAST_CHUNK_BYTES) == 0) + 1
    found, start = [], 0
    for cut in [*cuts.tolist(), len(data)]:
        while cut - start > MOST_CHUNK_BYTES:
            found.append(data[start : start + MOST_CHUNK_BYTES])
            start += MOST_CHUNK_BYTES
        if cut - start >= LEAST_CHUNK_BYTES or (cut == len(data) and cut > start):
            found.append(data[start:cut])
            start = cut
    return found


def shared_share(before: bytes, after: bytes) -> float:
    """Return the share of a version's bytes that lie in chunks the version before it has as well."""
    known = {hashlib.sha256(chunk).digest() for chunk in chunks(before)}
    same = sum(len(chunk) for chunk in chunks(after) if hashlib.sha256(chunk).digest() in known)
    return round(same / len(after), 3)


def made_versions(data: bytes) -> dict[str, bytes]:
    """Return three later versions of a network of 32-bit weights."""
    exported = onnx.load_from_string(data)
    exported.producer_name, exported.producer_version = "another exporter", "2.0"
    head = onnx.load_from_string(data)
    _move(_last_layer(head), 1.0)
    tuned = onnx.load_from_string(data)
    _move(_weights(tuned), 0.01)
    made = {"exported anew": exported, "last layer trained anew": head, "all weights moved by 1 %": tuned}
    return {name: model.SerializeToString() for name, model in made.items()}


def _weights(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT]


def _last_layer(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Return the weights of the last node that has any."""
    weights = {one.name: one for one in _weights(model)}
    last = next(node for node in reversed(model.graph.node) if any(name in weights for name in node.input))
    return [weights[name] for name in last.input if name in weights]


def _move(tensors: list[onnx.TensorProto], share: float) -> None:
    rng = np.random.default_rng(SEED)
    for tensor in tensors:
        values = numpy_helper.to_array(tensor)
        if values.size == 0:
            continue
        spread = float(values.std()) or 1.0
        moved = (values + rng.normal(0.0, share * spread, values.shape)).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    shared = Path(os.environ.get("LINESIDE_SHARED") or REPO.parent / "shared")
    parser.add_argument("--data", type=Path, default=shared / "data", help="folder of the shared data")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    args = parser.parse_args()
    paths = sorted((args.data / "models").glob("*.onnx"))
    files = {path.name: path.read_bytes() for path in paths if path.stat().st_size >= LEAST_MODEL_BYTES}
    if not files:
        print(f"No models under {args.data / 'models'}: give their folder with --data.", file=sys.stderr)
        return 2
    result: dict[str, Any] = {
        "models": len(files),
        "bytes": sum(map(len, files.values())),
        "python": sys.version.split()[0],
        "compression": {name: of_codec(*both, files) for name, both in codecs().items()},
        "chunks": {},
    }
    for before, after in TWINS:
        result["chunks"][f"{before} -> {after}"] = shared_share(files[before], files[after])
    for name in FLOAT_NETWORKS:
        plain = onnx.load_from_string(files[name]).SerializeToString()
        for what, data in made_versions(files[name]).items():
            result["chunks"][f"{name}, {what}"] = shared_share(plain, data)
    if args.json:
        print(json.dumps(result))
        return 0
    for name, row in result["compression"].items():
        print(
            f"{name:8} {row['ratio']:.3f} of the bytes, {row['compress_s_per_mb'] * 1e3:7.1f} ms/MB to compress, "
            f"{row['decompress_s_per_mb'] * 1e3:6.1f} ms/MB to undo"
        )
    for name, share in result["chunks"].items():
        print(f"{share:6.1%} of the bytes are in the version before: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
