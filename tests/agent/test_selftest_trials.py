"""What the self-test tries beside the golden samples, the graph it leaves, and every accident as a whole deployment."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from agent.deploy import selftest
from agent.deploy.golden_run import _LOOKS_MIN
from agent.deploy.selftest import SelfTestOptions, SelfTestResult
from agent.deploy.trial_pictures import TrialPicture, extras
from agent.vision import graph_cache, runtime
from agent.vision.graph_cache import GraphCache
from tests.support import processes, tiny_models
from tests.support.deploying import MemoryFleet, TestDevice, wanted
from wire import package
from wire.deployment import DeploymentState as S
from wire.manifest import MODEL_NAME

OPTIONS = SelfTestOptions(time_limit_s=60.0)


def outcome(found: package.Package, options: SelfTestOptions = OPTIONS) -> SelfTestResult:
    result = selftest.self_test(found, options)
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("dark", "golden/blue.png darkened to a quarter"),
        ("black", "a black picture of 16 x 16 pixels"),
        ("white", "a white picture of 16 x 16 pixels"),
        ("aside", "golden/blue.png cannot be used: The output aside holds NaN or an infinite number."),
        ("infinite", "golden/blue.png cannot be used: The output aside holds NaN or an infinite number."),
    ],
)
def test_what_is_no_number_on_pictures_that_come_one_day_is_refused_and_the_picture_named(
    tmp_path: Path, kind: str, words: str
) -> None:
    result = outcome(tiny_models.make(tmp_path / "p", kind))
    assert (result.ok, result.code) == (False, "model.unusable_output"), result.reason
    assert words in result.reason


def test_every_size_is_tried_black_white_dark_and_noisy_and_every_picture_dark() -> None:
    shown = [
        TrialPicture(name=name, image_bgr=np.full((height, 8, 3), 200, dtype=np.uint8))
        for name, height in (("a", 6), ("b", 6), ("c", 4))
    ]
    found = list(extras(shown))
    assert [picture.name for picture in found] == [
        "a black picture of 8 x 6 pixels",
        "a white picture of 8 x 6 pixels",
        "a darkened to a quarter",
        "a picture of noise of 8 x 6 pixels",
        "a black picture of 8 x 4 pixels",
        "a white picture of 8 x 4 pixels",
        "c darkened to a quarter",
        "a picture of noise of 8 x 4 pixels",
        "b darkened to a quarter",
    ]
    assert [int(picture.image_bgr.max()) for picture in found[:3]] == [0, 255, 50]
    assert found[3].image_bgr.std() > 60


def test_a_model_that_fails_at_about_the_fiftieth_look_fails_in_the_self_test(tmp_path: Path) -> None:
    found = tiny_models.make(tmp_path / "p", "fiftieth")
    session = runtime.load(found, runtime.RuntimeOptions())
    picture = {"picture": np.zeros((1, 3, 16, 16), np.float32)}
    for _ in range(44):
        session.run(picture)  # it looks well for long
    result = outcome(found)
    assert (result.ok, result.code) == (False, "model.run_failed")
    assert "indices element out of data bounds" in result.reason
    assert _LOOKS_MIN > 50, "however slow it is, as long as the time allows"


# The graph it leaves


def test_the_graph_that_was_tested_is_the_one_the_agent_builds_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    found = tiny_models.make(tmp_path / "p")
    result = outcome(found, SelfTestOptions(cache_dir=cache))
    assert result.ok, result.reason
    assert 0 < result.load_ms < 60_000
    options = runtime.RuntimeOptions(cache_dir=cache)
    assert runtime.is_cached(found, options)
    assert sorted(path.suffix for path in cache.iterdir()) == [".onnx", ".sha256"], "no draft is left"
    built: list[Path] = []
    build = runtime._inference

    def noting(path: Path, *given: object) -> object:
        built.append(path)
        return build(path, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(runtime, "_inference", noting)
    session = runtime.load(found, options)
    assert built == list(cache.glob("*.onnx"))
    assert session.digest == found.digest


@pytest.mark.parametrize("kind", ["swapped", "damaged", "fiftieth"])
def test_a_version_that_failed_leaves_no_graph(tmp_path: Path, kind: str) -> None:
    cache = tmp_path / "cache"
    found = tiny_models.make(tmp_path / "p", kind)
    assert not outcome(found, SelfTestOptions(cache_dir=cache)).ok
    assert list(cache.iterdir()) == []


def test_a_disk_without_room_costs_the_graph_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    usage = shutil.disk_usage(tmp_path)._replace(free=1024)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert outcome(tiny_models.make(tmp_path / "p"), SelfTestOptions(cache_dir=cache)).ok
    assert list(cache.iterdir()) == []


def _left(folder: Path, found: package.Package, options: runtime.RuntimeOptions) -> Path:
    """Let a child leave its graph in a folder, as the self-test's does; return the graph."""
    runtime.load(found, runtime.RuntimeOptions(cache_dir=folder)).close()
    (graph,) = folder.glob("*.onnx")
    assert not runtime.is_cached(found, options)
    return graph


