"""Every shared vision model runs from its manifest, finds what MODELS.md lists, and agrees with a naive reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from agent.vision import pipeline, runtime
from tests.support import reference_decoders as reference
from tests.support import shared_packages
from wire.inspection import Finding
from wire.manifest import parameters_of

# The reference computes in double precision from the network's single-precision outputs.
SCORE_TOLERANCE, BOX_TOLERANCE_PX = 2e-6, 2e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """How a shared detector is used, as MODELS.md says; written again here, not read from the manifest."""

    decode: reference.Reference
    place: Callable[[np.ndarray], tuple[np.ndarray, float, float, float, float]]
    rgb: bool
    mean: float
    std: float
    class_agnostic: bool = False


MODELS = {
    "fastestdet-coco": Model(
        decode=reference.fastestdet,
        place=lambda image: reference.stretched(image, 352, 352),
        rgb=False,
        mean=0.0,
        std=255.0,
        class_agnostic=True,
    ),
    "yolox-weeds": Model(
        decode=reference.yolox,
        place=lambda image: reference.letterboxed(image, 416, 416, centered=False, pad=114),
        rgb=False,
        mean=0.0,
        std=1.0,
    ),
    "yolov8n-coco": Model(
        decode=reference.yolov8,
        place=lambda image: reference.letterboxed(image, 640, 640, centered=True, pad=114),
        rgb=True,
        mean=0.0,
        std=255.0,
    ),
    "yolov5u-autofeeder": Model(
        decode=reference.yolov8,
        place=lambda image: reference.letterboxed(image, 640, 640, centered=True, pad=114),
        rgb=True,
        mean=0.0,
        std=255.0,
    ),
    "ultraface": Model(
        decode=reference.ultraface,
        place=lambda image: reference.stretched(image, 320, 240),
        rgb=True,
        mean=127.0,
        std=128.0,
    ),
    "yunet-faces": Model(
        decode=reference.yunet,
        place=lambda image: reference.letterboxed(image, 320, 320, centered=False, pad=0),
        rgb=False,
        mean=0.0,
        std=1.0,
    ),
}
# package, picture, what MODELS.md lists: (label, score to two digits), the best first
LISTED = [
    ("fastestdet-coco", "frisbee_people", [("person", 0.90), ("person", None), ("person", None), ("person", 0.78)]),
    ("fastestdet-coco", "dog_bicycle_car", [("dog", 0.81), ("car", 0.76), ("bicycle", 0.74)]),
    ("fastestdet-coco", "bus", [("bus", 0.96)]),
    ("yolox-weeds", "weeds", [("Pigweed", 0.92), ("Pigweed", 0.80)]),
    ("yolov8n-coco", "dog_bicycle_car", [("dog", 0.96), ("bicycle", 0.88), ("car", 0.59), ("truck", 0.51)]),
    ("yolov8n-coco", "bus", [("bus", 0.92), ("person", None), ("person", None), ("person", None)]),
    (
        "yolov5u-autofeeder",
        "autofeeder_part",
        [("Inner Contour", 0.96), ("Lobe", 0.96), ("Dimple", 0.87), ("Dimple", 0.85)],
    ),
    ("ultraface", "frisbee_people", [("face", 1.00), ("face", None), ("face", None), ("face", 0.95)]),
    ("yunet-faces", "frisbee_people", [("face", 0.88), ("face", None), ("face", None), ("face", 0.86)]),
]
# Low thresholds, so that many boxes and overlaps are compared, also on frames of the clips.
COMPARED = [
    ("fastestdet-coco", "bus", 0.3),
    ("fastestdet-coco", "bottle-detection.mp4", 0.3),
    ("fastestdet-coco", "car-detection.mp4", 0.3),
    ("yolox-weeds", "weeds", 0.1),
    ("yolox-weeds", "cockatoo.mp4", 0.1),
    ("yolov8n-coco", "dog_bicycle_car", 0.1),
    ("yolov8n-coco", "bottle-detection.mp4", 0.1),
    ("yolov5u-autofeeder", "autofeeder_part", 0.1),
    ("ultraface", "frisbee_people", 0.1),
    ("yunet-faces", "frisbee_people", 0.3),
]


def opened(name: str, shared_data: Path, folder: Path, **overrides: float) -> pipeline.Pipeline:
    found = shared_packages.read(name, shared_data, folder)
    parameters, refused = parameters_of(found.manifest, overrides)
    assert not refused
    return pipeline.Pipeline(runtime.load(found, runtime.RuntimeOptions()), found, parameters)


def picture(shared_data: Path, name: str) -> np.ndarray:
    if not name.endswith(".mp4"):
        return cv2.imread(str(shared_data / "models" / "samples" / f"{name}.jpg"))
    clip = cv2.VideoCapture(str(shared_data / "video" / name))
    clip.set(cv2.CAP_PROP_POS_FRAMES, 100)
    grabbed, image = clip.read()
    clip.release()
    assert grabbed
    return image


def found_in(pipe: pipeline.Pipeline, image: np.ndarray) -> tuple[Finding, ...]:
    findings = pipe.look(image).findings
    assert isinstance(findings, tuple), findings
    return findings


@pytest.mark.parametrize(("package", "name", "listed"), LISTED)
def test_a_detector_finds_what_the_list_says(
    package: str, name: str, listed: list[tuple[str, float | None]], shared_data: Path, tmp_path: Path
) -> None:
    findings = found_in(opened(package, shared_data, tmp_path), picture(shared_data, name))

    assert [finding.label for finding in findings] == [label for label, _ in listed]
    for finding, (_, score) in zip(findings, listed, strict=True):
        assert score is None or round(finding.score, 2) == score, finding


@pytest.mark.parametrize(("package", "name", "threshold"), COMPARED)
def test_boxes_and_scores_agree_with_the_naive_reference(
    package: str, name: str, threshold: float, shared_data: Path, tmp_path: Path
) -> None:
    pipe = opened(package, shared_data, tmp_path, score=threshold)
    image = picture(shared_data, name)
    found = found_in(pipe, image)
    expected = by_reference(package, shared_data, image, threshold, nms_iou(package))

    assert len(found) == len(expected) > 0
    labels = shared_labels(package, shared_data)
    worst_score = worst_box = 0.0
    for finding, (class_id, score, box) in zip(found, expected, strict=True):
        assert finding.box is not None
        ours = [finding.box.x1_px, finding.box.y1_px, finding.box.x2_px, finding.box.y2_px]
        assert finding.label == labels[class_id]
        worst_score = max(worst_score, abs(finding.score - score))
        worst_box = max(worst_box, *(abs(a - b) for a, b in zip(ours, box, strict=True)))
    print(
        f"\n{package} on {name}: {len(found)} boxes, scores within {worst_score:.1e}, boxes within {worst_box:.1e} px"
    )
    assert worst_score <= SCORE_TOLERANCE
    assert worst_box <= BOX_TOLERANCE_PX


def by_reference(
    package: str, shared_data: Path, image: np.ndarray, threshold: float, iou_threshold: float
) -> reference.Boxes:
    model = MODELS[package]
    canvas, *place = model.place(image)
    session = plain_session(shared_data / "models" / shared_packages.SHARED[package][0])
    outputs = session.run(
        None, {session.get_inputs()[0].name: reference.tensor(canvas, rgb=model.rgb, mean=model.mean, std=model.std)}
    )
    candidates = model.decode(outputs, threshold, canvas.shape[1], canvas.shape[0])
    kept = reference.suppressed(candidates, iou_threshold, class_agnostic=model.class_agnostic)
    scale_x, scale_y, left, top = place
    return [
        (class_id, score, reference.in_source(box, (scale_x, scale_y, left, top), image))
        for class_id, score, box in kept
    ]


def plain_session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def nms_iou(package: str) -> float:
    return 0.3 if package in ("ultraface", "yunet-faces") else 0.45


def shared_labels(package: str, shared_data: Path) -> list[str]:
    file = shared_packages.SHARED[package][1]
    if file is None:
        return {"ultraface": ["background", "face"], "yunet-faces": ["face"]}[package]
    return (shared_data / "models" / file).read_text(encoding="utf-8").splitlines()


def test_text_is_upright_or_turned(shared_data: Path, tmp_path: Path) -> None:
    pipe = opened("ppocr-cls", shared_data, tmp_path)
    line = picture(shared_data, "shop_sign_cn")[248:352, 305:818].copy()

    (upright,) = found_in(pipe, line)
    (turned,) = found_in(pipe, cv2.rotate(line, cv2.ROTATE_180))

    assert (upright.label, turned.label) == ("upright", "turned")
    assert upright.score > 0.999
    assert turned.score > 0.999


@pytest.mark.parametrize(
    ("package", "mean_image"),
    [("pcb-cnn", False), ("pcb-cnn-int8", False), ("pcb-mobilenet-int8", True)],
)
def test_patch_classifiers_agree_with_the_naive_reference(
    package: str, mean_image: bool, shared_data: Path, tmp_path: Path
) -> None:
    pipe = opened(package, shared_data, tmp_path)
    session = plain_session(shared_data / "models" / shared_packages.SHARED[package][0])
    labels = (shared_data / "models/labels/deeppcb7.txt").read_text(encoding="utf-8").splitlines()
    boards = sorted((shared_data / "pictures/deeppcb/labels").glob("*.txt"))[-6:]
    right = count = 0
    for board in boards:
        image = cv2.imread(str(shared_data / f"pictures/deeppcb/images/{board.stem}.jpg"))
        for text in board.read_text(encoding="utf-8").splitlines()[:4]:
            x1, y1, x2, y2, kind = (int(part) for part in text.split())
            left, top = (min(max((a + b) // 2 - 32, 0), 640 - 64) for a, b in ((x1, x2), (y1, y2)))
            patch = image[top : top + 64, left : left + 64].copy()
            (finding,) = found_in(pipe, patch)
            grey = cv2.cvtColor(patch, cv2.COLOR_BGR2GRAY)
            planes = patch.transpose(2, 0, 1) if mean_image else grey[np.newaxis]
            values = ((planes.astype(np.float64) / 255.0 - 0.5) / 0.5).astype(np.float32)[np.newaxis]
            shares = reference.softmax(session.run(None, {"input": values})[0][0].tolist())
            best = max(range(7), key=lambda index: shares[index])
            assert finding.label == labels[best]
            assert finding.score == pytest.approx(shares[best], abs=2e-6)
            right += labels[kind] == finding.label
            count += 1

    assert count >= 20
    assert right / count > 0.8


def test_drawn_digits_agree_with_the_naive_reference(shared_data: Path, tmp_path: Path) -> None:
    pipe = opened("mnist", shared_data, tmp_path)
    session = plain_session(shared_data / "models/mnist.onnx")
    for digit in "37":
        canvas = np.zeros((28, 28, 3), dtype=np.uint8)
        cv2.putText(canvas, digit, (8, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)

        (finding,) = found_in(pipe, canvas)

        grey = canvas[:, :, 0].astype(np.float32)[np.newaxis, np.newaxis]
        shares = reference.softmax(session.run(None, {"Input3": grey})[0][0].tolist())
        assert finding.label == digit
        assert finding.score == pytest.approx(shares[int(digit)], abs=2e-6)
