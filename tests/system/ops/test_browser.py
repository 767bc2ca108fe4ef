"""The pages at /ops in a real Chromium: each page in light and dark, the keyboard, a narrow screen, scripts off.

Each page's picture is in the test's temporary folder: `--basetemp FOLDER` keeps them, and docs/ops/ has some of them.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from headrace import connections
from headrace.broker.admission import Admission
from headrace.broker.messages import ExecuteMessage, make_celery
from headrace.config import PROJECT_ROOT, Settings
from headrace.connections.redis import redis_client
from headrace.domain.fleet import ProcessInfo, ProcessKind
from headrace.domain.ids import new_id, show_id
from headrace.domain.operators import Role
from headrace.policies import passwords
from headrace.stack import readiness
from headrace.stack.child import Child, Command, read_procfile, shell
from headrace.stack.ports import free_port
from headrace.store import Store, jobs, operators
from headrace.store.fleet import processes

PASSWORD = "correct horse battery"
START_S = 60.0
#: The batch of month.sql that runs.
BATCH = "batch_019b2f64a3c17d20b6f1c2d3e4f50001"
WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 380, "height": 800}


@pytest.fixture(scope="module")
def settings_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool with every cache, and one of embeddings."""
    path = tmp_path_factory.mktemp("settings") / "headrace.toml"
    path.write_text(
        '[pools.chat]\nengine = "simulator"\ncache_s = 86400\nsingle_flight = true\nsemantic_cache = {pool = "embed"}\n'
        '[pools.embed]\nserves = "embeddings"\nengine = "simulator"\nmodel = "words"\n'
    )
    return path


@pytest.fixture(scope="module")
def settings(database_url: str, redis_url: str, settings_file: Path) -> Settings:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", database_url)
        command.upgrade(Config(toml_file=PROJECT_ROOT / "pyproject.toml"), "head")
    engine = sa.create_engine(database_url)
    with engine.begin() as db:
        db.exec_driver_sql(Path(__file__).with_name("month.sql").read_text().replace("%", "%%"))
    engine.dispose()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_CONFIG", str(settings_file))
        return Settings.load(database_url=database_url, redis_url=redis_url, pepper="of-the-tests")


@pytest.fixture(scope="module")
def store(settings: Settings) -> Iterator[Store]:
    store = Store(connections.postgres(settings))
    yield store
    store.close()


@pytest.fixture(scope="module")
def job_ids(store: Store) -> dict[str, str]:
    """One job of each state, with its texts: the month also has jobs without, which are the newest at some hours."""
    with store.begin() as db:
        latest = "SELECT DISTINCT ON (state) state, id FROM jobs JOIN job_texts ON job_id = id ORDER BY state, id DESC"
        found = db.execute(sa.text(latest))
        return {row.state: show_id(row.id) for row in found}


@pytest.fixture(scope="module")
def url(
    settings: Settings, settings_file: Path, store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The pages of the Procfile's process, with an operator for each role."""
    # Not in the transaction: it takes time.
    hashed = passwords.hashed(PASSWORD)
    with store.begin() as db:
        for role in Role:
            operators.create(db, str(role), role, hashed)
        # The first page sees them live as long as the tests run.
        for kind in ProcessKind:
            pool = "chat" if kind is ProcessKind.GPU else None
            processes.beat(db, ProcessInfo(new_id(), kind, f"{kind}@host-1", "host-1", 7, "0.1.0", pool, None), {})
        db.execute(sa.text("UPDATE processes SET seen_at = now() + interval '1 day'"))
        waiting = db.execute(sa.text("SELECT app_id, id FROM jobs WHERE state = 'queued'")).all()
        tickets = [jobs.find(db, app_id, job_id).ticket for app_id, job_id in waiting]
    with redis_client(settings) as redis:
        Admission(redis, ExecuteMessage(make_celery("test", settings)), reservation_ttl_s=30).restore(tickets)
    port = free_port()
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "OPS_PORT": str(port),
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "HEADRACE_CONFIG": str(settings_file),
        "HEADRACE_PEPPER": settings.pepper.get_secret_value(),
    }
    line = shell(read_procfile(PROJECT_ROOT / "Procfile")["ops"])
    child = Child(Command("ops", line, env, PROJECT_ROOT), tmp_path_factory.mktemp("logs") / "ops.log")
    try:
        child.wait_until(lambda: readiness.answers(port, "/healthz"), START_S)
        yield f"http://127.0.0.1:{port}/ops"
    finally:
        child.stop()
    assert "Traceback" not in child.log.read_text()


