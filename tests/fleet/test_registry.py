"""The registry takes a version only when it is complete, and never changes it afterwards."""

from __future__ import annotations

import json

from fleet.auth.actor import Role
from tests.support.fleet_stand import MANIFEST, Stand, digest_of, index_of
from wire import codec, package


def test_a_version_is_registered_once_its_files_are_there(stand: Stand) -> None:
    index = index_of("parts", 1)
    missing = stand.send("POST", "/models/parts/versions", by=Role.RELEASER, content=codec.encode(index))
    assert (missing.status_code, missing.json()["code"]) == (422, "package.incomplete")
    assert "model.onnx" in missing.json()["detail"]
    assert "manifest.toml" in missing.json()["detail"]
    stand.upload(b"onnx")
    still = stand.send("POST", "/models/parts/versions", content=codec.encode(index))
    assert "model.onnx" not in still.json()["detail"]
    stand.upload(MANIFEST.format(name="parts", release=1).encode())
    made = stand.send("POST", "/models/parts/versions", content=codec.encode(index))
    assert made.status_code == 201
    assert made.json()["digest"] == package.digest_of(index)
    assert made.json()["task"] == "classify"


def test_devices_find_the_index_under_the_versions_digest(stand: Stand) -> None:
    digest = stand.push("parts", 1)
    read = stand.send("GET", f"/blobs/{digest}", by=stand.enrol("cell-1"))
    assert package.digest_of(package.read_index(read.content)) == digest


def test_the_same_version_again_changes_nothing_and_another_one_is_refused(stand: Stand) -> None:
    stand.push("parts", 1)
    again = stand.send("POST", "/models/parts/versions", content=codec.encode(index_of("parts", 1)))
    assert again.status_code == 200
    stand.upload(b"other")
    other = stand.send("POST", "/models/parts/versions", content=codec.encode(index_of("parts", 1, model=b"other")))
    assert (other.status_code, other.json()["code"]) == (409, "resource.conflict")
    versions = stand.send("GET", "/models/parts/versions").json()["items"]
    assert [version["digest"] for version in versions] == [again.json()["digest"]]


def test_the_digest_does_not_depend_on_how_the_index_is_written(stand: Stand) -> None:
    digest = stand.push("parts", 1)
    spaced = json.dumps(json.loads(codec.encode(index_of("parts", 1))), indent=3)
    again = stand.send("POST", "/models/parts/versions", content=spaced)
    assert (again.status_code, again.json()["digest"]) == (200, digest)


def push_manifest(stand: Stand, manifest: str) -> tuple[int, str, str]:
    index = index_of("parts", 1, manifest=manifest.encode())
    stand.upload(b"onnx")
    stand.upload(manifest.encode())
    answer = stand.send("POST", "/models/parts/versions", content=codec.encode(index))
    return answer.status_code, answer.json().get("code", ""), answer.json().get("detail", "")


def test_a_manifest_that_says_something_else_is_refused(stand: Stand) -> None:
    status, code, detail = push_manifest(stand, MANIFEST.format(name="parts", release=2))
    assert (status, code) == (422, "package.invalid")
    assert "release 2" in detail
    assert push_manifest(stand, MANIFEST.format(name="others", release=1))[1] == "package.invalid"


def test_a_wrong_manifest_is_named_by_line_and_key_and_without_the_servers_paths(stand: Stand) -> None:
    text = MANIFEST.format(name="parts", release=1).replace("[thresholds.scratch-ng]", "[tresholds.scratch-ng]")
    status, code, detail = push_manifest(stand, text)
    assert (status, code) == (422, "model.manifest_invalid")
    assert detail.startswith("manifest.toml:9: tresholds")
    assert "/tmp" not in detail


def test_a_manifest_that_is_no_text_is_refused(stand: Stand) -> None:
    data = b"\xff\xfe\0"
    stand.upload(b"onnx")
    stand.upload(data)
    answer = stand.send("POST", "/models/parts/versions", content=codec.encode(index_of("parts", 1, manifest=data)))
    assert (answer.status_code, answer.json()["code"]) == (422, "model.manifest_invalid")


def test_an_index_that_lies_about_a_size_is_refused(stand: Stand) -> None:
    stand.push("parts", 1)
    body = json.loads(codec.encode(index_of("parts", 1)))
    body["files"][0]["bytes"] += 1
    answer = stand.send("POST", "/models/parts/versions", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "package.invalid")


def test_an_index_with_a_path_outside_the_package_is_refused(stand: Stand) -> None:
    stand.push("parts", 1)
    for path in ("../model.onnx", "/etc/passwd", "a/../../b", "model.onnx\n"):
        body = json.loads(codec.encode(index_of("parts", 1)))
        body["files"].append({"path": path, "digest": digest_of(b"onnx"), "bytes": 4})
        answer = stand.send("POST", "/models/parts/versions", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "package.invalid"), path


def test_an_index_goes_to_its_own_model_only(stand: Stand) -> None:
    stand.push("parts", 1)
    answer = stand.send("POST", "/models/others/versions", content=codec.encode(index_of("parts", 1)))
    assert (answer.status_code, answer.json()["code"]) == (422, "package.invalid")


def test_a_release_that_no_database_can_hold_is_refused(stand: Stand) -> None:
    body = json.loads(codec.encode(index_of("parts", 1)))
    body["release"] = 2**63
    answer = stand.send("POST", "/models/parts/versions", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "package.invalid")
    assert stand.send("GET", f"/models/parts/versions/{2**63}").status_code == 422


def test_models_and_versions_are_listed(stand: Stand) -> None:
    for release in (1, 2, 10):
        stand.push("parts", release)
    stand.push("bottles", 3)
    models = stand.send("GET", "/models").json()["items"]
    assert [(one["name"], one["versions"], one["newest_release"]) for one in models] == [
        ("bottles", 1, 3),
        ("parts", 3, 10),
    ]
    first = stand.send("GET", "/models/parts/versions?limit=2").json()
    assert [one["release"] for one in first["items"]] == [10, 2]
    rest = stand.send("GET", "/models/parts/versions", params={"limit": "2", "cursor": first["next_cursor"]}).json()
    assert [one["release"] for one in rest["items"]] == [1]
    assert stand.send("GET", "/models/none/versions").json()["code"] == "resource.not_found"
    shown = stand.send("GET", "/models/parts/versions/2").json()
    assert shown["manifest"]["release"] == 2
    assert {file["path"] for file in shown["index"]["files"]} == {"manifest.toml", "model.onnx"}
