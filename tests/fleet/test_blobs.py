"""Blobs: whole or not there, only under their own digest, read in ranges, safe against hostile names and sizes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.auth.actor import Role
from fleet.blobs.ranges import Span, Unsatisfiable, span_of
from fleet.blobs.store import FolderBlobs
from tests.support.fleet_stand import Stand, digest_of
from wire.errors import LinesideError

DATA = bytes(range(256)) * 40
PNG = b"\x89PNG\r\n\x1a\n" + b"rest"


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_blob_is_stored_once_and_read_back(stand: Stand) -> None:
    digest = digest_of(DATA)
    first = stand.send("PUT", f"/blobs/{digest}", by=Role.RELEASER, content=DATA)
    assert (first.status_code, first.json()) == (201, {"digest": digest, "bytes": len(DATA)})
    assert stand.send("PUT", f"/blobs/{digest}", by=Role.RELEASER, content=DATA).status_code == 200
    read = stand.send("GET", f"/blobs/{digest}", by=stand.enrol("cell-1"))
    assert read.content == DATA
    assert read.headers["etag"] == f'"{digest}"'
    assert read.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in read.headers["content-security-policy"]
    head = stand.send("HEAD", f"/blobs/{digest}")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(DATA)), b"")
    cached = stand.send("GET", f"/blobs/{digest}", headers={"If-None-Match": f'"{digest}"'})
    assert (cached.status_code, cached.content) == (304, b"")


def test_a_blob_that_was_damaged_on_the_servers_disk_is_mended_by_sending_it_again(stand: Stand) -> None:
    digest = stand.upload(DATA)
    (path,) = [path for path in stand.settings.blobs_dir.rglob(digest) if path.is_file()]
    path.write_bytes(DATA[:-1] + b"?")
    device = stand.enrol("cell-1")
    assert stand.send("HEAD", f"/blobs/{digest}", by=device).status_code == 200, "devices ask often"
    assert stand.send("HEAD", f"/blobs/{digest}", by=Role.RELEASER).status_code == 404, "who pushes is told to send it"
    assert stand.send("PUT", f"/blobs/{digest}", by=Role.RELEASER, content=DATA[:-2]).status_code == 422
    assert path.read_bytes() == DATA[:-1] + b"?", "nothing is lost to a second damage"
    assert stand.send("PUT", f"/blobs/{digest}", by=Role.RELEASER, content=DATA).status_code == 201
    assert stand.send("GET", f"/blobs/{digest}", by=device).content == DATA
    assert stand.send("HEAD", f"/blobs/{digest}", by=Role.RELEASER).status_code == 200
    assert stand.send("PUT", f"/blobs/{digest}", by=Role.RELEASER, content=DATA).status_code == 200


def test_an_empty_blob_is_a_blob(stand: Stand) -> None:
    digest = stand.upload(b"")
    assert stand.send("GET", f"/blobs/{digest}").content == b""


def test_a_picture_says_what_it_is(stand: Stand) -> None:
    assert stand.send("GET", f"/blobs/{stand.upload(PNG)}").headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("header", "status", "expected"),
    [
        ("bytes=0-9", 206, DATA[:10]),
        ("bytes=100-", 206, DATA[100:]),
        ("bytes=-5", 206, DATA[-5:]),
        (f"bytes=10-{10**15}", 206, DATA[10:]),
        (f"bytes={len(DATA)}-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=9-3", 200, DATA),
        ("bytes=0-1,5-6", 200, DATA),
        ("lines=1-2", 200, DATA),
        ("bytes=" + "9" * 5000 + "-", 200, DATA),
    ],
)
def test_a_range_of_a_blob_is_read(stand: Stand, header: str, status: int, expected: bytes | None) -> None:
    digest = stand.upload(DATA)
    answer = stand.send("GET", f"/blobs/{digest}", headers={"Range": header})
    assert answer.status_code == status
    if expected is None:
        assert answer.json()["code"] == "request.range_unsatisfiable"
    else:
        assert answer.content == expected
        assert answer.headers["content-length"] == str(len(expected))
    stale = stand.send("GET", f"/blobs/{digest}", headers={"Range": header, "If-Range": '"other"'})
    assert stale.content == DATA


def test_a_span_says_where_it_lies() -> None:
    assert span_of("bytes=2-4", 10) == Span(start=2, end=5)
    assert span_of(None, 10) is None
    with pytest.raises(Unsatisfiable):
        span_of("bytes=0-", 0)


def test_bytes_with_another_digest_are_refused_and_leave_nothing(stand: Stand) -> None:
    answer = stand.send("PUT", f"/blobs/{digest_of(b'other')}", by=Role.RELEASER, content=DATA)
    assert (answer.status_code, answer.json()["code"]) == (422, "deployment.digest_mismatch")
    assert files_below(stand.settings.blobs_dir) == []
    assert stand.send("GET", f"/blobs/{digest_of(b'other')}").status_code == 404


@pytest.mark.parametrize(
    "name", ["..%2f..%2ffleet.db", "%2e%2e", "A" * 64, "g" * 64, "0" * 63, "0" * 65, "0" * 64 + "%0a", "..", "a%00b"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_what_is_no_digest_never_reaches_the_disk(stand: Stand, method: str, name: str) -> None:
    answer = stand.send(method, f"/blobs/{name}", by=Role.RELEASER, content=b"x" if method == "PUT" else None)
    assert answer.status_code in (404, 405, 422)
    assert files_below(stand.settings.blobs_dir) == []


def test_a_device_may_upload_only_so_much(stand: Stand) -> None:
    limit = stand.settings.max_picture_bytes
    credential = stand.enrol("cell-1")
    big = b"\0" * (limit + 1)

    def streamed() -> Iterator[bytes]:
        for start in range(0, len(big), 1 << 20):
            yield big[start : start + (1 << 20)]

    for content in (big, streamed()):
        answer = stand.send("PUT", f"/blobs/{digest_of(big)}", by=credential, content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "request.too_large")
    assert files_below(stand.settings.blobs_dir) == []
    assert stand.send("PUT", f"/blobs/{digest_of(big[:limit])}", by=credential, content=big[:limit]).status_code == 201


def test_a_body_that_is_no_blob_may_have_a_megabyte(stand: Stand) -> None:
    stand.enrol("cell-1")
    big = b" " * (1024 * 1024 + 1)
    for content in (big, iter([big[:500_000], big[500_000:]])):
        answer = stand.send("PUT", "/devices/cell-1/desired", content=content, headers={"If-Match": '"0"'})
        assert (answer.status_code, answer.json()["code"]) == (413, "request.too_large")


def test_the_store_holds_to_its_length_and_limit(tmp_path: Path) -> None:
    store = FolderBlobs(tmp_path, max_bytes=100)
    for length, chunks, code in [
        (3, [b"ab"], "deployment.digest_mismatch"),
        (2, [b"abc"], "deployment.digest_mismatch"),
        (101, [b""], "request.too_large"),
        (None, [b"a" * 60, b"a" * 60], "request.too_large"),
    ]:
        with pytest.raises(LinesideError) as caught:
            store.put(digest_of(b"".join(chunks)), length, chunks)
        assert caught.value.code == code
    assert files_below(tmp_path) == []
    assert store.put(digest_of(b"abc"), 3, [b"a", b"bc"]) is True
    assert b"".join(store.open(digest_of(b"abc"), 1)) == b"bc"
    assert store.delete(digest_of(b"abc")) is True
    assert store.stat(digest_of(b"abc")) is None


def test_what_a_killed_upload_left_is_swept_once_it_is_old(tmp_path: Path) -> None:
    store = FolderBlobs(tmp_path, max_bytes=100)
    for name, age_s in (("old", 7200), ("new", 10)):
        path = tmp_path / "incoming" / name
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age_s, time.time() - age_s))
    assert store.sweep() == 1
    assert files_below(tmp_path) == ["new"]


def test_kill_minus_nine_during_uploads_leaves_no_half_blob(tmp_path: Path) -> None:
    """A writer is killed at several moments, also the very moment a blob appears; what stands there is whole."""
    program = (
        "import sys, hashlib, os, pathlib\n"
        "from fleet.blobs.store import FolderBlobs\n"
        "store = FolderBlobs(pathlib.Path(sys.argv[1]), 10**9)\n"
        "data = os.urandom(32_000_000)\n"
        "pieces = [data[at:at + 65536] for at in range(0, len(data), 65536)]\n"
        "print('ready', flush=True)\n"
        "store.put(hashlib.sha256(data).hexdigest(), len(data), pieces)\n"
        "print('done', flush=True)\n"
    )

    def stored() -> list[Path]:
        return [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "incoming"]

    for pause_s in (0.005, 0.02, 0.05, None):
        writer = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        if pause_s is not None:
            time.sleep(pause_s)
        else:
            before = len(stored())
            while len(stored()) == before:
                assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    assert stored()
    for path in stored():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
