"""What a technician types and reads at commissioning, against the real local address."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Timer
from typing import Any

import cv2
import numpy as np
import pytest

from agent import cli
from agent.capture import commissioned
from agent.capture.frame import NoFrame
from agent.capture.target import CalibrationStore
from agent.status import OutputStatus, RecipeStatus
from tests.support.local_agent import Camera, LocalAgent, picture, station_of, view_of
from tests.support.ports import free_port

Run = Callable[..., tuple[int, str, str]]
LOST = "no frame within 3 s from rtsp://***@10.0.0.8/live; tried 4 times"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[LocalAgent]:
    """Press 7: at its outlet a good camera, a blurred one and one that is lost."""
    outlet = station_of(
        "outlet",
        [
            view_of("top", frames_dropped={"replaced": 4400, "stale": 2}),
            view_of("front", vitals=("blurred", "moved")),
            view_of(
                "side", connected=False, trouble=LOST, fps_in=0.0, fps_used=0.0, frame_age_ms=192_000.0, restarts=4
            ),
        ],
        sources={"top": "rtsp://10.0.0.7/live", "front": "v4l2 /dev/v4l/by-id/usb-1", "side": "rtsp://10.0.0.8/live"},
        without_verdict={"no_frame": 3, "deadline": 1},
        outputs=(OutputStatus(name="mqtt", sent=600, dropped=0, failed=0),),
        recipes=(
            RecipeStatus(id="default", revision=0, active=True, loaded=True),
            RecipeStatus(id="piston-b", revision=3, number=2, codes=("4006*",), loaded=True),
            RecipeStatus(id="piston-c", revision=1, number=3, refusal="The view top has no model (pistons)."),
        ),
    )
    inlet = station_of(
        "inlet", [view_of("top")], sources={"top": "video clip.mp4"}, not_ready="The view top has no model."
    )
    cameras = {
        "outlet/top": Camera(picture()),
        "outlet/front": Camera(picture()),
        "outlet/side": Camera(NoFrame(reason="no frame within 5 s")),
        "inlet/top": Camera(picture()),
    }
    made = LocalAgent(tmp_path, [outlet, inlet], cameras)
    yield made
    made.close()


@pytest.fixture
def run(agent: LocalAgent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a command on press 7; returns its exit status, what it printed and what it said."""
    monkeypatch.setenv("LINESIDE_DATA_DIR", str(agent.folder))

    def body(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    yield body
    logging.getLogger("agent").setLevel(logging.NOTSET)  # `cameras probe` and `test` keep the log to themselves


def test_the_cameras_are_listed_and_a_lost_one_says_why(run: Run) -> None:
    status, out, err = run("cameras", "list")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "VIEW          STATE           FRAMES/S  USED/S  NEWEST      DROPPED  RESTARTS  SOURCE",
        "outlet/top    ok              25.0      3.0     0.03 s ago  0        0         rtsp://10.0.0.7/live",
        "outlet/front  BLURRED, MOVED  25.0      3.0     0.03 s ago  0        0         v4l2 /dev/v4l/by-id/usb-1",
        "outlet/side   LOST            -         -       3 min ago   0        4         rtsp://10.0.0.8/live",
        "inlet/top     ok              25.0      3.0     0.03 s ago  0        0         video clip.mp4",
        "outlet/front: the picture is blurred.",
        "outlet/front: the camera has moved against its reference view.",
        f"outlet/side: no frames: {LOST}.",
    ]


def test_the_stations_are_listed_with_what_they_judged_and_why_one_does_not(run: Run) -> None:
    status, out, _ = run("stations")
    assert status == 0
    lines = out.splitlines()
    assert lines[1].split() == (
        "outlet ready default 580 14 2 4 6 2 23.4 ms 61.0 ms modbus 10.0.0.5:502".split()  # noqa: SIM905
    )
    assert lines[2].split()[:4] == ["inlet", "NOT", "READY", "default"]
    assert "inlet: not ready: The view top has no model." in lines
    assert "outlet: without verdict because of: no frame 3, deadline 1" in lines
    assert "outlet: output mqtt: fine (600 verdicts sent, 0 failed, 0 dropped)" in lines


