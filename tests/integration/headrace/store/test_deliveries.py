"""Which due deliveries a worker pulls, and what operators see of them, on a real Postgres."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from api.schemas.jobs import JobRequest
from headrace.domain.apps import App
from headrace.domain.deliveries import START, Delivery, Pulled, Terms
from headrace.domain.ids import new_id
from headrace.errors import InvalidRequest, NotFound
from headrace.store import Store, apps, deliveries
from headrace.store.sql import text_of
from headrace.tables import deliveries as table

TERMS = Terms(most=64, per_app=16, per_receiver=8, max_tries=3, lease_s=60)
BAD, GOOD = "https://bad.example/hook", "https://good.example/hook"

Write = Callable[..., list[UUID]]


@pytest.fixture
def due(store: Store) -> Write:
    """Writes deliveries that were due this number of seconds ago, of an app of this name; None: the operator's."""

    def write(url: str, number: int = 1, app: str | None = "test", since_s: float = 1.0) -> list[UUID]:
        with store.begin() as db:
            app_id = apps.ensure(db, app).id if app is not None else None
            ids = [new_id() for _ in range(number)]
            db.execute(
                sa.text(
                    "INSERT INTO deliveries (id, app_id, event, url, data, next_at)"
                    " SELECT id, :app_id, 'test', :url, '{}', now() - :since_s * interval '1 s' FROM unnest(:ids) id"
                ),
                {"app_id": app_id, "url": url, "ids": ids, "since_s": since_s},
            )
        return ids

    return write


def long_webhook(host_bytes: int) -> str:
    """One whose host has this number of bytes, in letters of three, which Postgres cannot compress."""
    letters = random.Random(1)
    labels = ("".join(chr(letters.randint(0x4E00, 0x9F00)) for _ in range(10)) for _ in range(host_bytes))
    host = ".".join(labels).encode()[: host_bytes - 4].decode(errors="ignore").removesuffix(".")
    return f"https://{host}.com/hook"


def is_accepted(webhook: str) -> bool:
    try:
        JobRequest.model_validate({"prompt": "a", "webhook": webhook})
    except ValidationError:
        return False
    return True


def test_a_webhook_whose_host_is_too_long_for_the_outbox_is_refused_at_the_door(store: Store, due: Write) -> None:
    """Else no job with it could end, nor any that ends in the same statement: neither `expire` nor `rescue` would."""
    longest = next(url for size in range(5400, 0, -100) if is_accepted(url := long_webhook(size)))

    assert len(longest) > 300
    due(longest)
    assert by_url(pull(store).deliveries) == {longest: 1}


def pull(store: Store, terms: Terms = TERMS) -> Pulled:
    with store.begin() as db:
        return deliveries.pull(db, terms)


def by_url(found: Any) -> Counter[str]:
    return Counter(each.url for each in found)


def test_a_pull_takes_no_more_of_an_app_or_a_receiver_than_has_slots(store: Store, due: Write) -> None:
    for number in range(4):
        due(f"https://{number}.example/hook", 20)
    due(GOOD, 20, app="other")
    due("https://ops.example/hook", 20, app=None)

    pulled = pull(store).deliveries

    assert Counter(each.receiver for each in pulled if each.app_id is None) == {"ops.example": 8}
    of_test = Counter(each.receiver for each in pulled if each.receiver[0] in "0123")
    assert of_test.total() == 16
    assert set(of_test.values()) == {4}, "in turn"
    assert by_url(pulled)[GOOD] == 8


def pause(store: Store, app: str, receiver: str) -> int:
    with store.begin() as db:
        return deliveries.pause(db, apps.find_app(db, app).id, deliveries.read_receiver(receiver))


def test_what_waits_for_a_paused_receiver_is_not_pulled_and_keeps_its_tries_and_its_schedule(
    store: Store, due: Write
) -> None:
    paused = due(BAD, 20, since_s=400)
    due(BAD, 1, app="other", since_s=3)
    due(GOOD, 1, since_s=2)
    assert pause(store, "test", "BAD.example") == 20

    pulled = pull(store)

    assert by_url(pulled.deliveries) == {BAD: 1, GOOD: 1}, "the other app's, and the other receiver's"
    assert pulled.given_up == []
    assert not pull(store).deliveries
    with store.begin() as db:
        left = db.execute(sa.select(table.c.tries, table.c.state, table.c.last_error).where(table.c.id.in_(paused)))
        assert set(left) == {(0, "pending", None)}
        assert deliveries.oldest_due(db, 100) == (0, 0.0), "a paused one is not late"
        assert deliveries.newest(db, limit=100)[-1].shown_state == "paused"
        app_id = apps.find_app(db, "test").id
        assert deliveries.resume(db, app_id, "bad.example") == 20

    assert by_url(pull(store).deliveries) == {BAD: TERMS.per_receiver}
    with store.begin() as db:
        assert deliveries.oldest_due(db, 100)[0] == 20 - TERMS.per_receiver


def test_a_port_is_part_of_a_paused_receiver(store: Store, due: Write) -> None:
    due("https://bad.example:8443/hook")
    due(BAD)
    pause(store, "test", "https://Bad.example:8443/any?token=1")
    assert by_url(pull(store).deliveries) == {BAD: 1}


