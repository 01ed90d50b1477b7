"""Every error of the API is a problem with a stable code, and says nothing about the inside."""

from __future__ import annotations

import logging

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fleet import app, problems
from tests.support.fleet_stand import Stand
from wire.errors import REGISTER, LinesideError

KEYS = {"type", "title", "status", "detail", "code", "next_step"}


def check(answer: object, status: int, code: str) -> None:
    assert answer.status_code == status  # type: ignore[attr-defined]
    assert answer.headers["content-type"] == "application/problem+json"  # type: ignore[attr-defined]
    body = answer.json()  # type: ignore[attr-defined]
    assert set(body) == KEYS
    assert (body["status"], body["code"]) == (status, code)
    assert body["type"] == f"urn:lineside:problem:{code}"
    assert body["title"] == REGISTER[code].title


def test_what_is_not_there_and_what_cannot_be_done_are_problems(stand: Stand) -> None:
    check(stand.send("GET", "/nothing"), 404, "resource.not_found")
    check(stand.client.get("/nothing"), 404, "resource.not_found")
    check(stand.send("DELETE", "/devices"), 405, "request.invalid")
    check(stand.send("GET", "/devices/nobody"), 404, "resource.not_found")
    check(stand.send("GET", "/deployments/none"), 404, "resource.not_found")
    check(stand.send("GET", "/devices?limit=none"), 422, "request.invalid")
    check(stand.send("POST", "/enrolments", by=None, content=b"\xff{"), 400, "message.undecodable")
    check(stand.send("POST", "/enrolments", by=None, content=b"x\x9c bomb?"), 400, "message.undecodable")
    check(stand.send("GET", "/devices", by=None), 401, "access.unauthenticated")


@pytest.mark.parametrize("code", sorted(REGISTER))
def test_every_code_of_the_register_becomes_a_problem(code: str) -> None:
    one = FastAPI()
    problems.install(one)

    @one.get("/")
    def fail() -> None:
        raise LinesideError(code, "It failed.", "Do this.")

    answer = TestClient(one).get("/")
    check(answer, REGISTER[code].http_status, code)
    assert (answer.json()["detail"], answer.json()["next_step"]) == ("It failed.", "Do this.")


def test_an_unexpected_error_is_logged_in_full_and_told_in_general(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("secret /etc/path")

    stand.app.add_api_route("/api/v1/fail", fail)
    with caplog.at_level(logging.ERROR):
        answer = stand.client.get("/api/v1/fail")
    check(answer, 500, "internal.unexpected")
    assert "secret" not in answer.text
    assert "RuntimeError" not in answer.text
    assert "secret /etc/path" in caplog.text


def test_pages_and_data_carry_strict_headers(stand: Stand) -> None:
    for answer in (stand.client.get("/healthz"), stand.client.get("/nothing"), stand.send("GET", "/devices", by=None)):
        for name, value in app.SECURITY_HEADERS.items():
            assert answer.headers[name] == value
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_the_description_is_served_and_no_page_loads_from_the_internet(stand: Stand) -> None:
    described = stand.client.get("/api/v1/openapi.json")
    assert described.status_code == 200
    assert "/api/v1/enrolments" in described.json()["paths"]
    enrol = described.json()["paths"]["/api/v1/enrolments"]["post"]
    schema = enrol["requestBody"]["content"]["application/json"]["schema"]
    assert "claim_token" in schema["properties"]
    for path in ("/docs", "/redoc", "/api/v1/docs"):
        assert stand.client.get(path).status_code == 404


def test_the_fleet_says_that_it_is_well(stand: Stand) -> None:
    assert stand.client.get("/healthz").json()["status"] == "ok"
    assert stand.client.get("/api/v1/healthz").json()["broker"] == "auto"
