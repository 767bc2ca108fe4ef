"""/docs in a real Chromium: it works under its policy, and forgets a key with its page."""

import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright
from werkzeug.serving import make_server

from headrace.config import Settings
from tests.web import Web

KEY = "hr-not-a-real-key"


@pytest.fixture
def url() -> Iterator[str]:
    """A `web` without servers: it serves the page, and refuses keys."""
    nowhere = {"database_url": "postgresql://x@127.0.0.1:1/x", "redis_url": "redis://127.0.0.1:1/0"}
    web = Web.of(Settings.load(engine="simulator", pepper="of-the-tests", **nowhere))
    server = make_server("127.0.0.1", 0, web, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    web.deps.close()


@pytest.fixture
def page(chromium_path: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def kept(page: Page) -> str:
    """Everything that the browser keeps for the page."""
    text = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert isinstance(text, str)
    return text


def test_the_docs_work_under_their_policy_and_keep_no_key(url: str, page: Page) -> None:
    problems: list[str] = []
    page.on("console", lambda message: problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
    page.on("request", lambda request: None if request.url.startswith((url, "data:")) else problems.append(request.url))

    page.goto(f"{url}/docs/")
    page.wait_for_selector(".opblock")
    # What a page of an earlier release has left.
    page.evaluate(f"localStorage.setItem('authorized', '{KEY}')")
    page.reload()
    page.wait_for_selector(".opblock")
    assert KEY not in kept(page)

    page.click("button.authorize")
    page.fill("input[aria-label='auth-bearer-value']", KEY)
    page.click("button[aria-label='Apply credentials']")
    page.click("button.btn-done")
    assert KEY not in kept(page)
    # A call from the page is sent with the key: the server refuses this one.
    page.click("#operations-queues-get_v1_queues button.opblock-summary-control")
    page.click("#operations-queues-get_v1_queues button.try-out__btn")
    assert problems == []
    with page.expect_response(f"{url}/v1/queues") as answered:
        page.click("#operations-queues-get_v1_queues button.execute")
    assert answered.value.request.headers["authorization"] == f"Bearer {KEY}"
    assert answered.value.status == 401
    page.wait_for_selector(".live-responses-table")
    # Chromium writes a refused call to the console.
    assert [each for each in problems if "401" not in each] == []

    page.reload()
    page.wait_for_selector("button.authorize.unlocked")
    assert KEY not in kept(page)
