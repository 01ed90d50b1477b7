"""`lineside model bench | compare | pack | unpack`, as a person calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from agent.vision import bench
from agent.vision.bench import Plan
from tests.support import tiny_models
from wire.errors import LinesideError

REPO = Path(__file__).resolve().parents[2]
DEMO = (REPO / "models" / "demo-parts-1", REPO / "models" / "demo-parts-2")


def lineside(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent.cli", "model", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def document_of(answer: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert answer.returncode == 0, answer.stderr
    document: dict[str, Any] = json.loads(answer.stdout)
    return document


def test_bench_measures_each_number_of_threads_and_says_which_is_best(tmp_path: Path) -> None:
    document = document_of(lineside("bench", DEMO[0], "--threads", "1,2", "--rounds", 2, "--looks", 5, "--json"))

    assert document["schema"] == "lineside.model-bench/1"
    assert document["provider"] == "CPUExecutionProvider"
    assert [one["threads"] for one in document["measured"]] == [1, 2]
    for one in document["measured"]:
        assert one["looks"] == 10
        assert 0 < one["run_ms"]["p50"] <= one["run_ms"]["p95"] <= one["run_ms"]["p99"]
        assert one["run_ms"]["p50"] < one["look_ms"]["p50"]
        assert one["memory_mb"] > 0
        assert one["load_ms"] > 0
    assert document["best_threads"] in (1, 2)
    assert document["why"].endswith(".")


def test_bench_never_tries_more_threads_than_the_cores_it_may_use() -> None:
    answer = subprocess.run(
        f"taskset -c 0 {sys.executable} -m agent.cli model bench {DEMO[0]} --rounds 1 --looks 2 --json".split(),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    document = document_of(answer)
    assert (document["cores"], [one["threads"] for one in document["measured"]]) == (1, [1])


def test_bench_refuses_what_the_check_refuses(tmp_path: Path) -> None:
    tiny_models.make(tmp_path / "p", "damaged")
    answer = lineside("bench", tmp_path / "p")
    assert (answer.returncode, "(model.truncated)" in answer.stderr) == (6, True)
    assert lineside("bench", DEMO[0], "--threads", "0").returncode == 2
    answer = lineside("bench", DEMO[0], "--threads", "1", "--picture", __file__)
    assert (answer.returncode, "(source.unreadable)" in answer.stderr) == (4, True)


def test_a_child_that_ends_is_a_crash(tmp_path: Path) -> None:
    child = bench._Child(Plan(folder=tiny_models.make(tmp_path / "p").folder, threads=(1,)), 1)
    try:
        assert child.ready().provider
        child._process.kill()
        with pytest.raises(LinesideError) as caught:
            child.lap(3)
        assert caught.value.code == "model.crashed"
    finally:
        child.end()


def test_a_model_compared_with_itself_agrees(tmp_path: Path) -> None:
    document = document_of(lineside("compare", DEMO[0], DEMO[0], DEMO[0] / "golden", "--out", tmp_path, "--json"))
    assert document["schema"] == "lineside.model-compare/1"
    assert (document["pictures"], document["picture_agreement"], document["saved"]) == (6, 1.0, [])
    assert document["score_shift"]["largest_size"] == 0.0


def test_disagreements_are_counted_and_saved_as_pictures(tmp_path: Path) -> None:
    tiny_models.make(tmp_path / "a")
    tiny_models.make(tmp_path / "b", "swapped")
    out = tmp_path / "out"
    answer = lineside("compare", tmp_path / "a", tmp_path / "b", tmp_path / "a" / "golden", "--out", out)
    assert (answer.returncode, "(model.golden_mismatch)" in answer.stderr) == (6, True), answer.stderr

    (tmp_path / "b" / "golden" / "expected.json").unlink()
    arguments = ("compare", tmp_path / "a", tmp_path / "b", tmp_path / "a" / "golden", "--out", out)
    document = document_of(lineside(*arguments, "--json", "--max-pictures", 1))

    assert document["pictures"] == 3
    assert document["verdict_agreement"] == 0.333333
    assert document["relabelled"] == [
        {"a": "blue", "b": "red", "findings": 1},
        {"a": "red", "b": "blue", "findings": 1},
    ]
    assert [path.name for path in out.iterdir()] == document["saved"] == ["000000-blue.png"]
    assert cv2.imread(str(out / "000000-blue.png")) is not None
    text = lineside(*arguments, "--limit", 2).stdout
    assert "A OK, B NG: 1" in text
    assert "pictures    2, " in text


def test_a_package_goes_through_one_file_and_back(tmp_path: Path) -> None:
    packed = document_of(lineside("pack", DEMO[0], tmp_path / "demo.tar", "--json"))
    unpacked = document_of(lineside("unpack", tmp_path / "demo.tar", tmp_path / "demo", "--json"))
    shown = document_of(lineside("show", DEMO[0], "--json"))

    assert (packed["schema"], unpacked["schema"]) == ("lineside.model-pack/1", "lineside.model-unpack/1")
    assert packed["digest"] == unpacked["digest"] == shown["package"]["digest"]
    again = lineside("unpack", tmp_path / "demo.tar", tmp_path / "demo")
    assert (again.returncode, "(resource.conflict)" in again.stderr) == (5, True)
    (tmp_path / "bad.tar").write_bytes((tmp_path / "demo.tar").read_bytes()[:-700])
    bad = lineside("unpack", tmp_path / "bad.tar", tmp_path / "bad")
    assert (bad.returncode, "(package.archive_truncated)" in bad.stderr) == (6, True)
    assert not (tmp_path / "bad").exists()
