"""Each extra installed alone: what it brings, what it must not bring, and what a command without its extra says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import require

REPO = Path(__file__).resolve().parents[2]
# Room for a cold cache: the first run downloads OpenCV and onnxruntime (60 MB).
pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

ABSENT = {
    "": {"cv2", "fastapi", "httpx", "numpy", "onnxruntime", "paho", "psutil", "sqlmodel", "uvicorn", "amqtt"},
    "agent": {"fastapi", "starlette", "sqlmodel", "sqlalchemy", "pydantic", "uvicorn", "jinja2", "alembic", "amqtt"},
    "fleet": {"cv2", "numpy", "onnxruntime", "psutil", "amqtt"},
    "embedded-broker": {"cv2", "numpy", "onnxruntime", "fastapi", "sqlmodel", "uvicorn"},
}
PRESENT = {
    "": {"msgspec", "wire.codec", "wire.topics", "wire.package", "agent.cli", "fleet.cli"},
    "agent": {"cv2", "onnxruntime", "paho.mqtt.client", "httpx", "psutil", "agent.app", "agent.vision.pipeline"},
    "fleet": {"fastapi", "sqlmodel", "alembic", "uvicorn", "jinja2", "paho.mqtt.client", "fleet.app"},
    "embedded-broker": {"amqtt", "wire.codec"},
}
# A command of each program that needs its extra; files that it names need not exist.
NEEDING = {
    "lineside": ["infer", "nowhere", "nowhere"],
    "lineside-fleet": ["db", "upgrade", "--data-dir", "nowhere"],
}
EXTRA_OF = {"lineside": "agent", "lineside-fleet": "fleet"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    extra: str
    python: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Python in an empty folder, without the repository on its path."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        folder = self.python.parent.parent
        return subprocess.run(
            [str(self.python), *words], capture_output=True, text=True, timeout=60, cwd=folder, env=environ
        )

    def program(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(self.python.parent / name), *words)


@pytest.fixture(scope="module")
def uv() -> Path:
    found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if found is None:
        require.missing("uv is not installed (it is in the development set).")
    return Path(found)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the environment's own build backend: no network, no isolation."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=REPO, check=True, timeout=60
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module", params=list(PRESENT), ids=lambda extra: extra or "base")
def installed(
    request: pytest.FixtureRequest, uv: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    extra: str = request.param
    folder = tmp_path_factory.mktemp(f"only-{extra or 'base'}") / "venv"
    python = folder / "bin" / "python"
    subprocess.run([str(uv), "venv", "--quiet", "--python", sys.executable, str(folder)], check=True, timeout=60)
    constraints = (
        folder.parent / "constraints.txt"
    )  # the pinned versions, without the hashes that a wheel of ours lacks
    lines = (REPO / "requirements" / "dev.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.removesuffix("\\") for line in lines if re.match(r"[a-z0-9]", line)]
    constraints.write_text("\n".join(pins))
    target = f"{wheel}[{extra}]" if extra else str(wheel)
    ran = subprocess.run(
        [str(uv), "pip", "install", "--quiet", "--python", str(python), "--constraints", str(constraints), target],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if re.search(r"Failed to fetch|error sending request", ran.stderr):
        require.missing("No package index can be reached, and uv's cache lacks what the extras need.")
    assert ran.returncode == 0, ran.stderr
    return Installed(extra=extra, python=python)


def test_the_wheel_holds_wire_agent_and_fleet_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"wire", "agent", "fleet"}
    assert not [name for name in names if name.endswith((".onnx", ".pyc"))]
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_wheel_carries_every_file_that_the_rooms_read_when_they_run(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    listed = subprocess.run(["git", "ls-files", "wire", "agent", "fleet"], cwd=REPO, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("This is not a clone, so what belongs to the repository is not known.")
    on_disk = {name for name in listed.stdout.splitlines() if (REPO / name).is_file()}
    assert sorted(on_disk - names) == []


def test_an_extra_brings_what_its_side_imports(installed: Installed) -> None:
    for module in sorted(PRESENT[installed.extra]):
        ran = installed.run("-c", f"import {module}")
        assert ran.returncode == 0, f"{module}: {ran.stderr}"


def test_an_extra_does_not_bring_the_other_side(installed: Installed) -> None:
    code = "import importlib.util, sys; print(*[n for n in sys.argv[1:] if importlib.util.find_spec(n)])"
    ran = installed.run("-c", code, *sorted(ABSENT[installed.extra]))
    assert ran.stdout.split() == []
    assert ran.returncode == 0


@pytest.mark.parametrize("name", EXTRA_OF)
def test_help_works_whichever_extra_is_there(installed: Installed, name: str) -> None:
    ran = installed.program(name, "--help")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"usage: {name}")


@pytest.mark.parametrize("name", EXTRA_OF)
def test_a_command_without_its_extra_says_which_one_to_install(installed: Installed, name: str) -> None:
    ran = installed.program(name, *NEEDING[name])
    if installed.extra == EXTRA_OF[name]:
        assert "config.missing_extra" not in ran.stderr
        return
    assert ran.returncode == 3, ran.stderr
    assert "config.missing_extra" in ran.stderr
    assert f"lineside[{EXTRA_OF[name]}]" in ran.stderr
    assert "Traceback" not in ran.stderr