def test_the_status_names_what_is_wrong_with_the_cameras(run: Run) -> None:
    out = run("status")[1].splitlines()
    assert f"CAMERA      outlet/side: no frames: {LOST}." in out
    assert any(line.startswith("station     inlet: NOT ready (The view top has no model)") for line in out)
    assert any(line.startswith("local       http://127.0.0.1:") for line in out)


def test_a_snapshot_is_a_picture_to_look_at(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run("snapshot", "outlet/top")
    assert (status, out) == (0, "outlet-top.jpg\n")
    assert "outlet/top: " in err
    image = cv2.imread("outlet-top.jpg")
    assert image is not None
    assert float(np.abs(image.astype(float) - picture()).mean()) < 15
    status, out, err = run("snapshot", "front", "-o", "now.jpeg")  # only one station has a view of this name
    assert (status, out, Path("now.jpeg").exists()) == (0, "now.jpeg\n", True)
    assert "note: the picture is blurred." in err


def test_a_reference_is_stored_by_the_agent_for_the_recipe_in_force(run: Run, agent: LocalAgent) -> None:
    status, _, err = run("cameras", "reference", "outlet/front")
    assert (status, agent.references) == (0, [("outlet", "front", (48, 64, 3))])
    assert "outlet/front: what it sees now is its reference for the recipe default (64 x 48" in err


def test_a_black_picture_is_no_reference_unless_it_is_forced(run: Run, agent: LocalAgent) -> None:
    black = station_of("outlet", [view_of("top", vitals=("black",))], sources={})
    agent.write(stations=(black,))
    status, _, err = run("cameras", "reference", "outlet/top")
    assert (status, agent.references) == (4, [])
    assert "outlet/top is no view to hold others against: the picture is black." in err
    assert "--force" in err
    assert run("cameras", "reference", "outlet/top", "--force")[0] == 0


def test_the_recipes_are_listed_with_what_can_be_chosen(run: Run) -> None:
    status, out, _ = run("recipes", "list", "outlet")
    assert (status, run("recipes")[0]) == (0, 0)
    assert out.splitlines() == [
        "STATION  RECIPE    IN FORCE  NUMBER  CODES  REVISION          STATE",
        "outlet   default   yes       -       -      the device's own  ready",
        "outlet   piston-b  -         2       4006*  3                 ready",
        "outlet   piston-c  -         3       -      1                 REFUSED",
        "outlet/piston-c: The view top has no model (pistons).",
    ]


def test_a_recipe_is_chosen_by_the_station_and_a_refusal_says_why(run: Run, agent: LocalAgent) -> None:
    status, _, err = run("recipes", "select", "outlet", "piston-b")
    assert (status, err) == (0, "outlet judges by piston-b from its next part on.\n")
    assert [wish.recipe for wish in agent.desks["outlet"].wishes] == ["piston-b"]
    agent.desks["outlet"].refusal = "Recipe piston-c: the view top has no model (pistons is not loaded)."
    status, _, err = run("recipes", "select", "outlet", "piston-c")
    assert status == 5
    assert "error: Recipe piston-c: the view top has no model (pistons is not loaded)." in err
    assert "(recipe.refused)" in err


def test_a_test_compares_what_came_and_fails_for_the_camera_that_gave_nothing(run: Run, agent: LocalAgent) -> None:
    def later() -> None:
        top = view_of("top", frames_in=5010)
        side = view_of("side", connected=False, trouble=LOST, restarts=5)
        agent.write(stations=(station_of("outlet", [top, side], sources={}),))

    agent.write(
        stations=(station_of("outlet", [view_of("top"), view_of("side", restarts=4)], sources={}),),
        at=datetime.now(UTC) - timedelta(seconds=0.2),
    )
    timer = Timer(0.1, later)
    timer.start()
    status, out, err = run("cameras", "test", "--seconds", "0.3")
    timer.join()
    assert status == 4
    assert "Watching outlet/top, outlet/side for 0.3 s" in err
    lines = out.splitlines()
    assert lines[1].startswith("outlet/top   good    10 frames in 0.")
    assert lines[2].startswith(f"outlet/side  FAILED  no frames: {LOST}. Its process was started again 1 time.")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (
            ["snapshot", "outlet/tpo"],
            7,
            "There is no view outlet/tpo.\n       Did you mean outlet/top? This device has: ",
        ),
        (["snapshot", "top"], 7, "This device has: outlet/top, outlet/front"),  # two stations have one
        (["snapshot", "outlet/side"], 4, "View side gives no picture: no frame within 5 s."),
        (["snapshot", "outlet/top", "-o", "x.png"], 2, "x.png is not named like a JPEG file."),
        (["snapshot", "outlet/top", "-o", "/nowhere/x.jpg"], 9, "/nowhere/x.jpg cannot be used"),
        (["recipes", "select", "outlett", "default"], 7, "There is no station outlett.\n       Did you mean outlet?"),
        (["recipes", "list", "nix"], 7, "There is no station nix."),
        (["cameras", "test", "--seconds", "0"], 2, "--seconds must be above 0"),
        (["cameras", "test", "outlet/tpo"], 7, "Did you mean outlet/top?"),
        (["cameras", "probe", "nix"], 2, "nix is no address of a camera, and no file or folder that exists."),
        (["cameras", "calibrate", "outlet/top", "--mm-per-px", "0"], 5, "0.0 millimetres for a pixel is no scale."),
        (["cameras", "calibrate", "outlet/top", "--chessboard", "7x5"], 2, "belong together"),
        (["cameras", "calibrate", "outlet/top", "--chessboard", "7", "--square-mm", "1"], 2, "'7' is not COLUMNSxROWS"),
        (
            ["cameras", "calibrate", "outlet/top", "--chessboard", "7x5", "--square-mm", "1"],
            5,
            "There is no chessboard",
        ),
    ],
)
def test_what_cannot_be_done_says_what_to_do(run: Run, arguments: list[str], status: int, words: str) -> None:
    found, out, err = run(*arguments)
    assert (found, out) == (status, ""), err
    assert words in err


