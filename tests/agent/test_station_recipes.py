"""All recipes of the fleet's document are held ready; a bad one is refused with the reason, and the others apply."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.inspection.stations import Stations
from agent.inspection.worker import StationWorker
from agent.line.trigger import RecipeRequest
from agent.threads import Worker
from agent.vision.runtime import RuntimeOptions
from tests.support.station import MemoryOutbox, ScriptedLine, frame_of, setup_of, trigger, worker_of
from wire.desired import Desired, DesiredStation, Recipe, ViewRecipe
from wire.errors import LinesideError
from wire.package import Package, read_folder

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture
def worker() -> Iterator[StationWorker]:
    made = worker_of(ScriptedLine(), {"top": []}, setup=setup_of("top", ready=False), deadline_ms=5000)
    thread = Worker("station-gauge", made.run)
    thread.start()
    yield made
    assert thread.join(3)


@pytest.fixture
def stations(worker: StationWorker) -> Stations:
    return Stations({"gauge": worker}, RuntimeOptions(), lambda _model, _digest: None)


def release(number: int) -> Package:
    return read_folder(MODELS / f"demo-parts-{number}")


def recipe(name: str, number: int | None = None, *codes: str, revision: int = 1, **parameters: float) -> Recipe:
    views = {"top": ViewRecipe(model="demo-parts", parameters=dict(parameters))}
    return Recipe(id=name, revision=revision, number=number, codes=codes, views=views)


def document(*recipes: Recipe) -> Desired:
    return Desired(device="press-1", revision=1, stations=(DesiredStation(station="gauge", recipes=recipes),))


def ids(worker: StationWorker) -> dict[str, tuple[int, bool, str]]:
    return {row.id: (row.revision, row.loaded, row.refusal) for row in worker.recipes()}


def test_all_recipes_are_ready_at_once_and_the_devices_own_is_always_among_them(
    worker: StationWorker, stations: Stations
) -> None:
    stations.activate(release(1))
    assert stations.apply(document(recipe("nut", 2), recipe("bolt", 3, "bolt-*"))) == []
    assert ids(worker) == {"default": (0, True, ""), "nut": (1, True, ""), "bolt": (1, True, "")}
    assert worker.request_recipe(RecipeRequest(code="bolt-9", source="person")) == ""
    assert worker.setup.recipe.id == "bolt"
    assert stations.apply(Desired(device="press-1", revision=2)) == []
    assert list(ids(worker)) == ["bolt", "default"], "in force until another is chosen"


def test_a_bad_recipe_is_refused_with_the_reason_and_the_others_apply(
    worker: StationWorker, stations: Stations
) -> None:
    stations.activate(release(1))
    wrong_view = dataclasses.replace(recipe("side", 4), views={"side": ViewRecipe(model="demo-parts")})
    bold = recipe("bold", 5, **{"scratch-ng": 0.99})
    sentences = stations.apply(document(recipe("nut", 2), bold, wrong_view))
    assert len(sentences) == 2
    assert "Recipe bold, revision 1: View top: scratch-ng = 0.99 is outside 0.4 to 0.9" in sentences[0]
    assert "names the views side, the station has top" in sentences[1]
    assert ids(worker)["nut"] == (1, True, "")
    assert "0.99" in worker.request_recipe(RecipeRequest(number=5, source="person"))
    assert worker.setup.recipe.id == "default"


def test_a_bad_revision_leaves_the_former_one_in_use(worker: StationWorker, stations: Stations) -> None:
    stations.activate(release(1))
    stations.apply(document(recipe("nut", 2)))
    (sentence,) = stations.apply(document(recipe("nut", 2, revision=7, **{"scratch-ng": 0.99})))
    assert sentence.startswith("Recipe nut, revision 7; revision 1 stays: ")
    revision, loaded, refusal = ids(worker)["nut"]
    assert (revision, loaded) == (1, True)
    assert refusal.startswith("Revision 7: ")
    assert worker.request_recipe(RecipeRequest(number=2, source="person")) == ""
    assert stations.apply(document(recipe("nut", 2, revision=8))) == []
    assert (worker.setup.recipe.id, worker.setup.recipe.revision) == ("nut", 8)


@pytest.mark.parametrize(
    "pair",
    [
        (recipe("nut", 2), recipe("bolt", 2)),
        (recipe("nut", 2, "40*"), recipe("bolt", 3, "4006381333931")),
    ],
)
def test_two_recipes_that_one_request_could_mean_are_both_refused(
    worker: StationWorker, stations: Stations, pair: tuple[Recipe, Recipe]
) -> None:
    stations.activate(release(1))
    sentences = stations.apply(document(*pair, recipe("screw", 9)))
    assert len(sentences) == 2
    assert {name for name, (_, loaded, _) in ids(worker).items() if loaded} == {"default", "screw"}
    assert "refused" in worker.request_recipe(RecipeRequest(recipe="nut", source="person"))


def test_a_number_that_a_staying_revision_still_has_goes_to_no_newcomer(
    worker: StationWorker, stations: Stations
) -> None:
    stations.activate(release(1))
    stations.apply(document(recipe("nut", 2)))
    moved = recipe("nut", 3, revision=2, **{"scratch-ng": 0.99})
    sentences = stations.apply(document(moved, recipe("bolt", 2)))
    assert len(sentences) == 2
    assert worker.request_recipe(RecipeRequest(number=2, source="person")) == ""
    assert worker.setup.recipe.id == "nut"


def test_a_recipe_waits_for_its_model_and_is_ready_with_it(worker: StationWorker, stations: Stations) -> None:
    assert stations.apply(document(recipe("nut", 2))) == []
    assert "is not loaded" in worker.request_recipe(RecipeRequest(number=2, source="person"))
    stations.activate(release(1))
    assert worker.request_recipe(RecipeRequest(number=2, source="person")) == ""
    assert stations.models == ("demo-parts",)


def test_a_recipe_that_never_judged_does_not_keep_a_version_out(worker: StationWorker, stations: Stations) -> None:
    stations.apply(document(recipe("nut", 2), recipe("bold", 5, **{"scratch-ng": 0.99})))
    package = release(1)
    assert stations.activate(package) == package.digest
    assert stations.inferring("demo-parts") == package.digest
    assert ids(worker)["nut"][1]
    assert "0.99" in ids(worker)["bold"][2]
    (sentence,) = stations.apply(document(recipe("nut", 2), recipe("bold", 5, **{"scratch-ng": 0.99})))
    assert sentence.startswith("Recipe bold")


def test_a_version_that_an_idle_recipe_does_not_fit_is_refused(worker: StationWorker, stations: Stations) -> None:
    first, second = release(1), release(2)
    stations.activate(first)
    stations.apply(document(recipe("nut", 2, **{"scratch-ng": 0.85})))
    thresholds = dict(second.manifest.thresholds)
    thresholds["scratch-ng"] = dataclasses.replace(thresholds["scratch-ng"], default=0.45, max=0.5)
    narrow = dataclasses.replace(second, manifest=dataclasses.replace(second.manifest, thresholds=thresholds))
    with pytest.raises(LinesideError) as caught:
        stations.activate(narrow)
    assert caught.value.code == "deployment.out_of_bounds"
    assert stations.inferring("demo-parts") == first.digest
    assert {row.loaded for row in worker.recipes()} == {True}


def test_applying_the_same_document_again_disturbs_nothing(worker: StationWorker, stations: Stations) -> None:
    stations.activate(release(1))
    same = document(recipe("nut", 2), recipe("bold", 5, **{"scratch-ng": 0.99}))
    stations.apply(same)
    former = worker.catalogue
    for _ in range(3):
        assert len(stations.apply(same)) == 1
    assert worker.catalogue is former


def test_after_a_restart_the_recipe_in_force_comes_back_with_the_document() -> None:
    outbox = MemoryOutbox()
    outbox.meta["recipe.gauge"] = "nut"
    event = trigger(1)
    worker = worker_of(
        ScriptedLine(), {"top": [frame_of(event, score_percent=1)]}, outbox=outbox, setup=setup_of("top", ready=False)
    )
    thread = Worker("station-gauge", worker.run)
    thread.start()
    stations = Stations({"gauge": worker}, RuntimeOptions(), lambda _model, _digest: None)
    package = release(1)
    stations.activate(package)
    assert not worker.state().ready, "the device's own recipe must not judge in the name of another"
    stations.apply(document(recipe("nut", 2)))
    assert worker.state().ready
    assert worker.state().recipe_number == 2
    assert thread.join(3)


def test_recipes_share_the_memory_of_their_threads(worker: StationWorker, stations: Stations) -> None:
    stations.activate(release(1))
    stations.apply(document(*(recipe(f"r{number}", number) for number in range(1, 6))))
    pipelines = [setup.views[0].pipelines[0] for setup in worker.catalogue.setups.values()]
    assert len({id(pipeline) for pipeline in pipelines}) == 6
    assert len({id(pipeline._preprocess) for pipeline in pipelines}) == 1
