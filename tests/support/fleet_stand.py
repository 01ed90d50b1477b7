"""A whole fleet for tests: a real SQLite file with the real schema, the application, and credentials to use it with."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.testclient import TestClient

from fleet import app, db
from fleet.absorb import Absorbed, Received, Slice
from fleet.auth import service as auth
from fleet.auth.actor import Actor, Kind, Role
from fleet.blobs.store import FolderBlobs
from fleet.deployments.announce import RecordingAnnouncer
from fleet.devices import enrolment
from fleet.migrations import runner
from fleet.settings import FleetSettings
from wire import codec, package
from wire.enrolment import EnrolmentRequest
from wire.messages import Lane
from wire.package import PackageFile, PackageIndex

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LOCAL = Actor(kind=Kind.LOCAL, name="test", role=Role.ADMIN)
EPOCH = "0123456789abcdef"
MANIFEST = """\
schema = 1
name = "{name}"
release = {release}
task = "classify"
labels = ["ok", "scratch"]
input = {{ width_px = 32, height_px = 32 }}
decoder = {{ name = "classify" }}

[thresholds.scratch-ng]
default = 0.5
min = 0.2
max = 0.9

[[rules]]
name = "scratch"
labels = ["scratch"]
ng_at = "scratch-ng"
"""


@cache
def _empty_database() -> Path:
    path = Path(mkdtemp(prefix="lineside-test-")) / db.FILE_NAME
    engine = db.open_engine(path)
    runner.upgrade(engine)
    engine.dispose()
    return path


class Stand:
    """The parts of a fleet; `now` is its clock, moved by assignment."""

    def __init__(self, folder: Path) -> None:
        self.now = START
        self.settings = FleetSettings(data_dir=folder)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(_empty_database(), self.settings.database_path)
        self.engine: Engine = db.open_engine(self.settings.database_path)
        self.blobs = FolderBlobs(self.settings.blobs_dir, package.MAX_FILE_BYTES)
        self.announcer = RecordingAnnouncer()
        self.app: FastAPI = app.create_app(self.settings, self.engine, self.blobs, self.announcer, now=lambda: self.now)
        self.client = TestClient(self.app, raise_server_exceptions=False, follow_redirects=False)
        self._tokens: dict[Role, str] = {}

    def close(self) -> None:
        self.client.close()
        self.engine.dispose()

    def advance(self, **parts: float) -> None:
        self.now += timedelta(**parts)

    def token(self, role: Role = Role.ADMIN) -> str:
        """Return an operator token of a role."""
        if role not in self._tokens:
            with db.write_session(self.engine) as session:
                self._tokens[role] = auth.create_token(session, name=role.value, role=role, by=LOCAL, now=self.now)
        return self._tokens[role]

    def claim(self, device: str, **valid: float) -> str:
        """Return a claim token."""
        with db.write_session(self.engine) as session:
            span = timedelta(**valid) if valid else enrolment.DEFAULT_VALID
            return enrolment.create_claim(session, device=device, by=LOCAL, now=self.now, valid=span)

    def enrol(self, device: str) -> str:
        """Enrol a device and return its credential."""
        request = EnrolmentRequest(
            claim_token=self.claim(device), device=device, agent_version="0.1", architecture="x86_64"
        )
        with db.write_session(self.engine) as session:
            return enrolment.enrol(session, request, now=self.now)

    def send(self, method: str, path: str, *, by: str | Role | None = Role.ADMIN, **options: Any) -> Any:
        """Send a request to the API as a role, with a credential, or as nobody."""
        headers = dict(options.pop("headers", {}))
        if by is not None:
            headers["Authorization"] = f"Bearer {self.token(by) if isinstance(by, Role) else by}"
        return self.client.request(
            method, path if path.startswith("/sign") else f"/api/v1{path}", headers=headers, **options
        )

    def upload(self, data: bytes, *, by: str | Role = Role.RELEASER) -> str:
        digest = digest_of(data)
        answer = self.send("PUT", f"/blobs/{digest}", by=by, content=data)
        assert answer.status_code in (200, 201), answer.text
        return digest

    def push(self, name: str = "parts", release: int = 1, *, model: bytes = b"onnx", manifest: str = MANIFEST) -> str:
        """Upload and register a small version; returns its digest."""
        text = manifest.format(name=name, release=release).encode()
        index = index_of(name, release, model=model, manifest=text)
        self.upload(model)
        self.upload(text)
        answer = self.send("POST", f"/models/{name}/versions", content=codec.encode(index))
        assert answer.status_code in (200, 201), answer.text
        return package.digest_of(index)

    def tag(self, device: str = "cell-1") -> str:
        """Return the entity tag of a device's desired document."""
        return str(self.send("GET", f"/devices/{device}/desired").headers["etag"])

    def desire(self, device: str, releases: dict[str, int], **options: Any) -> Any:
        """Ask for releases on a device; returns the document."""
        etag = self.tag(device)
        models = [{"model": model, "release": release, **options} for model, release in releases.items()]
        answer = self.send("PUT", f"/devices/{device}/desired", json={"models": models}, headers={"If-Match": etag})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def absorb(self, taker: Slice, device: str, lane: Lane, bodies: Sequence[Any], *, first: int = 1) -> Absorbed:
        """Hand records to a slice as ingest would."""
        messages = [
            Received(device=device, epoch=EPOCH, lane=lane, seq=first + index, body=body, received_at=self.now)
            for index, body in enumerate(bodies)
        ]
        with db.write_session(self.engine) as session:
            return taker.absorb(session, messages)


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def index_of(name: str, release: int, *, model: bytes = b"onnx", manifest: bytes | None = None) -> PackageIndex:
    """Return the index of the small version that `Stand.push` registers."""
    text = MANIFEST.format(name=name, release=release).encode() if manifest is None else manifest
    files = {"manifest.toml": text, "model.onnx": model}
    return PackageIndex(
        model=name,
        release=release,
        files=tuple(
            PackageFile(path=path, digest=digest_of(data), bytes=len(data)) for path, data in sorted(files.items())
        ),
    )
