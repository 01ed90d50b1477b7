"""Keeps the device as the fleet desires it: one thread reads the desired document and carries out deployments."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from agent.clock import Clock
from agent.desired import DesiredKeeper
from agent.threads import Worker
from agent.uplink.ending import Ending
from wire.desired import Desired
from wire.errors import LinesideError
from wire.package import Package

log = logging.getLogger(__name__)

_TICK_S: Final = 0.5


class Runner(Protocol):
    """What is needed of the deployment runner."""

    def recover(self, *, ended: Ending) -> None: ...
    def step(self, wanted: Desired | None, go_on: Callable[[], bool]) -> bool: ...
    def boot_choices(self, model: str) -> Iterator[Package]: ...


class Stations(Protocol):
    """What is needed of the stations."""

    @property
    def models(self) -> tuple[str, ...]: ...
    def apply(self, desired: Desired) -> list[str]: ...
    def activate(self, package: Package) -> str: ...
    def tidy(self) -> bool: ...
    def inferring(self, model: str) -> str | None: ...


class Shadows(Protocol):
    """What is needed of the keeper of candidates."""

    def tend(self, wanted: Desired | None) -> bool: ...
    def step(self, wanted: Desired | None, go_on: Callable[[], bool]) -> bool: ...


class Keeper:
    """Wakes on a hint or at its interval; a lost hint costs only time.

    Args:
        former_end: how the agent's last run ended.
    """

    def __init__(
        self,
        *,
        desired: DesiredKeeper,
        runner: Runner,
        stations: Stations,
        on_change: Callable[[], None],
        clock: Clock,
        poll_interval_s: float,
        shadows: Shadows | None = None,
        former_end: Ending = Ending.CLEAN,
    ) -> None:
        self._desired = desired
        self._runner = runner
        self._stations = stations
        self._on_change = on_change
        self._clock = clock
        self._poll_interval_s = poll_interval_s
        self._shadows = shadows
        self._former_end = former_end
        self._recovered = False
        self._hint = threading.Event()
        self._reachable = True
        self._next_read_ns = 0
        self.refusals: tuple[str, ...] = ()

    @property
    def desired_revision(self) -> int:
        """The revision in force; 0 before the first."""
        return self._desired.current.revision if self._desired.current is not None else 0

    @property
    def health_interval_s(self) -> float | None:
        """The pace of health the fleet asks for, None where it leaves that to the device."""
        return self._desired.current.settings.health_interval_s if self._desired.current is not None else None

    def wake(self) -> None:
        """Read the desired document at the next tick."""
        self._hint.set()

    def run(self, worker: Worker) -> None:
        """Keep the device as desired until told to stop."""
        self._boot()
        while not worker.stop.is_set():
            worker.beat()
            if self._must_read():
                self._hint.clear()
                self._next_read_ns = self._clock.monotonic_ns() + int(self._poll_interval_s * 1e9)
                if self._refresh():
                    self._take_up(set(self._stations.models))
            self._deploy(worker)
            self._stations.tidy()
            self._clock.wait(worker.stop, _TICK_S)

    def _must_read(self) -> bool:
        return self._hint.is_set() or self._clock.monotonic_ns() >= self._next_read_ns

    def _deploy(self, worker: Worker) -> None:
        """Take deployments as far as they go now, or until the desired document is to be read: it may take them back.

        What cannot be written now is tried again at the next tick.
        """

        def go_on() -> bool:
            worker.beat()
            return not worker.stop.is_set()

        self._tend_shadows()
        before = self._in_use()
        try:
            while go_on() and self._runner.step(self._desired.current, go_on):
                self._apply()  # a recipe that waited for a model, or was refused by the former version, may fit now
                self._tend_shadows()
                if self._must_read():
                    break
        except LinesideError as error:
            log.error("A deployment waits: %s", error, extra={"event": "deployment.held"})  # noqa: TRY400
            if self._in_use() != before:  # it was taken back all the same, or swapped in and not reported
                self._apply()
        self._see_to_shadows(go_on)

    def _in_use(self) -> dict[str, str | None]:
        return {model: self._stations.inferring(model) for model in self._stations.models}

    def _tend_shadows(self) -> None:
        """Stop candidates that are no longer wanted, or that take the memory a deployment needs, before it goes on."""
        try:
            if self._shadows is not None:
                self._shadows.tend(self._desired.current)
        except LinesideError as error:
            log.error("A candidate waits: %s", error, extra={"event": "shadow.held"})  # noqa: TRY400

    def _see_to_shadows(self, go_on: Callable[[], bool]) -> None:
        """Take candidates one step further, now that no deployment has anything to do."""
        try:
            if self._shadows is not None and go_on():
                self._shadows.step(self._desired.current, go_on)
        except LinesideError as error:
            log.error("A candidate waits: %s", error, extra={"event": "shadow.held"})  # noqa: TRY400

    def _boot(self) -> None:
        """Load what ran before, without a network; then apply what was last desired.

        A thread that is started again comes by here once more, though the agent has not ended: how its last run ended
        is no word on what came into use in this one, and what judges parts is left alone.
        """
        if not self._recovered:
            self._runner.recover(ended=self._former_end)
            self._recovered = True
        own = set(self._stations.models)
        self._load(model for model in own if self._stations.inferring(model) is None)
        self._take_up(own)

    def _take_up(self, known: set[str]) -> None:
        """Apply what is desired, and load what is installed of the models that only its recipes need.

        Args:
            known: models that were needed before; each was loaded then, as far as it could be.
        """
        self._apply()
        others = {model for model in set(self._stations.models) - known if self._stations.inferring(model) is None}
        if others:
            self._load(others)
            self._apply()

    def _load(self, models: Iterable[str]) -> None:
        for model in sorted(models):
            for package in self._runner.boot_choices(model):
                try:
                    self._stations.activate(package)
                    break
                except (LinesideError, OSError) as error:
                    log.error("Model %s cannot be loaded: %s", model, error, extra={"event": "model.failed"})  # noqa: TRY400

    def _refresh(self) -> bool:
        try:
            changed = self._desired.refresh()
        except LinesideError as error:
            if self._reachable:
                event = "desired.not_kept" if error.code.startswith("storage.") else "fleet.lost"
                log.warning("The desired document cannot be read anew: %s", error, extra={"event": event})
            self._reachable = False
            return False
        if not self._reachable:
            log.info("The desired document can be read again.", extra={"event": "fleet.found"})
        self._reachable = True
        return changed

    def _apply(self) -> None:
        if self._desired.current is not None:
            former, self.refusals = self.refusals, tuple(self._stations.apply(self._desired.current))
            for sentence in self.refusals:
                if sentence not in former:
                    log.warning("Refused: %s", sentence, extra={"event": "desired.refused"})
        self._on_change()
