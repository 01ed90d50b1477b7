"""Puts together what brings versions to this device: the runner of deployments, and the keeper of candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.capture.calibration import Calibration
from agent.clock import Clock
from agent.deploy import compatibility, headroom, selftest
from agent.deploy.facts import Limits
from agent.deploy.journal import Journal
from agent.deploy.outlook import Rules
from agent.deploy.preparation import Tester
from agent.deploy.runner import Runner, RunnerOptions
from agent.deploy.settings import DeploySettings
from agent.deploy.shadow_keeper import ShadowKeeper, Surroundings
from agent.deploy.shadow_memory import ShadowMemory
from agent.deploy.site import Site
from agent.deploy.store import Store
from agent.inspection.changeover import Tell
from agent.inspection.shadow import Shadows
from agent.inspection.shadow_stage import ShadowStage
from agent.inspection.stations import Stations
from agent.settings import Settings
from agent.uplink.fleet_api import FleetApi
from agent.vision.runtime import RuntimeOptions
from wire.deployment import DeploymentReport, DeploymentState

_MIB: Final = 1024 * 1024
_HOUR_S: Final = 3600.0
# What must stay free when a candidate is loaded beside all that runs.
_KEEP_FREE_MEMORY_MB: Final = 256.0
_NEAR_A_SWAP: Final = (DeploymentState.STAGED, DeploymentState.ACTIVATING, DeploymentState.PROBATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What both need of the agent.

    Args:
        is_clock_right: whether the time of the day can be told by the wall clock.
    """

    settings: Settings
    store: Store
    api: FleetApi
    clock: Clock
    stations: Stations
    runtime: RuntimeOptions
    tell: Tell
    is_clock_right: Callable[[], bool]


def runner_of(ground: Ground, reports: Callable[[DeploymentReport], None]) -> Runner:
    """Return the runner of deployments.

    Args:
        reports: takes each report for good.
    """
    settings = ground.settings
    deploy = settings.deploy
    site = Site(deploy.windows, deploy.timezone, settings.data_dir, ground.clock, ground.is_clock_right)
    return Runner(
        store=ground.store,
        journal=Journal(settings.data_dir / "models" / "journal", ground.clock),
        api=ground.api,
        activator=ground.stations,
        reports=reports,
        clock=ground.clock,
        device=compatibility.this_device(settings.runtime.provider),
        tester=_tester(ground),
        options=_runner_options(deploy),
        not_now=site.not_now,
        not_now_words=site.words,
        tell=ground.tell,
    )


def shadow_keeper_of(
    ground: Ground,
    runner: Runner,
    shadows: Shadows,
    calibration_of: Callable[[str, str], Calibration | None],
    on_change: Callable[[], None],
    *,
    killed: bool,
) -> ShadowKeeper:
    """Return the keeper of candidates, its memory in order.

    Args:
        killed: the agent's last run ended without notice.
    """
    settings = ground.settings
    keeper = ShadowKeeper(
        store=ground.store,
        memory=ShadowMemory(settings.data_dir / "models"),
        api=ground.api,
        stage=ShadowStage(shadows, ground.runtime, calibration_of),
        around=Surroundings(
            active=ground.stations.inferring,
            models=lambda: ground.stations.models,
            is_busy=lambda: _is_swapping(runner),
            is_short=lambda: _lacks_memory_for_a_swap(runner),
            fits=_fits,
            tell=ground.tell,
            on_change=on_change,
        ),
        device=compatibility.this_device(settings.runtime.provider),
        tester=_tester(ground),
        clock=ground.clock,
        keep_free_bytes=settings.deploy.keep_free_mb * _MIB,
    )
    keeper.recover(killed=killed)
    return keeper


def _is_swapping(runner: Runner) -> bool:
    """Tell whether a version is about to be swapped in, or watched: nothing new may disturb its figures."""
    return any(attempt.state in _NEAR_A_SWAP for attempt in runner.under_way())


def _lacks_memory_for_a_swap(runner: Runner) -> bool:
    staged = [attempt for attempt in runner.under_way() if attempt.state is DeploymentState.STAGED]
    needed_mb = max((attempt.tested.memory_mb for attempt in staged if attempt.tested is not None), default=None)
    return needed_mb is not None and not _fits(needed_mb)


def _fits(needed_mb: float) -> bool:
    return headroom.fits(headroom.available_mb(), needed_mb, _KEEP_FREE_MEMORY_MB)


def _tester(ground: Ground) -> Tester:
    runtime = ground.settings.runtime
    return selftest.tester_of(
        selftest.SelfTestOptions(provider=runtime.provider, threads=runtime.threads, cache_dir=ground.runtime.cache_dir)
    )


def _runner_options(deploy: DeploySettings) -> RunnerOptions:
    return RunnerOptions(
        keep_free_bytes=deploy.keep_free_mb * _MIB,
        rules=Rules(
            limits=Limits(
                attempt_s=deploy.attempt_h * _HOUR_S,
                no_space_s=deploy.no_space_h * _HOUR_S,
                maintenance_window_s=deploy.maintenance_window_h * _HOUR_S,
                line_busy_s=deploy.line_busy_h * _HOUR_S,
                awaiting_confirmation_s=deploy.awaiting_confirmation_h * _HOUR_S,
            ),
            probation=deploy.probation.limits,
            confirm=deploy.confirm,
            has_windows=bool(deploy.windows),
        ),
    )