@pytest.fixture(scope="module")
def chromium(chromium_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A browser window, and what went wrong in it."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url, self.page = url, context.new_page()
        self.problems: list[str] = []
        self.page.on("console", lambda message: self.problems.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))
        self.page.on("requestfailed", self._note_failure)
        self.page.on("request", self._note)

    def _note(self, request: Any) -> None:
        if not request.url.startswith(self.url.removesuffix("/ops")):
            self.problems.append(f"elsewhere: {request.url}")

    def _note_failure(self, request: Any) -> None:
        # Chromium aborts what it no longer needs, such as the icon of a page that it leaves.
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"failed: {request.url} {request.failure}")

    def log_in(self, role: Role) -> Page:
        self.page.goto(f"{self.url}/login")
        self.page.fill("input[name=name]", str(role))
        self.page.fill("input[name=password]", PASSWORD)
        self.page.click("button")
        self.page.wait_for_url(f"{self.url}/")
        return self.page

    def show(self, path: str) -> None:
        """Go to a page and load all of its pictures, also those below."""
        self.page.goto(f"{self.url}{path}")
        for picture in self.page.query_selector_all("img"):
            picture.scroll_into_view_if_needed()
            self.page.wait_for_function("img => img.complete && img.naturalWidth > 0", arg=picture)
        self.page.evaluate("scrollTo(0, 0)")


@pytest.fixture
def long_names(store: Store) -> None:
    """Newest jobs of a model with a long name, with a long error, and deliveries to a long address."""
    with store.begin() as db:
        db.execute(
            sa.text(
                "UPDATE jobs SET model_requested = 'HuggingFaceTB/SmolLM2-135M-Instruct', ended_at = now(), "
                "error_code = 'deadline_passed' WHERE id IN (SELECT id FROM jobs ORDER BY id DESC LIMIT 20)"
            )
        )
        db.execute(sa.text("UPDATE deliveries SET url = 'http://127.0.0.1:34567/' || repeat('hook', 30)"))


def paths(job_ids: dict[str, str]) -> dict[str, str]:
    return {
        # It stands still, so that the keyboard can walk through it.
        "overview": "/?still=1",
        "jobs": "/jobs",
        "job": f"/jobs/{job_ids['queued']}",
        "job-failed": f"/jobs/{job_ids['failed']}",
        "texts": f"/jobs/{job_ids['succeeded']}/texts",
        "batches": "/batches",
        "batch": f"/batches/{BATCH}",
        "batch-jobs": f"/jobs?note=batches={BATCH}",
        "queues": "/queues",
        "hosts": "/hosts",
        "deliveries": "/deliveries",
        "apps": "/apps",
        "app": "/app?name=shop",
        "budgets": "/budgets",
        "caches": "/caches?hours=168",
        "cost": "/cost",
        "audit": "/audit",
        "error": "/jobs/nonsense",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_loads_whole_in_light_and_dark(
    chromium: Browser, url: str, job_ids: dict[str, str], tmp_path: Path, scheme: Any
) -> None:
    with chromium.new_context(viewport=WIDE, color_scheme=scheme) as context:
        visit = Visit(context, url)
        visit.page.goto(f"{url}/login")
        visit.page.screenshot(path=tmp_path / f"login-{scheme}.png")
        visit.log_in(Role.ADMIN)
        for name, path in paths(job_ids).items():
            visit.problems.clear()
            visit.show(path)
            visit.page.screenshot(path=tmp_path / f"{name}-{scheme}.png")
            visit.page.screenshot(path=tmp_path / f"{name}-{scheme}-whole.png", full_page=True)
            # Chromium itself writes of the 404.
            assert visit.problems == [] or name == "error", name
            ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
            is_light = sum(map(int, ground.removeprefix("rgb(").removesuffix(")").split(","))) > 3 * 128
            assert is_light is (scheme == "light"), name


def test_no_page_is_wider_than_a_narrow_screen(
    chromium: Browser, url: str, job_ids: dict[str, str], tmp_path: Path
) -> None:
    with chromium.new_context(viewport=NARROW) as context:
        visit = Visit(context, url)
        visit.log_in(Role.ADMIN)
        for name, path in paths(job_ids).items():
            visit.show(path)
            visit.page.screenshot(path=tmp_path / f"{name}-narrow.png")
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], name


