"""The first page in a real Chromium, over a real system that breaks in eight ways: the page alone names each.

Its picture of each is in the test's temporary folder: `--basetemp FOLDER` keeps them, and docs/ops/ has some of them.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import psycopg
import pytest
from playwright.sync_api import Page, sync_playwright

from headrace.stack.ports import free_port
from headrace.stack.stack import Stack
from tests.contracts.conftest import StandIn
from tests.waiting import until

PASSWORD = "correct horse battery"
#: Seconds from a fault to its name on the page, which refreshes itself.
NAMED_WITHIN_S = 15.0
#: Seconds from the end of a fault until the page is clean again.
WELL_WITHIN_S = 120.0
BACK_WITHIN_S = 60.0


class Broken:
    """A running system, its first page in a browser, and what breaks it."""

    def __init__(self, stack: Stack, provider: StandIn, page: Page, pictures: Path) -> None:
        self.stack, self.provider, self.page, self.pictures = stack, provider, page, pictures
        self.env = {"PATH": os.defpath, "HEADRACE_STATE": str(stack.state_dir)}
        self.report = stack.report
        self.http = httpx2.Client(
            base_url=self.report.url, headers={"Authorization": f"Bearer {self.report.api_key}"}, timeout=60
        )

    def sql(self, statement: str) -> None:
        url, options = self.report.database_url.replace("+psycopg", ""), "-c default_transaction_read_only=off"
        with psycopg.connect(url, autocommit=True, options=options) as db:
            db.execute(statement)

    def lives(self, kind: str) -> int:
        """How many lives of this kind were seen."""
        with psycopg.connect(self.report.database_url.replace("+psycopg", "")) as db:
            row = db.execute("SELECT count(*) FROM processes WHERE kind = %s", (kind,)).fetchone()
        return int(row[0]) if row else 0

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.stack.processes[name].pid, number)

    def submit(self, **fields: object) -> None:
        response = self.http.post("/v1/jobs", json={"prompt": f"What broke at {time.monotonic()}?", **fields})
        assert response.status_code == 202, response.text

    def command(self, *arguments: str, stdin: str = "") -> None:
        command = [sys.executable, "-m", "headrace", *arguments]
        subprocess.run(command, env=self.env, input=stdin, text=True, check=True, capture_output=True)

    def is_named(self, *parts: str) -> None:
        """The page, as it refreshes itself, names the fault in time, and in one problem that has all these words."""
        began, found = time.monotonic(), self.page.locator(".problems li, p.wrong")
        for part in parts:
            found = found.filter(has_text=part)
        found.first.wait_for(timeout=NAMED_WITHIN_S * 1000)
        assert time.monotonic() - began < NAMED_WITHIN_S
        self.page.screenshot(path=self.pictures / f"{parts[0].split()[0].replace('/', '')}.png", full_page=True)

    def is_well(self) -> None:
        """The page names nothing."""
        self.page.get_by_text("Nothing is wrong.").wait_for(timeout=WELL_WITHIN_S * 1000)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, chromium_path: str) -> Iterator[Broken]:
    provider = StandIn()
    env = {
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": provider.url,
        "HEADRACE_BUDGETS__MONTH_USD": "1000",
        "HEADRACE_WEBHOOKS__ALLOW_PRIVATE": "true",
        "HEADRACE_OBSERVE_EVERY_S": "2",
        # Tests freeze processes until they are named.
        "HEADRACE_HUNG_AFTER_S": "0",
    }
    options = ("--engine", "simulator", "--without", "flower")
    with (
        Stack(tmp_path_factory.mktemp("stack"), options, env) as stack,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="dark")
        made = Broken(stack, provider, page, tmp_path_factory.mktemp("pictures"))
        made.command("operators", "create", "ann", "--role", "viewer", stdin=f"{PASSWORD}\n")
        page.goto(f"{made.report.ops_url}/ops/")
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        made.is_well()
        yield made
        made.http.close()
        browser.close()
    provider.close()


def test_a_well_system_names_nothing(broken: Broken) -> None:
    for _ in range(3):
        broken.submit()
    broken.is_well()


@pytest.mark.parametrize("name", ["control", "gpu"])
def test_a_frozen_process_is_named(broken: Broken, name: str) -> None:
    broken.is_well()
    broken.signal(name, signal.SIGSTOP)
    try:
        broken.is_named(f"{name}@", "has given no sign of life", f"see the log of '{name}'")
    finally:
        broken.signal(name, signal.SIGCONT)
    broken.is_well()


def test_a_worker_that_is_killed_in_a_loop_is_named(broken: Broken) -> None:
    broken.is_well()
    for no in range(3):
        broken.signal("gpu", signal.SIGKILL)
        until(lambda started=no + 2: broken.lives("gpu") >= started, "it starts again", BACK_WITHIN_S)
    broken.is_named("gpu@", "was lost 3 times in the last 10 minutes")
    broken.sql("DELETE FROM processes WHERE kind = 'gpu' AND seen_at < now() - interval '4 s'")
    broken.is_well()


def test_a_redis_that_is_down_is_named(broken: Broken) -> None:
    broken.is_well()
    broken.signal("valkey", signal.SIGSTOP)
    try:
        broken.is_named("Redis does not answer.", "new jobs are refused with 503")
    finally:
        broken.signal("valkey", signal.SIGCONT)
    broken.is_well()


def test_a_postgres_that_takes_no_writes_is_named(broken: Broken) -> None:
    broken.is_well()
    try:
        broken.sql("ALTER SYSTEM SET default_transaction_read_only = on")
        broken.sql("SELECT pg_reload_conf()")
        broken.is_named("Postgres takes no writes")
    finally:
        broken.sql("ALTER SYSTEM RESET default_transaction_read_only")
        broken.sql("SELECT pg_reload_conf()")
    broken.is_well()


def test_a_receiver_that_is_down_is_named(broken: Broken) -> None:
    broken.is_well()
    receiver = f"http://127.0.0.1:{free_port()}"
    for _ in range(3):
        broken.submit(webhook=f"{receiver}/secret")
    broken.is_named(f"{receiver}/… does not take the webhooks of")
    assert "secret" not in broken.page.content()
    broken.sql("DELETE FROM deliveries")
    broken.is_well()


def test_a_budget_that_is_used_up_is_named(broken: Broken) -> None:
    broken.is_well()
    broken.submit(overflow="only")
    until(lambda: _holds(lambda: broken.sql("SELECT 1 / count(*) FROM ledger WHERE kind = 'api'")), "it is paid for")
    broken.command("budgets", "set", "--day-usd", "0.000001")
    broken.is_named("All of the day's budget of all apps together", "the budget is raised")
    broken.command("budgets", "set", "--day-usd", "1000")
    broken.is_well()


def test_a_provider_that_locks_the_account_out_is_named(broken: Broken) -> None:
    broken.is_well()
    broken.provider.script = [
        (401, {"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}})
    ] * 50
    broken.submit(overflow="only", max_wait=3600)
    broken.is_named("The paid API is locked out", "a wrong key")
    broken.provider.script.clear()


def _holds(ask: Callable[[], object]) -> bool:
    with suppress(psycopg.Error):
        ask()
        return True
    return False
