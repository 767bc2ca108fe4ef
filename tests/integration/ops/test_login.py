"""The login of the pages: passwords, the length of a session, the limit of failed tries, and pages without a login."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from flask import Flask
from werkzeug.test import TestResponse

from headrace.domain.operators import Operator, Role
from headrace.policies import passwords
from headrace.store import Store, operators
from headrace.tables import failed_logins
from tests.integration.ops.browser import PASSWORD, Browser

Make = Callable[[str, Role], Operator]


def cookie(response: TestResponse) -> str:
    [header] = [each for each in response.headers.getlist("Set-Cookie") if each.startswith("headrace_ops=")]
    return header


def every_page(app: Flask) -> list[tuple[str, str]]:
    return [
        (method, rule.rule.replace("<job_id>", "job_1").replace("<path:filename>", "x"))
        for rule in app.url_map.iter_rules()
        for method in rule.methods & {"GET", "POST"}
        if rule.endpoint not in ("login.form", "login.enter", "static")
    ]


def test_nothing_is_shown_and_nothing_done_without_a_login(pages: Flask, stranger: Browser) -> None:
    every = every_page(pages)
    assert len(every) > 20
    for method, path in every:
        response = stranger.client.open(f"/ops{path}", method=method)
        assert response.status_code == 302, (method, path)
        assert response.headers["Location"].startswith("/ops/login"), (method, path)


def test_there_is_no_operator_before_one_is_made(stranger: Browser, store: Store) -> None:
    with store.begin() as db:
        assert operators.list_all(db) == []
    for name in ("admin", "root", "operator"):
        assert stranger.log_in(name, name * 3).status_code == 401


def test_a_login_begins_a_session_and_a_logout_ends_it(stranger: Browser, make_operator: Make) -> None:
    make_operator("ada", Role.VIEWER)
    response = stranger.log_in("ada")
    assert (response.status_code, response.headers["Location"]) == (303, "/ops/")
    assert "ada (viewer)" in stranger.get("/jobs").text

    assert stranger.post("/logout").status_code == 303
    assert stranger.get("/jobs").status_code == 302


@pytest.mark.parametrize(
    ("name", "password"), [("ada", "wrong password"), ("nobody", PASSWORD), ("ada", PASSWORD[:-1])]
)
def test_a_wrong_name_and_a_wrong_password_get_one_answer(
    stranger: Browser, make_operator: Make, name: str, password: str
) -> None:
    make_operator("ada", Role.ADMIN)
    response = stranger.log_in(name, password)
    assert response.status_code == 401
    assert "The name or the password is wrong." in response.text
    assert stranger.get("/jobs").status_code == 302


@pytest.mark.parametrize("name", ["ada", "nobody"])
def test_guesses_are_limited_for_names_that_exist_and_others(
    stranger: Browser, make_operator: Make, store: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_operator("ada", Role.ADMIN)
    compared: list[str] = []
    monkeypatch.setattr(passwords, "matches", lambda password, stored: compared.append(password) or False)
    statuses = [stranger.log_in(name, "a wrong guess").status_code for _ in range(operators.TRIES_MAX + 2)]
    assert statuses == [401] * operators.TRIES_MAX + [429] * 2
    assert len(compared) == operators.TRIES_MAX, "a refused login compares no password"

    with store.begin() as db:
        db.execute(sa.update(failed_logins).values(until=sa.func.now()))
    assert stranger.log_in(name, "a wrong guess").status_code == 401, "the limit ends with its time"


def test_a_new_password_and_a_good_login_forgive_failures(
    stranger: Browser, make_operator: Make, store: Store, password_hash: str
) -> None:
    make_operator("ada", Role.ADMIN)
    with store.begin() as db:
        for _ in range(operators.TRIES_MAX):
            operators.count_try(db, "ada")
    assert stranger.log_in("ada").status_code == 429
    with store.begin() as db:
        operators.set_password(db, "ada", password_hash)
    assert stranger.log_in("ada").status_code == 303
    with store.begin() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(failed_logins)) == 0


def test_failures_of_made_up_names_leave_no_rows(store: Store) -> None:
    with store.begin() as db:
        for number in range(5):
            operators.count_try(db, f"name-{number}")
        db.execute(sa.update(failed_logins).values(until=sa.func.now() - sa.text("interval '1 s'")))
        operators.count_try(db, "another")
        assert db.scalar(sa.select(sa.func.count()).select_from(failed_logins)) == 1


def test_the_cookie_is_for_these_pages_for_no_script_and_for_tls_elsewhere(pages: Flask, stranger: Browser) -> None:
    here = cookie(stranger.get("/login"))
    assert "HttpOnly" in here
    assert "SameSite=Strict" in here
    assert "Path=/ops" in here
    assert "Secure" not in here
    for host, is_secure in (
        ("ops.example.com", True),
        ("10.1.2.3:8000", True),
        ("[::1]:8000", False),
        ("localhost", False),
    ):
        sent = cookie(pages.test_client().get("/ops/login", headers={"Host": host}))
        assert ("Secure" in sent) is is_secure, host


def test_a_changed_cookie_is_no_session(viewer: Browser, pages: Flask) -> None:
    kept = viewer.client.get_cookie("headrace_ops", path="/ops")
    assert kept is not None
    for value in (f"{kept.value[:-3]}abc", "x", ""):
        other = Browser(pages.test_client())
        other.client.set_cookie("headrace_ops", value, path="/ops")
        assert other.get("/jobs").status_code == 302


def test_a_session_ends_with_its_operator_with_a_new_password_and_after_hours(
    browser_of: Callable[[Role], Browser], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted, changed, old = (browser_of(role) for role in Role)
    with store.begin() as db:
        operators.delete(db, "the-viewer")
        operators.set_password(db, "the-operator", passwords.hashed("another password"))
    assert deleted.get("/jobs").status_code == 302
    assert changed.get("/jobs").status_code == 302
    assert old.get("/jobs").status_code == 200
    monkeypatch.setattr("ops.gate.SESSION_S", 0)
    assert old.get("/jobs").status_code == 302


def test_a_new_role_holds_from_the_next_request_on(viewer: Browser, store: Store) -> None:
    assert viewer.post("/budgets", {"day_usd": "1"}).status_code == 403
    with store.begin() as db:
        operators.set_role(db, "the-viewer", Role.ADMIN)
    assert viewer.post("/budgets", {"day_usd": "1"}).status_code == 303


def test_a_form_without_the_session_s_token_does_nothing(admin: Browser, pages: Flask) -> None:
    for token in ("", "abc", Browser(pages.test_client()).token()):
        for path, fields in (("budgets", {"day_usd": "1"}), ("budgets/unset", {}), ("hosts/drain", {"host": "x"})):
            response = admin.client.post(f"/ops/{path}", data={"csrf_token": token, **fields})
            assert response.status_code == 400, path
    assert "No budget is set" in admin.get("/budgets").text


@pytest.mark.parametrize("back", ["/cost?month=2026-01", "/hosts"])
def test_a_login_goes_on_to_the_page_that_was_asked_for(stranger: Browser, make_operator: Make, back: str) -> None:
    make_operator("ada", Role.VIEWER)
    asked = stranger.get(back)
    assert asked.status_code == 302
    login = asked.headers["Location"].removeprefix("/ops")
    response = stranger.post(login, {"name": "ada", "password": PASSWORD})
    assert response.headers["Location"] == f"/ops{back}"


@pytest.mark.parametrize(
    ("back", "page"), [("/ops/hosts", "/ops/hosts"), ("/ops?x=1", "/ops?x=1"), ("/opsx", "/ops/opsx")]
)
def test_a_page_with_the_prefix_is_not_given_it_again(
    stranger: Browser, make_operator: Make, back: str, page: str
) -> None:
    make_operator("ada", Role.VIEWER)
    assert stranger.log_in("ada", back=back).headers["Location"] == page


@pytest.mark.parametrize(
    "back", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "/%0d%0aX:1"]
)
def test_a_login_leads_to_no_other_site(stranger: Browser, make_operator: Make, back: str) -> None:
    make_operator("ada", Role.VIEWER)
    response = stranger.log_in("ada", back=back)
    assert response.status_code == 303
    assert response.headers["Location"] == "/ops/"


def test_every_answer_forbids_scripts_frames_and_caches(viewer: Browser, stranger: Browser) -> None:
    for response in (viewer.get("/jobs"), viewer.get("/no-such-page"), stranger.get("/login"), stranger.get("/jobs")):
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"


def test_a_probe_needs_no_login_and_the_address_alone_leads_to_the_pages(stranger: Browser) -> None:
    probe = stranger.client.get("/healthz")
    assert (probe.status_code, "Set-Cookie" in probe.headers) == (200, False)
    for path in ("/", "/hosts", "/jobs?state=failed"):
        assert stranger.client.get(path).headers["Location"] == f"/ops{path}"
