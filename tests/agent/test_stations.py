"""Models and recipes are applied to all stations between two parts, and what is refused changes nothing."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.inspection.setup import StationSetup, ViewSetup
from agent.inspection.stations import Stations
from agent.inspection.worker import StationWorker
from agent.threads import Worker
from agent.vision.runtime import RuntimeOptions
from tests.support.station import ScriptedLine, worker_of
from wire.desired import Desired, DesiredStation, Recipe, ViewRecipe
from wire.errors import LinesideError
from wire.package import Package, read_folder
from wire.sampling import SamplingPlan

MODELS = Path(__file__).resolve().parents[2] / "models"
PLAN = SamplingPlan(revision=0, salt="00" * 16)


def setup_without_model() -> StationSetup:
    return StationSetup(
        recipe=Recipe(id="default", revision=0, views={"top": ViewRecipe(model="demo-parts")}),
        sampling=PLAN,
        views=(ViewSetup(view="top", model="demo-parts"),),
    )


@pytest.fixture
def workers() -> Iterator[dict[str, StationWorker]]:
    made = {name: worker_of(ScriptedLine(), {"top": []}, setup=setup_without_model()) for name in ("one", "two")}
    threads = [Worker(f"station-{name}", worker.run) for name, worker in made.items()]
    for thread in threads:
        thread.start()
    yield made
    for thread in threads:
        assert thread.join(3)


def stations_of(workers: dict[str, StationWorker]) -> Stations:
    return Stations(workers, RuntimeOptions(), lambda _model, digest: f"deployment of {digest[:4]}")


def desired(**parameters: float) -> Desired:
    recipe = Recipe(
        id="default", revision=5, views={"top": ViewRecipe(model="demo-parts", parameters=dict(parameters))}
    )
    return Desired(device="press-1", revision=1, stations=(DesiredStation(station="one", recipes=(recipe,)),))


def test_a_version_is_swapped_into_every_view_and_read_back_from_the_sessions(
    workers: dict[str, StationWorker],
) -> None:
    stations = stations_of(workers)
    assert stations.inferring("demo-parts") is None
    for release in (1, 2):
        package = read_folder(MODELS / f"demo-parts-{release}")
        assert stations.activate(package) == package.digest
        assert stations.inferring("demo-parts") == package.digest
        assert all(worker.setup.ready for worker in workers.values())
    assert stations.deployment_id("demo-parts") == f"deployment of {package.digest[:4]}"


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_in_place(
    workers: dict[str, StationWorker], tmp_path: Path
) -> None:
    stations = stations_of(workers)
    good = read_folder(MODELS / "demo-parts-1")
    stations.activate(good)
    folder = tmp_path / "damaged"
    shutil.copytree(MODELS / "demo-parts-2", folder)
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:5000])
    with pytest.raises(LinesideError):
        stations.activate(read_folder(folder))
    assert stations.inferring("demo-parts") == good.digest


def narrowed(package: Package) -> Package:
    """The same package, whose manifest allows a scratch threshold of 0.5 at the most."""
    thresholds = dict(package.manifest.thresholds)
    thresholds["scratch-ng"] = dataclasses.replace(thresholds["scratch-ng"], default=0.45, max=0.5)
    return dataclasses.replace(package, manifest=dataclasses.replace(package.manifest, thresholds=thresholds))


def test_a_version_that_does_not_allow_the_recipe_in_force_is_refused(workers: dict[str, StationWorker]) -> None:
    stations = stations_of(workers)
    first = read_folder(MODELS / "demo-parts-1")
    stations.activate(first)
    assert stations.apply(desired(**{"scratch-ng": 0.85})) == []
    with pytest.raises(LinesideError) as caught:
        stations.activate(narrowed(read_folder(MODELS / "demo-parts-2")))
    assert caught.value.code == "deployment.out_of_bounds"
    assert stations.inferring("demo-parts") == first.digest


def test_a_recipe_within_bounds_is_applied_and_one_outside_is_refused_in_words(
    workers: dict[str, StationWorker],
) -> None:
    stations = stations_of(workers)
    stations.activate(read_folder(MODELS / "demo-parts-1"))
    assert stations.apply(desired(**{"scratch-ng": 0.8})) == []
    assert workers["one"].setup.recipe.revision == 5
    rules = workers["one"].setup.views[0].rules
    assert rules is not None
    assert {rule.name: rule.ng_at for rule in rules.rules}["scratch"] == 0.8
    assert workers["two"].setup.recipe.revision == 0

    (sentence,) = stations.apply(desired(**{"scratch-ng": 0.99}))
    assert "scratch-ng = 0.99 is outside 0.4 to 0.9" in sentence
    assert {rule.name: rule.ng_at for rule in workers["one"].setup.views[0].rules.rules}["scratch"] == 0.8  # type: ignore[union-attr]


def test_a_station_or_view_this_device_lacks_is_named(workers: dict[str, StationWorker]) -> None:
    stations = stations_of(workers)
    unknown = Desired(device="press-1", revision=1, stations=(DesiredStation(station="three"),))
    assert stations.apply(unknown) == ["This device has no station three."]
    recipe = Recipe(id="default", revision=1, views={"side": ViewRecipe(model="demo-parts")})
    other = Desired(device="press-1", revision=1, stations=(DesiredStation(station="one", recipes=(recipe,)),))
    (sentence,) = stations.apply(other)
    assert "names the views side, the station has top" in sentence


def test_a_sampling_plan_is_applied_without_touching_the_models(workers: dict[str, StationWorker]) -> None:
    stations = stations_of(workers)
    stations.activate(read_folder(MODELS / "demo-parts-1"))
    plan = SamplingPlan(revision=3, salt="11" * 16, floor_rate=0.5)
    document = Desired(device="press-1", revision=1, stations=(DesiredStation(station="two", sampling=plan),))
    assert stations.apply(document) == []
    assert workers["two"].setup.sampling == plan
    assert workers["two"].setup.ready