def test_a_receiver_whose_name_has_capitals_beyond_ascii_is_paused(store: Store, due: Write) -> None:
    due("https://BÜCHER.example/hook")
    assert pause(store, "test", "HTTPS://BÜCHER.example/hook") == 1
    assert not pull(store).deliveries


@pytest.mark.parametrize("text", ["", " ", "a b", "/hook", "bad.example\x00", "a" * 3000, "https://a:secret@b.example"])
def test_what_names_no_receiver_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is no receiver"):
        deliveries.read_receiver(text)


def test_only_a_paused_receiver_is_resumed(store: Store, app: App) -> None:
    with store.begin() as db, pytest.raises(NotFound, match="is not paused"):
        deliveries.resume(db, app.id, "bad.example")


def test_what_is_about_a_batch_has_its_apps_secrets_and_is_listed_and_sent_again_as_any(store: Store, app: App) -> None:
    with store.begin() as db:
        deliveries.add(db, "batch.expired", GOOD, {"id": "batch_1"}, app.id)
        deliveries.add(db, "budget.threshold_reached", BAD, {"id": "a"})
        rotated, _ = apps.rotate_webhook_secret(db, app.name, keep_old_for=timedelta(hours=1))
    found = {each.event: each for each in pull(store).deliveries}
    assert found["batch.expired"].secrets == (rotated.webhook_secret, app.webhook_secret)
    assert found["budget.threshold_reached"].secrets == (), "the operator's"
    with store.begin() as db:
        deliveries.record_gone(db, found["batch.expired"])
        deliveries.record_failure(db, found["batch.expired"], "gone", status=410, retry_in_s=None)
        [listed] = deliveries.newest(db, state="failed", app_id=app.id, limit=10)
        assert (listed.app, listed.job_id, listed.subject, listed.event) == ("test", None, "batch_1", "batch.expired")
        assert [each.subject for each in deliveries.newest(db, state=None, app_id=None, limit=1)] == ["a"]
        deliveries.retry(db, [f"evt_{listed.id.hex}"])
    assert [each.event for each in pull(store).deliveries] == ["batch.expired"]
    with store.begin() as db:
        db.execute(sa.update(table).values(state="delivered", delivered_at=sa.func.now() - timedelta(days=31)))
        db.execute(sa.update(table).values(id=sa.text("overlay(id::text placing '01900000' from 1)::uuid")))
        assert deliveries.forget_old(db, 30) == 2


def test_what_runs_already_counts(store: Store, due: Write) -> None:
    due(BAD, 20)
    [app_id] = {each.app_id for each in pull(store).deliveries}
    in_hand: dict[str, Any] = {"of_app": {app_id: 8}, "of_receiver": {"bad.example": 8}}
    assert pull(store, replace(TERMS, **in_hand)).deliveries == []
    due("https://BAD.example/other", 1)
    assert pull(store, replace(TERMS, **in_hand)).deliveries == [], "another path is the same receiver"
    due("https://bad.example:8443/hook", 12)
    assert len(pull(store, replace(TERMS, **in_hand)).deliveries) == 8, "of the 16 slots of its app"


def test_an_app_that_shares_a_receiver_with_a_flood_is_next(store: Store, due: Write) -> None:
    due(BAD, 1000, app="flood", since_s=60)
    due(BAD, 1, app="test")
    with store.begin() as db:
        flood, test = apps.find_app(db, "flood").id, apps.find_app(db, "test").id
    pulled = pull(store, replace(TERMS, of_app={flood: 7}, of_receiver={"bad.example": 7})).deliveries
    assert [each.app_id for each in pulled] == [test], "the last slot of their receiver"


def test_a_receiver_that_has_nothing_in_hand_is_next_of_its_app(store: Store, due: Write) -> None:
    due(BAD, 1000, since_s=60)
    due(GOOD)
    with store.begin() as db:
        test = apps.find_app(db, "test").id
    pulled = pull(store, replace(TERMS, of_app={test: 15}, of_receiver={"bad.example": 7})).deliveries
    assert by_url(pulled) == {GOOD: 1}, "the last slot of their app"


def test_ten_thousand_rows_of_one_receiver_hide_no_other_and_cost_nothing(store: Store, due: Write) -> None:
    due(BAD, 10_000, app="bad", since_s=3600)
    due(GOOD)
    with store.begin() as db:
        db.execute(sa.text("ANALYZE deliveries"))
    with store.begin() as db:
        bad = apps.find_app(db, "bad").id
    in_hand = replace(TERMS, of_app={bad: 8}, of_receiver={"bad.example": 8})
    assert by_url(pull(store, in_hand).deliveries) == {GOOD: 1}
    with store.begin() as db:
        explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {text_of('due_deliveries')}"
        plan = db.exec_driver_sql(explain, deliveries._parameters(in_hand)).scalar_one()
    assert 0 < rows_read(plan[0]["Plan"]) < 100


