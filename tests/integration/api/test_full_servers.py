"""Servers that are full: Postgres refuses what it cannot keep, and the caller is told; Redis takes what caps bound."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
import sqlalchemy as sa
from redis import Redis
from redis.exceptions import OutOfMemoryError

from headrace.broker.admission import Admission
from headrace.broker.messages import named_in
from headrace.domain.ids import parse_id
from headrace.store import Store
from headrace.tables import jobs
from tests.web import ApiClient

JOB = {"prompt": "Why?"}
QUEUE = "chat.normal"
#: Each insert of a job meets what Postgres answers when its disk has no room.
NO_ROOM = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
    CREATE TRIGGER full_disk BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION refuse()
"""


@contextmanager
def postgres_is_full(store: Store) -> Iterator[None]:
    with store.begin() as db:
        db.execute(sa.text(NO_ROOM))
    yield
    with store.begin() as db:
        db.execute(sa.text("DROP FUNCTION refuse CASCADE"))


@contextmanager
def redis_is_full(redis: Redis) -> Iterator[None]:
    before = redis.config_get("maxmemory")["maxmemory"]
    redis.config_set("maxmemory", "1")
    try:
        yield
    finally:
        redis.config_set("maxmemory", before)


def in_list(admission: Admission) -> list[UUID]:
    return [named[0] for message in admission.messages(QUEUE, 10) if (named := named_in(message))]


def test_a_full_postgres_refuses_for_now_and_leaves_nothing_behind(
    client: ApiClient, store: Store, admission: Admission
) -> None:
    same = {"Idempotency-Key": "one"}
    with postgres_is_full(store):
        refused = client.post("/v1/jobs", json=JOB, headers=same)
        assert (refused.status_code, refused.get_json()["error"]["code"]) == (503, "store_unavailable")
        assert int(refused.headers["Retry-After"]) > 0
        assert admission.loads([QUEUE])[QUEUE].jobs == 0
    accepted = client.post("/v1/jobs", json=JOB, headers=same)

    assert accepted.status_code == 202
    assert in_list(admission) == [parse_id(accepted.get_json()["id"])]
    with store.begin() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(jobs)) == 1


def test_a_full_redis_still_has_places_which_the_caps_bound(
    client: ApiClient, admission: Admission, redis: Redis
) -> None:
    with redis_is_full(redis):
        with pytest.raises(OutOfMemoryError):
            redis.set("anything", "else")
        accepted = client.post("/v1/jobs", json=JOB)
        assert client.get(f"/v1/jobs/{accepted.get_json()['id']}").status_code == 200

    assert accepted.status_code == 202
    assert in_list(admission) == [parse_id(accepted.get_json()["id"])]
