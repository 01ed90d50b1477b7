"""One frame through all steps, on one thread: preprocess, run, decode, suppress, to findings in source pixels."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.vision import findings as found
from agent.vision import nms
from agent.vision.candidates import Candidates, DecoderParams, Unusable
from agent.vision.decoders import registry
from agent.vision.geometry import Geometry
from agent.vision.preprocess import Preprocessor
from agent.vision.runtime import Session
from wire.errors import LinesideError
from wire.inspection import Finding
from wire.package import Package

SCORE_THRESHOLD = "score"
NMS_THRESHOLD = "nms-iou"
NMS_DEFAULT = 0.45


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a model saw in one picture, and how long each step took.

    Args:
        findings: in source pixels, clipped to the picture, the highest score first; or why there are none to trust.
    """

    findings: tuple[Finding, ...] | Unusable
    preprocess_ms: float
    run_ms: float
    decode_ms: float


class Pipeline:
    """A session and everything its manifest says about it; used by one thread at a time.

    Args:
        session: of this package.
        parameters: the thresholds in force (`wire.manifest.parameters_of`).

    Raises:
        LinesideError: `model.manifest_invalid` where the manifest names an unknown decoder or lacks what it needs.
    """

    def __init__(self, session: Session, package: Package, parameters: dict[str, float]) -> None:
        manifest = package.manifest
        self._session = session
        self._labels = package.labels
        self._decoder = registry.find(manifest.decoder)
        if self._decoder.task is not manifest.task:
            raise LinesideError(
                "model.manifest_invalid",
                f"task = {manifest.task}: the decoder {manifest.decoder.name!r} is for {self._decoder.task}.",
            )
        if self._decoder.makes_boxes and SCORE_THRESHOLD not in parameters:
            raise LinesideError(
                "model.manifest_invalid", f"thresholds: a detector needs the threshold {SCORE_THRESHOLD!r}."
            )
        self._preprocess = Preprocessor(manifest.input)
        self._iou_threshold = parameters.get(NMS_THRESHOLD, NMS_DEFAULT)
        self._class_agnostic = bool(manifest.decoder.parameters.get(registry.CLASS_AGNOSTIC, False))
        self._finding_options = found.FindingOptions(max_findings=manifest.max_findings)
        self._params = DecoderParams(
            width_px=manifest.input.width_px,
            height_px=manifest.input.height_px,
            class_count=len(package.labels),
            score_threshold=parameters.get(SCORE_THRESHOLD, 0.0),
            options=manifest.decoder.parameters,
        )

    @property
    def digest(self) -> str:
        """The digest of the package being inferred with, as the session knows it."""
        return self._session.digest

    @property
    def provider(self) -> str:
        return self._session.provider

    def look(self, image_bgr: NDArray[np.uint8]) -> Look:
        """Carry one picture through all steps.

        Args:
            image_bgr: (H, W, 3) uint8.

        Raises:
            LinesideError: `model.run_failed` or `source.unreadable`.
        """
        started = time.perf_counter_ns()
        tensor, geometry = self._preprocess(image_bgr)
        ready = time.perf_counter_ns()
        outputs = self._session.run({self._session.input_name: tensor})
        ran = time.perf_counter_ns()
        candidates = self._decoder.decode(outputs, self._params)
        findings = candidates if isinstance(candidates, Unusable) else self._findings(candidates, geometry)
        done = time.perf_counter_ns()
        return Look(
            findings=findings,
            preprocess_ms=(ready - started) / 1e6,
            run_ms=(ran - ready) / 1e6,
            decode_ms=(done - ran) / 1e6,
        )

    def close(self) -> None:
        """Free the session."""
        self._session.close()

    def _findings(self, candidates: Candidates, geometry: Geometry) -> tuple[Finding, ...]:
        kept = nms.suppress(candidates, iou_threshold=self._iou_threshold, class_agnostic=self._class_agnostic)
        return found.build(candidates, kept, self._labels, geometry, self._finding_options)
