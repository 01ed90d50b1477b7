"""One browser for the browser tests, and a fleet with something to see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import require
from tests.support.board_scene import Scene, served


# Not of the session: while its driver is open, its event loop counts as running, and no other test can have one.
@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    """A headless Chromium."""
    path = require.program("chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(path), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Three devices running release 1."""
    made = Scene(tmp_path / "fleet")
    yield made
    made.stand.close()


@pytest.fixture
def address(scene: Scene) -> Iterator[str]:
    """Where the scene is served."""
    with served(scene.stand) as url:
        yield url
