"""Makes a version ready for its swap: downloads, verifies and self-tests it, each outcome journaled before the next."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from agent.clock import Clock
from agent.deploy import bundle, faults, selftest, verify
from agent.deploy.attempt import Attempt, FaultKind, Tested
from agent.deploy.compatibility import DeviceFacts
from agent.deploy.download import BlobSource, fetch_next
from agent.deploy.logbook import Logbook
from agent.deploy.pauses import Pauses
from agent.deploy.room import Room
from agent.deploy.store import Store
from agent.uplink.fleet_api import ApiError
from wire import package
from wire.deployment import DeploymentState as S
from wire.deployment import Origin
from wire.errors import LinesideError

log = logging.getLogger(__name__)

Tester = Callable[[package.Package, Callable[[], bool]], selftest.SelfTestResult | None]


class Preparation:
    """The steps before the swap; the line notices none of them.

    Args:
        api: fetches blobs from the fleet.
        device: what versions are checked against.
        tester: runs the self-test of a package; None where it was cut short.
        slice_s: a download is interrupted after so long, to see whether it is still wanted.
    """

    def __init__(
        self,
        store: Store,
        api: BlobSource,
        logbook: Logbook,
        pauses: Pauses,
        room: Room,
        clock: Clock,
        device: DeviceFacts,
        tester: Tester,
        slice_s: float,
    ) -> None:
        self._store = store
        self._api = api
        self._logbook = logbook
        self._pauses = pauses
        self._room = room
        self._clock = clock
        self._device = device
        self._tester = tester
        self._slice_s = slice_s

    def download(self, attempt: Attempt, go_on: Callable[[], bool]) -> None:
        """Fetch the next blob that is missing."""
        if attempt.state is S.QUEUED:
            attempt = self._logbook.enter(attempt, S.DOWNLOADING)
        elif attempt.hold is not None:
            attempt = self._logbook.hold(attempt, None)
        until_ns = self._clock.monotonic_ns() + int(self._slice_s * 1e9)
        before = self._store.incoming_bytes()
        source = self._source(attempt)
        try:
            complete = fetch_next(
                self._store, source, attempt.digest, lambda: go_on() and self._clock.monotonic_ns() < until_ns
            )
        except LinesideError as error:
            self._note_failed_download(attempt, error, gained=self._store.incoming_bytes() > before)
            return
        self._pauses.reset(attempt.model)
        if complete:
            self._logbook.enter(replace(attempt, fault=None), S.VERIFYING)
        elif attempt.fault is not None:
            self._logbook.keep(replace(attempt, tries=0, fault=None))

    def _source(self, attempt: Attempt) -> BlobSource:
        """Return where a version comes from: the imports folder where a person has brought it, else the fleet."""
        if attempt.origin is Origin.DEVICE and bundle.is_staged(self._store.root, attempt.digest):
            return bundle.FolderSource(self._store.root, attempt.digest)
        return self._api

    def _note_failed_download(self, attempt: Attempt, error: LinesideError, *, gained: bool) -> None:
        """Journal why a try failed. One that brought bytes, or met nobody, is not counted."""
        if error.code == "storage.full":  # then `plan` makes it a hold
            self._room.note_refusal()
            return
        fault = faults.fault_of_download(error)
        if fault.kind is not FaultKind.AWAY or attempt.fault is None or attempt.fault.code != fault.code:
            log.warning("%s: %s", attempt.model, error, extra={"event": "download.failed"})
        counts = fault.kind is not FaultKind.AWAY
        self._logbook.keep(
            replace(
                attempt,
                tries=(0 if gained else attempt.tries) + int(counts),
                mismatches=attempt.mismatches + int(error.code == "deployment.digest_mismatch"),
                fault=fault,
            )
        )
        if gained:
            self._pauses.reset(attempt.model)
        self._pauses.begin(attempt.model, error.retry_after_s if isinstance(error, ApiError) else 0.0)

    def verify(self, attempt: Attempt) -> None:
        """Check every byte, the manifest, and that the version suits this device."""
        attempt = self._logbook.begin(attempt)
        try:
            verified = verify.verify(self._store, attempt, self._device)
        except LinesideError as error:
            if error.code == "deployment.digest_mismatch":
                fault = faults.fault_from(error, FaultKind.PASSING)
                self._logbook.enter(replace(attempt, mismatches=attempt.mismatches + 1, fault=fault), S.DOWNLOADING)
            else:
                self._logbook.keep(replace(attempt, fault=faults.fault_from(error, FaultKind.FAILURE)))
            return
        self._logbook.enter(replace(attempt, release=verified.manifest.release), S.SELF_TESTING)

    def self_test(self, attempt: Attempt, go_on: Callable[[], bool]) -> None:
        """Run the golden samples in a child process.

        Where this device cannot run it at the moment, that is no word on the version: it is tried again after a pause,
        without being counted, until the attempt's time is over.
        """
        begun = self._logbook.begin(attempt)
        try:
            tested = self._store.package(attempt.digest)
        except LinesideError as error:
            self._logbook.keep(replace(begun, fault=faults.fault_from(error, FaultKind.FAILURE)))
            return
        try:
            result = self._tester(tested, go_on)
        except LinesideError as error:
            if attempt.fault is None or attempt.fault.code != error.code:
                log.warning("%s: %s", attempt.model, error, extra={"event": "model.not_tested"})
            self._logbook.keep(replace(attempt, fault=faults.fault_from(error, FaultKind.PASSING)))
            self._pauses.begin(attempt.model)
            return
        if result is None:
            self._logbook.keep(attempt)  # cut short by us: not the version's fault
        elif result.ok:
            log.info(
                "%s %s: self-test passed, p95 %.1f ms, %.0f MB.",
                attempt.model,
                attempt.digest[:12],
                result.latency_p95_ms,
                result.memory_mb,
                extra={"event": "model.tested"},
            )
            measured = Tested(
                latency_p95_ms=result.latency_p95_ms,
                memory_mb=result.memory_mb,
                load_ms=result.load_ms,
                memory_limit_mb=tested.manifest.limits.memory_mb,
            )
            self._pauses.reset(attempt.model)
            self._logbook.enter(replace(begun, tested=measured, fault=None), S.STAGED)
        else:
            fault = faults.fault_of(result.code, result.reason, FaultKind.FAILURE)
            self._logbook.keep(replace(begun, fault=fault))
