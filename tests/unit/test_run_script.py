"""scripts/run.py: says what is missing, in words, on any Python from 3.8 on, and picks the right installer."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPO = Path(__file__).resolve().parents[2]
SCRIPT = REPO / "scripts" / "run.py"


@pytest.fixture
def run() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lineside_run_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(folder: Path, name: str, script: str) -> Path:
    """Write a program for a made-up PATH."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def old_pythons() -> list[str]:
    """Interpreters older than 3.11 on this machine, from 3.8 on."""
    found = [shutil.which(f"python3.{minor}") for minor in (8, 9, 10)]
    found += map(str, sorted((Path.home() / ".pyenv" / "versions").glob("3.[89].*/bin/python")))
    works = [one for one in found if one and subprocess.run([one, "-c", ""], capture_output=True).returncode == 0]
    return works[:1]


def test_it_parses_on_python_3_8() -> None:
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_it_imports_nothing_but_the_standard_library() -> None:
    for node in ast.walk(ast.parse(SCRIPT.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert all(name.split(".")[0] in sys.stdlib_module_names for name in names)


def test_an_old_python_alone_is_told_what_to_install(tmp_path: Path) -> None:
    pythons = old_pythons()
    if not pythons:
        pytest.skip("No Python from 3.8 to 3.10 is on this machine.")
    (tmp_path / "scripts").mkdir()  # a clone in which nothing has been installed
    script = shutil.copy(SCRIPT, tmp_path / "scripts")
    environ = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    ran = subprocess.run([pythons[0], script, "demo"], capture_output=True, text=True, env=environ)
    assert ran.returncode == 3
    assert "Lineside needs Python 3.11 or newer. This is 3." in ran.stderr
    assert "nstall" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_old_python_finds_a_newer_one_on_the_path(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "python3.13", "exit 127")  # a shim with no Python behind it
    program(tmp_path, "python3.12", f'exec {sys.executable} "$@"')
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(run, "OLDEST", (9, 9))
    with pytest.raises(run.RunError, match="none of"):
        run.find_python()
    monkeypatch.setattr(run.sys, "version_info", (3, 8, 18))
    monkeypatch.setattr(run, "OLDEST", (3, 11))
    assert run.find_python() == "python3.12"


@pytest.mark.parametrize(
    ("system", "release", "command"),
    [
        ("Linux", {"ID": "debian", "VERSION_ID": "12"}, "sudo apt install python3.11 python3.11-venv"),
        (
            "Linux",
            {"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_ID": "24.04"},
            "sudo apt install python3.12 python3.12-venv",
        ),
        ("Linux", {"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_ID": "20.04"}, "uv python install 3.13"),
        ("Linux", {"ID": "fedora", "VERSION_ID": "41"}, "sudo dnf install python3.13"),
        ("Linux", {}, "uv python install 3.13"),
        ("Darwin", {}, "brew install python@3.13"),
    ],
)
def test_each_system_gets_its_own_command(run: ModuleType, system: str, release: dict[str, str], command: str) -> None:
    assert command in run.how_to_install_python(system, release)


def test_a_missing_venv_module_is_named_with_the_package_of_that_very_python(run: ModuleType, tmp_path: Path) -> None:
    python = program(tmp_path, "python", f'case "$2" in *ensurepip*) exit 1;; esac; exec {sys.executable} "$@"')
    with pytest.raises(run.RunError) as caught:
        run.require_venv_module(str(python))
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"sudo apt install python{minor}-venv" in str(caught.value)
    assert caught.value.status == 3


def chosen(run: ModuleType, path: Path, **variables: str) -> str:
    installer: str = run.choose_installer(
        {"PATH": str(path), "HOME": str(path), "PIP_CONFIG_FILE": os.devnull, **variables}
    )[0]
    return installer


def test_uv_is_used_where_it_is_on_the_path(run: ModuleType, tmp_path: Path) -> None:
    assert chosen(run, tmp_path) == "pip"
    program(tmp_path, "uv", "exit 0")
    assert chosen(run, tmp_path) == "uv"


@pytest.mark.parametrize(
    "setting",
    [
        {"PIP_INDEX_URL": "https://mirror.example/simple"},
        {"PIP_EXTRA_INDEX_URL": "https://mirror.example/simple"},
        {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"},
        {"PIP_CERT": "/certificates.pem"},
    ],
)
def test_pip_is_used_where_only_pip_knows_the_index(run: ModuleType, tmp_path: Path, setting: dict[str, str]) -> None:
    program(tmp_path, "uv", "exit 0")
    assert chosen(run, tmp_path, **setting) == "pip"
    assert chosen(run, tmp_path, UV_DEFAULT_INDEX="https://mirror.example/simple", **setting) == "uv"
    assert chosen(run, tmp_path, LINESIDE_INSTALLER="uv", **setting) == "uv"


def test_an_index_in_pips_own_file_counts_and_other_settings_do_not(run: ModuleType, tmp_path: Path) -> None:
    conf = tmp_path / ".config" / "pip" / "pip.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("[global]\ntimeout = 60\n")
    environ = {"HOME": str(tmp_path), "SSL_CERT_FILE": "/certificates.pem"}
    before = run.pip_settings(environ)
    conf.write_text("[global]\nindex_url = https://mirror.example/simple\n")
    assert set(run.pip_settings(environ)) - set(before) == {"index-url"}
    assert run.pip_settings({**environ, "PIP_CONFIG_FILE": os.devnull}) == []


def test_why_an_installer_was_chosen_never_shows_an_address(run: ModuleType, tmp_path: Path) -> None:
    program(tmp_path, "uv", "exit 0")
    environ = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PIP_INDEX_URL": "https://user:secret@mirror.example"}
    assert "secret" not in run.choose_installer(environ)[1]


def test_an_installer_that_is_not_known_or_not_there_is_refused(run: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(run.RunError, match="allowed are uv and pip"):
        chosen(run, tmp_path, LINESIDE_INSTALLER="conda")
    with pytest.raises(run.RunError, match="not on the PATH"):
        chosen(run, tmp_path, LINESIDE_INSTALLER="uv")


def fake_installation(run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Point the script at an environment in `tmp_path`; returns the list that collects what it installs."""
    monkeypatch.setattr(run, "VENV", tmp_path)
    monkeypatch.setattr(run, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(run, "STAMP", tmp_path / "stamp.json")
    commands: list[str] = []

    def record(command: list[str], environ: dict[str, str], sentence: str) -> None:
        if "install" in command:
            commands.append(" ".join(command))

    monkeypatch.setattr(run, "run_quietly", record)
    monkeypatch.setenv("LINESIDE_INSTALLER", "pip")
    return commands


def test_what_is_installed_is_remembered_and_dev_serves_for_the_demo(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = fake_installation(run, tmp_path, monkeypatch)
    run.ensure_installed("dev")
    assert "--require-hashes" in commands[0]
    assert commands[0].endswith("requirements/dev.txt")
    assert "--no-deps --no-build-isolation --editable" in commands[1]
    run.ensure_installed("dev")
    run.ensure_installed("demo")
    assert len(commands) == 2


def test_an_installation_that_was_cut_short_is_done_again(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = fake_installation(run, tmp_path, monkeypatch)
    run.ensure_installed("demo")

    def cut_short(command: list[str], environ: dict[str, str], sentence: str) -> None:
        raise run.RunError(4, "cut")

    stamp = json.loads((tmp_path / "stamp.json").read_text())
    stamp["sets"]["demo"] = "of an older pyproject.toml"
    (tmp_path / "stamp.json").write_text(json.dumps(stamp))
    with monkeypatch.context() as patch:
        patch.setattr(run, "run_quietly", cut_short)
        with pytest.raises(run.RunError):
            run.ensure_installed("demo")
    assert not (tmp_path / "stamp.json").exists()
    run.ensure_installed("demo")
    assert len(commands) == 4


def test_help_names_every_command_and_exit_status() -> None:
    ran = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True)
    assert ran.returncode == 0
    for word in ("demo", "test", "check", "130", "143", "PIP_NO_INDEX", "LINESIDE_INSTALLER"):
        assert word in ran.stdout


@pytest.mark.parametrize("arguments", [[], ["soak"], ["check", "more"]])
def test_a_wrong_command_line_is_status_2(arguments: list[str]) -> None:
    assert subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["test"], ["-n", "3"]),
        (["test", "tests/unit/test_rules.py", "-x"], ["tests/unit/test_rules.py", "-x"]),
        (["test", "-n", "4", "--durations=5"], ["-n", "4", "--durations=5"]),
    ],
)
def test_the_whole_suite_runs_side_by_side_and_anything_less_as_typed(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(run, "ensure_installed", lambda name: None)
    monkeypatch.setattr(run.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    monkeypatch.setattr(run, "run", lambda command: started.append(command) or 1)
    assert run.main(arguments) == 1
    assert started == [[str(run.PYTHON), "-m", "pytest", *words]]


def test_a_large_machine_runs_eight_tests_at_a_time(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert run.beside() == 8


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_what_was_started_and_is_told_by_the_exit_status(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    child = tmp_path / "child.py"
    child.write_text(
        "import pathlib, sys, time\n"
        f"started = pathlib.Path({str(tmp_path / 'started')!r})\n"
        "try:\n    started.touch(); time.sleep(60)\n"
        f"except KeyboardInterrupt:\n    pathlib.Path({str(tmp_path / 'cleaned')!r}).touch()\n"
    )
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('run', {str(SCRIPT)!r})\n"
        "run = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(run)\n"
        "run.ensure_installed = lambda name: None\n"
        f"real = run.run\nrun.run = lambda command: real([sys.executable, {str(child)!r}])\n"
        "sys.exit(run.main(['test']))\n"
    )
    process = subprocess.Popen([sys.executable, str(driver)], stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    while not (tmp_path / "started").exists():
        assert process.poll() is None
    process.send_signal(number)
    assert process.wait(timeout=30) == status
    assert (tmp_path / "cleaned").exists()
