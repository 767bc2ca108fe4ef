"""A key as Postgres knows it."""

import hmac
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from headrace.domain.apps import App, AppLimits, KeyRecord, KeyState, Scope
from headrace.domain.queues import Lane
from headrace.errors import InvalidRequest, Unauthenticated
from headrace.store import Store, apps, keys
from headrace.tables import api_keys

PEPPER = "pepper"


def make(store: Store, app: App, lifetime: timedelta | None = None) -> tuple[str, KeyRecord]:
    with store.begin() as db:
        key = keys.make(db, app.id, PEPPER, lifetime=lifetime)
        return key, keys.find(db, key)


def app_of(store: Store, key: str, pepper: str = PEPPER) -> App | None:
    with store.begin() as db:
        try:
            return keys.authenticate(db, key, pepper)
        except Unauthenticated:
            return None


def test_a_key_brings_its_app_with_its_limits_and_its_own_scopes(store: Store, app: App) -> None:
    with store.begin() as db:
        limited = apps.set_limits(db, app.name, {"requests_per_minute": 6, "lanes": [Lane.LOW]})
        key = keys.make(db, app.id, PEPPER, scopes=[Scope.READ])
    assert limited.limits == AppLimits(requests_per_minute=6)
    assert app_of(store, key) == replace(limited, scopes=frozenset({Scope.READ}))


def test_a_key_opens_nothing_under_another_pepper_or_with_a_letter_changed(store: Store, app: App) -> None:
    key, _ = make(store, app)
    assert app_of(store, key) == app
    changed = key[:-1] + ("A" if key[-1] != "A" else "B")
    assert [app_of(store, key, "other"), app_of(store, changed), app_of(store, key + "A")] == [None] * 3


def test_a_key_has_a_checksum_and_one_without_opens_the_door_as_well(store: Store, app: App) -> None:
    key, record = make(store, app)
    assert (keys.may_exist(key, PEPPER), keys.may_exist(key, "other")) == (True, False)
    plain = key[: keys.PLAIN_CHARS]
    with store.begin() as db:
        row = sa.update(api_keys).where(api_keys.c.id == record.id).values(digest=keys.digest(plain, PEPPER))
        db.execute(row)
    assert keys.may_exist(plain, PEPPER)
    assert (app_of(store, plain), app_of(store, key)) == (app, None)


def test_one_statement_finds_the_apps_of_many_keys(store: Store, app: App) -> None:
    made = [make(store, app)[0] for _ in range(3)]
    over, _ = make(store, app, timedelta(0))
    digests = [keys.digest(key, PEPPER) for key in (*made, over, "hr-unknown")]
    with store.autocommit() as db:
        assert keys.authenticate_all(db, digests) == dict.fromkeys(digests[:3], app)


def test_what_the_lookup_found_is_compared_in_constant_time(
    store: Store, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = make(store, app)
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(hmac, "compare_digest", lambda left, right: compared.append((left, right)))
    assert app_of(store, key) is None
    assert compared == [(keys.digest(key, PEPPER),) * 2]


def test_a_key_ends_with_its_lifetime(store: Store, app: App) -> None:
    over, record = make(store, app, timedelta(0))
    live, _ = make(store, app, timedelta(minutes=1))
    assert record.state is KeyState.EXPIRED
    assert (app_of(store, over), app_of(store, live)) == (None, app)


def test_a_rotated_keys_successor_works_when_the_old_one_has_ended(store: Store, app: App) -> None:
    old, record = make(store, app)
    with store.begin() as db:
        new = keys.rotate(db, record, PEPPER, keep_old_for=timedelta(seconds=-1))
    assert (app_of(store, old), app_of(store, new)) == (None, app)


def test_a_dead_key_is_neither_rotated_nor_kept_alive(store: Store, app: App) -> None:
    key, record = make(store, app)
    with store.begin() as db:
        keys.revoke(db, record)
        dead = keys.find(db, key)
        assert (dead.state, dead.revoked_at is None) == (KeyState.REVOKED, False)
        with pytest.raises(InvalidRequest):
            keys.rotate(db, dead, PEPPER, keep_old_for=timedelta(hours=1))
        with pytest.raises(InvalidRequest):
            keys.expire(db, dead, timedelta(hours=1))
        assert keys.list_keys(db, app.id) == [dead]


def test_keys_are_listed_oldest_first(store: Store, app: App) -> None:
    with store.begin() as db:
        other = apps.ensure(db, "other")
    records = [make(store, owner)[1] for owner in (app, other, app)]
    with store.begin() as db:
        assert keys.list_keys(db) == records
        assert keys.list_keys(db, app.id) == [records[0], records[2]]