@pytest.mark.parametrize("width", [1200, 800])
def test_the_tables_of_jobs_batches_deliveries_and_the_audit_log_fit_a_small_window(
    chromium: Browser, url: str, long_names: None, tmp_path: Path, width: int
) -> None:
    with chromium.new_context(viewport={"width": width, "height": 800}) as context:
        visit = Visit(context, url)
        visit.log_in(Role.ADMIN)
        for name in ("jobs", "batches", "deliveries", "audit"):
            visit.show(f"/{name}")
            visit.page.screenshot(path=tmp_path / f"{name}-{width}.png")
            hidden = visit.page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.wide'))")
            assert hidden == 0, name


def test_the_keyboard_reaches_everything_on_every_page(chromium: Browser, url: str, job_ids: dict[str, str]) -> None:
    # What can be used: the closed parts of a page open with their summary, which can be.
    mark = """() => [...document.querySelectorAll('a, button, input:not([type=hidden]), select, summary, .wide, pre')]
        .filter(e => e.checkVisibility() && e.tabIndex >= 0).map((e, i) => { e.dataset.no = i; return i })"""
    with chromium.new_context(viewport=WIDE) as context:
        visit = Visit(context, url)
        page = visit.log_in(Role.ADMIN)
        for name, path in paths(job_ids).items():
            page.goto(f"{url}{path}")
            wanted = set(page.evaluate(mark))
            reached = set()
            for _ in range(len(wanted) + 20):
                page.keyboard.press("Tab")
                reached.add(page.evaluate("Number(document.activeElement.dataset.no ?? -1)"))
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none" or page.evaluate("document.activeElement === document.body"), name
            assert wanted <= reached, (name, wanted - reached)


def test_a_job_is_cancelled_with_the_keyboard_alone(chromium: Browser, url: str, job_ids: dict[str, str]) -> None:
    with chromium.new_context(viewport=WIDE) as context:
        page = Visit(context, url).page
        page.goto(f"{url}/jobs/{job_ids['queued']}")
        page.wait_for_function("document.activeElement.name === 'name'")
        page.keyboard.type(str(Role.OPERATOR))
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{url}/jobs/{job_ids['queued']}")
        while page.evaluate("document.activeElement.tagName") != "SUMMARY":
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("[role=status]")
        assert "It is cancelled." in page.inner_text("main")


def test_every_page_works_without_scripts(chromium: Browser, url: str, job_ids: dict[str, str]) -> None:
    with chromium.new_context(viewport=WIDE, java_script_enabled=False) as context:
        visit = Visit(context, url)
        visit.log_in(Role.ADMIN)
        for name, path in paths(job_ids).items():
            response = visit.page.goto(f"{url}{path}")
            assert response is not None
            assert response.status == (404 if name == "error" else 200), name
        visit.page.goto(f"{url}/app?name=search")
        visit.page.fill("input[name=queued_jobs]", "77")
        visit.page.click("text=Change the limits")
        assert visit.page.input_value("input[name=queued_jobs]") == "77"


def test_a_role_that_may_not_see_a_page_gets_403(chromium: Browser, url: str, job_ids: dict[str, str]) -> None:
    with chromium.new_context(viewport=WIDE) as context:
        page = Visit(context, url).log_in(Role.VIEWER)
        response = page.goto(f"{url}/jobs/{job_ids['succeeded']}/texts")
        assert response is not None
        assert response.status == 403
        assert "Not allowed" in page.inner_text("h1")
        page.goto(f"{url}/jobs/{job_ids['succeeded']}")
        assert page.query_selector("text=Prompt and answer") is None


def test_a_script_in_a_row_does_not_run(chromium: Browser, url: str, store: Store, job_ids: dict[str, str]) -> None:
    script = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    with store.begin() as db:
        db.execute(
            sa.text("UPDATE jobs SET end_user = :text, error_code = :text WHERE state = 'failed'"), {"text": script}
        )
        db.execute(sa.text("UPDATE job_texts SET answer = :text"), {"text": script})
    with chromium.new_context(viewport=WIDE) as context:
        visit = Visit(context, url)
        visit.log_in(Role.ADMIN)
        for path in ("/jobs?state=failed", paths(job_ids)["job-failed"], paths(job_ids)["texts"]):
            visit.show(path)
            assert "<script>alert(1)" in visit.page.inner_text("main"), path
        assert visit.problems == []
