"""Golden vectors: what each message looks like, what is refused, and where the refusal points.

A vector is never changed or removed, only added to: index.json holds the start of each file's SHA-256, and for a bad
one the place (msgspec's path, or the missing field) that the error must name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
import zlib
from pathlib import Path
from typing import Any

import pytest

from wire import codec, messages, topics
from wire.deployment import DeploymentReport
from wire.desired import Desired
from wire.enrolment import Enrolment, EnrolmentRequest
from wire.errors import LinesideError
from wire.export import ExportHead
from wire.inspection import Inspection
from wire.manifest import GoldenSet, Manifest
from wire.package import PackageIndex

FOLDER = Path(__file__).parent / "vectors"
INDEX: dict[str, dict[str, dict[str, str]]] = json.loads((FOLDER / "index.json").read_text())
KINDS: dict[str, type] = {
    "ack": messages.RangeAck,
    "batch": messages.Batch,
    "command": messages.Command,
    "counter": messages.Counter,
    "deployment-report": DeploymentReport,
    "desired": Desired,
    "enrolment": Enrolment,
    "enrolment-request": EnrolmentRequest,
    "event": messages.Event,
    "export-head": ExportHead,
    "golden-set": GoldenSet,
    "health": messages.Health,
    "host": messages.HostState,
    "inspection": Inspection,
    "manifest": Manifest,
    "package-index": PackageIndex,
    "shadow-pair": messages.ShadowPair,
    "state": messages.State,
    "wake": messages.Wake,
}
GOOD = [(message, name) for message, rows in INDEX.items() for name in rows if name.startswith("good-")]
BAD = [(message, name) for message, rows in INDEX.items() for name in rows if name.startswith("bad-")]
LATER = "added_in_2031"


def read(message: str, name: str) -> bytes:
    return (FOLDER / message / name).read_bytes()


def shared_part(written: Any, given: Any) -> Any:
    """Leave out of `written` what `given` leaves to the defaults."""
    if isinstance(written, dict) and isinstance(given, dict):
        return {key: shared_part(written[key], given[key]) for key in given if key in written}
    if isinstance(written, list) and isinstance(given, list) and len(written) == len(given):
        return [shared_part(one, other) for one, other in zip(written, given, strict=True)]
    return written


def plain(value: object) -> Any:
    return json.loads(codec.encode(value))


@pytest.mark.parametrize(("message", "name"), GOOD)
def test_a_good_vector_is_read_and_written_back_as_it_stands(message: str, name: str) -> None:
    given = json.loads(read(message, name))
    given.pop(LATER, None)
    assert shared_part(plain(codec.decode(read(message, name), KINDS[message])), given) == given


@pytest.mark.parametrize(("message", "name"), GOOD)
def test_a_good_vector_survives_a_second_passage_and_compression(message: str, name: str) -> None:
    value = codec.decode(read(message, name), KINDS[message])
    again = codec.encode(value)
    assert codec.decode(again, KINDS[message]) == value
    assert codec.decode(zlib.compress(again), KINDS[message]) == value


@pytest.mark.parametrize(("message", "name"), BAD)
def test_a_bad_vector_is_refused_and_the_error_names_the_place(message: str, name: str) -> None:
    with pytest.raises(LinesideError) as caught:
        codec.decode(read(message, name), KINDS[message])
    assert caught.value.code == "message.undecodable"
    assert INDEX[message][name]["error_at"] in caught.value.message


@pytest.mark.parametrize("message", KINDS)
def test_the_vectors_show_every_field_with_a_value(message: str) -> None:
    shown: set[str] = set()
    for name in INDEX[message]:
        if name.startswith("good-"):
            shown |= fields_with_values(
                codec.decode(read(message, name), KINDS[message]), json.loads(read(message, name))
            )
    assert sorted(all_fields(KINDS[message]) - shown) == []


def fields_with_values(value: object, given: Any) -> set[str]:
    """Name `Class.field` for each dataclass field that stands in the JSON with something other than null."""
    if isinstance(value, tuple) and isinstance(given, list):
        pairs = zip(value, given, strict=True)
        return {name for one, other in pairs for name in fields_with_values(one, other)}
    if isinstance(value, dict):
        return {name for key in value for name in fields_with_values(value[key], given[key])}
    if not dataclasses.is_dataclass(value):
        return set()
    shown = set()
    for field in dataclasses.fields(value):
        if given.get(field.name) is not None:
            shown.add(f"{type(value).__name__}.{field.name}")
            shown |= fields_with_values(getattr(value, field.name), given[field.name])
    return shown


def all_fields(kind: type) -> set[str]:
    """Name `Class.field` for a class and all dataclasses that its fields hold."""
    found = set()
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        found.add(f"{kind.__name__}.{field.name}")
        pending = [hints[field.name]]
        while pending:
            inner = pending.pop()
            pending += typing.get_args(inner)
            if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                found |= all_fields(inner)
    return found


def test_every_vector_ever_recorded_is_still_there_unchanged() -> None:
    for message, rows in INDEX.items():
        for name, row in rows.items():
            assert hashlib.sha256(read(message, name)).hexdigest()[:16] == row["sha256"], (
                f"{message}/{name} was changed"
            )


def test_no_vector_lies_outside_the_index() -> None:
    on_disk = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.json")} - {"index.json"}
    assert on_disk == {f"{message}/{name}" for message, rows in INDEX.items() for name in rows}


def test_every_message_that_travels_has_vectors() -> None:
    travelling = {topic.message for topic in topics.TABLE.values()} | set(messages.BODY_OF_LANE.values())
    assert travelling <= {KINDS[message] for message in INDEX}
    assert set(INDEX) == set(KINDS)


@pytest.mark.parametrize("payload", [b"", b"{", b"null", b"[]", b"\xff\xfe", b"x\x9cgarbage", b"[" * 100_000])
def test_bytes_that_are_no_message_are_refused(payload: bytes) -> None:
    with pytest.raises(LinesideError) as caught:
        codec.decode(payload, messages.Wake)
    assert caught.value.code == "message.undecodable"


def test_a_message_that_swells_when_inflated_is_refused() -> None:
    with pytest.raises(LinesideError) as caught:
        codec.decode(zlib.compress(b" " * (codec.MAX_INFLATED_BYTES + 1)), messages.Wake)
    assert caught.value.code == "message.too_large"


def test_one_bad_record_does_not_spoil_its_batch() -> None:
    batch = codec.decode(read("batch", "good-undecodable-body.json"), messages.Batch)
    assert len(batch.entries) == 3
    with pytest.raises(LinesideError):
        codec.decode(batch.entries[0].body, messages.BODY_OF_LANE[batch.lane])
