"""Says what a test needs from the machine: without it the test skips with the reason, or fails where CI asks for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

VARIABLE = "LINESIDE_REQUIRE_SERVERS"


def missing(reason: str) -> NoReturn:
    """Skip the running test with `reason`; fail it where LINESIDE_REQUIRE_SERVERS is set."""
    if os.environ.get(VARIABLE):
        pytest.fail(f"{reason} {VARIABLE} is set, so this is a failure.")
    pytest.skip(reason)


def program(name: str, package: str = "") -> Path:
    """Return the path of an installed program, Debian's server folders included."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        missing(f"{name} is not installed (apt install {package or name}).")
    return Path(found)
