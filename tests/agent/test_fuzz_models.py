"""Damaged manifests, indexes, golden sets and ONNX files: each ends as a refusal with a code, or is accepted and runs.

The numbers are fixed, so that a run is repeatable; `scripts/fuzz_models.py --minutes N` goes on with others.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.vision.check import CheckLimits, check_file
from tests.support import check_pool, fuzz, model_mutations, tiny_models
from wire import package
from wire.errors import LinesideError

CASES = 2400
EXPECTED = {
    "model.custom_ops",
    "model.external_data",
    "model.golden_mismatch",
    "model.manifest_invalid",
    "model.not_vision",
    "model.truncated",
    "model.unloadable",
    "model.unsupported_opset",
    "model.unusable_output",
    "package.invalid",
    fuzz.ACCEPTED,
}


@pytest.mark.timeout(600)
def test_every_damaged_file_ends_with_a_code_or_runs(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    shared = Path(__file__).resolve().parents[3] / "shared" / "data" / "models"
    bench = fuzz.Bench(tmp_path, shared if shared.is_dir() else None)

    outcomes = bench.run(range(CASES))

    assert outcomes.bad == []
    assert outcomes.total == CASES
    assert outcomes.codes().keys() >= EXPECTED, "the damage does not reach the refusals it should"
    assert all(outcomes.count(kind) >= CASES // 10 for kind in set(fuzz.KINDS))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]


def test_one_number_gives_one_case(tmp_path: Path) -> None:
    base = tiny_models.make(tmp_path / "p").model_path.read_bytes()
    made = [data for _, _, data in model_mutations.mutants(base, range(50))]
    assert made == [data for _, _, data in model_mutations.mutants(base, range(50))]
    assert len(set(made)) > 40


def test_a_child_that_a_file_ended_is_replaced_and_the_others_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tiny_models.make(tmp_path / "good").folder
    bad = tiny_models.make(tmp_path / "bad", "damaged").folder
    pool = check_pool.Pool(size=1)
    original = check_pool._Child.check

    def dies_first(child: check_pool._Child, path: Path) -> object:
        if path == bad:
            child._process.kill()
            child._process.wait()
        return original(child, path)

    monkeypatch.setattr(check_pool._Child, "check", dies_first)
    results = [result for _, result in pool.check([good, bad, good])]

    assert [result.code for result in results] == ["", "model.truncated", ""]
    assert pool.replaced == 1


@pytest.mark.parametrize(
    "text",
    [
        "rules = " + "[" * 100_000,
        "release = " + "9" * 10_000,
        'thresholds = { "x y" = { default = 1.0, min = 0.0, max = 2.0 } }',
        "x = " + "[[" * 400 + "]]" * 400,
        "# " + "x" * package.MAX_TEXT_BYTES,
        "\ufeffschema = 1",
    ],
    ids=["open brackets", "long number", "a place the reader cannot name", "nested", "long file", "byte order mark"],
)
def test_a_manifest_cannot_hang_or_break_its_reader(text: str, tmp_path: Path) -> None:
    folder = tiny_models.make(tmp_path / "p").folder
    manifest = (folder / "manifest.toml").read_text()
    (folder / "manifest.toml").write_text(text + "\n" + manifest.replace("[thresholds]", "[thresholds2]"))
    with pytest.raises(LinesideError) as caught:
        package.read_folder(folder)
    assert caught.value.code == "model.manifest_invalid"


def test_an_endless_graph_is_ended_in_time(tmp_path: Path) -> None:
    path = tmp_path / "endless.onnx"
    path.write_bytes(tiny_models.endless())
    result = check_file(path, CheckLimits(seconds=5.0))
    assert (result.ok, result.code) == (False, "model.timed_out"), result.reason
