"""The record of an app on a real Postgres: whose tries count for an entry, and for how long a worker knows them."""

from collections.abc import Callable
from typing import Any

import pytest

from headrace.domain.apps import App
from headrace.domain.queues import Ticket
from headrace.store import Store, apps
from tests.integration.matching import SAME
from workers.matching import KEEP_S, Matcher, Records

Ask = Callable[..., Ticket]
Query = Callable[..., list[tuple[Any, ...]]]


def state(query: Query, ticket: Ticket) -> str:
    [(found,)] = query("SELECT state FROM jobs WHERE id = :id", id=ticket.job_id)
    return str(found)


def good_record(query: Query, app: App, entries: int = 100, **changes: Any) -> None:
    """Let this number of entries of an app have passed eight tries each."""
    values = {"app": app.id, "pool": "chat", "right": True, "kind": "try", **changes}
    query(
        "INSERT INTO cache_matches (job_id, app_id, pool, entry_id, similarity, kind, is_right, at)"
        " SELECT gen_random_uuid(), :app, :pool, entry, 0.6 + number * 0.05, :kind, :right, now() - interval '1 h'"
        " FROM (SELECT gen_random_uuid() AS entry FROM generate_series(1, :entries)) AS made,"
        " generate_series(1, 8) AS number",
        entries=entries,
        **values,
    )


@pytest.mark.parametrize(
    ("changes", "is_served"),
    [({}, True), ({"right": False}, False), ({"entries": 10}, False), ({"pool": "other"}, False)],
    ids=["good", "bad", "short", "another pool's"],
)
def test_the_record_of_an_app_lets_an_entry_serve_after_a_few_tries(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query, app: App, changes: dict[str, Any], is_served: bool
) -> None:
    good_record(query, app, **changes)
    entry(tries=4)
    ticket = ask(SAME)
    matcher.look_up()
    assert (state(query, ticket) == "succeeded") is is_served


def test_another_app_s_record_and_one_that_is_switched_off_say_nothing(
    make: Callable[..., Matcher], entry: Ask, ask: Ask, query: Query, app: App, store: Store
) -> None:
    with store.begin() as db:
        other = apps.ensure(db, "other")
    good_record(query, other)
    entry(tries=4)
    ticket = ask(SAME)
    make().look_up()
    assert state(query, ticket) == "queued"

    good_record(query, app)
    query("DELETE FROM cache_entries WHERE job_id = :id", id=ticket.job_id)
    ticket = ask(f"{SAME} ")
    make(record=False).look_up()
    assert state(query, ticket) == "queued"


def test_an_app_whose_rechecks_were_wrong_is_served_less(
    make: Callable[..., Matcher], entry: Ask, ask: Ask, query: Query, app: App
) -> None:
    good_record(query, app)
    good_record(query, app, entries=4, kind="recheck", right=False)
    entry(tries=4)
    ticket = ask(SAME)
    make().look_up()
    assert state(query, ticket) == "queued"


def test_a_record_is_read_again_after_a_while(query: Query, store: Store, app: App) -> None:
    now = 0.0
    known = Records(lambda: now)

    def weights() -> tuple[float, ...]:
        with store.autocommit() as db:
            return known.read(db, app.id, "chat").prior.weights

    first = weights()
    good_record(query, app)
    now = KEEP_S - 1
    assert weights() == first
    now = KEEP_S
    assert weights() != first
