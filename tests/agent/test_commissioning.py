"""A technician's first morning with two real network cameras: every command against the real parts of an agent."""

from __future__ import annotations

import dataclasses
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from agent import cli, status
from agent.capture import commissioned, reference, source_words
from agent.capture.encode import PictureKeeper
from agent.capture.feed import Feed
from agent.capture.reference import ReferenceStore
from agent.capture.settings import SourceSettings, VitalsSettings
from agent.capture.vitals import VitalsWatch
from agent.health.probes import Probes
from agent.health.reporter import Overview, Reporter
from agent.health.station_report import Surroundings
from agent.inspection.catalogue import Catalogue
from agent.inspection.records import TimeQuality
from agent.inspection.setup import StationSetup
from agent.inspection.worker import StationWorker
from agent.line.settings import LineSettings
from agent.local.api import LocalApi
from agent.local.server import LocalServer
from agent.settings import StationSettings, ViewSettings
from agent.threads import Worker
from agent.uplink.outbox import Outbox
from tests.support import rtsp
from tests.support.cameras import eventually, feed_of
from tests.support.rtsp import RtspServer
from tests.support.station import CLOCK, KeptPictures, ScriptedLine, setup_of
from wire.desired import Recipe
from wire.inspection import TimeSource
from wire.mint import Mint

Run = Callable[..., tuple[int, str, str]]
SECRET = "s3cr3t-gate"


class SmallAgent:
    """An agent of one station with two views, composed as the real one is, without a fleet."""

    def __init__(self, folder: Path, cameras: dict[str, SourceSettings]) -> None:
        self.folder = folder
        self.outbox = Outbox(folder / "outbox.db", CLOCK, device="press-7")
        views = tuple(ViewSettings(id=name, model="parts", source=source) for name, source in cameras.items())
        settings = StationSettings(id="outlet", line=LineSettings(kind="http"), views=views, standstill=True)
        self.feeds: dict[str, Feed] = {}
        for name, source in cameras.items():
            made = feed_of(name, source, "latest")
            made._vitals = VitalsWatch(VitalsSettings(max_dark_share=1.0))  # the test picture is mostly black
            self.feeds[name] = made
        infos = {name: feed.open() for name, feed in self.feeds.items()}
        self.worker = StationWorker(
            device="press-7",
            settings=settings,
            line=ScriptedLine(),
            feeds=self.feeds,
            time_classes={name: info.time_class for name, info in infos.items()},
            setup=setup_of(*cameras),
            outbox=self.outbox,
            pictures=PictureKeeper(KeptPictures()),
            mint=Mint(),
            clock=CLOCK,
            time_quality=lambda: TimeQuality(source=TimeSource.FREE_RUNNING),
        )
        self.reporter = Reporter(
            device="press-7",
            agent_version="0",
            data_dir=folder,
            outbox=self.outbox,
            probes=Probes(folder),
            workers={"outlet": self.worker},
            feeds={"outlet": self.feeds},
            threads=[],
            heartbeats={},
            overview=self._overview,
            clock=CLOCK,
            mint=Mint(),
            interval_s=10,
            around={
                "outlet": Surroundings(
                    line="http",
                    sources={
                        name: (source_words.words_of(source), infos[name].time_class.value)
                        for name, source in cameras.items()
                    },
                )
            },
        )
        api = LocalApi(
            device="press-7",
            status=self.reporter.status,
            metrics=self.reporter.metrics,
            counters={},
            desks={"outlet": self.worker},
            views={"outlet": self.feeds},
            keep_reference=self._keep,
        )
        self.server = LocalServer("127.0.0.1", 0, api.routes())
        self.server.start()
        self.threads = [Worker("station-outlet", self.worker.run), Worker("reporter", self.reporter.run)]
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        for thread in self.threads:
            assert thread.join(5)
        for feed in self.feeds.values():
            feed.close()
        self.server.close()
        self.outbox.close()

    def _overview(self) -> Overview:
        return Overview(
            connected=False,
            mqtt_protocol=None,
            desired_revision=0,
            pictures_waiting=0,
            models=(),
            refusals=(),
            local_address=self.server.address,
        )

    def _keep(self, station: str, view: str, image_bgr: NDArray[np.uint8]) -> str:
        recipe = self.worker.state().recipe
        made = reference.of_pictures([image_bgr], datetime.now(UTC))
        ReferenceStore(commissioned.root_of(self.folder)).write(station, view, made, recipe)
        return recipe


@pytest.fixture
def side() -> Iterator[RtspServer]:
    rtsp.needed()
    server = RtspServer(user="admin", password=SECRET).start()
    yield server
    server.kill()


@pytest.fixture
def top() -> Iterator[RtspServer]:
    rtsp.needed()
    server = RtspServer().start()
    yield server
    server.kill()