def test_reads_tell_their_schema_in_json(run: Run) -> None:
    for arguments, schema in (
        (["cameras", "list"], "lineside.cameras/1"),
        (["stations"], "lineside.stations/1"),
        (["recipes"], "lineside.recipe-list/1"),
        (["recipes", "list"], "lineside.recipe-list/1"),
        (["status"], "lineside.status/1"),
    ):
        status, out, _ = run(*arguments, "--json")
        found: dict[str, Any] = json.loads(out)
        assert (status, found["schema"]) == (0, schema)
    cameras = json.loads(run("cameras", "list", "--json")[1])["cameras"]
    assert cameras[2]["view"]["trouble"] == LOST
    assert cameras[2]["source"]["source"] == "rtsp://10.0.0.8/live"


def test_an_agent_that_is_gone_is_never_shown_as_the_present(run: Run, agent: LocalAgent) -> None:
    agent.write(pid=2**22 + 1, at=datetime.now(UTC) - timedelta(seconds=400))
    for arguments in (["cameras", "list"], ["stations"], ["recipes"], ["status"]):
        status, out, err = run(*arguments)
        assert (status, bool(out)) == (7, True)
        assert "The agent does not run: its last word is 7 min old." in err
    for arguments in (["snapshot", "outlet/top"], ["recipes", "select", "outlet", "default"], ["cameras", "test"]):
        status, out, err = run(*arguments)
        assert (status, out) == (7, "")
        assert "Start it: lineside run --config FILE." in err


def test_an_agent_without_a_local_address_or_that_does_not_answer_is_told_so(run: Run, agent: LocalAgent) -> None:
    agent.write(local_address=None)
    assert "enabled = false under [local]" in run("snapshot", "outlet/top")[2]
    agent.write(local_address=f"127.0.0.1:{free_port()}")
    status, _, err = run("snapshot", "outlet/top")
    assert (status, "(network.unreachable)" in err) == (4, True)
    agent.write(local_address=agent.server.address.replace("127.0.0.1", "0.0.0.0"))  # open to the network
    assert run("snapshot", "outlet/top", "-o", str(agent.folder / "x.jpg"))[0] == 0


def test_nobody_has_run_here_tells_how_to_name_the_right_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINESIDE_DATA_DIR", str(tmp_path / "none"))
    assert cli.main(["cameras", "list"]) == 7
    assert "--config agent.toml, or --data-dir DIR." in capsys.readouterr().err


