"""Operators of each role, logged in to the pages at /ops."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from redis import Redis

from headrace.config import Settings
from headrace.domain.apps import App
from headrace.domain.operators import Operator, Role
from headrace.domain.prompts import Message
from headrace.domain.queues import Lane, Ticket
from headrace.policies import passwords
from headrace.store import Store, operators
from ops.app import create_app
from ops.deps import EXTENSION
from tests.integration.ops.browser import PASSWORD, Browser
from tests.integration.ops.charged import charge
from tests.integration.ops.full import CANARY, fill


@pytest.fixture(scope="session")
def password_hash() -> str:
    return passwords.hashed(PASSWORD)


@pytest.fixture
def make_operator(store: Store, password_hash: str) -> Callable[[str, Role], Operator]:
    def make(name: str, role: Role) -> Operator:
        with store.begin() as db:
            return operators.create(db, name, role, password_hash)

    return make


@pytest.fixture
def build_pages(settings: Settings, redis: Redis) -> Iterator[Callable[..., Flask]]:
    """Makes the app of the process `ops`, with some settings changed."""
    made: list[Flask] = []

    def build(**changes: Any) -> Flask:
        made.append(create_app(settings.model_copy(update=changes)))
        return made[-1]

    yield build
    for app in made:
        app.extensions[EXTENSION].close()


@pytest.fixture
def pages(build_pages: Callable[..., Flask]) -> Flask:
    return build_pages()


@pytest.fixture
def stranger(pages: Flask) -> Browser:
    """A browser without a login."""
    return Browser(pages.test_client())


@pytest.fixture
def browser_of(pages: Flask, make_operator: Callable[[str, Role], Operator]) -> Callable[[Role], Browser]:
    """A browser with the session of a new operator of this role."""

    def make(role: Role) -> Browser:
        make_operator(f"the-{role}", role)
        browser = Browser(pages.test_client())
        assert browser.log_in(f"the-{role}").status_code == 303
        return browser

    return make


@pytest.fixture
def viewer(browser_of: Callable[[Role], Browser]) -> Browser:
    return browser_of(Role.VIEWER)


@pytest.fixture
def clerk(browser_of: Callable[[Role], Browser]) -> Browser:
    """A browser with the role `operator`."""
    return browser_of(Role.OPERATOR)


@pytest.fixture
def admin(browser_of: Callable[[Role], Browser]) -> Browser:
    return browser_of(Role.ADMIN)


@pytest.fixture
def full(store: Store, app: App, queued: Callable[..., Ticket]) -> list[UUID]:
    """Rows in every table: a job that succeeded, one that failed, and two that wait; their ids in this order."""
    prompt = (Message("user", f"{CANARY} prompt"),)
    job_ids = [queued(messages=prompt, lane=lane).job_id for lane in Lane]
    fill(store, app, job_ids)
    return job_ids


@pytest.fixture
def charged(store: Store, app: App, queued: Callable[..., Ticket]) -> UUID:
    """Charges of a month, and of the last hour; the id of a batch of three jobs among them."""
    return charge(store, app, [queued().job_id for _ in range(6)])