@pytest.fixture
def agent(tmp_path: Path, top: RtspServer, side: RtspServer) -> Iterator[SmallAgent]:
    secret = tmp_path / "side.credentials"
    secret.write_text(f"admin:{SECRET}\n")
    patience = {"open_timeout_s": 1.5, "read_timeout_s": 1.0}
    made = SmallAgent(
        tmp_path,
        {
            "top": SourceSettings(kind="rtsp", url=top.url, policy="latest", **patience),
            "side": SourceSettings(
                kind="rtsp", url=side.url, policy="latest", credentials_file=str(secret), **patience
            ),
        },
    )
    yield made
    made.close()


@pytest.fixture
def run(agent: SmallAgent, capsys: pytest.CaptureFixture[str]) -> Run:
    def body(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        exit_status = cli.main([*arguments, "--data-dir", str(agent.folder)])
        captured = capsys.readouterr()
        return exit_status, captured.out, captured.err

    return body


def state_of(out: str, view: str) -> str:
    (line,) = [line for line in out.splitlines() if line.startswith(f"{view} ")]
    return line.split()[1]


def until(run: Run, view: str, wanted: str, within_s: float = 20.0) -> str:
    """List the cameras until one is as wanted; returns the listing."""
    listed = ""

    def look() -> bool:
        nonlocal listed
        time.sleep(0.2)
        listed = run("cameras", "list")[1]
        return bool(listed) and state_of(listed, view) == wanted

    eventually(look, within_s, f"{view} {wanted}")
    return listed


def test_a_technicians_first_morning(agent: SmallAgent, side: RtspServer, run: Run, tmp_path: Path) -> None:
    eventually((tmp_path / "status.json").exists)
    until(run, "outlet/top", "ok")
    until(run, "outlet/side", "ok")

    # Both give pictures; a snapshot is what the camera sees.
    assert run("cameras", "test", "--seconds", "1.5")[0] == 0
    picture = tmp_path / "top.jpg"
    assert run("snapshot", "outlet/top", "-o", str(picture))[0] == 0
    seen = cv2.imread(str(picture))
    assert seen is not None
    assert seen.shape == (240, 320, 3)

    # The reference is kept for the recipe in force.
    assert run("cameras", "reference", "outlet/top")[0] == 0
    kept = ReferenceStore(commissioned.root_of(tmp_path)).read("outlet", "top", "default")
    assert kept is not None
    assert (kept.width_px, kept.height_px) == (320, 240)

    # A camera is lost: the list says which, and why; the other one does not suffer.
    side.kill()
    listed = until(run, "outlet/side", "LOST")
    assert state_of(listed, "outlet/top") == "ok"
    why = next(line for line in listed.splitlines() if line.startswith("outlet/side: no frames: "))
    assert len(why) > len("outlet/side: no frames: .")
    exit_status, out, _ = run("cameras", "test", "--seconds", "1.5")
    assert (exit_status, "outlet/side  FAILED" in out, "outlet/top   good" in out) == (4, True, True)
    exit_status, _, err = run("snapshot", "outlet/side")
    assert exit_status == 4
    assert "View side gives no picture" in err

    # It comes back by itself.
    side.start()
    until(run, "outlet/side", "ok")

    # Health has the camera's process, metrics the view; nobody ever said the password.
    found = status.read(tmp_path)
    assert found.health is not None
    assert {process.name for process in found.health.processes} >= {"agent", "camera outlet/top"}
    with urllib.request.urlopen(f"http://{agent.server.address}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert 'lineside_view_connected{station="outlet",view="side"} 1' in text
    for words in (text, listed, why, (tmp_path / "status.json").read_text(), run("cameras", "list", "--json")[1]):
        assert SECRET not in words


def test_a_recipe_is_chosen_between_two_parts_and_one_without_a_model_is_refused(agent: SmallAgent, run: Run) -> None:
    setup = setup_of("top", "side")
    other = setup_of("top", "side", ready=False)
    with_id = {
        "default": setup,
        "piston-b": _renamed(setup, "piston-b", 2),
        "piston-c": _renamed(other, "piston-c", 3),
    }
    agent.worker.replace_catalogue(Catalogue(setups=with_id, active="default"))
    eventually((agent.folder / "status.json").exists)
    assert run("recipes", "select", "outlet", "piston-b")[0] == 0
    assert agent.worker.state().recipe == "piston-b"
    exit_status, _, err = run("recipes", "select", "outlet", "piston-c")
    assert exit_status == 5
    assert "piston-c" in err
    assert "The former recipe stays in force." in err
    assert agent.worker.state().recipe == "piston-b"
    eventually(lambda: "outlet   piston-b  yes" in run("recipes")[1])
    assert "NO MODEL YET" in run("recipes")[1]


def _renamed(setup: StationSetup, name: str, number: int) -> StationSetup:
    recipe = Recipe(id=name, revision=1, views=setup.recipe.views, number=number)
    return dataclasses.replace(setup, recipe=recipe)