def test_what_is_given_above_a_command_holds_below_it(
    agent: LocalAgent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINESIDE_DATA_DIR", "/nowhere")
    for arguments in (
        ["recipes", "--data-dir", str(agent.folder), "list", "--json"],
        ["recipes", "--data-dir", str(agent.folder), "--json", "list"],
        ["recipes", "list", "--data-dir", str(agent.folder), "--json"],
    ):
        assert cli.main(arguments) == 0
        assert json.loads(capsys.readouterr().out)["schema"] == "lineside.recipe-list/1"


def test_a_chessboard_where_the_parts_lie_makes_pixels_millimetres(run: Run, agent: LocalAgent, tmp_path: Path) -> None:
    board = np.full((480, 640, 3), 255, np.uint8)
    for row in range(6):
        for column in range(8):
            if (row + column) % 2:
                cv2.rectangle(
                    board, (80 + 60 * column, 60 + 60 * row), (139 + 60 * column, 119 + 60 * row), (0, 0, 0), -1
                )
    path = tmp_path / "board.png"
    cv2.imwrite(str(path), board)
    calibrate = ("cameras", "calibrate", "outlet/top")
    status, _, err = run(*calibrate, "--chessboard", "7x5", "--square-mm", "15", "--picture", str(path))
    assert status == 0, err
    assert "a pixel in the middle is 0.250 x 0.250 mm" in err
    store = CalibrationStore(commissioned.root_of(agent.folder))
    made = store.read("outlet", "top")
    assert made is not None
    assert made.fits(640, 480)
    assert "is no longer calibrated" in run(*calibrate, "--remove")[2]
    assert store.read("outlet", "top") is None
    assert run(*calibrate, "--mm-per-px", "0.05")[0] == 0


def test_a_folder_of_pictures_is_probed_and_the_settings_for_it_are_shown(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        cv2.imwrite(str(folder / f"{number}.png"), np.roll(picture(), number, axis=1))
    status, out, _ = run("cameras", "probe", str(folder), "--seconds", "1", "-o", str(tmp_path / "last.jpg"))
    assert status == 0
    assert "  size           64 x 48" in out
    assert "5 frames" in out
    assert f'kind = "folder"\npath = "{folder}"' in out
    assert cv2.imread(str(tmp_path / "last.jpg")) is not None


def test_a_password_that_nobody_can_type_is_told_and_not_a_fault(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_terminal(_prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("getpass.getpass", no_terminal)
    status, _, err = run("cameras", "probe", "rtsp://10.0.0.7/live", "--user", "admin")
    assert status == 2
    assert "--credentials-file" in err


def test_cameras_are_tested_from_the_settings_before_any_agent_runs(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LINESIDE_DATA_DIR")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.roll(picture(), number, axis=1))
    (tmp_path / "fresh").mkdir()
    (tmp_path / "black").mkdir()
    cv2.imwrite(str(tmp_path / "black" / "0.png"), np.zeros((48, 64, 3), np.uint8))
    config = tmp_path / "agent.toml"
    views = "".join(
        f'[[stations.views]]\nid = "{name}"\nmodel = "parts"\nsource = {{ kind = "folder", path = "{path}" }}\n'
        for name, path in (("top", folder), ("side", tmp_path / "black"))
    )
    config.write_text(
        f'[device]\nid = "press-7"\ndata_dir = "{tmp_path / "fresh"}"\n'
        f'[[stations]]\nid = "outlet"\nline = {{ kind = "each_frame" }}\n{views}'
    )
    started = time.monotonic()
    status, out, err = run("cameras", "test", "--config", str(config), "--seconds", "1")
    assert "No agent runs: each camera is opened for 1 s by itself" in err
    assert status == 4
    assert out.splitlines()[1].startswith("outlet/top   good    64 x 48, 3 frames")
    assert out.splitlines()[2].startswith("outlet/side  FAILED  the picture is black (1 of 1 frames).")
    assert time.monotonic() - started < 10
    assert run("cameras", "test", "outlet/nix", "--config", str(config))[0] == 7
