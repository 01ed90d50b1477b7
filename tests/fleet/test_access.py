"""Who may do what: roles, devices, browser sessions; and how requests from elsewhere are refused."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlmodel import col, select, update

from fleet import db
from fleet.auth import service
from fleet.auth.actor import Role
from fleet.auth.tables import BrowserSession, OperatorToken
from tests.support.fleet_stand import LOCAL, Stand, digest_of

BLOB = f"/blobs/{digest_of(b'x')}"
# method, path, the least role (None: no person at all needs one; "device": devices only)
ROUTES: list[tuple[str, str, Role]] = [
    ("GET", "/devices", Role.VIEWER),
    ("GET", "/devices/cell-1", Role.VIEWER),
    ("GET", "/devices/cell-1/health", Role.VIEWER),
    ("GET", "/devices/cell-1/events", Role.VIEWER),
    ("GET", "/devices/cell-1/desired", Role.VIEWER),
    ("GET", "/devices/cell-1/deployments", Role.VIEWER),
    ("GET", "/devices/cell-1/intervals", Role.VIEWER),
    ("GET", "/deployments", Role.VIEWER),
    ("GET", "/models", Role.VIEWER),
    ("GET", "/models/parts/versions", Role.VIEWER),
    ("PUT", "/devices/cell-1/desired", Role.OPERATOR),
    ("POST", "/models/parts/versions", Role.RELEASER),
    ("PUT", BLOB, Role.RELEASER),
    ("POST", "/devices/cell-1/revocation", Role.ADMIN),
    ("GET", "/audit", Role.ADMIN),
]


@pytest.mark.parametrize(("method", "path", "least"), ROUTES)
def test_every_route_asks_for_its_role(stand: Stand, method: str, path: str, least: Role) -> None:
    stand.enrol("cell-1")
    body = {"json": {}} if method != "GET" else {}
    assert stand.send(method, path, by=None, **body).status_code == 401
    for role in Role:
        answer = stand.send(method, path, by=role, **body)
        allowed = list(Role).index(role) >= list(Role).index(least)
        forbidden = answer.status_code == 403 and answer.json()["code"] == "access.forbidden"
        assert forbidden is not allowed, (role, answer.status_code, answer.text)


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in ROUTES])
def test_a_device_reaches_only_its_own_papers_and_blobs(stand: Stand, method: str, path: str) -> None:
    stand.enrol("cell-1")
    stranger = stand.enrol("cell-2")
    body = {"json": {}} if method != "GET" else {}
    answer = stand.send(method, path, by=stranger, **body)
    if path == BLOB:
        assert answer.status_code == 422  # it may upload, and the digest does not fit
    else:
        assert (answer.status_code, answer.json()["code"]) == (403, "access.forbidden")


@pytest.mark.parametrize("header", ["Bearer", "Bearer nonsense", "Basic YTpi", "Bearer " + "x" * 5000, "Bearer lsd_x"])
def test_a_credential_that_is_none_is_refused(stand: Stand, header: str) -> None:
    answer = stand.client.get("/api/v1/devices", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["code"] == "access.unauthenticated"


def test_a_token_with_the_right_beginning_and_a_wrong_end_is_refused(stand: Stand) -> None:
    token = stand.token()
    wrong = token[:-1] + ("a" if token[-1] != "a" else "b")
    assert stand.send("GET", "/devices", by=wrong).status_code == 401
    assert stand.send("GET", "/devices", by=token).status_code == 200


def test_a_token_ends_when_it_expires_or_is_revoked(stand: Stand) -> None:
    with db.write_session(stand.engine) as session:
        token = service.create_token(
            session,
            name="guest",
            role=Role.VIEWER,
            by=LOCAL,
            now=stand.now,
            expires_at=stand.now + timedelta(days=1),
        )
    assert stand.send("GET", "/devices", by=token).status_code == 200
    stand.advance(days=1)
    assert stand.send("GET", "/devices", by=token).status_code == 401
    lasting = stand.token(Role.VIEWER)
    with db.write_session(stand.engine) as session:
        session.exec(update(OperatorToken).where(col(OperatorToken.name) == "viewer").values(revoked_at=stand.now))
    assert stand.send("GET", "/devices", by=lasting).status_code == 401


def sign_in(stand: Stand, token: str, origin: str | None = "http://testserver") -> int:
    headers = {"Origin": origin} if origin is not None else {}
    answer = stand.send("POST", "/sign-in", by=None, data={"token": token}, headers=headers)
    return int(answer.status_code)


def test_a_browser_signs_in_with_a_token_and_out_again(stand: Stand) -> None:
    assert sign_in(stand, stand.token(Role.VIEWER)) == 303
    cookie = next(iter(stand.client.cookies.jar))
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "strict"
    assert stand.send("GET", "/devices", by=None).status_code == 200
    with db.read_session(stand.engine) as session:
        stored = session.exec(select(BrowserSession)).one()
    assert cookie.value is not None
    assert stored.secret_hash != cookie.value
    kept = cookie.value
    out = stand.send("POST", "/sign-out", by=None, headers={"Origin": "http://testserver"})
    assert (out.status_code, out.headers["location"]) == (303, "/sign-in")
    stand.client.cookies.set("lineside_session", kept)
    assert stand.send("GET", "/devices", by=None).status_code == 401


def test_a_wrong_token_does_not_sign_in(stand: Stand) -> None:
    answer = stand.send("POST", "/sign-in", by=None, data={"token": "lso_x"}, headers={"Origin": "http://testserver"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?failed=1")
    assert "set-cookie" not in answer.headers


def test_a_device_cannot_sign_in_as_a_person(stand: Stand) -> None:
    answer = stand.send(
        "POST", "/sign-in", by=None, data={"token": stand.enrol("cell-1")}, headers={"Origin": "http://testserver"}
    )
    assert answer.headers["location"] == "/sign-in?failed=1"


def test_a_session_ends_with_its_time_and_with_its_token(stand: Stand) -> None:
    sign_in(stand, stand.token(Role.VIEWER))
    assert stand.send("GET", "/devices", by=None).status_code == 200
    stand.advance(hours=stand.settings.session_hours)
    assert stand.send("GET", "/devices", by=None).status_code == 401
    sign_in(stand, stand.token(Role.VIEWER))
    with db.write_session(stand.engine) as session:
        session.exec(update(OperatorToken).values(revoked_at=stand.now))
    assert stand.send("GET", "/devices", by=None).status_code == 401


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://testserver.evil.example", None])
def test_another_site_cannot_act_through_a_signed_in_browser(stand: Stand, origin: str | None) -> None:
    stand.enrol("cell-1")
    assert sign_in(stand, stand.token(Role.ADMIN)) == 303
    headers = {"Origin": origin} if origin is not None else {}
    answer = stand.send("POST", "/devices/cell-1/revocation", by=None, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "access.forbidden")
    assert sign_in(stand, stand.token(Role.ADMIN), origin) == 403
    own = stand.send("POST", "/devices/cell-1/revocation", by=None, headers={"Origin": "http://testserver"})
    assert own.status_code == 200
