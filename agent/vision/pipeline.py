"""One frame through all steps, on one thread: preprocess, run, decode, suppress, to findings in source pixels.

With tiles, the steps up to decoding are done for one batch of tiles after another, the rest once for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture.calibration import Calibration
from agent.vision import findings as found
from agent.vision import geometry as geometries
from agent.vision import nms, preprocess, tiles
from agent.vision.candidates import Candidates, DecoderParams, Outputs, Unusable, above, joined
from agent.vision.decoders import registry
from agent.vision.extra_inputs import ExtraInputs
from agent.vision.geometry import Geometry, Rect
from agent.vision.preprocess import Preprocessor
from agent.vision.runtime import Session
from wire.errors import LinesideError
from wire.inspection import Finding
from wire.manifest import BoxSpace, Manifest, Resize, Tiling
from wire.model_input import Merge
from wire.package import Package

SCORE_THRESHOLD = "score"
NMS_THRESHOLD = "nms-iou"
NMS_DEFAULT = 0.45


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a model saw in one picture, and how long each step took.

    Args:
        findings: in source pixels, clipped to the picture, the highest score first; or why there are none to trust.
        sizes_mm: width and height on the part of each finding's box, in their order; None where the view is not
            calibrated for pictures of this size, or findings speak of the whole picture.
    """

    findings: tuple[Finding, ...] | Unusable
    preprocess_ms: float
    run_ms: float
    decode_ms: float
    sizes_mm: tuple[tuple[float, float], ...] | None = None


class _Steps:
    """How long each step took so far."""

    def __init__(self) -> None:
        self._last = time.perf_counter_ns()
        self._preprocess = self._run = self._decode = 0

    def preprocessed(self) -> None:
        self._preprocess += self._lap()

    def ran(self) -> None:
        self._run += self._lap()

    def decoded(self) -> None:
        self._decode += self._lap()

    def look(self, findings: tuple[Finding, ...] | Unusable, calibration: Calibration | None = None) -> Look:
        sizes_mm = None if isinstance(findings, Unusable) else found.sizes_mm(findings, calibration)
        self.decoded()
        return Look(
            findings=findings,
            preprocess_ms=self._preprocess / 1e6,
            run_ms=self._run / 1e6,
            decode_ms=self._decode / 1e6,
            sizes_mm=sizes_mm,
        )

    def _lap(self) -> int:
        now = time.perf_counter_ns()
        lap, self._last = now - self._last, now
        return lap


