"""Carries out deployments: asks `plan` for the next step, journals, does it, reports, and asks again."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, assert_never

from agent.clock import Clock
from agent.deploy import boot, bundle, download, headroom, kept, plan, steps
from agent.deploy.attempt import Attempt, FaultKind
from agent.deploy.compatibility import DeviceFacts
from agent.deploy.journal import Journal
from agent.deploy.logbook import Logbook, Tell, tell_nobody
from agent.deploy.observed import Observed
from agent.deploy.order_desk import OrderDesk
from agent.deploy.orders import Orders
from agent.deploy.outlook import Outlook, Rules
from agent.deploy.pauses import Pauses
from agent.deploy.pins import Pins
from agent.deploy.preparation import Preparation, Tester
from agent.deploy.room import Room
from agent.deploy.store import Store
from agent.deploy.swap import Activator, Swap
from agent.uplink.ending import Ending
from wire import deployment, desired, package
from wire.deployment import DeploymentReport, HoldReason, Origin, ProbationReport
from wire.deployment import DeploymentState as S
from wire.errors import LinesideError

log = logging.getLogger(__name__)

_MAX_TEXT: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """The runner's times and limits.

    Args:
        pause_s: upper end of the pause after a try that failed; doubled with each up to `pause_max_s`.
        slice_s: a download is interrupted after so long, to see whether it is still wanted; it goes on where it was.
        keep_free_bytes: of the disk, that stay free beside what is downloaded.
        rules: in force on this device.
    """

    pause_s: float = 4.0
    pause_max_s: float = 300.0
    slice_s: float = 20.0
    keep_free_bytes: int = 128 * 1024 * 1024
    rules: Rules = field(default_factory=Rules)


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
        not_now_words: what a person must know beside that; empty where the reason says all.
        orders, pins: of people beside the machine; by default those in the store's folder.
        available_mb: memory that may still be taken, None where nobody knows.
        tell: takes events for people.
    """

    def __init__(
        self,
        *,
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
        not_now_words: Callable[[], str] = str,
        orders: Orders | None = None,
        pins: Pins | None = None,
        available_mb: Callable[[], float | None] = headroom.available_mb,
        tell: Tell = tell_nobody,
    ) -> None:
        options = options or RunnerOptions()
        self._store = store
        self._journal = journal
        self._activator = activator
        self._clock = clock
        self._orders = orders or Orders(store.root / "orders", clock=clock)
        self._pins = pins or Pins(store.root)
        self._observed = Observed(activator.figures, options.rules.probation)
        self._logbook = Logbook(journal, reports, clock, activator.inferring, self._observed.report, tell)
        self._pauses = Pauses(options.pause_s, options.pause_max_s, clock, rng or random.SystemRandom())
        room = Room(store, clock, options.keep_free_bytes)
        self._preparation = Preparation(
            store, api, self._logbook, self._pauses, room, clock, device, tester, options.slice_s
        )
        self._swap = Swap(store, activator, self._logbook, self._pauses)
        self._desk = OrderDesk(self._orders, store, journal, self._logbook, self._pauses, clock, self._collect_now)
        self._outlook = Outlook(
            journal=journal,
            logbook=self._logbook,
            activator=activator,
            observed=self._observed,
            pauses=self._pauses,
            room=room,
            clock=clock,
            not_now=not_now,
            not_now_words=not_now_words,
            rules=options.rules,
            available_mb=available_mb,
        )
        self._may_hold_unneeded = True
        self._models: dict[str, desired.DesiredModel] = {}
        self._progress: dict[str, ProbationReport | None] = {}
        self._told_of_pins = False
        self._served = ""

    # At boot

    def recover(self, *, ended: Ending = Ending.CLEAN) -> None:
        """Bring store and journal in order (`boot.recover`); call it once, at start, before any model is loaded."""
        boot.recover(self._store, self._journal, ended=ended)
        attempts = [self._journal.of(model).attempt for model in self._journal.models()]
        for attempt in attempts:
            if attempt is not None:
                self._observed.recall(attempt)
        try:
            self._sweep_beside(attempts)
        except LinesideError as error:  # nothing of it is needed to load a model
            log.error("Orders and imports are not tidied up: %s", error, extra={"event": "store.not_swept"})  # noqa: TRY400

    def _sweep_beside(self, attempts: list[Attempt | None]) -> None:
        """Remove what commands have left that nobody needs any more: answers, and what was staged for imports."""
        self._orders.sweep()
        ordered = {order.digest for order in self._orders.pending() if order.digest is not None}
        underway = {attempt.digest for attempt in attempts if attempt is not None and not attempt.has_ended}
        bundle.sweep(self._store.root, ordered | underway)
        for attempt in attempts:
            if attempt is not None:
                self._tidy(attempt.model)

    def models_in_use(self) -> tuple[str, ...]:
        """Return the models of which a version may be installed, or in its first probation."""
        return tuple(sorted({*self._store.models(), *self._journal.models()}))

    def boot_choices(self, model: str) -> Iterator[package.Package]:
        """Yield the versions of a model that may be loaded at boot, the one to prefer first."""
        return boot.choices(self._store, self._journal, model)

    def deployment_of(self, model: str, digest: str) -> str | None:
        """Return the deployment that brought a version here, None where it is not remembered. Any thread may ask."""
        return boot.deployment_of(self._journal, model, digest)

    def under_way(self) -> tuple[Attempt, ...]:
        """Return the attempts that are wanted and have not ended, with their probation so far. Any thread may ask."""
        latest = (self._journal.of(model).attempt for model in self._journal.models())
        return tuple(
            replace(attempt, told=self._progress.get(attempt.model))
            for attempt in latest
            if attempt is not None and not attempt.has_ended and self._is_wanted(attempt)
        )

    def _is_wanted(self, attempt: Attempt) -> bool:
        entry = self._models.get(attempt.model)
        return entry is not None and entry.deployment_id == attempt.deployment_id

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
                `reports` raises; calling again later goes on where it stopped. What else there was to do was done.
        """
        models = self._wanted_here(wanted)
        if {entry.shadow for entry in models.values()} != {entry.shadow for entry in self._models.values()}:
            self._may_hold_unneeded = True  # a candidate nobody asks for any more leaves its bytes behind
        self._models = models
        turns = [self._desk.take]
        turns += [partial(self._serve, model, go_on, document_known=wanted is not None) for model in self._in_turn()]
        troubles = []
        is_done = False
        for turn in turns:
            try:
                is_done = turn()
            except LinesideError as error:  # which keeps none of the others waiting: one may have to be taken back
                troubles.append(error)
            if is_done:
                break
        if troubles:
            raise troubles[0]
        return is_done

    def _in_turn(self) -> list[str]:
        """Return the models in the order in which they are served, for a step may be a long piece of a download.

        First those of which a version has just begun to judge parts, then those a person beside the machine waits for.
        Among equals the one behind the model served last begins.
        """

        def turn(model: str) -> tuple[int, bool, str]:
            attempt = self._journal.of(model).attempt
            rank = 2
            if attempt is not None and not attempt.has_ended:
                if attempt.state in (S.ACTIVATING, S.PROBATION):
                    rank = 0
                elif attempt.origin is Origin.DEVICE:
                    rank = 1
            return rank, model <= self._served, model

        return sorted({*self._models, *self._journal.models()}, key=turn)

    def _serve(self, model: str, go_on: Callable[[], bool], *, document_known: bool) -> bool:
        """Do the next step of a model, if there is one; return whether there was."""
        try:
            self._logbook.report(model)
            self._logbook.count_time(model, self._observed.of)
        except LinesideError:
            step = self._next_step(model, document_known=document_known)
            if isinstance(step, steps.Revert):  # which waits neither for the disk nor for the outbox
                self._swap.go_back_unwritten(self._attempt_now(model), step)
            raise
        step = self._next_step(model, document_known=document_known)
        if step is None:
            return False
        self._execute(step, model, go_on)
        self._served = model
        return True

    def _next_step(self, model: str, *, document_known: bool) -> steps.Step | None:
        entry = self._models.get(model)
        unneeded = self._unneeded if document_known else tuple
        facts = self._outlook.facts(model, entry, unneeded, document_known=document_known)
        self._note_progress(model, facts.attempt)
        return plan.plan(self._store.installed(model), entry, facts)

    def _note_progress(self, model: str, attempt: Attempt | None) -> None:
        """Keep what the status tells of a probation; it is asked for on other threads."""
        report = None
        if attempt is not None and attempt.state is S.PROBATION:
            report = self._observed.report(replace(attempt, evidence=self._observed.of(attempt)))
        self._progress[model] = report

    def _wanted_here(self, wanted: desired.Desired | None) -> dict[str, desired.DesiredModel]:
        """Return what is wanted of each model.

        What a person beside the machine has asked for goes before the desired document until it has ended. While no
        document is known, a swap that has begun is wanted still.
        """
        models = {entry.model: entry for entry in wanted.models} if wanted is not None else {}
        for model in self._journal.models():
            attempt = self._journal.of(model).attempt
            if attempt is None or attempt.has_ended:
                continue
            is_begun = attempt.state in (S.ACTIVATING, S.PROBATION)
            if attempt.origin is Origin.DEVICE or (wanted is None and is_begun):
                shadow = models[model].shadow if model in models else None
                models[model] = desired.DesiredModel(
                    model=model,
                    active=attempt.digest,
                    release=attempt.release,
                    deployment_id=attempt.deployment_id,
                    shadow=shadow,
                )
        return models

    def _unneeded(self) -> tuple[str, ...]:
        """Look for what nothing refers to, once after each step; looking again and again would cost."""
        if not self._may_hold_unneeded:
            return ()
        try:
            found = self._unneeded_now()
        except LinesideError as error:  # what is pinned is not known; deployments go on
            if not self._told_of_pins:
                log.warning("Nothing is collected: %s", error, extra={"event": "store.not_collected"})
            self._told_of_pins = True
            found = ()
        self._may_hold_unneeded = bool(found)
        return found

    def _unneeded_now(self) -> tuple[str, ...]:
        stays = kept.kept(self._store, self._journal, self._activator.inferring, self._models, self._pins.read())
        return self._store.unneeded(stays)

    def _collect_now(self) -> int:
        """Remove what nothing refers to, for a person who asks for it."""
        found = self._unneeded_now()
        self._store.collect(found)
        return len(found)

    def _execute(self, step: steps.Step, model: str, go_on: Callable[[], bool]) -> None:
        if isinstance(step, steps.Collect):
            self._store.collect(step.digests)
            log.info("%d unneeded files removed.", len(step.digests), extra={"event": "store.collected"})
            return
        attempt = self._attempt_now(model)
        self._may_hold_unneeded = True
        match step:
            case steps.Hold():
                self._hold(attempt, step)
            case steps.Download():
                self._preparation.download(attempt, go_on)
            case steps.Verify():
                self._preparation.verify(attempt)
            case steps.SelfTest():
                self._preparation.self_test(attempt, go_on)
            case steps.Activate():
                self._swap.activate(attempt, step)
            case steps.Watch():
                self._swap.watch(attempt, step)
            case steps.Commit():
                self._swap.commit(attempt, step)
            case steps.Revert():
                self._swap.revert(attempt, step)
            case steps.Refuse():
                self._logbook.enter(attempt.failed(step.code, step.reason, FaultKind.REFUSAL), S.REFUSED)
            case steps.Fail():
                self._swap.fail(attempt, step)
            case _:
                assert_never(step)
        self._tidy(model)

    def _tidy(self, model: str) -> None:
        """Remove what was staged for an import that has ended."""
        attempt = self._journal.of(model).attempt
        if attempt is not None and attempt.has_ended and attempt.origin is Origin.DEVICE:
            bundle.discard(self._store.root, attempt.digest)

    def _attempt_now(self, model: str) -> Attempt:
        """Return the attempt a step belongs to, with all that was seen of it."""
        attempt = self._attempt_for(model, self._models.get(model))
        return replace(attempt, evidence=self._observed.of(attempt))

    def _attempt_for(self, model: str, entry: desired.DesiredModel | None) -> Attempt:
        """Return the attempt a step belongs to: the one in the journal, or a new one where another is desired."""
        remembered = self._journal.of(model)
        latest = remembered.attempt
        if latest is not None and (
            latest.state in (S.ACTIVATING, S.PROBATION)
            or entry is None
            or latest.deployment_id == entry.deployment_id
            or remembered.has_ended(entry.deployment_id)
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

    def _hold(self, attempt: Attempt, step: steps.Hold) -> None:
        if attempt.state is S.QUEUED:  # which is the fleet's word; what is held here has been begun
            attempt = self._logbook.enter(attempt, S.DOWNLOADING)
        hold = deployment.Hold(reason=step.reason, deadline=step.deadline, text=step.text[:_MAX_TEXT])
        self._logbook.hold(attempt, hold)
