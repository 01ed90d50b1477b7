"""Carries out deployments: asks `plan` for the next step, journals, does it, reports, and asks again."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

from agent.clock import Clock
from agent.deploy import boot, download, faults, plan, selftest, verify
from agent.deploy.attempt import Attempt, Fault, FaultKind
from agent.deploy.compatibility import DeviceFacts
from agent.deploy.journal import Journal
from agent.deploy.store import Store
from wire import deployment, desired, package
from wire.deployment import DeploymentReport
from wire.deployment import DeploymentState as S
from wire.errors import LinesideError

log = logging.getLogger(__name__)

Tester = Callable[[package.Package, Callable[[], bool]], selftest.SelfTestResult | None]


class Activator(Protocol):
    """What swaps models on this device's stations."""

    def activate(self, package: package.Package) -> str:
        """Build the session beside the old one, swap between two parts, and return the digest the session now in use
        holds. Raises LinesideError where it could not; the old session then goes on wherever possible.
        """

    def inferring(self, model: str) -> str | None:
        """Return the digest of the session in use, read from the session; None where none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """Pauses between two tries of a download: a random share of `pause_s`, doubled each time up to `pause_max_s`."""

    pause_s: float = 1.0
    pause_max_s: float = 300.0


def _always() -> bool:
    return True


class Runner:
    """The device side of all deployments. One thread calls `recover` once and then `step` again and again.

    Args:
        api: fetches blobs from the fleet.
        reports: takes each report for good (the outbox); raising makes the runner offer it again at the next step.
        device: what versions are checked against.
        tester: runs the self-test of a package; None where it was cut short.
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
    ) -> None:
        self._store = store
        self._journal = journal
        self._api = api
        self._activator = activator
        self._reports = reports
        self._clock = clock
        self._device = device
        self._tester = tester
        self._options = options or RunnerOptions()
        self._rng = rng or random.SystemRandom()
        self._reported: dict[str, tuple[str, int]] = {}
        self._not_before_ns: dict[str, int] = {}
        self._may_hold_unneeded = True

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
        for model in sorted({*models, *self._journal.models()}):
            self._report(model)
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
        attempt = remembered.attempt
        entry = models.get(model)
        is_idle = attempt is None or attempt.state in deployment.ENDS
        return plan.Facts(
            attempt=attempt,
            ended_before=entry is not None and remembered.has_ended(entry.deployment_id),
            inferring=self._activator.inferring(model),
            waiting=self._clock.monotonic_ns() < self._not_before_ns.get(model, 0),
            unneeded=self._unneeded(models) if collects and is_idle else (),
        )

    def _unneeded(self, models: dict[str, desired.DesiredModel]) -> tuple[str, ...]:
        """Look for what nothing refers to, once after each end; looking again and again would cost."""
        found = self._store.unneeded(self._kept(models)) if self._may_hold_unneeded else ()
        self._may_hold_unneeded = bool(found)
        return found

    def _kept(self, models: dict[str, desired.DesiredModel]) -> set[str]:
        """Return the versions that must stay: those installed, those inferred with, those on their way."""
        kept: list[str | None] = []
        for model in {*self._store.models(), *self._journal.models(), *models}:
            installed = self._store.installed(model)
            kept.extend((installed.current, installed.previous, self._activator.inferring(model)))
            remembered = self._journal.of(model)
            attempt = remembered.attempt
            if attempt is not None and attempt.state not in deployment.ENDS:
                kept.extend((attempt.digest, attempt.former))
            entry = models.get(model)
            if entry is not None and not remembered.has_ended(entry.deployment_id):
                is_latest = attempt is not None and attempt.deployment_id == entry.deployment_id
                kept.append(None if is_latest else entry.active)
        return {digest for digest in kept if digest is not None}

    def _execute(
        self, step: plan.Step, model: str, entry: desired.DesiredModel | None, go_on: Callable[[], bool]
    ) -> None:
        if isinstance(step, plan.Collect):
            self._store.collect(step.digests)
            log.info("%d unneeded files removed.", len(step.digests), extra={"event": "store.collected"})
            return
        attempt = self._attempt_for(model, entry)
        match step:
            case plan.Download():
                self._download(attempt)
            case plan.Verify():
                self._verify(attempt)
            case plan.SelfTest():
                self._self_test(attempt, go_on)
            case plan.Activate():
                self._activate(attempt, step)
            case plan.Commit():
                self._store.commit(model, step.digest)
                self._enter(replace(attempt, fault=None), step.end)
            case plan.Revert():
                self._revert(attempt, step)
            case plan.Refuse():
                self._enter(self._faulty(attempt, FaultKind.REFUSAL, step.code, step.reason), S.REFUSED)
            case plan.Fail():
                if attempt.state is S.ACTIVATING and self._store.installed(model).current == attempt.digest:
                    self._store.restore(model, attempt.former)
                self._enter(self._faulty(attempt, FaultKind.FAILURE, step.code, step.reason), step.end)
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
        self._not_before_ns.pop(model, None)
        self._may_hold_unneeded = True
        return Attempt(
            deployment_id=entry.deployment_id,
            model=model,
            digest=entry.active,
            release=entry.release,
            sequence=remembered.first_sequence,
            at=self._clock.now_utc(),
        )

    # The steps

    def _download(self, attempt: Attempt) -> None:
        if attempt.state is S.QUEUED:
            attempt = self._enter(attempt, S.DOWNLOADING)
        try:
            complete = download.fetch_next(self._store, self._api, attempt.digest)
        except LinesideError as error:
            fault = faults.fault_from(error, FaultKind.PASSING)
            mismatched = error.code == "deployment.digest_mismatch"
            attempt = replace(
                attempt, tries=attempt.tries + 1, mismatches=attempt.mismatches + int(mismatched), fault=fault
            )
            self._journal.write(attempt)
            self._pause(attempt)
            log.warning("%s: %s", attempt.model, error, extra={"event": "download.failed"})
            return
        if complete:
            self._enter(replace(attempt, fault=None), S.VERIFYING)
        elif attempt.fault is not None:
            self._journal.write(replace(attempt, tries=0, fault=None))

    def _verify(self, attempt: Attempt) -> None:
        attempt = self._begin(attempt)
        try:
            verify.verify(self._store, attempt, self._device)
        except LinesideError as error:
            if error.code == "deployment.digest_mismatch":
                fault = faults.fault_from(error, FaultKind.PASSING)
                self._enter(replace(attempt, mismatches=attempt.mismatches + 1, fault=fault), S.DOWNLOADING)
            else:
                self._journal.write(replace(attempt, fault=faults.fault_from(error, FaultKind.FAILURE)))
            return
        self._enter(attempt, S.SELF_TESTING)

    def _self_test(self, attempt: Attempt, go_on: Callable[[], bool]) -> None:
        begun = self._begin(attempt)
        try:
            result = self._tester(self._store.package(attempt.digest), go_on)
        except LinesideError as error:
            self._journal.write(replace(begun, fault=faults.fault_from(error, FaultKind.FAILURE)))
            return
        if result is None:
            self._journal.write(attempt)  # cut short by us: not the version's fault
        elif result.ok:
            log.info(
                "%s %s: self-test passed, p95 %.1f ms, %.0f MB.",
                attempt.model,
                attempt.digest[:12],
                result.latency_p95_ms,
                result.memory_mb,
                extra={"event": "model.tested"},
            )
            self._enter(begun, S.STAGED)
        else:
            fault = faults.fault_of(result.code, result.reason, FaultKind.FAILURE)
            self._journal.write(replace(begun, fault=fault))

    def _activate(self, attempt: Attempt, step: plan.Activate) -> None:
        if attempt.state is not S.ACTIVATING:
            attempt = self._enter(replace(attempt, former=step.former), S.ACTIVATING, tries=1)
        else:
            attempt = self._begin(attempt)
        try:
            active = self._activator.activate(self._store.package(attempt.digest))
            if active != attempt.digest:
                raise LinesideError("deployment.activation_failed", f"The session holds {active[:12]} instead.")  # noqa: TRY301
        except LinesideError as error:
            fault = Fault(kind=FaultKind.FAILURE, code="deployment.activation_failed", reason=str(error))
            self._journal.write(replace(attempt, fault=fault))

    def _revert(self, attempt: Attempt, step: plan.Revert) -> None:
        attempt = self._begin(self._faulty(attempt, FaultKind.FAILURE, step.code, step.reason))
        self._store.restore(attempt.model, step.former)
        try:
            if self._activator.inferring(attempt.model) != step.former:
                self._activator.activate(self._store.package(step.former))
        except LinesideError as error:
            log.exception("%s: going back failed.", attempt.model, extra={"event": "revert.failed"})
            reason = f"{step.reason} Going back to {step.former[:12]} failed: {error}"
            attempt = self._faulty(attempt, FaultKind.FAILURE, "deployment.revert_failed", reason)
            self._enter(attempt, S.FAILED_REVERT_FAILED)
            return
        if self._activator.inferring(attempt.model) == step.former:
            self._enter(attempt, S.FAILED_REVERTED)

    # Journal and reports

    def _begin(self, attempt: Attempt) -> Attempt:
        """Journal that the state's step is begun once more."""
        attempt = replace(attempt, tries=attempt.tries + 1)
        self._journal.write(attempt)
        return attempt

    def _enter(self, attempt: Attempt, state: S, tries: int = 0) -> Attempt:
        """Journal a new state, then report it."""
        if state not in deployment.TRANSITIONS[attempt.state]:
            raise LinesideError(
                "deployment.illegal_transition", f"{attempt.model}: from {attempt.state} to {state} there is no way."
            )
        attempt = replace(
            attempt,
            state=state,
            tries=tries,
            sequence=attempt.sequence + 1,
            at=self._clock.now_utc(),
            inferring=self._activator.inferring(attempt.model),
        )
        self._journal.write(attempt)
        if state in deployment.ENDS:
            self._may_hold_unneeded = True
        log.info("%s %s: %s.", attempt.model, attempt.digest[:12], state, extra={"event": "deployment.moved"})
        self._report(attempt.model)
        return attempt

    def _report(self, model: str) -> None:
        """Hand over the report of the journal's latest state, unless that was done since boot.

        After a boot it is made again, the same in every byte; the fleet takes an equal sequence for a duplicate.
        """
        attempt = self._journal.of(model).attempt
        if attempt is None or attempt.report is None:
            return
        key = (attempt.deployment_id, attempt.sequence)
        if self._reported.get(model) != key:
            self._reports(attempt.report)
            self._reported[model] = key

    def _faulty(self, attempt: Attempt, kind: FaultKind, code: str, reason: str) -> Attempt:
        return replace(attempt, fault=Fault(kind=kind, code=code, reason=reason))

    def _pause(self, attempt: Attempt) -> None:
        longest_s = min(self._options.pause_max_s, self._options.pause_s * 2.0 ** min(attempt.tries - 1, 30))
        pause_ns = int(self._rng.uniform(0.0, longest_s) * 1e9)
        self._not_before_ns[attempt.model] = self._clock.monotonic_ns() + pause_ns