class Pipeline:
    """A session and everything its manifest says about it; used by one thread at a time.

    Args:
        session: of this package.
        parameters: the thresholds in force (`wire.manifest.parameters_of`).
        calibration: of the view; it is used for pictures of the size it was made for, and for no others.

    Raises:
        LinesideError: `model.manifest_invalid` where the manifest names an unknown decoder or lacks what it needs.
    """

    def __init__(
        self,
        session: Session,
        package: Package,
        parameters: dict[str, float],
        *,
        calibration: Calibration | None = None,
    ) -> None:
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
        self._input = manifest.input
        self._tiling = manifest.tiling
        batch = 1 if manifest.tiling is None else manifest.tiling.batch
        self._preprocess = Preprocessor(manifest.input, batch=batch)
        self._extras = ExtraInputs(manifest.extra_inputs, session.input_shapes, batch=batch)
        self._fixed_batch = isinstance(session.input_shapes[session.input_name][0], int)
        self._boxes_in_source = manifest.decoder.boxes_in is BoxSpace.SOURCE
        self._background = self._background_of(manifest)
        self._tile_plan: tuple[tuple[int, int], tuple[Rect, ...]] = ((0, 0), ())
        self._canvas = np.empty((0, 0, 3), dtype=np.uint8)
        # Where every thing is named once, overlaps are merged only if the manifest asks for it.
        overlap = NMS_DEFAULT if self._decoder.merges_overlaps or manifest.tiling else nms.NEVER
        if manifest.tiling is not None and manifest.tiling.merge is Merge.UNION:
            overlap = 0.0
        self._iou_threshold = parameters.get(NMS_THRESHOLD, overlap)
        self._class_agnostic = bool(manifest.decoder.parameters.get(registry.CLASS_AGNOSTIC, False))
        self._finding_options = found.options_of(manifest)
        self._calibration = calibration
        general = parameters.get(SCORE_THRESHOLD, 0.0)
        own = {label: parameters[name] for label, name in manifest.label_scores.items()}
        # A detector leaves out by itself what is below the general threshold; a classifier knows of none.
        self._own_thresholds = bool(own) or (manifest.tiling is not None and not self._decoder.makes_boxes)
        self._thresholds = np.array([own.get(label, general) for label in package.labels], dtype=np.float32)
        self._params = DecoderParams(
            width_px=manifest.input.width_px,
            height_px=manifest.input.height_px,
            class_count=len(package.labels),
            score_threshold=min([general, *own.values()]),
            options=manifest.decoder.parameters,
            output_names=session.output_names,
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
            LinesideError: `model.run_failed`, `source.unreadable` or `source.region_outside`.
        """
        steps = _Steps()
        if self._tiling is not None:
            return self._look_at_tiles(image_bgr, self._tiling, steps)
        tensor, geometry = self._preprocess(image_bgr)
        steps.preprocessed()
        outputs = self._run(tensor, geometry)
        steps.ran()
        candidates = self._decoder.decode(outputs, self._params_for(geometry))
        if isinstance(candidates, Unusable):
            return steps.look(candidates)
        candidates = self._own(candidates)
        kept = nms.suppress(candidates, iou_threshold=self._iou_threshold, class_agnostic=self._class_agnostic)
        return steps.look(*self._findings(candidates, kept, self._box_space(geometry)))

    def share_memory_with(self, other: Pipeline) -> None:
        """Fill the other's tensor instead of one of its own.

        Args:
            other: of the same package; both must only ever be used by one thread, one after the other.
        """
        self._preprocess = other._preprocess

    def close(self) -> None:
        """Free the session."""
        self._session.close()

    def _look_at_tiles(self, image_bgr: NDArray[np.uint8], tiling: Tiling, steps: _Steps) -> Look:
        canvas, whole = self._canvas_of(image_bgr, tiling)
        size = (whole.width_px, whole.height_px)
        count = tiles.tile_count(tiling, width_px=size[0], height_px=size[1])
        if count > tiling.max_tiles:
            return steps.look(Unusable(reason=f"The picture needs {count} tiles; {tiling.max_tiles} are allowed."))
        if self._tile_plan[0] != size:
            self._tile_plan = (size, tiles.cut(tiling, width_px=size[0], height_px=size[1]))
        plan = self._tile_plan[1]
        sights: list[tiles.Sight] = []
        for start in range(0, count, tiling.batch):
            batch = plan[start : start + tiling.batch]
            seen = self._look_at_batch(canvas, batch, tiling.batch if self._fixed_batch else len(batch), size, steps)
            if isinstance(seen, Unusable):
                return steps.look(seen)
            sights.extend(seen)
        candidates, kept = tiles.merge(
            joined([sight.candidates for sight in sights]),
            tiles.joined_cut_off(sights),
            how=tiling.merge,
            iou_threshold=self._iou_threshold,
            class_agnostic=self._class_agnostic,
        )
        return steps.look(*self._findings(candidates, kept, whole))

    def _look_at_batch(
        self, canvas: NDArray[np.uint8], batch: Sequence[Rect], rows: int, size: tuple[int, int], steps: _Steps
    ) -> list[tiles.Sight] | Unusable:
        for slot, tile in enumerate(batch):
            placed = self._preprocess.fill(slot, tile.of(canvas))
        steps.preprocessed()
        outputs = tiles.rows_of(self._run(self._preprocess.tensor(rows), placed), rows)
        steps.ran()
        if isinstance(outputs, Unusable):
            return outputs
        params, back = self._params_for(placed), self._box_space(placed)
        sights: list[tiles.Sight] = []
        for tile, output in zip(batch, outputs, strict=False):  # the rest of a fixed batch shows earlier tiles
            candidates = self._decoder.decode(output, params)
            if isinstance(candidates, Unusable):
                return candidates
            sights.append(tiles.sight_of(self._own(candidates), back, tile, canvas=size, background=self._background))
        steps.decoded()
        return sights

    def _canvas_of(self, image_bgr: NDArray[np.uint8], tiling: Tiling) -> tuple[NDArray[np.uint8], Geometry]:
        """Return what tiles are cut from, (height, width, 3), and the way from its pixels to the source's."""
        preprocess.check_picture(image_bgr)
        height, width = image_bgr.shape[:2]
        region = geometries.region_of(self._input.region, source_width_px=width, source_height_px=height)
        wide, high = tiles.canvas_size(tiling, width_px=region.width_px, height_px=region.height_px)
        canvas = region.of(image_bgr)
        if (wide, high) != (region.width_px, region.height_px):
            if self._canvas.shape[:2] != (high, wide):
                self._canvas = np.empty((high, wide, 3), dtype=np.uint8)
            cv2.resize(canvas, (wide, high), dst=self._canvas, interpolation=self._preprocess.interpolation)
            canvas = self._canvas
        whole = geometries.place(
            Resize.STRETCH,
            source_width_px=width,
            source_height_px=height,
            width_px=wide,
            height_px=high,
            region=region,
        )
        return canvas, whole

    def _run(self, tensor: NDArray[np.generic], placed: Geometry) -> Outputs:
        return self._session.run({self._session.input_name: tensor, **self._extras.arrays(placed, len(tensor))})

    def _params_for(self, placed: Geometry) -> DecoderParams:
        """Return the parameters with the size of what boxes are counted in, where it depends on the picture."""
        width, height = placed.network_width_px, placed.network_height_px
        if self._boxes_in_source:
            width, height = placed.region_width_px, placed.region_height_px
        if (self._params.width_px, self._params.height_px) != (width, height) and width and height:
            self._params = replace(self._params, width_px=width, height_px=height)
        return self._params

    def _box_space(self, placed: Geometry) -> Geometry:
        """Return the way back from the pixels the decoder's boxes are counted in."""
        if not self._boxes_in_source:
            return placed
        width, height = placed.region_width_px, placed.region_height_px
        return replace(
            placed,
            left_px=0,
            top_px=0,
            width_px=width,
            height_px=height,
            network_width_px=width,
            network_height_px=height,
        )

    def _own(self, candidates: Candidates) -> Candidates:
        """Leave out what does not reach the threshold of its own label."""
        return above(candidates, self._thresholds) if self._own_thresholds else candidates

    def _findings(
        self, candidates: Candidates, kept: NDArray[np.int64], geometry: Geometry
    ) -> tuple[tuple[Finding, ...], Calibration | None]:
        """Return the findings of a picture, and the calibration where there is one for its size."""
        options, calibration = self._finding_options, self._calibration
        if calibration is not None and not calibration.fits(geometry.source_width_px, geometry.source_height_px):
            calibration = None
        if calibration is not None:
            options = replace(options, calibration=calibration)
        return found.build(candidates, kept, self._labels, geometry, options), calibration

    def _background_of(self, manifest: Manifest) -> frozenset[int]:
        """Return the class ids that are no finding of a tile.

        Raises:
            LinesideError: `model.manifest_invalid` where a label is unknown, or tiles cannot be merged as asked.
        """
        tiling = manifest.tiling
        if tiling is None:
            return frozenset()
        if tiling.merge is Merge.UNION and self._decoder.makes_masks:
            raise LinesideError(
                "model.manifest_invalid",
                f"tiling.merge: the masks of the decoder {manifest.decoder.name!r} cannot be joined.",
                "Use merge = 'nms', with tiles that overlap by the size of a thing.",
            )
        unknown = [label for label in tiling.background_labels if label not in self._labels]
        if unknown:
            raise LinesideError(
                "model.manifest_invalid", f"tiling.background_labels: {unknown[0]!r} is none of the labels."
            )
        return frozenset(self._labels.index(label) for label in tiling.background_labels)
