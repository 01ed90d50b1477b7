"""Brings the candidates the fleet asks for to this device, and starts and stops them: a role, not a deployment.

Nothing here touches `current` and `previous`, so that a kill at any moment costs at most the candidate's time. Only two
things outlive a restart: the blobs, and a word on each candidate (`shadow_memory`). A candidate whose session may have
ended the whole agent is not started again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol, assert_never

from agent.clock import Clock
from agent.deploy import download, faults, selftest, shadow_plan, verify
from agent.deploy.attempt import Attempt, FaultKind
from agent.deploy.compatibility import DeviceFacts
from agent.deploy.pauses import Pauses
from agent.deploy.room import Room
from agent.deploy.shadow_memory import ShadowMemory
from agent.deploy.shadow_plan import Asked, Facts, Remembered, Word
from agent.deploy.store import Store
from agent.uplink.fleet_api import ApiError
from wire import package
from wire.desired import Desired, DesiredModel
from wire.errors import LinesideError
from wire.messages import Severity

log = logging.getLogger(__name__)

MISMATCHES_MOST: Final = 3
_TROUBLE_MOST: Final = 200
CRASHED: Final = (
    "The agent ended without notice while this candidate ran; it is not started again, as it may be the cause."
)

Tester = Callable[[package.Package, Callable[[], bool]], selftest.SelfTestResult | None]
Tell = Callable[[str, Severity, str], None]


class Stage(Protocol):
    """Where candidates are shown parts; `agent.inspection.shadow_stage.ShadowStage` in the product."""

    def start(self, package: package.Package, rate: float) -> None:
        """Load a candidate and show it parts; raises what loading raises."""

    def stop(self, model: str) -> None: ...
    def set_rate(self, model: str, rate: float) -> None: ...
    def running(self, model: str) -> tuple[str, float] | None: ...
    def refusals(self, model: str) -> tuple[str, ...]: ...
    def stopped(self, model: str) -> tuple[str, str] | None:
        """Return code and reason of a candidate that was stopped by itself; None where none was."""

    def watch(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the keeper asks of the rest of the agent.

    Args:
        active: the digest of the version in use for a model, None where none is.
        models: those that recipes of the stations name.
        is_busy: a version is about to be swapped in, or is on probation.
        is_short: a version that is to be swapped in does not fit into memory beside all that runs.
        fits: whether so many MB more fit into memory.
        tell: makes an event for people.
        on_change: called when another candidate runs than before, or another trouble is told.
    """

    active: Callable[[str], str | None]
    models: Callable[[], tuple[str, ...]]
    is_busy: Callable[[], bool]
    is_short: Callable[[], bool]
    fits: Callable[[float], bool]
    tell: Tell
    on_change: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How far a candidate has come in this process."""

    digest: str
    is_verified: bool = False
    mismatches: int = 0
    trouble: str = ""


class ShadowKeeper:
    """One thread calls `recover` once, and then `tend` and `step` again and again; any thread may ask for `trouble`.

    Args:
        api: fetches blobs from the fleet.
        tester: runs the self-test of a package; None where it was cut short.
        keep_free_bytes: of the disk, that stay free beside what is downloaded.
        slice_s: a download is interrupted after so long; it goes on where it was.
    """

    def __init__(
        self,
        *,
        store: Store,
        memory: ShadowMemory,
        api: download.BlobSource,
        stage: Stage,
        around: Surroundings,
        device: DeviceFacts,
        tester: Tester,
        clock: Clock,
        keep_free_bytes: int = 128 * 1024 * 1024,
        pause_s: float = 4.0,
        pause_max_s: float = 300.0,
        slice_s: float = 5.0,
        rng: random.Random | None = None,
    ) -> None:
        self._store = store
        self._memory = memory
        self._api = api
        self._stage = stage
        self._around = around
        self._device = device
        self._tester = tester
        self._clock = clock
        self._slice_s = slice_s
        self._pauses = Pauses(pause_s, pause_max_s, clock, rng or random.SystemRandom())
        self._room = Room(store, clock, keep_free_bytes)
        self._ways: dict[str, _Way] = {}
        self._troubles: dict[str, str] = {}
        self._told: dict[str, tuple[tuple[str, float] | None, str]] = {}

    def recover(self, *, killed: bool) -> None:
        """Take note of how the last run ended; call it once, before anything is started.

        Args:
            killed: the agent's process died, though the machine went on.
        """
        for model in self._memory.models():
            known = self._memory.of(model)
            if known is None or known.word is not Word.STARTED:
                continue
            if not killed:
                self._note_unloaded(model)
                continue
            try:
                self._refuse(model, known.digest, "deployment.crashed", CRASHED)
            except LinesideError as error:  # a full disk must not keep the line's own models from being loaded
                _log_not_remembered(error)

    def trouble(self, model: str) -> str:
        """Return why the candidate that is asked for does not run, or does not see all parts; else nothing."""
        text = self._troubles.get(model, "") or "; ".join(self._stage.refusals(model))
        return text if len(text) <= _TROUBLE_MOST else f"{text[: _TROUBLE_MOST - 3]}..."

    def tend(self, wanted: Desired | None) -> bool:
        """Stop at once what is no longer wanted, or failed; return whether anything was.

        Raises:
            LinesideError: `storage.full` or `storage.corrupt` where that cannot be remembered.
        """
        self._stage.watch()
        changed = False
        for model, entry in self._models(wanted).items():
            step = shadow_plan.next_step(self._facts(model, entry))
            if isinstance(step, shadow_plan.Stop | shadow_plan.Refuse | shadow_plan.Forget):
                self._do(step, model, entry, lambda: True)
                changed = True
        self._tell_change(wanted)
        return changed

    def step(self, wanted: Desired | None, go_on: Callable[[], bool]) -> bool:
        """Do at most one step of one model's candidate; return whether anything was done.

        Args:
            wanted: the desired document; None while it is not known.
            go_on: called now and then while a step takes long; False cuts it short.

        Raises:
            LinesideError: `storage.full` or `storage.corrupt` where the disk refuses.
        """
        for model, entry in self._models(wanted).items():
            step = shadow_plan.next_step(self._facts(model, entry))
            if isinstance(step, shadow_plan.Wait):
                self._troubles[model] = step.why
                continue
            self._do(step, model, entry, go_on)
            self._tell_change(wanted)
            return True
        self._tell_change(wanted)
        return False

    def _tell_change(self, wanted: Desired | None) -> None:
        now = {model: (self._stage.running(model), self.trouble(model)) for model in self._models(wanted)}
        if wanted is not None and now != self._told:
            self._told = now
            self._around.on_change()

    def _models(self, wanted: Desired | None) -> dict[str, DesiredModel | None]:
        """Return every model there may be something to do for; nothing while the wish is not known."""
        if wanted is None:
            return {}
        entries: dict[str, DesiredModel | None] = dict.fromkeys((*self._memory.models(), *self._ways))
        return entries | {entry.model: entry for entry in wanted.models}

    def _facts(self, model: str, entry: DesiredModel | None) -> Facts:
        asked = Asked(digest=entry.shadow, rate=entry.shadow_rate) if entry is not None and entry.shadow else None
        running, remembered = self._stage.running(model), self._memory.of(model)
        facts = Facts(
            asked=asked,
            running=Asked(digest=running[0], rate=running[1]) if running is not None else None,
            stopped=self._stage.stopped(model),
            remembered=remembered,
            active=self._around.active(model),
            is_named=model in self._around.models(),
            is_short=running is not None and self._around.is_short(),
            runtime_version=self._device.runtime_version,
        )
        if asked is None or running is not None or (remembered is not None and remembered.word is Word.REFUSED):
            return facts
        way = self._way(model, asked.digest)
        complete = self._is_complete(asked.digest)
        return replace(
            facts,
            is_busy=self._around.is_busy(),
            is_complete=complete,
            is_verified=way.is_verified,
            waiting=self._pauses.lasts(model),
            trouble=way.trouble,
            no_room=not complete and self._room.lacks(asked.digest, is_held=bool(way.trouble)),
            fits=remembered is None or self._around.fits(remembered.memory_mb),
        )

    def _is_complete(self, digest: str) -> bool:
        try:
            index = self._store.index(digest)
        except LinesideError:
            return False
        return index is not None and not self._store.missing(index)

    def _way(self, model: str, digest: str) -> _Way:
        way = self._ways.get(model)
        if way is None or way.digest != digest:
            way = self._ways[model] = _Way(digest=digest)
            self._pauses.end(model)
        return way

    # The steps

    def _do(self, step: shadow_plan.Step, model: str, entry: DesiredModel | None, go_on: Callable[[], bool]) -> None:
        digest = entry.shadow if entry is not None and entry.shadow is not None else ""
        match step:
            case shadow_plan.Wait():
                pass
            case shadow_plan.Stop():
                self._stage.stop(model)
                log.info("The candidate of %s was stopped.", model, extra={"event": "shadow.stopped"})
                self._note_unloaded(model)
            case shadow_plan.Forget():
                self._memory.write(model, None)
                self._ways.pop(model, None)
                self._troubles.pop(model, None)
            case shadow_plan.Refuse():
                self._refuse(model, digest, step.code, step.reason)
                self._stage.stop(model)
            case shadow_plan.ChangeRate():
                self._stage.set_rate(model, step.rate)
            case shadow_plan.Download():
                self._download(model, digest, go_on)
            case shadow_plan.Verify():
                self._verify(model, digest, entry)
            case shadow_plan.SelfTest():
                self._self_test(model, digest, go_on)
            case shadow_plan.Start():
                self._start(model, digest, entry.shadow_rate if entry is not None else 1.0)
            case _:
                assert_never(step)

    def _download(self, model: str, digest: str, go_on: Callable[[], bool]) -> None:
        until_ns = self._clock.monotonic_ns() + int(self._slice_s * 1e9)
        before = self._store.incoming_bytes()
        try:
            download.fetch_next(
                self._store, self._api, digest, lambda: go_on() and self._clock.monotonic_ns() < until_ns
            )
        except LinesideError as error:
            if error.code == "storage.full":
                self._room.note_refusal()
                return
            if self._store.incoming_bytes() > before:
                self._pauses.reset(model)
            self._note_failed_try(model, digest, error)
            return
        self._pauses.reset(model)
        self._ways[model] = replace(self._way(model, digest), trouble="")

    def _verify(self, model: str, digest: str, entry: DesiredModel | None) -> None:
        index = self._store.index(digest)
        if index is None or entry is None:
            return
        # The document says nothing of a candidate's release: its own index does.
        asked = Attempt(
            deployment_id=entry.deployment_id,
            model=model,
            digest=digest,
            release=index.release,
            at=self._clock.now_utc(),
        )
        try:
            verify.verify(self._store, asked, self._device)
        except LinesideError as error:
            self._note_failed_try(model, digest, error)
        else:
            self._ways[model] = replace(self._way(model, digest), is_verified=True, trouble="")

    def _note_failed_try(self, model: str, digest: str, error: LinesideError) -> None:
        """Try again after a pause, unless the same would come again every time."""
        way = self._way(model, digest)
        mismatches = way.mismatches + int(error.code == "deployment.digest_mismatch")
        fault = faults.fault_of_download(error)
        if fault.kind is FaultKind.REFUSAL or mismatches >= MISMATCHES_MOST:
            self._refuse(model, digest, fault.code, fault.reason)
            return
        self._ways[model] = replace(way, is_verified=False, mismatches=mismatches, trouble=fault.reason)
        self._pauses.begin(model, error.retry_after_s if isinstance(error, ApiError) else 0.0)

    def _self_test(self, model: str, digest: str, go_on: Callable[[], bool]) -> None:
        try:
            result = self._tester(self._store.package(digest), go_on)
        except LinesideError as error:
            self._note_failed_try(model, digest, error)
            return
        if result is None:
            return  # cut short by us
        if not result.ok:
            self._refuse(model, digest, result.code, result.reason)
            return
        tested = Remembered(
            digest=digest,
            word=Word.TESTED,
            memory_mb=result.memory_mb,
            runtime_version=self._device.runtime_version,
        )
        self._memory.write(model, tested)

    def _start(self, model: str, digest: str, rate: float) -> None:
        known = self._memory.of(model)
        if known is None:
            return
        try:
            found = self._store.package(digest)
        except LinesideError as error:  # its files were damaged since: verify drops what is, and it comes anew
            self._memory.write(model, None)
            self._note_failed_try(model, digest, error)
            return
        self._memory.write(model, replace(known, word=Word.STARTED))
        try:
            self._stage.start(found, rate)
        except LinesideError as error:
            self._refuse(model, digest, error.code, error.message)
        else:
            self._troubles.pop(model, None)
            log.info("%s %s is shown parts too.", model, digest[:12], extra={"event": "shadow.started"})

    def _note_unloaded(self, model: str) -> None:
        """Remember that a candidate is in no process: what ends the agent from now on is not its doing."""
        known = self._memory.of(model)
        if known is None or known.word is not Word.STARTED:
            return
        try:
            self._memory.write(model, replace(known, word=Word.TESTED))
        except LinesideError as error:  # nobody waits for it; at worst it is blamed for what it did not do
            _log_not_remembered(error)

    def _refuse(self, model: str, digest: str, code: str, reason: str) -> None:
        self._memory.write(model, Remembered(digest=digest, word=Word.REFUSED, code=code, reason=reason[:1000]))
        self._troubles[model] = reason
        log.warning("%s %s: %s", model, digest[:12], reason, extra={"event": "shadow.refused"})
        self._around.tell("shadow.refused", Severity.WARNING, f"{model}, candidate {digest[:12]}: {reason} ({code})")


def _log_not_remembered(error: LinesideError) -> None:
    log.warning("It cannot be remembered: %s", error, extra={"event": "shadow.not_remembered"})
