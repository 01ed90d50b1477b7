"""What probation has seen of each version: what this process counts, after what an earlier one had written down."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from agent.deploy import probation
from agent.deploy.attempt import Attempt
from agent.deploy.figures import Figures
from wire.deployment import DeploymentState, ProbationReport


class Observed:
    """The figures of the versions in probation, over restarts.

    Args:
        figures: what the version in use of a model has done in this process; None where none is in use.
    """

    def __init__(self, figures: Callable[[str], Figures | None], limits: probation.ProbationLimits) -> None:
        self._figures = figures
        self._limits = limits
        self._earlier: dict[str, tuple[str, Figures]] = {}  # by model, with the deployment

    def recall(self, attempt: Attempt) -> None:
        """Take what the journal holds as seen by an earlier process; call it at start."""
        if attempt.state is DeploymentState.PROBATION and attempt.evidence is not None:
            self._earlier[attempt.model] = (attempt.deployment_id, attempt.evidence)

    def of(self, attempt: Attempt) -> Figures | None:
        """Return all that was seen of an attempt's version; None before probation."""
        if attempt.state is not DeploymentState.PROBATION:
            return attempt.evidence
        deployment_id, earlier = self._earlier.get(attempt.model, ("", None))
        is_recalled = earlier is not None and deployment_id == attempt.deployment_id
        if earlier is None or not is_recalled:
            earlier = Figures(digest=attempt.digest)
        now = self._figures(attempt.model)
        if now is None or now.digest != attempt.digest:  # it was taken out meanwhile
            return attempt.evidence or earlier
        # What was in use before the swap was another process's, which may have had fewer models loaded.
        return earlier.plus(replace(now, rss_mb=None) if is_recalled else now)

    def finding(self, attempt: Attempt) -> probation.Finding | None:
        """Return what probation makes of it; None where it is not in probation."""
        seen = self.of(attempt)
        if attempt.state is not DeploymentState.PROBATION or seen is None:
            return None
        return probation.judge(
            seen,
            attempt.baseline,
            self._limits,
            watched_s=attempt.watched_s,
            confirmed=attempt.confirmed,
            memory_limit_mb=attempt.tested.memory_limit_mb if attempt.tested is not None else math.inf,
        )

    def report(self, attempt: Attempt) -> ProbationReport | None:
        """Return what the fleet is told of an attempt's probation as it was written down; None before it."""
        if attempt.evidence is None:
            return None
        return probation.report(attempt.evidence, attempt.baseline, self._limits)
