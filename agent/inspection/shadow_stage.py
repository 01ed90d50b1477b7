"""Where the deploy side hands a candidate over: its session is built at low priority, then it is shown parts."""

from __future__ import annotations

from agent.inspection.session_builder import at_low_priority
from agent.inspection.shadow import Shadows
from agent.inspection.shadow_candidate import CalibrationOf, Candidate
from agent.vision import runtime
from wire.package import Package


class ShadowStage:
    """Called by the keeper's thread.

    Args:
        options: as the active versions run.
        calibration_of: millimetres of a station's view, None where it is not calibrated.
    """

    def __init__(self, shadows: Shadows, options: runtime.RuntimeOptions, calibration_of: CalibrationOf) -> None:
        self._shadows = shadows
        self._options = options
        self._calibration_of = calibration_of

    def start(self, package: Package, rate: float) -> None:
        """Load a candidate and show it parts.

        Raises:
            LinesideError: what `agent.vision.runtime.load` raises; nothing has changed then.
        """
        session = at_low_priority(lambda: runtime.load(package, self._options))
        self._shadows.begin(Candidate(package, session, rate, self._calibration_of))
        runtime.trim()

    def stop(self, model: str) -> None:
        """Take a model's candidate away, and give its memory back."""
        self._shadows.end(model)
        runtime.trim()

    def set_rate(self, model: str, rate: float) -> None:
        self._shadows.set_rate(model, rate)

    def running(self, model: str) -> tuple[str, float] | None:
        return self._shadows.running(model)

    def refusals(self, model: str) -> tuple[str, ...]:
        return self._shadows.refusals(model)

    def stopped(self, model: str) -> tuple[str, str] | None:
        """Return code and reason of a candidate that was stopped by itself; None where none was."""
        failure = self._shadows.failure(model)
        return (failure.code, failure.reason) if failure is not None else None

    def watch(self) -> None:
        self._shadows.watch()
