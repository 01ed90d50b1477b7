"""`lineside model init` on the shared models: what it gets right is compared with the manifests written by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.vision import draft, draft_toml, onnx_file
from tests.support import shared_packages, tiny_models
from wire import package
from wire.manifest import Manifest


def lineside(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent.cli", *arguments], capture_output=True, text=True, timeout=90, check=False
    )


def element_of(manifest: Manifest, pixel: float) -> tuple[float, ...]:
    """What becomes of a pixel in each channel: two manifests may say the same by other numbers."""
    picture = manifest.input
    means, stds = (tuple(numbers) * (3 if len(numbers) == 1 else 1) for numbers in (picture.mean, picture.std))
    return tuple(round((pixel * picture.scale - mean) / std, 4) for mean, std in zip(means, stds, strict=True))


def wrong_keys(drafted: Manifest, by_hand: Manifest) -> set[str]:
    wrong = {key for key in ("task",) if getattr(drafted, key) != getattr(by_hand, key)}
    for key in ("width_px", "height_px", "dtype", "layout", "color", "resize"):
        if getattr(drafted.input, key) != getattr(by_hand.input, key):
            wrong.add(key)
    if any(element_of(drafted, pixel) != element_of(by_hand, pixel) for pixel in (0, 100, 255)):
        wrong.add("numbers")
    if drafted.decoder.name != by_hand.decoder.name:
        wrong.add("decoder")
    for key, value in by_hand.decoder.parameters.items():
        if drafted.decoder.parameters.get(key) != value:
            wrong.add(f"decoder.{key}")
    return wrong


# Where the drafts differ from the manifests that were written by hand; everything else is right.
DIFFERENCES = {"ppocr-cls": {"color", "resize"}}
FILLED_IN = {"ppocr-cls": {"width_px": 192, "height_px": 48}}


@pytest.mark.parametrize("name", sorted(set(shared_packages.SHARED) - {"pcb-board"}))
def test_drafts_of_the_shared_models_are_right_but_for_what_is_known(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    by_hand = shared_packages.read(name, shared_data, tmp_path).manifest
    facts = onnx_file.read(shared_data / "models" / shared_packages.SHARED[name][0])
    made = draft.draft(facts, name)
    assert {line.key for line in made.of(draft.Origin.FILL_IN)} == FILLED_IN.get(name, {}).keys()
    text = draft_toml.text(made)
    for key, value in FILLED_IN.get(name, {}).items():
        text = text.replace(f"# {key} = ", f"{key} = {value}")
    (tmp_path / "manifest.toml").write_text(text, encoding="utf-8")

    drafted = package.read_manifest(tmp_path / "manifest.toml")

    assert wrong_keys(drafted, by_hand) == DIFFERENCES.get(name, set())


def test_a_draft_passes_the_check_and_marks_its_guesses(tmp_path: Path) -> None:
    model = tiny_models.make(tmp_path / "p").model_path
    answer = lineside("model", "init", str(model), "--out", str(tmp_path / "q"), "--json")

    document: dict[str, Any] = json.loads(answer.stdout)
    assert answer.returncode == 0
    assert document["schema"] == "lineside.model-init/1"
    assert document["check"] == {"ok": True, "code": "", "reason": ""}
    guesses = {value["key"]: value["why"] for value in document["values"] if value["origin"] == "guess"}
    assert {"task", "labels", "input.scale", "decoder.name"} <= guesses.keys()
    text = (tmp_path / "q" / "manifest.toml").read_text(encoding="utf-8")
    assert text.count("# GUESS: ") == len(guesses)
    assert (tmp_path / "q" / "model.onnx").read_bytes() == model.read_bytes()


def test_labels_from_a_file_are_taken_along(tmp_path: Path) -> None:
    model = tiny_models.make(tmp_path / "p").model_path
    (tmp_path / "names").write_text("blue\ngreen\n\nred\n", encoding="utf-8")
    answer = lineside("model", "init", str(model), "--out", str(tmp_path / "q"), "--labels", str(tmp_path / "names"))

    assert answer.returncode == 0
    assert "guess       input.scale" in answer.stdout
    assert package.read_folder(tmp_path / "q").labels == ("blue", "green", "red")


def test_what_exists_is_not_overwritten_and_a_bad_file_is_refused(shared_data: Path, tmp_path: Path) -> None:
    model = tiny_models.make(tmp_path / "p").model_path
    answer = lineside("model", "init", str(model), "--out", str(tmp_path / "p"))
    assert (answer.returncode, "(resource.conflict)" in answer.stderr) == (5, True)
    answer = lineside(
        "model", "init", str(shared_data / "models/bad/html_page_named.onnx"), "--out", str(tmp_path / "q")
    )
    assert (answer.returncode, "(model.not_onnx)" in answer.stderr) == (6, True)
    assert not (tmp_path / "q").exists()