def _other_outputs(graph: Path) -> None:
    model = onnx.load(str(graph))
    model.graph.output[0].name = "verdict"
    model.graph.node[-1].output[0] = "verdict"
    onnx.save(model, str(graph))


def _link_to_own_copy(graph: Path) -> None:
    graph.rename(graph.with_name("elsewhere"))
    graph.symlink_to(graph.with_name("elsewhere"))


def _hard_link(graph: Path) -> None:
    os.link(graph, graph.with_name("second"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda graph: graph.unlink(),
        lambda graph: graph.write_bytes(graph.read_bytes()[:-9]),
        lambda graph: graph.write_bytes(b"<html>"),
        _other_outputs,
        _link_to_own_copy,
        _hard_link,
    ],
    ids=["none", "cut short", "no model", "other outputs", "a link", "a second name"],
)
def test_a_child_that_leaves_something_else_leaves_nothing(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    options = runtime.RuntimeOptions(cache_dir=tmp_path / "cache")
    found = tiny_models.make(tmp_path / "p")
    with graph_cache.drafts(tmp_path / "cache") as drafts:
        spoil(_left(drafts, found, options))
        assert not runtime.adopt(found, options, drafts)
    assert not runtime.is_cached(found, options)
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_note_that_a_child_leaves_beside_its_graph_is_not_believed(tmp_path: Path) -> None:
    options = runtime.RuntimeOptions(cache_dir=tmp_path / "cache")
    found = tiny_models.make(tmp_path / "p")
    with graph_cache.drafts(tmp_path / "cache") as drafts:
        graph = _left(drafts, found, options)
        graph.with_suffix(".sha256").write_text("0" * 64)
        assert runtime.adopt(found, options, drafts)
    assert runtime.is_cached(found, options)


def test_the_graph_of_another_model_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    options = runtime.RuntimeOptions(cache_dir=tmp_path / "cache")
    found = tiny_models.make(tmp_path / "p")
    with graph_cache.drafts(tmp_path / "cache") as drafts:
        _left(drafts, tiny_models.make(tmp_path / "q", "swapped"), options)
        assert not runtime.adopt(found, options, drafts)


def test_drafts_that_a_killed_agent_left_are_removed(tmp_path: Path) -> None:
    left = tmp_path / "cache" / "1-abc.drafts"
    left.mkdir(parents=True)
    (left / "big.onnx").write_bytes(b"x" * 1000)
    with graph_cache.drafts(tmp_path / "cache") as drafts:
        assert drafts.is_dir()
        assert not left.exists()
    assert not drafts.exists()


@pytest.mark.parametrize("other", ["file", "runtime", "provider", "processor"])
def test_a_graph_is_found_under_its_file_runtime_provider_and_processor_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    options = runtime.RuntimeOptions(cache_dir=tmp_path / "cache")
    found = tiny_models.make(tmp_path / "p")
    runtime.load(found, options).close()
    assert runtime.is_cached(found, options)
    if other == "file":
        found = tiny_models.make(tmp_path / "q", "swapped")
        assert found.index.file(MODEL_NAME) is not None
    elif other == "runtime":
        monkeypatch.setattr(runtime, "RUNTIME_VERSION", "1.99.0")
    elif other == "provider":
        options = runtime.RuntimeOptions(cache_dir=tmp_path / "cache", provider="OpenVINOExecutionProvider")
    else:
        monkeypatch.setattr(graph_cache, "processor", lambda: "another one")
    assert not runtime.is_cached(found, options)


def test_a_graph_that_is_kept_while_the_power_goes_is_whole_or_not_there(tmp_path: Path) -> None:
    draft = tmp_path / "drafts" / "g.onnx"
    draft.parent.mkdir()
    cache = GraphCache(tmp_path / "cache", "model")
    draft.write_bytes(b"one")
    cache.keep(draft, 17)
    draft.write_bytes(b"two")
    (graph,) = (tmp_path / "cache").glob("*.onnx")
    draft.replace(graph)  # the kill came before the note
    assert cache.find() is None


# Accidents


@pytest.mark.parametrize(
    ("kind", "end", "code"),
    [
        ("endless", S.FAILED_NO_CHANGE, "model.timed_out"),
        ("huge", S.FAILED_NO_CHANGE, "model.out_of_memory"),
        ("fiftieth", S.FAILED_NO_CHANGE, "model.run_failed"),
        ("kill -ILL $$", S.FAILED_NO_CHANGE, "model.illegal_instruction"),
        ("kill -SEGV $$", S.FAILED_NO_CHANGE, "model.crashed"),
        ("kill -KILL $$", S.FAILED_NO_CHANGE, "model.out_of_memory"),
        ("dark", S.REFUSED, "model.unusable_output"),
        ("swapped", S.REFUSED, "model.golden_mismatch"),
    ],
)
def test_whatever_happens_to_the_child_the_deployment_ends_and_the_old_version_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, end: S, code: str
) -> None:
    good = tiny_models.make(tmp_path / "1")
    bad = tiny_models.make(tmp_path / "2", "good" if kind.startswith("kill") else kind, release=2)
    fleet = MemoryFleet()
    fleet.publish(good)
    fleet.publish(bad)
    time_limit_s = 5.0 if kind == "endless" else 60.0  # the child gives way to all others: it may need long to begin
    options = SelfTestOptions(time_limit_s=time_limit_s, cache_dir=tmp_path / "cache")
    device = TestDevice(root=tmp_path / "device", fleet=fleet)
    device.boot()
    device.run(wanted(good))
    if kind.startswith("kill"):
        child = tmp_path / "child"
        child.write_text(f"#!/bin/sh\n{kind}\n")
        child.chmod(0o755)
        monkeypatch.setattr(selftest.sys, "executable", str(child))
    device.tester = selftest.tester_of(options)
    device.boot()
    device.run(wanted(bad))
    report = device.reports[-1]
    assert (report.state, report.code) == (end, code)
    assert report.reason
    assert device.activator.activated == [good.digest]
    assert device.activator.inferring(good.manifest.name) == good.digest == report.inferring_digest
    assert list((tmp_path / "cache").iterdir()) == [], "no graph, no draft"


