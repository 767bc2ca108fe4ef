"""A session that locks a table for long: nothing healthy is killed, and the page and the command name the session."""

import html
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import psycopg

from tests.integration.ops.browser import PASSWORD, TOKEN

#: The lock lasts more than twice as long as a process may be silent. The setting's default is 60 s; with it the lock
#: would have to last two minutes.
HUNG_AFTER_S, LOCKED_S = 10, 24
HOLDER = "a-forgotten-psql"


@contextmanager
def pages(system: Any) -> Iterator[httpx2.Client]:
    """The operators' pages, after a login."""
    made = system.operate("operators", "create", "ann", "--role", "viewer", input=PASSWORD)
    assert made.returncode == 0, made.stderr
    with httpx2.Client(base_url=system.stack.report.ops_url, timeout=60) as client:
        token = TOKEN.search(client.get("/ops/login").text)
        assert token is not None
        form = {"csrf_token": html.unescape(token[1]), "name": "ann", "password": PASSWORD}
        assert client.post("/ops/login", data=form).status_code == 303
        yield client


def depth_of(system: Any, name: str) -> int:
    """The jobs in a queue, as its app sees them."""
    found = system.http.get("/v1/queues").json()["data"]
    return next(int(each["depth"]) for each in found if each["queue"] == name)


def test_a_lock_of_jobs_kills_no_process_and_the_page_and_status_name_its_holder(
    start: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    slow = {"simulator__output_tokens": "64", "simulator__decode_tokens_per_s": "16"}
    system = start(also=["ops"], hung_after_s=str(HUNG_AFTER_S), **slow)
    before = system.stack.report.pids
    url = system.stack.report.database_url.replace("+psycopg", "")
    with pages(system) as browser, psycopg.connect(url, application_name=HOLDER) as holder:
        running = system.submit()
        wait_until(lambda: system.count("running"), "a job runs")
        # Its place is given up once its claim is on disk, which the worker reads in this table.
        wait_until(lambda: depth_of(system, "chat.normal") == 0, "it has left its queue")
        # `headrace up` ends a session that is idle in a transaction after a minute; another Postgres never does.
        holder.execute("SET idle_in_transaction_session_timeout = 0")
        holder.execute("LOCK TABLE jobs")
        pid = holder.info.backend_pid
        held = f"SELECT now() - xact_start > interval '{LOCKED_S} s' AS held FROM pg_stat_activity WHERE pid = {pid}"
        wait_until(lambda: system.sql(held)[0]["held"], "the lock has lasted long")

        page, told = browser.get("/ops/"), system.operate("status")
        as_json = system.operate("status", "--json").stdout
        metrics = httpx2.get(system.stack.report.metrics_urls["control"], timeout=10).text

    assert {job["status"] for job in system.all_ended([running, system.submit()])} == {"succeeded"}
    assert system.bills([running]) == [("compute", 1)]
    assert system.stack.report.pids == before
    assert "hangs and is killed" not in (system.stack.state_dir / "logs" / "up.log").read_text()

    assert (page.status_code, told.returncode) == (200, 1), told.stderr
    for text in (html.unescape(page.text), told.stdout):
        assert f"'{HOLDER}'" in text
        assert "LOCK TABLE jobs" in text
        assert f"SELECT pg_terminate_backend({pid})" in text
        assert "control@" in text
    found = json.loads(as_json)
    assert [each["rule"] for each in found["problems"]] == ["HeadracePostgresBlocked"]
    assert {each["state"] for each in found["processes"]} == {"live"}
    assert (found["depths"]["chat.normal"], found["not_available"]["oldest waits"]) == (0, "a table is locked")
    assert "oldest waits (a table is locked)" in page.text
    assert "headrace_postgres_blockers 1.0" in metrics.splitlines()
    assert 'headrace_server_up{server="postgres"} 1.0' in metrics
