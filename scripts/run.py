#!/usr/bin/env python3
"""Runs Lineside from a fresh clone: makes .venv, installs what is pinned in requirements/, starts what you ask for.

This file needs nothing but Python's standard library, and parses on Python 3.8, so that it can say what is missing.
"""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
VENV = REPO / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "lineside-installed.json"
OLDEST = (3, 11)
NEWER_PYTHONS = ("python3.13", "python3.12", "python3.11")

HELP = """\
usage: python3 scripts/run.py COMMAND [ARGUMENTS...]

commands:
  demo    broker, fleet and three agents on a simulated line; prints the page's address. Ctrl-C ends all of it.
          demo --help lists its arguments, among them --broker auto|mosquitto|embedded, --once and --json FILE.
  test    the test suite, some tests side by side; with arguments it is pytest with those, one test after another
          unless -n says otherwise (test tests/unit/test_rules.py, test -k belt, test -n 3 --durations=20)
  check   ruff, mypy --strict and import-linter: all of them run, all of them are reported
  bench   agent: what the agent costs beside a bare run of the model and a plain loop [--json] [--rounds N]
          ingest: what the fleet takes in beside the same chain written by hand [--json] [--rounds N] [--devices N]
          shadow: what a candidate costs the version in use [--json] [--rounds N]
  soak    fuzz-models: hostile manifests and model files for as long as you say [--minutes N] [--json]
          kills: kill -9 of devices, broker, ingest and fleet [--kills N] [--minutes N] [--seed N] [--json]
          backlog: two weeks offline, then everything at once [--records N] [--rate N] [--json]
          fleet: many devices at once [--devices N] [--minutes N] [--json]
          belt: 10,000 parts, three cameras, a PLC, a killed agent; every account compared [--parts N] [--json]
          line: camera after camera fails; nothing may grow, and nothing stay after kill -9 [--minutes N] [--json]
          swaps: two versions of a model take turns at a running station [--swaps N] [--paced|--full] [--json]
          triggers: from trigger to verdict over PLC, HTTP and MQTT [--triggers N] [--rate N] [--keep FOLDER] [--json]

The first run makes .venv and installs into it; later runs start at once. uv is used when it is on the PATH, else pip.
Settings of a package index are honoured (PIP_*, UV_*, pip.conf, uv.toml). uv does not read pip's settings: where pip
has an index configured and uv has none, pip is used. LINESIDE_INSTALLER=uv or =pip decides it by hand.
Offline: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER_OF_WHEELS.

exit status:
  0 done    1 a check or a test failed    2 wrong command line    3 something is missing on this machine
  4 installing failed    130 ended by Ctrl-C    143 ended by SIGTERM    other: that of the program that was started
  The demo without --once waits for Ctrl-C, and then ends with 0.
"""

# Each command's requirements file, and the sets that are on the machine once it is installed (dev holds all of demo).
NEEDS = {"demo": "demo", "test": "dev", "check": "dev", "bench": "dev", "soak": "dev"}
PROVIDES = {"demo": ("demo",), "dev": ("dev", "demo")}
# The second word of `bench` and `soak`, and the script that it starts.
SCRIPTS = {
    ("bench", "agent"): "bench_agent.py",
    ("bench", "ingest"): "bench_ingest.py",
    ("bench", "shadow"): "bench_shadow.py",
    ("soak", "belt"): "belt.py",
    ("soak", "fuzz-models"): "fuzz_models.py",
    ("soak", "kills"): "soak_kills.py",
    ("soak", "backlog"): "soak_backlog.py",
    ("soak", "fleet"): "soak_fleet.py",
    ("soak", "line"): "soak_line.py",
    ("soak", "swaps"): "soak_swaps.py",
    ("soak", "triggers"): "soak_triggers.py",
}
CHECKS = (
    ("ruff check", ["ruff", "check", "."]),
    ("ruff format", ["ruff", "format", "--check", "."]),
    ("mypy --strict", ["mypy"]),
    ("import-linter", ["lint-imports"]),
)
# Tests side by side: each process imports everything once (8 s of CPU), and the longest file bounds the whole.
BESIDE_MAX = 8
# The releases whose own packages hold a Python that is new enough.
DEBIAN_PYTHONS = {
    ("debian", "12"): "3.11",
    ("debian", "13"): "3.13",
    ("ubuntu", "22.04"): "3.11",
    ("ubuntu", "24.04"): "3.12",
    ("ubuntu", "25.04"): "3.13",
    ("ubuntu", "25.10"): "3.13",
}
PIP_INDEX_KEYS = {"index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy", "client-cert"}
UV_INDEX_VARIABLES = (
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_NO_INDEX",
    "UV_OFFLINE",
    "UV_CONFIG_FILE",
)
# Settings that would make pip install somewhere else than into .venv.
PIP_PLACES = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")


