"""A fleet with something to see on its live page, served on a free port."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import uvicorn

from fleet import db
from fleet.deployments.service import ReportSlice
from fleet.devices.service import HealthSlice, absorb_state
from fleet.inspections.service import CounterSlice, InspectionSlice
from tests.support import records
from tests.support.fleet_stand import Stand
from wire.deployment import DeploymentReport, DeploymentState, Hold, HoldReason, Origin, ProbationReport
from wire.inspection import Box, Finding, Verdict
from wire.messages import Counter, Health, Lane, Reported, RunningModel, ShadowHealth, State, StationHealth

DEVICES = ("cell-1", "cell-2", "cell-3")
BOX = Box(x1_px=80, y1_px=60, x2_px=240, y2_px=120)
WIDTH, HEIGHT = 320, 240


class Scene:
    """The fleet of three devices, each running release 1 of `parts`."""

    def __init__(self, folder: Path) -> None:
        self.stand = Stand(folder)
        self.stand.now = datetime.now(UTC).replace(microsecond=0)
        self.digests = {release: self.stand.push("parts", release) for release in (1, 2, 3)}
        self._states = dict.fromkeys(DEVICES, 0)
        self._seqs: dict[tuple[str, Lane], int] = {}
        for device in DEVICES:
            self.stand.enrol(device)
            self.report(device, release=1)
            self.health(device)

    def report(self, device: str, *, release: int, online: bool = True) -> None:
        """Let a device say what it runs."""
        self._states[device] += 1
        digest = self.digests[release]
        state = State(
            device=device,
            boot=1,
            revision=self._states[device],
            online=online,
            at=self.stand.now,
            reported=Reported(
                desired_revision=1,
                agent_version="0.1.0",
                runtime_version="1.31",
                architecture="x86_64",
                models=(RunningModel(model="parts", digest=digest),),
            ),
        )
        with db.write_session(self.stand.engine) as session:
            absorb_state(session, state, self.stand.now)

    def health(self, device: str, **more: Any) -> None:
        """Let a device send its health."""
        self._absorb(
            HealthSlice(),
            device,
            Lane.HEALTH,
            Health(
                at=self.stand.now,
                uptime_s=90,
                cpu_fraction=0.23,
                rss_bytes=131_000_000,
                disk_free_bytes=10**10,
                disk_free_fraction=0.61,
                outbox_unsettled=2,
                outbox_bytes=2048,
                outbox_dropped=0,
                **more,
            ),
        )

    def count(self, device: str, **counts: int) -> None:
        """Let a device send exact counts of the last minute, by verdict."""
        minute = (self.stand.now - timedelta(minutes=1)).replace(second=0)
        for verdict, count in counts.items():
            body: Counter = records.counter(count, minute=minute, verdict=Verdict(verdict))
            self._absorb(CounterSlice(), device, Lane.COUNTERS, body)

    def picture(self, device: str, verdict: Verdict = Verdict.NG) -> str:
        """Let a device keep and send a picture with one box; returns the inspection's id."""
        image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        cv2.rectangle(image, (80, 60), (240, 120), (60, 200, 220), -1)
        noise = np.random.default_rng(len(self._seqs)).integers(0, 30, image.shape, np.uint8)
        digest = self.stand.upload(cv2.imencode(".jpg", cv2.add(image, noise))[1].tobytes())
        view = records.view(
            verdict=verdict,
            picture_digest=digest,
            width_px=WIDTH,
            height_px=HEIGHT,
            findings=(Finding(label="scratch", score=0.87, box=BOX),),
        )
        record = records.inspection(device=device, verdict=verdict, score=0.87, views=(view,), judged_at=self.stand.now)
        self._absorb(InspectionSlice(), device, Lane.INSPECTIONS, record)
        return record.id

    def desire(
        self, device: str, release: int, *steps: DeploymentState, code: str = "", reason: str = "", **last_words: Any
    ) -> None:
        """Ask for a release, and let the device report the steps; `last_words` stand in the last report."""
        document = self.stand.desire(device, {"parts": release})
        report = DeploymentReport(
            deployment_id=document["models"][0]["deployment_id"],
            model="parts",
            digest=self.digests[release],
            state=DeploymentState.DOWNLOADING,
            sequence=1,
            at=self.stand.now,
        )
        for sequence, state in enumerate(steps, start=1):
            last = state is steps[-1]
            self._absorb(
                ReportSlice(),
                device,
                Lane.DEPLOYMENTS,
                replace(
                    report,
                    state=state,
                    sequence=sequence,
                    code=code if last else "",
                    reason=reason if last else "",
                    **(last_words if last else {}),
                ),
            )

    def shadow(self, device: str, *, release: int, shadow: int) -> None:
        """Ask for a release and a shadow, and let the device tell what the shadow has seen."""
        self.stand.desire(device, {"parts": release}, shadow=shadow)
        told = ShadowHealth(model="parts", digest=self.digests[shadow], chosen=50, compared=40, disagreed=2)
        station = StationHealth(
            station="s1",
            triggers=200,
            verdicts=200,
            frames_in=200,
            frames_used=200,
            frames_not_triggered=0,
            frames_dropped=0,
            shadows=(told,),
        )
        self.health(device, stations=(station,))

    def roll_back(self, device: str, *, by: str) -> None:
        """Let release 2 succeed, and a person at the device go back to release 1."""
        self.desire(device, 2, *GOOD_WAY)
        self.report(device, release=2)
        local = DeploymentReport(
            deployment_id=records.MINT.uuid7(),
            model="parts",
            digest=self.digests[1],
            state=DeploymentState.SUCCEEDED,
            sequence=7,
            at=self.stand.now + timedelta(seconds=5),
            origin=Origin.DEVICE,
            by=by,
        )
        self._absorb(ReportSlice(), device, Lane.DEPLOYMENTS, local)
        self.report(device, release=1)

    def _absorb(self, taker: Any, device: str, lane: Lane, body: Any) -> None:
        seq = self._seqs[device, lane] = self._seqs.get((device, lane), 0) + 1
        absorbed = self.stand.absorb(taker, device, lane, [body], first=seq)
        assert absorbed.refused == ()


GOOD_WAY = (
    DeploymentState.DOWNLOADING,
    DeploymentState.VERIFYING,
    DeploymentState.SELF_TESTING,
    DeploymentState.STAGED,
    DeploymentState.ACTIVATING,
    DeploymentState.PROBATION,
    DeploymentState.SUCCEEDED,
)

HELD: dict[str, Any] = {
    "hold": Hold(
        reason=HoldReason.AWAITING_CONFIRMATION,
        deadline=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
        text="NG rose: show parts of known truth.",
    ),
    "probation": ProbationReport(parts=34, faults=1, parts_needed=100),
}


@contextlib.contextmanager
def served(stand: Stand, port: int = 0) -> Iterator[str]:
    """Serve the application on a free port; gives the address."""
    server = uvicorn.Server(
        uvicorn.Config(stand.app, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, name="test-web", daemon=True)
    thread.start()
    deadline = time.monotonic() + 15
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server did not start in time"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
