"""An ImageNet model sees the middle of a picture, as it was trained, and says what MODELS.md lists.

Its quantisation crushed the scores: for two of the three pictures several labels share the greatest logit, to the
last bit, and which of them is named is a matter of order. What can be shown is that the listed label is among them.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from agent.vision import runtime
from agent.vision.pipeline import Pipeline
from agent.vision.preprocess import Preprocessor
from tests.support import shared_packages


@pytest.mark.parametrize(
    ("picture", "listed", "ties"),
    [("cats", "tiger cat", 1), ("bus", "trolleybus", 20), ("dog_bicycle_car", "malamute", 20)],
)
def test_the_middle_of_a_picture_gives_the_listed_label(
    picture: str, listed: str, ties: int, shared_data: Path, tmp_path: Path
) -> None:
    found = shared_packages.read("mobilenet-imagenet", shared_data, tmp_path)
    image = cv2.imread(str(shared_data / "models" / "samples" / f"{picture}.jpg"))
    session = runtime.load(found, runtime.RuntimeOptions())

    findings = Pipeline(session, found, {"sure": 0.5}).look(image).findings

    tensor, _ = Preprocessor(found.manifest.input)(image)
    logits = np.asarray(session.run({"image": tensor})[0]).ravel()
    best = [found.labels[index] for index in np.flatnonzero(logits == logits.max())]
    assert any(listed in label for label in best), best
    assert len(best) <= ties
    assert isinstance(findings, tuple)
    (finding,) = findings
    assert finding.label in best
    assert 0.03 <= finding.score <= 0.045


def test_the_logits_are_those_of_a_crop_made_by_hand(shared_data: Path, tmp_path: Path) -> None:
    found = shared_packages.read("mobilenet-imagenet", shared_data, tmp_path)
    image = cv2.imread(str(shared_data / "models" / "samples" / "cats.jpg"))
    height, width = image.shape[:2]
    ratio = 224 / min(height, width)
    small = cv2.resize(image, (round(width * ratio), round(height * ratio)), interpolation=cv2.INTER_AREA)
    top, left = round((small.shape[0] - 224) / 2), round((small.shape[1] - 224) / 2)
    middle = small[top : top + 224, left : left + 224, ::-1] / 255.0
    by_hand = ((middle - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)[np.newaxis]

    tensor, _ = Preprocessor(found.manifest.input)(image)

    assert np.abs(tensor - by_hand).max() < 1e-5
    plain = onnxruntime.InferenceSession(str(found.model_path), providers=["CPUExecutionProvider"])
    expected = np.asarray(plain.run(None, {"image": by_hand.astype(np.float32)})[0]).ravel()
    assert found.labels[int(expected.argmax())].endswith("tiger cat")
