"""Fixtures of the fleet's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet_stand import Stand


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """A fleet over a database of its own."""
    made = Stand(tmp_path / "fleet")
    yield made
    made.close()
