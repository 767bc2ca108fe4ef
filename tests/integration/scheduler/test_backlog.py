"""Sweeps over a long backlog: their cost follows the work that is due, not the jobs that wait."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from redis import Redis

from headrace import connections
from headrace.broker.admission import Admission
from headrace.broker.messages import list_key
from headrace.broker.transport import LaneCycle
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id, oldest_id
from headrace.domain.queues import KEY_PREFIX, OVERFLOW, Lane, Ticket, books_key
from headrace.store import Store, jobs
from headrace.store.fleet.workers import register
from headrace.store.jobs import queued as queued_jobs
from scheduler import sweep
from scheduler.deps import ControlDeps
from scheduler.observe import observe
from scheduler.rescue import Patience, rescue
from scheduler.spill import spill
from tests.integration.months_of_jobs import id_at
from workers.engines.base import EngineLimits
from workers.taking.kv_budget import KvBudget
from workers.taking.taker import KvTaker

QUEUE = "chat.normal"
LONG = timedelta(seconds=10)

Queued = Callable[..., Ticket]


@pytest.fixture
def backlog(queued: Queued, age: Any, query: Any) -> Callable[[int], None]:
    """Puts this number of jobs into `jobs`, accepted long ago, none of them due."""
    ticket = queued(id=id_at(datetime.now(UTC) - timedelta(hours=1)), max_wait_s=7200.0)
    age(ticket.job_id, timedelta(hours=1))
    columns = [each.name for each in jobs.jobs.columns if each.name not in ("id", "queued_at")]

    def put(number: int) -> None:
        same = ", ".join(columns)
        query(
            f"INSERT INTO jobs (id, queued_at, {same})"
            " SELECT (left(replace(id::text, '-', ''), 12) || left(md5(i::text), 20))::uuid,"
            f" queued_at - make_interval(secs => i), {same}"
            " FROM jobs, generate_series(2, :number) i WHERE id = :id",
            number=number,
            id=ticket.job_id,
        )
        query("ANALYZE jobs")

    return put


@pytest.fixture
def in_hand(redis: Redis) -> Callable[[], KvTaker]:
    """A worker's taker with room for every job."""

    class Silent:
        def progress(self) -> dict[str, Any]:
            return {}

    taker = KvTaker(redis, "chat")
    budget = KvBudget(Silent(), "expected", 0.0, freed=taker.look)  # type: ignore[arg-type]
    budget.open(EngineLimits(None, max_running=100, kv_tokens=16_000, kv_block_tokens=16))
    taker.open(budget, lambda: True, lambda: 8)
    return lambda: taker


def turns() -> LaneCycle:
    cycle = LaneCycle(dict.fromkeys(Lane, 1))
    cycle.update([QUEUE])
    return cycle


