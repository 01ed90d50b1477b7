"""Every setting of [deploy] and [deploy.probation] reaches the part that acts on it, by way of the agent's assembly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent import deploy_assembly
from agent.clock import FakeClock
from agent.deploy.settings import DeploySettings, ProbationSettings, WindowSettings
from wire.deployment import HoldReason

OTHERWISE = DeploySettings(
    timezone="Europe/Berlin",
    windows=(WindowSettings(start="02:00", end="03:00"),),
    attempt_h=1.0,
    maintenance_window_h=2.0,
    line_busy_h=3.0,
    no_space_h=4.0,
    awaiting_confirmation_h=5.0,
    confirm=True,
    keep_free_mb=6,
    probation=ProbationSettings(
        parts=7,
        minutes=8.0,
        hours_max=9.0,
        latency_factor=10.0,
        no_verdict_share=0.11,
        shift_odds=12.0,
        memory_growth_mb=13.0,
    ),
)


def assembled(deploy: DeploySettings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return all that the runner and its site are made with, by the agent's own assembly."""
    made: dict[str, Any] = {}

    class Site:
        def __init__(self, *arguments: object) -> None:
            made["site"] = arguments[:2]

        def not_now(self) -> None:
            return None

        def words(self) -> str:
            return ""

    monkeypatch.setattr(deploy_assembly, "Site", Site)
    monkeypatch.setattr(deploy_assembly, "Runner", lambda **arguments: made.update(options=arguments["options"]))
    settings = SimpleNamespace(
        deploy=deploy, data_dir=folder, runtime=SimpleNamespace(provider="CPUExecutionProvider", threads=1)
    )
    nothing: Any = None
    ground = deploy_assembly.Ground(
        settings=settings,  # type: ignore[arg-type]
        store=nothing,
        api=nothing,
        clock=FakeClock(),
        stations=nothing,
        runtime=SimpleNamespace(cache_dir=folder),  # type: ignore[arg-type]
        tell=nothing,
        is_clock_right=lambda: False,
    )
    deploy_assembly.runner_of(ground, nothing)
    return repr(made)


def test_a_wrong_clock_holds_a_deployment_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(deploy_assembly, "Runner", lambda **arguments: made.update(arguments))
    nothing: Any = None
    ground = deploy_assembly.Ground(
        settings=SimpleNamespace(  # type: ignore[arg-type]
            deploy=OTHERWISE, data_dir=tmp_path, runtime=SimpleNamespace(provider="CPUExecutionProvider", threads=1)
        ),
        store=nothing,
        api=nothing,
        clock=FakeClock(),
        stations=nothing,
        runtime=SimpleNamespace(cache_dir=tmp_path),  # type: ignore[arg-type]
        tell=nothing,
        is_clock_right=lambda: False,
    )
    deploy_assembly.runner_of(ground, nothing)
    assert made["not_now"]() is HoldReason.MAINTENANCE_WINDOW
    assert "The clock of this device is wrong" in made["not_now_words"]()


NAMES = [(DeploySettings, one.name) for one in dataclasses.fields(DeploySettings) if one.name != "probation"]
NAMES += [(ProbationSettings, one.name) for one in dataclasses.fields(ProbationSettings)]


@pytest.mark.parametrize(("kind", "name"), NAMES, ids=lambda one: getattr(one, "__name__", one))
def test_a_setting_that_is_changed_changes_what_the_runner_is_made_with(
    kind: type, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = DeploySettings()
    if kind is DeploySettings:
        changed = dataclasses.replace(usual, **{name: getattr(OTHERWISE, name)})
    else:
        one = dataclasses.replace(usual.probation, **{name: getattr(OTHERWISE.probation, name)})
        changed = dataclasses.replace(usual, probation=one)
    assert changed != usual, "this test has no other value for it"
    assert assembled(changed, tmp_path, monkeypatch) != assembled(usual, tmp_path, monkeypatch)
