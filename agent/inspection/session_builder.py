"""Builds sessions beside the line, on a thread of low priority, and warms them with pictures that nobody waits for."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from agent.vision.candidates import Unusable
from agent.vision.pipeline import Pipeline
from wire.errors import LinesideError
from wire.manifest import Input
from wire.model_input import Unit

T = TypeVar("T")

ROUNDS: Final = 2
_NICENESS: Final = 5
_LOWEST: Final = 19
_BUDGET_S: Final = 5.0
_GREY: Final = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """One pipeline, and the size of the pictures it will be shown: width and height in pixels."""

    pipeline: Pipeline
    size_px: tuple[int, int]


def at_low_priority(build: Callable[[], T], *, threads: int = 1) -> T:
    """Run `build` on a thread of lower priority, so that the stations' threads keep their pace meanwhile.

    Args:
        threads: of the session that is built. Above one, the priority stays as it is: the session's own threads would
            inherit the low one, and keep it when they serve.

    Raises:
        LinesideError: what `build` raises, or `deployment.activation_failed`.
    """
    results: list[T] = []
    errors: list[LinesideError] = []

    def body() -> None:
        if threads == 1:
            own = os.getpriority(os.PRIO_PROCESS, 0)  # of an agent that may have been started with another one
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(own + _NICENESS, _LOWEST))
        try:
            results.append(build())
        except LinesideError as error:
            errors.append(error)

    thread = threading.Thread(target=body, name="session-builder")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    if not results:
        raise LinesideError("deployment.activation_failed", "The session could not be built; the log says why.")
    return results[0]


def warm(warm_ups: Sequence[WarmUp], *, rounds: int = ROUNDS, budget_s: float = _BUDGET_S) -> None:
    """Let each pipeline look at a grey picture, with the parameters in force: the first look of a session is slow.

    Not at low priority: a look holds the interpreter now and then, and where other work keeps the cores busy, the line
    would wait for a thread that waits for its turn.

    Args:
        rounds: looks of each pipeline; after the first round the time is bounded.
        budget_s: seconds from which on no further round is begun.

    Raises:
        LinesideError: what a look raises, or `model.unusable_output`: such a version must not judge parts.
    """
    started = time.monotonic()
    pictures = {one.size_px: _grey(one.size_px) for one in warm_ups}
    for number in range(rounds):
        if number and time.monotonic() - started > budget_s:
            return
        for one in warm_ups:
            findings = one.pipeline.look(pictures[one.size_px]).findings
            if isinstance(findings, Unusable):
                raise LinesideError(
                    "model.unusable_output",
                    f"A grey picture of {one.size_px[0]} x {one.size_px[1]} pixels gives no usable output: "
                    f"{findings.reason}",
                )


def size_for(spec: Input) -> tuple[int, int]:
    """Return the size of a picture that the manifest's input can be cut from, where the camera's is not known yet."""
    region = spec.region
    if region is None or region.unit is Unit.FRACTION:
        return spec.width_px, spec.height_px
    return int(region.left + region.width + 0.5), int(region.top + region.height + 0.5)


def _grey(size_px: tuple[int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((size_px[1], size_px[0], 3), _GREY, dtype=np.uint8)