def rows_read(node: dict[str, Any]) -> float:
    """The rows of the table that a plan reads, those it throws away included."""
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    is_own = node.get("Relation Name", "").startswith("deliveries_")
    own = (node["Actual Rows"] + removed) * node["Actual Loops"] if is_own else 0
    return own + sum(map(rows_read, node.get("Plans", [])))


def test_of_more_receivers_than_one_pull_looks_at_each_has_its_turn(
    store: Store, due: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "RECEIVERS_A_PULL", 3)
    for number in range(10):
        due(f"https://{number}.example/hook", app=f"app-{number % 2}")
    found: list[Delivery] = []
    after, pulls = START, 0
    while not (pulled := pull(store, replace(TERMS, after=after))).is_all:
        found += pulled.deliveries
        after, pulls = pulled.after, pulls + 1
    assert len({each.url for each in found}) == len(found) == 10
    assert pulls < 10
    assert pulled.after == START


def test_an_app_without_a_free_slot_is_passed_over_with_all_its_receivers(
    store: Store, due: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "RECEIVERS_A_PULL", 3)
    apps_of: dict[str, UUID] = {}
    for name in ("first", "second"):
        for number in range(10):
            due(f"https://{number}.{name}.example/hook", app=name)
        with store.begin() as db:
            apps_of[name] = apps.find_app(db, name).id
    full = min(apps_of.values())
    pulled = pull(store, replace(TERMS, of_app={full: 16}))
    assert {each.app_id for each in pulled.deliveries} == {max(apps_of.values())}


def test_two_workers_that_pull_at_once_get_different_deliveries(store: Store, due: Write) -> None:
    ids = due(GOOD, 12)
    with store.begin() as one, store.begin() as other:
        first, second = deliveries.pull(one, TERMS).deliveries, deliveries.pull(other, TERMS).deliveries
        assert not {each.id for each in first} & {each.id for each in second}
    rest = pull(store).deliveries
    assert sorted(each.id for each in (*first, *second, *rest)) == ids


def test_a_delivery_is_not_pulled_again_before_its_lease_ends_and_its_tries_count_when_they_begin(
    store: Store, due: Write
) -> None:
    [delivery_id] = due(GOOD)
    tries = []
    for _ in range(3):
        tries += [each.tries for each in pull(store).deliveries]
        assert not pull(store).deliveries
        expire_leases(store)
    assert tries == [1, 2, 3]

    pulled = pull(store)

    assert (list(pulled.deliveries), [each.id for each in pulled.given_up]) == ([], [delivery_id])
    with store.begin() as db:
        [(state, count, error)] = db.execute(sa.text("SELECT state, tries, last_error FROM deliveries"))
    assert (state, count) == ("failed", 3)
    assert "never reported" in error


def expire_leases(store: Store) -> None:
    with store.begin() as db:
        db.execute(sa.text("UPDATE deliveries SET next_at = now()"))


def test_nothing_is_pulled_before_it_is_due(store: Store, due: Write) -> None:
    due(GOOD, since_s=-60)
    assert pull(store) == Pulled()


@pytest.mark.parametrize(
    "url", ["https://h.example", "https://H.example/a?b", "http://h.example#c", "https://h.example?d"]
)
def test_the_receiver_of_a_url_is_its_host(store: Store, due: Write, url: str) -> None:
    due(url)
    [delivery] = pull(store).deliveries
    assert delivery.receiver == "h.example"


def test_those_of_one_app_are_looked_for_among_the_newest_of_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app with few of them must not make Postgres read all the others'."""
    monkeypatch.setattr(deliveries, "LOOK_ROWS", 2)
    with store.begin() as db:
        rare, busy = apps.ensure(db, "rare").id, apps.ensure(db, "busy").id
        for app_id in (rare, rare, busy):
            row = {"id": new_id(), "app_id": app_id, "event": "job.succeeded", "url": "https://a.example/", "data": {}}
            db.execute(sa.insert(table).values(row))

    with store.begin() as db:
        found = {app_id: deliveries.newest(db, state=None, app_id=app_id, limit=10) for app_id in (rare, busy)}
        db.execute(sa.update(table).where(table.c.app_id == rare).values(state="failed"))
        failed = deliveries.newest(db, state="failed", app_id=rare, limit=10)

    assert [len(found[app_id]) for app_id in (rare, busy)] == [1, 1], "the third newest is not read"
    assert len(failed) == 2, "the failed ones have an index of their own"


def test_an_apps_webhook_about_no_job_has_the_apps_secrets_and_the_operators_none(store: Store) -> None:
    hook, data = "https://good.example/hook", {"id": "batch_1"}
    with store.begin() as db:
        app = apps.ensure(db, "test")
        deliveries.add(db, "batch.completed", hook, data, app_id=app.id)
        deliveries.add(db, "budget.threshold", BAD, {"percent": 80})
    with store.begin() as db:
        secret = db.scalar(sa.text("SELECT webhook_secret FROM apps"))
        pulled = {each.event: each for each in deliveries.pull(db, TERMS).deliveries}
    assert pulled["batch.completed"].secrets == (secret,)
    assert (pulled["batch.completed"].data, pulled["batch.completed"].app_id) == (data, app.id)
    assert pulled["budget.threshold"].secrets == ()
