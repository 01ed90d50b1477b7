"""Carries out deployments: asks `plan` for the next step, journals, does it, reports, and asks again."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import assert_never

from agent.clock import Clock
from agent.deploy import boot, download, kept, plan
from agent.deploy.attempt import Attempt, FaultKind
from agent.deploy.compatibility import DeviceFacts
from agent.deploy.journal import Journal
from agent.deploy.logbook import Logbook
from agent.deploy.pauses import Pauses
from agent.deploy.preparation import Preparation, Tester
from agent.deploy.room import Room
from agent.deploy.store import Store
from agent.deploy.swap import Activator, Swap
from wire import deployment, desired, package
from wire.deployment import DeploymentReport, HoldReason
from wire.deployment import DeploymentState as S
from wire.errors import LinesideError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """The runner's times and limits.

    Args:
        pause_s: upper end of the pause after a try that failed; doubled with each up to `pause_max_s`.
        slice_s: a download is interrupted after so long, to see whether it is still wanted; it goes on where it was.
        keep_free_bytes: of the disk, that stay free beside what is downloaded.
        limits: after which a deployment is given up.
    """

    pause_s: float = 4.0
    pause_max_s: float = 300.0
    slice_s: float = 20.0
    keep_free_bytes: int = 128 * 1024 * 1024
    limits: plan.Limits = field(default_factory=plan.Limits)


def _always() -> bool:
    return True


def _nothing() -> HoldReason | None:
    return None


class Runner:
    """The device side of all deployments. One thread calls `recover` once and then `step` again and again.

    Args:
        api: fetches blobs from the fleet.
        reports: takes each report for good (the outbox); raising makes the runner offer it again at the next step.
        device: what versions are checked against.
        tester: runs the self-test of a package; None where it was cut short.
        not_now: why no version may be swapped on this line at this moment, None where one may.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        api: download.BlobSource,
        activator: Activator,
        reports: Callable[[DeploymentReport], None],
        clock: Clock,
        device: DeviceFacts,
        tester: Tester,
        options: RunnerOptions | None = None,
        rng: random.Random | None = None,
        not_now: Callable[[], HoldReason | None] = _nothing,
    ) -> None:
        self._store = store
        self._journal = journal
        self._activator = activator
        self._clock = clock
        self._not_now = not_now
        self._options = options or RunnerOptions()
        self._logbook = Logbook(journal, reports, clock, activator.inferring)
        self._pauses = Pauses(self._options.pause_s, self._options.pause_max_s, clock, rng or random.SystemRandom())
        self._room = Room(store, clock, self._options.keep_free_bytes)
        self._preparation = Preparation(
            store, api, self._logbook, self._pauses, self._room, clock, device, tester, self._options.slice_s
        )
        self._swap = Swap(store, activator, self._logbook)
        self._may_hold_unneeded = True
        self._wanted: dict[str, str] = {}

    # At boot

    def recover(self) -> None:
        """Bring store and journal in order (`boot.recover`); call it once, at start, before any model is loaded."""
        boot.recover(self._store, self._journal)

    def models_in_use(self) -> tuple[str, ...]:
        """Return the models of which a version is installed."""
        return self._store.models()

    def boot_choices(self, model: str) -> Iterator[package.Package]:
        """Yield the versions of a model that may be loaded at boot, the one to prefer first."""
        return boot.choices(self._store, model)

    def deployment_of(self, model: str, digest: str) -> str | None:
        """Return the deployment that brought a version here, None where it is not remembered. Any thread may ask."""
        return boot.deployment_of(self._journal, model, digest)

    def under_way(self) -> tuple[Attempt, ...]:
        """Return the attempts that are wanted and have not ended. Any thread may ask."""
        latest = (self._journal.of(model).attempt for model in self._journal.models())
        return tuple(
            attempt
            for attempt in latest
            if attempt is not None
            and attempt.state not in deployment.ENDS
            and self._wanted.get(attempt.model) == attempt.deployment_id
        )

    # Step by step

    def step(self, wanted: desired.Desired | None, go_on: Callable[[], bool] = _always) -> bool:
        """Do at most one step of one model's deployment.

        Args:
            wanted: the desired document; None while it is not known: then only an activation is finished.
            go_on: called now and then while a step takes long; False cuts it short, to be taken up again later.

        Returns:
            Whether anything was done; where not, waiting a while is right.

        Raises:
            LinesideError: `storage.full` or `storage.corrupt` where the journal or the store cannot be written, or what
                `reports` raises; calling again later goes on where it stopped.
        """
        models = {entry.model: entry for entry in wanted.models} if wanted is not None else self._being_activated()
        self._wanted = {entry.model: entry.deployment_id for entry in models.values()}
        for model in sorted({*models, *self._journal.models()}):
            self._logbook.report(model)
            self._logbook.count_time(model)
            installed = self._store.installed(model)
            step = plan.plan(installed, models.get(model), self._facts(model, models, collects=wanted is not None))
            if step is not None:
                self._execute(step, model, models.get(model), go_on)
                return True
        return False

    def _being_activated(self) -> dict[str, desired.DesiredModel]:
        """Return what to go on with while the desired document is not known."""
        attempts = [self._journal.of(model).attempt for model in self._journal.models()]
        return {
            attempt.model: desired.DesiredModel(
                model=attempt.model,
                active=attempt.digest,
                release=attempt.release,
                deployment_id=attempt.deployment_id,
            )
            for attempt in attempts
            if attempt is not None and attempt.state is S.ACTIVATING
        }

    def _facts(self, model: str, models: dict[str, desired.DesiredModel], *, collects: bool) -> plan.Facts:
        remembered = self._journal.of(model)
        attempt = self._logbook.latest(model)
        entry = models.get(model)
        no_room = entry is not None and self._no_room(attempt, entry)
        may_collect = no_room or attempt is None or attempt.state in deployment.ENDS
        return plan.Facts(
            now=self._clock.now_utc(),
            attempt=attempt,
            ended_before=entry is not None and remembered.has_ended(entry.deployment_id),
            inferring=self._activator.inferring(model),
            waiting=self._pauses.lasts(model),
            unneeded=self._unneeded(models) if collects and may_collect else (),
            no_room=no_room,
            not_now=self._not_now() if attempt is not None and attempt.state is S.STAGED else None,
            limits=self._options.limits,
        )

    def _no_room(self, attempt: Attempt | None, entry: desired.DesiredModel) -> bool:
        """Tell whether a download is next, and there is no room for it."""
        if attempt is None or attempt.deployment_id != entry.deployment_id:
            return self._room.lacks(entry.active, is_held=False)
        if attempt.state not in (S.QUEUED, S.DOWNLOADING):
            return False
        return self._room.lacks(entry.active, is_held=attempt.hold is not None)

    def _unneeded(self, models: dict[str, desired.DesiredModel]) -> tuple[str, ...]:
        """Look for what nothing refers to, once after each end; looking again and again would cost."""
        found = (
            self._store.unneeded(kept.kept(self._store, self._journal, self._activator.inferring, models))
            if self._may_hold_unneeded
            else ()
        )
        self._may_hold_unneeded = bool(found)
        return found

    def _execute(
        self, step: plan.Step, model: str, entry: desired.DesiredModel | None, go_on: Callable[[], bool]
    ) -> None:
        if isinstance(step, plan.Collect):
            self._store.collect(step.digests)
            log.info("%d unneeded files removed.", len(step.digests), extra={"event": "store.collected"})
            return
        attempt = self._attempt_for(model, entry)
        self._may_hold_unneeded = True
        match step:
            case plan.Hold():
                self._hold(attempt, step)
            case plan.Download():
                self._preparation.download(attempt, go_on)
            case plan.Verify():
                self._preparation.verify(attempt)
            case plan.SelfTest():
                self._preparation.self_test(attempt, go_on)
            case plan.Activate():
                self._swap.activate(attempt, step)
            case plan.Commit():
                self._swap.commit(attempt, step)
            case plan.Revert():
                self._swap.revert(attempt, step)
            case plan.Refuse():
                self._logbook.enter(attempt.failed(step.code, step.reason, FaultKind.REFUSAL), S.REFUSED)
            case plan.Fail():
                self._swap.fail(attempt, step)
            case _:
                assert_never(step)

    def _attempt_for(self, model: str, entry: desired.DesiredModel | None) -> Attempt:
        """Return the attempt a step belongs to: the one in the journal, or a new one where another is desired."""
        remembered = self._journal.of(model)
        latest = remembered.attempt
        if latest is not None and (
            latest.state is S.ACTIVATING or entry is None or latest.deployment_id == entry.deployment_id
        ):
            return latest
        if entry is None:
            raise LinesideError("internal.unexpected", f"A step for {model}, which nobody asked for.")
        self._pauses.end(model)
        return Attempt(
            deployment_id=entry.deployment_id,
            model=model,
            digest=entry.active,
            release=entry.release,
            sequence=remembered.first_sequence,
            at=self._clock.now_utc(),
        )

    def _hold(self, attempt: Attempt, step: plan.Hold) -> None:
        if attempt.state is S.QUEUED:  # which is the fleet's word; what is held here has been begun
            attempt = self._logbook.enter(attempt, S.DOWNLOADING)
        self._logbook.hold(attempt, deployment.Hold(reason=step.reason, deadline=step.deadline))
