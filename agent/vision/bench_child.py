"""Measures one package with one number of threads: a line on standard input asks for so many looks.

`python -m agent.vision.bench_child FOLDER THREADS [PICTURE]`, started by `agent.vision.bench`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from agent.vision.bench import Lap, Ready
from wire import codec, package
from wire.errors import LinesideError
from wire.manifest import parameters_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.vision.pipeline import Pipeline

_NOISE_SIZE: Final = (720, 1280, 3)
_SEED: Final = 20261121
_WARM_UP: Final = 3
_MAX_PICTURES: Final = 8


def main(arguments: list[str]) -> int:
    """Answer with `Ready`, then with a `Lap` for each line."""
    folder, threads, picture = Path(arguments[0]), int(arguments[1]), arguments[2] if len(arguments) > 2 else ""
    cv2.setNumThreads(1)
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # whatever a library prints is talk, not the answer
        try:
            line, pictures, ready = _prepare(folder, threads, picture)
        except LinesideError as error:
            answers.write(codec.encode(Ready(code=error.code, reason=str(error))) + b"\n")
            return 0
        answers.write(codec.encode(ready) + b"\n")
        answers.flush()
        for asked in sys.stdin:
            answers.write(codec.encode(_lap(line, pictures, int(asked))) + b"\n")
            answers.flush()
    return 0


def _prepare(folder: Path, threads: int, picture: str) -> tuple[Pipeline, list[NDArray[np.uint8]], Ready]:
    from agent.vision import pipeline, runtime

    found = package.read_folder(folder)
    pictures = _pictures(found, picture)
    before_mb = _memory_mb("VmRSS")
    started = time.perf_counter()
    session = runtime.load(found, runtime.RuntimeOptions(threads=threads))
    load_ms = 1000.0 * (time.perf_counter() - started)
    line = pipeline.Pipeline(session, found, parameters_of(found.manifest, {})[0])
    for index in range(_WARM_UP):
        line.look(pictures[index % len(pictures)])
    grown_mb = max(0.0, _memory_mb("VmHWM") - before_mb)
    return line, pictures, Ready(provider=session.provider, load_ms=load_ms, memory_mb=grown_mb)


def _pictures(found: package.Package, picture: str) -> list[NDArray[np.uint8]]:
    paths = [Path(picture)] if picture else [found.folder / sample.picture for sample in found.golden().samples]
    read = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in paths[:_MAX_PICTURES]]
    good = [np.asarray(image, dtype=np.uint8) for image in read if image is not None]
    if picture and not good:
        raise LinesideError("source.unreadable", f"{picture} is no readable picture.", "Name a PNG or JPEG file.")
    return good or [np.random.default_rng(_SEED).integers(0, 256, _NOISE_SIZE, dtype=np.uint8)]


def _lap(line: Pipeline, pictures: list[NDArray[np.uint8]], looks: int) -> Lap:
    run: list[float] = []
    whole: list[float] = []
    cpu: list[float] = []
    for index in range(looks):
        cpu_started, started = time.process_time_ns(), time.perf_counter_ns()
        look = line.look(pictures[index % len(pictures)])
        whole.append((time.perf_counter_ns() - started) / 1e6)
        cpu.append((time.process_time_ns() - cpu_started) / 1e6)
        run.append(look.run_ms)
    return Lap(run=tuple(run), look=tuple(whole), cpu=tuple(cpu))


def _memory_mb(field: str) -> float:
    """Read from /proc; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0.0
    kilobytes = next((line.split()[1] for line in lines if line.startswith(f"{field}:")), "0")
    return int(kilobytes) / 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
