"""A file of recipes becomes part of the desired document: what it says, what it leaves alone, and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from fleet import cli
from tests.support.fleet_stand import Stand
from tests.support.ports import free_port

RECIPES = """\
[[stations]]
station = "outlet"

[[stations.recipes]]
id = "piston-a"
number = 1
codes = ["4006381*"]
unsure = "reject"
standstill = true
views.top = { model = "parts", parameters = { scratch-ng = 0.6 }, camera = { exposure_us = 800, gain_db = 6 } }

[[stations.recipes]]
id = "piston-b"
number = 2
views.top = { model = "parts" }
"""


@pytest.fixture
def served(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(stand.app, port=port, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    monkeypatch.setenv("LINESIDE_TOKEN", stand.token())
    stand.enrol("press-7")
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "recipes.toml"
    path.write_text(RECIPES)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def recipes_of(capsys: pytest.CaptureFixture[str], url: str) -> dict[str, Any]:
    shown = json.loads(run(capsys, "desired", "show", "press-7", "--url", url, "--json")[1])
    (station,) = shown["desired"]["stations"]
    return {recipe["id"]: recipe for recipe in station["recipes"]}


def test_all_a_file_says_reaches_the_device_and_only_what_changed_gets_a_new_revision(
    stand: Stand, served: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand.push("parts", 1)
    set_it = ("desired", "set", "press-7", "--url", served)
    run(capsys, *set_it, "--model", "parts=1", "--station", "outlet", "--sampling-floor", "0.25")
    assert run(capsys, *set_it, "--recipes", str(file)) == (0, "2\n", "press-7 is now at revision 2.\n")
    first = recipes_of(capsys, served)
    assert first["piston-a"] == {
        "id": "piston-a",
        "revision": 1,
        "views": {
            "top": {
                "model": "parts",
                "parameters": {"scratch-ng": 0.6},
                "camera": {"exposure_us": 800.0, "gain_db": 6.0, "white_balance_k": None, "tolerance": 0.02},
            }
        },
        "number": 1,
        "codes": ["4006381*"],
        "unsure": "reject",
        "standstill": True,
    }

    assert run(capsys, *set_it, "--recipes", str(file))[1] == "2\n"  # nothing changed
    file.write_text(RECIPES.replace('unsure = "reject"', 'unsure = "accept"'))
    assert run(capsys, *set_it, "--recipes", str(file))[1] == "3\n"
    second = recipes_of(capsys, served)
    assert (second["piston-a"]["revision"], second["piston-a"]["unsure"]) == (2, "accept")
    assert second["piston-b"] == first["piston-b"]

    # Another change leaves the recipes alone, and the recipes left the sampling alone.
    run(capsys, *set_it, "--station", "outlet", "--sampling-floor", "0.5")
    assert recipes_of(capsys, served) == second
    shown = run(capsys, "desired", "show", "press-7", "--url", served)[1]
    assert "station outlet: sampling floor 0.5, revision 2" in shown
    assert "piston-a  2         1       4006381*  accept  yes" in shown
    assert "top: parts scratch-ng=0.6 exposure_us=800 gain_db=6" in shown

    file.write_text('[[stations]]\nstation = "outlet"\n')  # no recipes: the device's own again
    assert run(capsys, *set_it, "--recipes", str(file))[0] == 0
    assert recipes_of(capsys, served) == {}


def test_a_model_that_is_not_asked_for_is_told_at_once(
    served: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, "desired", "set", "press-7", "--recipes", str(file), "--url", served)
    assert status == 0
    assert "note: the recipe piston-a needs the model parts, which press-7 is not asked to run yet" in err


@pytest.mark.parametrize(
    ("old", "new", "status", "words"),
    [
        ("number = 2", "number = 1", 2, "piston-a and piston-b both have the number 1. Let each number"),
        ("number = 2", 'codes = ["40063812"]', 2, "overlaps '40063812' of piston-b"),
        ("scratch-ng = 0.6", "scratch-ng = 0.95", 5, "Station outlet, recipe piston-a, view top: "),
        ('unsure = "reject"', 'unsure = "divrt"', 3, "recipes.toml:8: stations[0].recipes[0].unsure: "),
        ("number = 1", "nummer = 1", 3, "recipes.toml:6: stations[0].recipes[0].nummer: unknown key"),
        ("piston-b", "piston-a", 2, "The recipe of the station 'outlet' 'piston-a' is named twice"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_the_place(
    stand: Stand,
    served: str,
    file: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    status: int,
    words: str,
) -> None:
    stand.push("parts", 1)
    file.write_text(RECIPES.replace(old, new))
    found, out, err = run(
        capsys, "desired", "set", "press-7", "--model", "parts=1", "--recipes", str(file), "--url", served
    )
    assert (found, out) == (status, "")
    assert words in err.replace("\n       ", " ")


def test_a_station_that_stands_twice_in_a_file_is_refused(
    served: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(RECIPES + '\n[[stations]]\nstation = "outlet"\n')
    status, _, err = run(capsys, "desired", "set", "press-7", "--recipes", str(file), "--url", served)
    assert (status, "The station 'outlet' is named twice." in err) == (2, True)
