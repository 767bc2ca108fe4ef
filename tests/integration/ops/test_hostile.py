"""Hostile inputs to every filter and form: no error of the server, no SQL, no script."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.domain.ids import show_id
from headrace.store import Store, apps
from headrace.tables import metadata
from tests.integration.ops.browser import Browser

HOSTILE = (
    *("'", '"', "';--", "' OR '1'='1", "'; DROP TABLE jobs; --", "') UNION SELECT password_hash FROM operators --"),
    *("1; SELECT pg_sleep(10)", "\\", "%", "_", "%00", "\0", "a\0b", "\x01\x1f\x7f", "\u202e\u200b\ufeff", "\ud800"),
    *(
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "javascript:alert(1)",
        "{{ 7 * 191 }}",
        "{% raw %}",
    ),
    *("${7*191}", "#{7*191}", "../../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "/", "//evil.example", "?a=b&c=d"),
    *("\r\nSet-Cookie: a=b", "\n", "A" * 5_000, "9" * 400, "-1", "0", "1e309", "NaN", "sNaN", "Infinity", "0x10"),
    *("١٢٣", "1_000", "9999-99-99T99:99", "0001-01-01T00:00", "9999-12-31T23:59:59+00:00", "99999999d", "None", "null"),
    *("true", "[]", "job_" + "0" * 32, "evt_" + "0" * 32, "hr-", "hr-aaaaaaaa", "00000000", "💥" * 50),
)
GETS = {
    "/jobs": (
        "id",
        "state",
        "lane",
        "app",
        "model",
        "end_user",
        "error_code",
        "queue",
        "metadata",
        "since",
        "until",
        "before",
    ),
    "/deliveries": ("app", "state"),
    "/queues": ("hours", "pool"),
    "/app": ("name",),
    "/caches": ("hours", "pool"),
    "/cost": ("month",),
    "/audit": ("actor", "action", "app", "day", "before"),
    "/charts/depth.svg": ("pool", "hours"),
    "/charts/routes.svg": ("month",),
    "/charts/split.svg": ("pool", "month"),
    "/login": ("back",),
}
FORMS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "/app/limits": (
        {"name": "test"},
        ("name", "queued_jobs", "requests_per_minute", "tokens_per_minute", "day_usd", "month_usd", "lanes"),
    ),
    "/app/keys": ({"name": "test"}, ("name", "scopes", "days")),
    "/app/keys/revoke": ({"name": "test"}, ("name", "key")),
    "/budgets": ({}, ("day_usd", "month_usd")),
    "/jobs/retry": ({}, ("id",)),
    "/jobs/cancel": ({}, ("id",)),
    "/deliveries/retry": ({}, ("id",)),
    "/deliveries/pause": ({"app": "test", "receiver": "receiver.example"}, ("app", "receiver")),
    "/deliveries/resume": ({"app": "test", "receiver": "receiver.example"}, ("app", "receiver")),
    "/hosts/drain": ({}, ("host", "pool")),
    "/hosts/resume": ({}, ("host", "pool")),
}


def encoded(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


@pytest.fixture
def counts(store: Store) -> Iterator[None]:
    """Fails the test if a table has gone, or if rows of jobs and operators have changed."""

    def count() -> dict[str, Any]:
        with store.begin() as db:
            return {
                table.name: db.scalar(sa.select(sa.func.count()).select_from(table)) for table in metadata.sorted_tables
            }

    before = count()
    yield
    after = count()
    for name in ("jobs", "operators", "apps", "ledger", "hosts", "deliveries"):
        assert after[name] == before[name], name


def check(response: Any, about: tuple[str, str, str]) -> None:
    assert response.status_code < 500, about
    if response.mimetype == "text/html":
        for sign in ("<script>alert", "<img src=x", "1337", "psycopg", "sqlalchemy", "Traceback", "scrypt$"):
            assert sign not in response.text, (*about, sign)
    assert "a=b" not in str(response.headers.getlist("Set-Cookie")), about
    assert response.headers.get("Location", "/ops").startswith(("/ops", "http://localhost/ops")), about


def test_there_are_more_than_forty_hostile_inputs() -> None:
    assert len(set(HOSTILE)) > 40


@pytest.mark.parametrize("path", list(GETS))
def test_a_hostile_filter_is_answered_like_any_other(admin: Browser, full: list[UUID], counts: None, path: str) -> None:
    for name in GETS[path]:
        for text in HOSTILE:
            check(admin.get(f"{path}?{name}={encoded(text)}"), (path, name, text[:60]))


@pytest.mark.parametrize("path", list(FORMS))
def test_a_hostile_form_is_answered_like_any_other(admin: Browser, full: list[UUID], counts: None, path: str) -> None:
    fixed, names = FORMS[path]
    token = admin.token()
    for name in names:
        for text in HOSTILE:
            fields = {"csrf_token": token, **fixed, name: text}
            body = "&".join(f"{encoded(key)}={encoded(value)}" for key, value in fields.items())
            kind = "application/x-www-form-urlencoded"
            check(admin.client.post(f"/ops{path}", data=body, content_type=kind), (path, name, text[:60]))


def test_a_hostile_login_is_answered_like_any_other(stranger: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.policies.passwords.COST", 2)
    token = stranger.token()
    for text in HOSTILE:
        for name, password in ((text, "password"), ("ada", text)):
            body = f"csrf_token={encoded(token)}&name={encoded(name)}&password={encoded(password)}"
            kind = "application/x-www-form-urlencoded"
            response = stranger.client.post("/ops/login", data=body, content_type=kind)
            check(response, ("/login", name[:60], text[:60]))
            assert response.status_code in (400, 401, 429), text


def test_a_hostile_path_is_answered_like_any_other(admin: Browser, full: list[UUID]) -> None:
    for text in HOSTILE:
        for path in (f"/{encoded(text)}", f"/jobs/{encoded(text)}", f"/jobs/{encoded(text)}/texts"):
            check(admin.get(path), (path[:60], "", text[:60]))


def test_a_hostile_name_in_the_rows_is_shown_as_text(admin: Browser, store: Store, full: list[UUID]) -> None:
    script = "<script>alert(1)</script>"
    with store.begin() as db:
        apps.ensure(db, script)
        db.execute(
            sa.text("UPDATE jobs SET end_user = :text, model_requested = :text, error_code = :text"), {"text": script}
        )
        db.execute(sa.text("UPDATE decisions SET reason = :text"), {"text": script})
        db.execute(sa.text("UPDATE deliveries SET last_error = :text, url = :text"), {"text": script})
        db.execute(sa.text("UPDATE job_texts SET answer = :text, reasoning = :text"), {"text": script})
    paths = ["/jobs", "/hosts", "/deliveries", "/apps", f"/app?name={encoded(script)}"]
    paths += [f"/jobs/{show_id(full[0])}", f"/jobs/{show_id(full[0])}/texts"]
    for path in paths:
        response = admin.get(path)
        assert response.status_code == 200, path
        assert script not in response.text, path
        assert "&lt;script&gt;" in response.text, path


def test_a_body_that_is_too_large_and_a_wrong_method_are_refused(admin: Browser) -> None:
    assert admin.client.post("/ops/budgets", data={"csrf_token": "x" * 100_000}).status_code == 413
    assert admin.client.put("/ops/budgets").status_code in (400, 405)
