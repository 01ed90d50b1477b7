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


def narrow(package: Package) -> Package:
    """The same version, whose manifest allows a scratch threshold of 0.5 at the most."""
    thresholds = dict(package.manifest.thresholds)
    thresholds["scratch-ng"] = dataclasses.replace(thresholds["scratch-ng"], default=0.45, max=0.5)
    return dataclasses.replace(package, manifest=dataclasses.replace(package.manifest, thresholds=thresholds))


def limit_of(worker: StationWorker, name: str) -> float | None:
    """Return the score from which a recipe calls a scratch NG."""
    rules = worker.catalogue.setups[name].views[0].rules
    return {rule.name: rule.ng_at for rule in rules.rules}["scratch"] if rules is not None else None


@pytest.mark.parametrize("exclusive", [False, True])
def test_going_back_takes_the_revision_that_judged_with_the_former_version(
    worker: StationWorker, stations: Stations, exclusive: bool
) -> None:
    former = narrow(release(1))
    stations.activate(former)
    stations.apply(document(recipe("nut", 2, **{"scratch-ng": 0.42})))
    stations.activate(release(2))
    wanted = document(recipe("nut", 2, revision=2, **{"scratch-ng": 0.85}))
    assert stations.apply(wanted) == []
    assert worker.request_recipe(RecipeRequest(number=2, source="person")) == ""

    assert stations.activate(former, exclusive=exclusive, going_back=True) == former.digest
    assert stations.inferring("demo-parts") == former.digest
    assert (worker.setup.recipe.id, worker.setup.recipe.revision, limit_of(worker, "nut")) == ("nut", 1, 0.42)
    assert worker.state().ready
    assert ids(worker)["nut"][:2] == (1, True)
    assert "Revision 2: View top: scratch-ng = 0.85 is outside 0.4 to 0.5" in ids(worker)["nut"][2]
    back = worker.catalogue
    (sentence,) = stations.apply(wanted)
    assert sentence.startswith("Recipe nut, revision 2; revision 1 stays: View top: scratch-ng = 0.85")
    assert worker.catalogue is back, "the document changes nothing that going back did"

    stations.activate(release(2))
    assert stations.apply(wanted) == []
    assert (worker.setup.recipe.revision, limit_of(worker, "nut")) == (2, 0.85)


def test_going_back_refuses_a_recipe_that_never_judged_with_the_former_version(
    worker: StationWorker, stations: Stations
) -> None:
    former = narrow(release(1))
    stations.activate(former)
    stations.activate(release(2))
    wanted = document(recipe("nut", 2, **{"scratch-ng": 0.85}), recipe("bolt", 3))
    assert stations.apply(wanted) == []
    assert worker.request_recipe(RecipeRequest(number=2, source="person")) == ""

    assert stations.activate(former, going_back=True) == former.digest
    assert stations.inferring("demo-parts") == former.digest
    state = worker.state()
    assert not state.ready
    assert "Recipe nut is in force, and it was refused: View top: scratch-ng = 0.85 is outside 0.4 to 0.5" in (
        state.not_ready
    )
    assert "0.85" in worker.request_recipe(RecipeRequest(number=2, source="person"))
    assert {name for name, (_, loaded, _) in ids(worker).items() if loaded} == {"default", "bolt"}
    (sentence,) = stations.apply(wanted)
    assert sentence.startswith("Recipe nut, revision 1: View top: scratch-ng = 0.85 is outside")
    assert worker.request_recipe(RecipeRequest(number=3, source="person")) == ""
    assert worker.state().ready

    stations.activate(release(2))
    assert stations.apply(wanted) == []
    assert ids(worker)["nut"] == (1, True, ""), "it fits, so it judges again"


def test_going_back_gives_a_number_to_no_two_recipes(worker: StationWorker, stations: Stations) -> None:
    former = narrow(release(1))
    stations.activate(former)
    stations.apply(document(recipe("nut", 2)))
    stations.activate(release(2))
    wanted = document(recipe("nut", 3, revision=2, **{"scratch-ng": 0.85}), recipe("bolt", 2))
    assert stations.apply(wanted) == []
    stations.activate(former, going_back=True)
    assert {name for name, (_, loaded, _) in ids(worker).items() if loaded} == {"default", "bolt"}
    assert worker.request_recipe(RecipeRequest(number=2, source="person")) == ""
    assert worker.setup.recipe.id == "bolt"
    assert len(stations.apply(wanted)) == 1


def test_going_back_takes_the_devices_own_recipe_where_it_knows_no_revision_of_the_fleets(
    worker: StationWorker, stations: Stations
) -> None:
    wanted = document(recipe("default", revision=4, **{"scratch-ng": 0.85}))
    stations.activate(release(2))
    assert stations.apply(wanted) == []
    former = narrow(release(1))
    stations.activate(former, going_back=True)
    assert ids(worker)["default"][:2] == (0, True), "as a start with this version does"
    (sentence,) = stations.apply(wanted)
    assert sentence.startswith("Recipe default, revision 4; revision 0 stays: ")


def test_a_failed_way_back_leaves_the_recipes_as_they_are(
    worker: StationWorker, stations: Stations, tmp_path: Path
) -> None:
    former = narrow(release(1))
    stations.activate(former)
    newer = release(2)
    stations.activate(newer)
    stations.apply(document(recipe("nut", 2, **{"scratch-ng": 0.85})))
    before = worker.catalogue
    with pytest.raises(LinesideError):
        stations.activate(dataclasses.replace(former, folder=tmp_path), exclusive=True, going_back=True)
    assert stations.inferring("demo-parts") == newer.digest
    assert {name: limit_of(worker, name) for name in before.setups} == {"default": 0.72, "nut": 0.85}
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