class RunError(Exception):
    """Ends the program with a sentence for a person and an exit status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


# --- What is on this machine -----------------------------------------------------------------------------------------


def version_of(python: str) -> tuple[int, ...] | None:
    """Return the version of an interpreter, None where it does not run (a shim without a Python behind it, say)."""
    code = "import sys; print(*sys.version_info[:3])"
    try:
        answer = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        return tuple(int(part) for part in answer.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def find_python() -> str:
    """Return an interpreter that is new enough: this one, else one of the PATH.

    Raises:
        RunError: with the command that installs one.
    """
    if sys.version_info[:2] >= OLDEST:
        return sys.executable
    for name in NEWER_PYTHONS:
        version = version_of(name) if shutil.which(name) else None
        if version is not None and version[:2] >= OLDEST:
            return name
    have = platform.python_version()
    raise RunError(
        3,
        f"Lineside needs Python 3.11 or newer. This is {have}, and none of {', '.join(NEWER_PYTHONS)} is on the PATH.\n"
        + how_to_install_python(platform.system(), os_release())
        + "\nThen run the same command again.",
    )


def os_release() -> dict[str, str]:
    """Return the fields of /etc/os-release; empty where there is none."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}


def how_to_install_python(system: str, release: dict[str, str]) -> str:
    """Return the command that installs a Python that is new enough, for the operating system at hand."""
    with_uv = (
        "On any system, uv brings one: `uv python install 3.13`, then `uv run --no-project python scripts/run.py`."
    )
    names = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    if system == "Darwin":
        return "Install it with: brew install python@3.13"
    if "fedora" in names or "rhel" in names:
        return "Install it with: sudo dnf install python3.13"
    if names & {"debian", "ubuntu"}:
        minor = DEBIAN_PYTHONS.get((release.get("ID", ""), release.get("VERSION_ID", "")))
        if minor is not None:
            return f"Install it with: sudo apt install python{minor} python{minor}-venv"
        return f"This release has no such package of its own, unless it is a new one (apt search python3).\n{with_uv}"
    return with_uv


def require_venv_module(python: str) -> None:
    """Raise RunError, with the command that helps, where Python came without venv (Debian and Ubuntu split it off)."""
    works = subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode == 0
    if not works:
        minor = "{}.{}".format(*(version_of(python) or OLDEST))
        raise RunError(
            3,
            f"Python {minor} came without the venv module, which makes the environment.\n"
            f"On Debian and Ubuntu: sudo apt install python{minor}-venv\n"
            "Elsewhere: install the full Python package, or put uv on the PATH. Then run the same command again.",
        )


# --- Which installer -------------------------------------------------------------------------------------------------


def pip_settings(environ: dict[str, str]) -> list[str]:
    """Return which settings about indexes pip would find, in its variables and its files; never their values."""
    found = {name[4:].lower().replace("_", "-") for name, value in environ.items() if name.startswith("PIP_") and value}
    config = configparser.RawConfigParser(strict=False)
    home = Path(environ.get("HOME", "~")).expanduser()
    files = [
        Path("/etc/pip.conf"),
        Path("/etc/xdg/pip/pip.conf"),
        home / ".pip" / "pip.conf",
        Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf",
        home / "Library" / "Application Support" / "pip" / "pip.conf",
        VENV / "pip.conf",
    ]
    if environ.get("PIP_CONFIG_FILE"):
        files = [] if environ["PIP_CONFIG_FILE"] == os.devnull else [*files, Path(environ["PIP_CONFIG_FILE"])]
    with contextlib.suppress(configparser.Error, UnicodeDecodeError, OSError):
        config.read(files, encoding="utf-8")
    for section in ("global", "install"):
        if config.has_section(section):
            found.update(key.replace("_", "-") for key in config.options(section))
    if not environ.get("SSL_CERT_FILE") and "cert" in found:
        return sorted(found & PIP_INDEX_KEYS | {"cert"})
    return sorted(found & PIP_INDEX_KEYS)


