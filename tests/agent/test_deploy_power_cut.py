"""The power goes at every change of the disk, and what was not synced is lost, kept, torn or out of order."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.deploy.durable import Disk
from agent.deploy.part import SUFFIX, SYNC_BYTES
from agent.deploy.store import Store
from tests.support.deploying import make_package
from tests.support.kill_scenarios import PATIENCE, SCENARIOS, Plant
from tests.support.losing_disk import Cut, Watch, cuts_of, memory_folder, write_image
from wire import codec
from wire.deployment import DeploymentReport

SEED = 20261121
# Of each scenario so many cuts are gone through, chosen by the seed; LINESIDE_ALL_CUTS=1 goes through all of them.
CHOSEN = 60
ALL = os.environ.get("LINESIDE_ALL_CUTS") == "1"


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as made:
        yield made


class Story:
    """One scenario, run once to its end while its disk is watched."""

    def __init__(self, folder: Path, name: str, *, lies: bool = False) -> None:
        self.plant = Plant(folder, SCENARIOS[name])
        self.plant.reset()
        is_new = not SCENARIOS[name].history  # then nothing is there yet, and its folders are in doubt as well
        if is_new:
            shutil.rmtree(self.plant.root)
            self.plant.root.mkdir()
        self.watch = Watch(self.plant.root, random.Random(SEED), lies=lies)
        self.reports: list[bytes] = []
        device = self.plant._device(self.plant.root, lambda _: None)
        device.take = self._take
        with self.watch.watching():
            device.boot()
            device.run(self.plant.desired, patience=PATIENCE)

    def _take(self, report: DeploymentReport) -> None:
        self.reports.append(codec.encode(report) + b"\n")
        self.watch.say()

    def check(self, cut: Cut) -> None:
        """Restart on what the cut left."""
        shutil.rmtree(self.plant.root)
        write_image(cut.image, self.plant.root)
        self.plant.log.write_bytes(b"".join(self.reports[: cut.said]))
        try:
            self.plant.restart_and_check(self.plant.scenario.ends)
        except Exception as error:
            left = "\n".join(f"{name} {len(data or b'')}" for name, _, data in cut.image if data is not None)
            raise AssertionError(
                f"Cut at moment {cut.moment}, before {cut.before!r}, {cut.variant}: {error}\n{left}"
            ) from error


@pytest.mark.parametrize("name", SCENARIOS)
def test_whatever_a_power_cut_leaves_the_device_restarts_on_a_whole_model_and_the_deployment_ends(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = Story(folder, name)
    cuts = story.watch.cuts
    assert len(cuts) > CHOSEN
    chosen = cuts if ALL else random.Random(SEED).sample(cuts, CHOSEN)
    for cut in chosen:
        story.check(cut)
    with capsys.disabled():
        print(
            f"\n{name}: {story.watch.moments} moments, {story.watch.cases} cuts, {len(cuts)} of them distinct, "
            f"{len(chosen)} gone through"
        )


def left_by(root: Path, action: Callable[[], object]) -> list[Cut]:
    """Return what cuts may leave of a folder after an action."""

    def then_say(watch: Watch) -> None:
        action()
        watch.say()

    return [cut for cut in cuts_of(root, random.Random(SEED), then_say) if cut.said]


def test_a_damaged_blob_that_was_dropped_does_not_come_back(folder: Path) -> None:
    """It would be found a second time, which is a reason to refuse the version."""
    found = make_package(folder / "v1", 1)
    store = Store(folder / "store")
    bad = store.blob_path(found.index.files[0].digest)
    bad.parent.mkdir()
    bad.write_bytes(b"damaged")
    cuts = left_by(folder / "store", lambda: store.damage(found.index))
    assert {cut.variant for cut in cuts} >= {"all kept"}
    assert [cut.variant for cut in cuts if any(name.endswith(bad.name) for name, _, _ in cut.image)] == []


def test_bytes_of_a_part_that_were_let_go_do_not_come_back(folder: Path) -> None:
    store = Store(folder / "store")
    with store.part("a" * 64) as part:
        part.write(b"x" * (2 * SYNC_BYTES + 1))

        def begin_anew() -> None:
            part.restart()
            part.write(b"y")

        cuts = left_by(folder / "store", begin_anew)
    left = {data for cut in cuts for name, _, data in cut.image if name.endswith(SUFFIX)}
    assert left == {b"", b"\0", b"y"}


def test_a_part_whose_old_name_came_back_beside_its_blob_goes_and_the_blob_stays_whole(folder: Path) -> None:
    """A rename between two folders may have reached the second one only: both names are of the same file."""
    store = Store(folder / "store")
    blob = store.blob_path("a" * 64)
    blob.parent.mkdir()
    blob.write_bytes(b"whole")
    os.link(blob, store.incoming_path("a" * 64))
    store.sweep()
    assert blob.read_bytes() == b"whole"
    assert not store.incoming_path("a" * 64).exists()


def found_in(story: Story) -> int:
    """Return how many of the chosen cuts end badly."""
    found = 0
    for cut in random.Random(SEED).sample(story.watch.cuts, CHOSEN):
        try:
            story.check(cut)
        except AssertionError:
            found += 1
    return found


def test_the_model_finds_a_store_that_forgets_to_sync_its_folders(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Disk, "_sync_folder", lambda _disk, _folder: None)
        story = Story(folder, "third version")
    assert found_in(story) >= 10


def test_the_model_finds_a_disk_that_only_says_it_syncs(folder: Path) -> None:
    assert found_in(Story(folder, "third version", lies=True)) >= 10