def test_a_model_that_never_answers_is_ended_with_all_it_started(tmp_path: Path) -> None:
    started = time.monotonic()
    result = outcome(tiny_models.make(tmp_path / "p", "endless"), SelfTestOptions(time_limit_s=4.0))
    assert (result.ok, result.code) == (False, "model.timed_out")
    assert time.monotonic() - started < 15
    assert processes.children("selftest") == []


def test_the_child_takes_no_more_than_is_left_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert selftest._address_space_mb(4096, None) == 4096
    assert selftest._address_space_mb(4096, 9000.0) == 4096
    assert selftest._address_space_mb(4096, 200.0) == 1224
    monkeypatch.setattr(selftest.headroom, "available_mb", lambda: 10.0)
    result = outcome(tiny_models.make(tmp_path / "p", "huge"))
    assert (result.ok, result.code) == (False, "model.out_of_memory")
    assert "1034 MB" in result.reason


def test_the_kernel_would_end_the_child_before_the_agent(tmp_path: Path) -> None:
    found = tiny_models.make(tmp_path / "p", "endless")
    scores: list[int] = []

    def go_on() -> bool:
        found = processes.children("selftest")
        scores.extend(int(Path(f"/proc/{child.pid}/oom_score_adj").read_text()) for child in found)
        return 1000 not in scores

    assert selftest.self_test(found, OPTIONS, go_on=go_on) is None
    assert scores[-1] == 1000