@contextmanager
def statements(engine: sa.Engine) -> Iterator[list[tuple[str, Any]]]:
    """Every statement that the engine carries out, with its parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_db: Any, _cursor: Any, sql: str, values: Any, _context: Any, _many: bool) -> None:
        seen.append((sql, values))

    sa.event.listen(engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(engine, "before_cursor_execute", note)


def test_no_sweep_reads_the_table_of_jobs_whole(
    deps: ControlDeps, backlog: Callable[[int], None], query: Any, engine: sa.Engine, admission: Admission
) -> None:
    backlog(20_000)
    [(month,)] = query("SELECT DISTINCT tableoid::regclass::text FROM jobs")
    overflow = WorkerInfo(new_id(), "overflow@test", "host", OVERFLOW, "openai", "gpt-4o-mini", max_running=32)
    with deps.store.begin() as db:
        register(db, overflow, 60)
    paid = deps.settings.model_copy(update={"openai_api_key": "key"})
    sweep.publish_due(deps)
    with statements(engine) as seen:
        for work in (sweep.publish_due, sweep.expire, sweep.reconcile_admission, observe):
            work(deps)
        rescue(deps, Patience(0))
        spill(ControlDeps(paid, deps.store, admission, deps.pace))
    read = [(sql, values) for sql, values in seen if "jobs" in sql]
    assert len(read) > 10
    with engine.connect() as db:
        for sql, values in read:
            plan = "\n".join(row[0] for row in db.exec_driver_sql(f"EXPLAIN {sql}", values))
            # Of the month that has them; an empty month is read whole at no cost.
            assert f"Seq Scan on {month}" not in plan, f"{sql}\n{plan}"


def rows_read(plan: dict[str, Any]) -> int:
    """Rows of the tables of jobs that a plan has read, also those that its filters have dropped."""
    read = sum(rows_read(each) for each in plan.get("Plans", []))
    if plan.get("Relation Name", "").startswith("jobs_"):
        read += (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return int(read)


def test_an_observation_counts_by_what_is_new_however_much_waits_or_came_a_minute_before(
    deps: ControlDeps, backlog: Callable[[int], None], queued: Queued, query: Any, engine: sa.Engine
) -> None:
    backlog(20_000)
    a_minute_ago = oldest_id(datetime.now(UTC) - timedelta(minutes=1)).hex[:12]
    without_texts = "NOT EXISTS (SELECT FROM job_texts WHERE job_id = id)"
    query(f"UPDATE jobs SET id = (:of || right(md5(id::text), 20))::uuid WHERE {without_texts}", of=a_minute_ago)
    query(
        "INSERT INTO ledger (at, kind, job_id, usd) SELECT now() - interval '1 minute', 'waste', id, 0 FROM jobs"
        " ORDER BY id"
    )
    query("ANALYZE jobs, ledger")
    queued()
    with statements(engine) as seen:
        observe(deps)
    counting = [each for each in seen if "FROM jobs" in each[0] or "FROM ledger" in each[0]]
    for of_one in ("created_at >", "started_at >", "overflow_at >", "ledger.at >", "ledger.at <=", "AS running"):
        assert any(of_one in sql for sql, _ in counting), of_one
    with engine.connect() as db:
        for sql, values in counting:
            [plan] = db.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", values).scalar_one()
            assert rows_read(plan["Plan"]) <= 50, (sql, plan)


def test_publish_due_looks_at_each_waiting_job_once_and_through_no_list(
    deps: ControlDeps, backlog: Callable[[int], None], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    backlog(2_500)
    asked: list[int] = []
    unknown = deps.admission.unknown

    def noted(queue: str, tickets: list[Ticket]) -> list[Ticket]:
        asked.append(len(tickets))
        return unknown(queue, tickets)

    monkeypatch.setattr(deps.admission, "unknown", noted)
    assert sweep.publish_due(deps) == 2_500
    assert asked == [1000, 1000, 500]
    redis.config_resetstat()
    assert [sweep.publish_due(deps) for _ in range(3)] == [0] * 3
    assert asked == [1000, 1000, 500]
    assert not {"cmdstat_lrange", "cmdstat_lrem", "cmdstat_hget"} & redis.info("commandstats").keys()


def test_a_rebuild_goes_on_where_the_last_sweep_stopped(
    deps: ControlDeps, backlog: Callable[[int], None], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queued_jobs, "PAGE_ROWS", 10)
    monkeypatch.setattr(sweep, "MOST_PAGES", 3)
    backlog(45)
    assert [sweep.publish_due(deps) for _ in range(3)] == [30, 15, 0]
    redis.flushall()
    assert [sweep.publish_due(deps) for _ in range(3)] == [30, 15, 0]
    assert redis.llen(list_key(QUEUE)) == 45


def test_a_job_whose_worker_took_it_and_died_before_its_claim_gets_its_message_again(
    deps: ControlDeps, queued: Queued, admission: Admission, in_hand: Any, in_list: Any, redis: Redis, query: Any
) -> None:
    ticket, other = queued(), queued()
    admission.commit([ticket, other])
    query("UPDATE jobs SET queued_at = now() - interval '10 s'")
    assert sweep.publish_due(deps) == 0
    assert len(in_hand().take(turns(), 1, 1)) == 1
    assert sweep.publish_due(deps) == 0, "its worker may yet claim it"
    redis.zadd(books_key("taken", QUEUE), {f"{ticket.job_id.hex} 1": 1}, xx=True)
    assert sweep.publish_due(deps) == 1
    assert in_list(QUEUE) == [(ticket.job_id, 2), (other.job_id, 1)]
    assert admission.loads([QUEUE])[QUEUE].jobs == 2


def test_a_job_that_was_taken_and_claimed_though_the_door_did_not_hear_of_it_leaves_the_books(
    deps: ControlDeps, queued: Queued, admission: Admission, in_hand: Any, claim: Any, redis: Redis
) -> None:
    ticket = queued()
    admission.commit([ticket])
    assert len(in_hand().take(turns(), 1, 1)) == 1
    assert claim(ticket.job_id, 1)
    redis.zadd(books_key("taken", QUEUE), {f"{ticket.job_id.hex} 1": 1}, xx=True)
    assert sweep.publish_due(deps) == 0
    assert admission.loads([QUEUE])[QUEUE].jobs == 0
    assert set(redis.keys()) <= {KEY_PREFIX + "departed", KEY_PREFIX + "bell:chat"}


def test_a_list_that_was_emptied_by_hand_is_filled_again(
    deps: ControlDeps, queued: Queued, admission: Admission, in_list: Any, redis: Redis, query: Any
) -> None:
    tickets = [queued() for _ in range(5)]
    admission.commit(tickets)
    query("UPDATE jobs SET queued_at = now() - interval '10 s'")
    assert sweep.publish_due(deps) == 0
    redis.lpop(list_key(QUEUE), 3)
    sweep.publish_due(deps)
    sweep.publish_due(deps)
    assert in_list(QUEUE) == [(ticket.job_id, 1) for ticket in tickets[:2]] + [(each.job_id, 2) for each in tickets[2:]]
    redis.delete(list_key(QUEUE))
    sweep.publish_due(deps)
    sweep.publish_due(deps)
    assert sorted(job_id for job_id, _ in in_list(QUEUE)) == sorted(each.job_id for each in tickets)


def test_a_job_whose_transaction_ends_late_is_not_passed_over(
    deps: ControlDeps, queued: Queued, age: Any, in_list: Any, query: Any
) -> None:
    """It is dated by the beginning of its transaction, which is before what was checked meanwhile."""
    late, other = queued(), queued()
    query("UPDATE jobs SET state = 'waiting', not_before = now() + interval '1 hour' WHERE id = :id", id=late.job_id)
    engine = connections.postgres(deps.settings)
    with Store(engine).begin() as db:
        # Begun long ago, as Postgres sees it.
        db.execute(sa.text("UPDATE jobs SET state = 'queued', queued_at = now() WHERE id = :id"), {"id": late.job_id})
        age(other.job_id, timedelta(seconds=-1))
        settings = deps.settings.model_copy(update={"publish_grace_s": 1e-6})
        eager = ControlDeps(settings, deps.store, deps.admission, deps.pace)
        query("UPDATE jobs SET queued_at = clock_timestamp() WHERE id = :id", id=other.job_id)
        assert sweep.publish_due(eager) == 0
    engine.dispose()
    assert sweep.publish_due(eager) == 2
    assert in_list(QUEUE) == [(late.job_id, 2), (other.job_id, 2)]


def test_what_was_checked_before_redis_was_wiped_is_checked_again(
    deps: ControlDeps, queued: Queued, age: Any, admission: Admission, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = queued()
    age(ticket.job_id, LONG)
    assert sweep.publish_due(deps) == 1
    second = queued()
    age(second.job_id, LONG / 2)
    check = admission.check

    def wiped_before(queue: str, before: str, now: str) -> bool:
        redis.flushall()
        return check(queue, before, now)

    with monkeypatch.context() as patch:
        patch.setattr(admission, "check", wiped_before)
        sweep.publish_due(deps)
    assert sweep.publish_due(deps) == 2
    assert redis.llen(list_key(QUEUE)) == 2


@pytest.mark.parametrize(("timeline", "is_found"), [("its own", False), ("another", True)])
def test_a_job_whose_claim_postgres_lost_gets_its_message_again_on_another_timeline(
    deps: ControlDeps, queued: Queued, age: Any, admission: Admission, redis: Redis, *, timeline: str, is_found: bool
) -> None:
    """Its worker took the message, and the books have forgotten it. On the same timeline that cannot be."""
    ticket = queued()
    age(ticket.job_id, LONG)
    assert sweep.publish_due(deps) == 1
    redis.delete(list_key(QUEUE))
    admission.leave([(ticket.job_id, 2)])
    mark = admission.look([QUEUE], 0)[QUEUE].mark
    own, _, position = mark.partition(" ")
    admission.check(QUEUE, mark, f"{own if timeline == 'its own' else f'{own}0'} {position}")
    assert [sweep.publish_due(deps) for _ in range(2)] == [int(is_found), 0]
    assert redis.llen(list_key(QUEUE)) == int(is_found)


def test_expire_ends_more_due_jobs_than_one_statement_can_name(
    deps: ControlDeps, backlog: Callable[[int], None], query: Any
) -> None:
    backlog(66_000)
    query("UPDATE jobs SET start_by = now() - make_interval(secs => extract(epoch FROM now() - queued_at)::int)")
    total = runs = 0
    while ended := sweep.expire(deps):
        assert ended <= jobs.SWEEP_ROWS
        total, runs = total + ended, runs + 1
        if runs == 1:
            oldest = "SELECT min(start_by) FILTER (WHERE state = 'queued') > max(start_by) FILTER"
            assert query(f"{oldest} (WHERE state = 'expired') FROM jobs") == [(True,)], "the first late goes first"
    assert total == 66_000


def test_a_way_through_long_books_is_gone_on_with_by_the_next_sweep(
    deps: ControlDeps, queued: Queued, admission: Admission, query: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.broker.upkeep.PART", 10)
    monkeypatch.setattr(sweep, "RECONCILE_PARTS", 1)
    # More than Redis keeps in one piece.
    admission.commit([queued() for _ in range(600)])
    query("UPDATE jobs SET state = 'cancelled', ended_at = now()")
    freed = [sweep.reconcile_admission(deps) for _ in range(3)]
    assert all(0 < each < 100 for each in freed)


def test_a_message_deep_in_a_long_list_costs_its_jobs_end_no_look_through_the_list(
    deps: ControlDeps, admission: Admission, queued: Queued, redis: Redis
) -> None:
    first = queued()
    others = [Ticket(new_id(), first.app_id, QUEUE, first.lane, 8, 16, first.start_by) for _ in range(2500)]
    admission.commit([first, *others])
    assert admission.remove([first, others[-1]]) == 2
    assert admission.remove([others[1250]]) == 0
    assert admission.loads([QUEUE])[QUEUE].jobs == 2498
    assert redis.llen(list_key(QUEUE)) == 2499
