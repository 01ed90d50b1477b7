"""Compiles requirements/*.txt from pyproject.toml: exact versions with hashes, and no index addresses.

    .venv/bin/python scripts/lock.py             # keep the pinned versions where they still fit
    .venv/bin/python scripts/lock.py --upgrade   # take the newest versions that fit

The development set is resolved first; the others are resolved under its versions, so that all files agree.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
FOLDER = Path("requirements")
SETS = {
    "dev": [
        *("--extra", "agent", "--extra", "fleet", "--extra", "embedded-broker"),
        *("--extra", "modbus", "--extra", "gpio", "--group", "dev"),
    ],
    "demo": ["--extra", "agent", "--extra", "fleet", "--extra", "embedded-broker", "--group", "build"],
    "agent": ["--extra", "agent", "--extra", "modbus", "--extra", "gpio"],
    "fleet": ["--extra", "fleet"],
}
OPTIONS = [
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-header",
    "--quiet",
]


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--upgrade"]):
        print(__doc__, file=sys.stderr)
        return 2
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        print(
            "uv is not installed. Run `python3 scripts/run.py check` once: it installs it into .venv.", file=sys.stderr
        )
        return 3
    for name, selection in SETS.items():
        print(f"Compiling {FOLDER / name}.txt", file=sys.stderr)
        command = [
            uv,
            "pip",
            "compile",
            "pyproject.toml",
            *selection,
            *OPTIONS,
            "--output-file",
            f"{FOLDER / name}.txt",
        ]
        if name == "dev":
            command += arguments
        else:
            command += ["--constraints", f"{FOLDER}/dev.txt", "--upgrade"]
        status = subprocess.run(command, cwd=REPO, check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