def uv_has_index(environ: dict[str, str]) -> bool:
    """Tell whether uv has been told about an index, by variable or by file."""
    if any(environ.get(name) for name in UV_INDEX_VARIABLES):
        return True
    home = Path(environ.get("HOME", "~")).expanduser()
    folder = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    for path in (folder / "uv" / "uv.toml", Path("/etc/uv/uv.toml")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if any(word in path.read_text(encoding="utf-8") for word in ("index", "find-links", "offline")):
                return True
    return False


def choose_installer(environ: dict[str, str]) -> tuple[str, str]:
    """Return "uv" or "pip", and why.

    Raises:
        RunError: where LINESIDE_INSTALLER asks for what is not there.
    """
    forced = environ.get("LINESIDE_INSTALLER", "")
    uv = shutil.which("uv", path=environ.get("PATH"))
    if forced not in ("", "uv", "pip"):
        raise RunError(2, f"LINESIDE_INSTALLER is {forced!r}; allowed are uv and pip.")
    if forced == "uv" and uv is None:
        raise RunError(3, "LINESIDE_INSTALLER is uv, and uv is not on the PATH.")
    if forced:
        return forced, "as LINESIDE_INSTALLER says"
    if uv is None:
        return "pip", "uv is not on the PATH"
    settings = pip_settings(environ)
    if settings and not uv_has_index(environ):
        return "pip", f"pip has settings that uv does not read: {', '.join(settings)}"
    return "uv", "it is on the PATH"


# --- Installing ------------------------------------------------------------------------------------------------------


def fingerprint(name: str, version: tuple[int, ...]) -> str:
    """Return what an installed set depends on, as one digest."""
    digest = hashlib.sha256(f"{REPO}\n{version}\n{platform.machine()}\n".encode())
    for path in (REPO / "requirements" / f"{name}.txt", REPO / "pyproject.toml"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def ensure_installed(name: str) -> None:
    """Make .venv hold the requirements set `name`; return at once where it does, start over where it was cut short.

    Raises:
        RunError: in words, where something is missing or installing fails.
    """
    import fcntl  # not on Windows, which main() has refused by now

    with Path(__file__).open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("Waiting for another run.py, which is installing.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        version = version_of(str(PYTHON)) if PYTHON.exists() else None
        stamp = read_stamp()
        if version is not None and stamp.get("sets", {}).get(name) == fingerprint(name, version):
            return
        if VENV.exists() and (version is None or version[:2] < OLDEST or stamp.get("folder", str(REPO)) != str(REPO)):
            say("Removing .venv: it was made for another place or by a Python that is gone or too old.")
            shutil.rmtree(VENV)
        install(name)


def read_stamp() -> dict:
    """Return what the last complete installation wrote; empty where there is none."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def install(name: str) -> None:
    """Install a requirements set with its hashes, then Lineside itself, editable; write the stamp last."""
    started = time.monotonic()
    python = find_python()
    installer, why = choose_installer(dict(os.environ))
    environ = {key: value for key, value in os.environ.items() if key not in PIP_PLACES}
    with contextlib.suppress(FileNotFoundError):
        STAMP.unlink()
    if installer == "pip" and not PYTHON.exists():
        require_venv_module(python)
    if not PYTHON.exists():
        say(f"Making .venv with Python {'.'.join(map(str, version_of(python) or ()))}.")
        make = ["uv", "venv", "--quiet", "--python", python] if installer == "uv" else [python, "-m", "venv"]
        run_quietly([*make, str(VENV)], environ, "The environment could not be made.")
    requirements = str(REPO / "requirements" / f"{name}.txt")
    count = sum("==" in line for line in Path(requirements).read_text(encoding="utf-8").splitlines())
    say(f"Installing up to {count} packages with {installer} ({why}). The first time this takes a minute or two.")
    project = ["--no-deps", "--no-build-isolation", "--editable", str(REPO)]
    if installer == "uv":
        pip = ["uv", "pip", "install", "--quiet", "--python", str(PYTHON)]
    else:
        has_pip = subprocess.run([str(PYTHON), "-c", "import pip"], capture_output=True, check=False).returncode == 0
        if not has_pip:  # uv makes environments without it
            run_quietly([str(PYTHON), "-m", "ensurepip"], environ, "pip could not be put into .venv.")
        # Every pip that Python 3.11 came with (22.3 and later) can do all this, so it needs no upgrade.
        options = ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
        pip = [str(PYTHON), "-m", "pip", "install", *options]
    run_quietly(
        [*pip, "--require-hashes", "--only-binary=:all:", "--requirement", requirements], environ, INSTALL_FAILED
    )
    run_quietly([*pip, *project], environ, INSTALL_FAILED)
    version = version_of(str(PYTHON)) or ()
    stamp = {"folder": str(REPO), "sets": {each: fingerprint(each, version) for each in PROVIDES[name]}}
    temporary = STAMP.with_suffix(".part")
    temporary.write_text(json.dumps(stamp), encoding="utf-8")
    temporary.replace(STAMP)
    say(f"Installed in {time.monotonic() - started:.0f} s.")


INSTALL_FAILED = (
    "Installing failed; the lines above say why. Can this machine reach its package index? Behind a mirror, set its\n"
    "address for pip or for uv; without a network, set PIP_NO_INDEX=1 and PIP_FIND_LINKS to a folder of wheels.\n"
    "Then run the same command again: it starts over."
)


def run_quietly(command: list[str], environ: dict[str, str], sentence: str) -> None:
    """Run a command and show how far it is; where it fails, show its last lines and raise RunError with `sentence`."""
    lines: list[str] = []
    collected = 0
    process = subprocess.Popen(
        command, cwd=REPO, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    with ended_with_us(process):
        for line in process.stdout or ():
            lines = [*lines[-30:], line]
            collected += line.startswith("Collecting ")
            if line.startswith("Collecting ") and collected % 10 == 0:
                say(f"  {collected} packages found")
            elif line.startswith("Installing collected"):
                say("  unpacking them")
        process.wait()
    if process.returncode:
        sys.stderr.write("".join(lines))
        raise RunError(4, sentence)


# --- Running ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ended_with_us(process: subprocess.Popen):
    """End a child when this program is interrupted or terminated: first asked, then terminated, then killed."""
    try:
        yield
    except BaseException as reason:
        # A terminal has sent Ctrl-C to the child too; anyone else has told only us. pytest cleans up on SIGINT only.
        if not (isinstance(reason, KeyboardInterrupt) and in_foreground()):
            process.send_signal(signal.SIGINT)
        for harder, seconds in ((process.terminate, 20), (process.kill, 5)):
            try:
                process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                harder()
        process.wait()
        raise


def in_foreground() -> bool:
    """Tell whether a terminal's Ctrl-C goes to this process and its children."""
    try:
        return os.getpgrp() == os.tcgetpgrp(sys.stdin.fileno())
    except (OSError, ValueError, AttributeError):
        return False


def run(command: list[str]) -> int:
    """Run a command in the repository until it ends, and return its exit status."""
    process = subprocess.Popen(command, cwd=REPO)
    with ended_with_us(process):
        process.wait()
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def check() -> int:
    """Run all checks, report each, and return 1 where one failed."""
    results = []
    for title, (program, *arguments) in CHECKS:
        say(f"== {title}")
        started = time.monotonic()
        status = run([str(VENV / "bin" / program), *arguments])
        results.append((title, status, time.monotonic() - started))
    say("")
    for title, status, seconds in results:
        say(f"{title:<14} {'passed' if status == 0 else f'FAILED (exit status {status})'} in {seconds:.0f} s")
    return 1 if any(status for _, status, _ in results) else 0


def beside() -> int:
    """Return how many tests to run side by side: one more than there are cores, for half of them mostly wait."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores + 1, BESIDE_MAX)


def on_terminate(_number: int, _frame: object) -> None:
    raise RunError(143, "Terminated.")


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if arguments else 2
    command, rest = arguments[0], arguments[1:]
    if command not in NEEDS or (command == "check" and rest):
        say(f"Unknown: {' '.join(arguments)}. The commands are {', '.join(NEEDS)}; --help explains them.")
        return 2
    script = "story.py"
    if command in ("bench", "soak"):
        kinds = [kind for each, kind in SCRIPTS if each == command]
        if not rest or rest[0] not in kinds:
            say(f"{command} what? It takes {' or '.join(kinds)}; --help explains them.")
            return 2
        script, rest = SCRIPTS[command, rest[0]], rest[1:]
    if os.name != "posix":
        say("Lineside runs on Linux and macOS. On Windows, use WSL.")
        return 3
    signal.signal(signal.SIGTERM, on_terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` would leave it ignored, for all below
    try:
        ensure_installed(NEEDS[command])
        if command == "check":
            return check()
        if command == "test":
            return run([str(PYTHON), "-m", "pytest", *(rest or ["-n", str(beside())])])
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.stdout.flush()
        # The script takes this process's place: it gets the signals itself, and paths stay relative to the caller.
        os.execv(str(PYTHON), [str(PYTHON), str(REPO / "scripts" / script), *rest])
    except RunError as stop:
        say(str(stop))
        return stop.status
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
