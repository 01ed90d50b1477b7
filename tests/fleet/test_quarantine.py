"""The quarantine: bounded, counted, readable."""

from __future__ import annotations

from fleet import db
from fleet.ingest import quarantine
from fleet.ingest.route import EXCERPT_BYTES, Place, Reject
from tests.support.fleet_stand import Stand
from wire.messages import Lane, SeqRange


def _reject(seq: int, *, device: str = "cell-1", excerpt: bytes = b"{}") -> Reject:
    return Reject(
        topic="t",
        device=device,
        place=Place(device=device, epoch="0" * 16, lane=Lane.EVENTS),
        seqs=SeqRange(first=seq, last=seq),
        code="message.undecodable",
        text="Event cannot be read.",
        excerpt=excerpt,
        payload_bytes=len(excerpt),
    )


def _keep(stand: Stand, *rejects: Reject, max_rows: int = quarantine.MAX_ROWS) -> None:
    with db.write_session(stand.engine) as session:
        quarantine.keep(session, rejects, stand.now, max_rows)


def test_only_the_newest_are_kept(stand: Stand) -> None:
    for start in (0, 10, 20):
        _keep(stand, *(_reject(seq) for seq in range(start + 1, start + 11)), max_rows=15)
    items = stand.send("GET", "/quarantine").json()["items"]
    assert [item["first_seq"] for item in items] == list(range(30, 15, -1))
    _keep(stand, *(_reject(seq) for seq in range(100, 200)), max_rows=15)
    assert len(stand.send("GET", "/quarantine").json()["items"]) == 15


def test_the_same_again_is_counted_and_not_repeated(stand: Stand) -> None:
    _keep(stand, _reject(1), _reject(1), _reject(2))
    stand.advance(seconds=5)
    _keep(stand, _reject(1))
    items = stand.send("GET", "/quarantine").json()["items"]
    assert [(item["first_seq"], item["times"]) for item in items] == [(2, 1), (1, 3)]
    assert items[1]["last_at"] > items[1]["received_at"]


def test_it_is_listed_by_device_in_pages_and_never_in_full(stand: Stand) -> None:
    _keep(stand, *(_reject(seq, excerpt=b"\xff" * 100_000) for seq in range(1, 6)), _reject(9, device="cell-2"))
    first = stand.send("GET", "/quarantine", params={"device": "cell-1", "limit": "3"}).json()
    second = stand.send(
        "GET", "/quarantine", params={"device": "cell-1", "limit": "3", "cursor": first["next_cursor"]}
    ).json()
    assert [item["first_seq"] for item in first["items"] + second["items"]] == [5, 4, 3, 2, 1]
    assert len(first["items"][0]["excerpt"]) == EXCERPT_BYTES
    assert first["items"][0]["payload_bytes"] == 100_000
