"""How lines become jobs: their order, the turns of apps, the room in the queue, and the end of a refused line."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from redis import Redis

from api.door import intake
from api.door.submit import Submitter
from headrace.broker.admission import Admission
from headrace.broker.messages import list_key
from headrace.config import LaneSettings, PoolSettings
from headrace.config.rules import RuleSettings
from headrace.domain.apps import App, Changes
from headrace.domain.jobs import JobSpec
from headrace.domain.queues import KEY_PREFIX, Candidate, Lane
from headrace.errors import BrokerUnavailable, ConfigError, InvalidRequest, StoreUnavailable
from headrace.store import Store, apps
from plugins.batches import store as batches
from plugins.batches.domain import LineState
from plugins.batches.running.feeding import APP_BYTES, AT_ONCE, TURN, draft_of, note
from plugins.batches.running.runner import Runner
from plugins.batches.settings import BatchSettings, FileSettings
from plugins.batches.tests.integration.web.running.conftest import CHAT, MODEL, Desk, line, lines, look
from tests.waiting import until
from tests.web import ApiClient, Web

QUEUE = "chat.batch"
DEPTH = 20

Begin = Callable[..., UUID]


@pytest.fixture
def small(build_web: Callable[..., Web], folder: Any) -> Web:
    """An API whose lane `batch` takes few jobs, half of them from batches."""
    lanes = {Lane.BATCH: LaneSettings(depth_cap=DEPTH)}
    return build_web(batches=BatchSettings(files=FileSettings(store=str(folder)), queue_share=0.5), lanes=lanes)


def set_limits(store: Store, app: App, **changes: Any) -> None:
    with store.begin() as db:
        apps.set_limits(db, app.name, Changes(**changes))


def age_submits(query: Any) -> None:
    """As if all lines had been submitted before `LOST_AFTER`."""
    query("UPDATE batch_lines SET submitted_at = submitted_at - interval '11 s'")


def test_each_line_becomes_a_job_that_names_batch_and_line(desk: Desk, runner: Runner, begun: Begin) -> None:
    batch_id = begun(lines(3), window="2h")
    assert runner.feed() == 3
    rows, made = desk.lines(batch_id), desk.jobs(batch_id)
    assert {row.job_id: (row.custom_id, row.state) for row in rows} == {
        job.id: (job.custom_id, "submitted") for job in made
    }
    assert {(job.lane, job.queue, job.state, job.overflow) for job in made} == {("batch", QUEUE, "queued", "never")}
    for job in made:
        assert timedelta(hours=1, minutes=59) < job.start_by - job.created_at <= timedelta(hours=2)
    assert runner.feed() == 0, "each once"


def test_lines_that_begin_alike_run_together_and_the_shorter_ones_first(
    desk: Desk, runner: Runner, begun: Begin
) -> None:
    system = [{"role": "system", "content": each} for each in ("Translate.", "Judge.")]
    user = [{"role": "user", "content": "x" * size} for size in (40, 5, 20)]
    asked = [
        line(f"{first['content'][0]}{len(then['content'])}", messages=[first, then])
        for then in user
        for first in system
    ]
    batch_id = begun(asked)
    runner.feed()
    assert [job.custom_id for job in desk.jobs(batch_id)] == ["J5", "J20", "J40", "T5", "T20", "T40"]


def test_apps_have_turns_and_their_batches_within_these(
    desk: Desk, runner: Runner, begun: Begin, client_of: Callable[..., ApiClient], make_key: Callable[[str], str]
) -> None:
    mine = [begun(lines(2 * AT_ONCE)) for _ in range(3)]
    other = Desk(client_of(make_key("other")), desk.store).submit(lines(2 * AT_ONCE))
    look(runner, runner.read)
    runner.lease()

    fed = Counter[UUID]()
    for _ in range(3):
        assert runner._feeder.feed(runner._in(*batches.BatchState)) == AT_ONCE
    for job in desk.jobs(*mine, other):
        fed[job.batch_id] += 1
    assert fed == {**dict.fromkeys(mine, 2 * TURN), other: 6 * TURN}


def test_batches_fill_their_share_of_the_lane_and_no_more(
    desk: Desk, begun: Begin, make_runner: Callable[..., Runner], small: Web, answer: Any, admission: Admission
) -> None:
    batch_id, runner = begun(lines(DEPTH)), make_runner(small)
    own_lease_ends(desk)
    assert look(runner, runner.feed) == DEPTH // 2
    assert runner.feed() == 0
    answer(batch_id, desk.jobs(batch_id)[0].custom_id)
    assert runner.feed() == 1
    assert admission.loads([QUEUE])[QUEUE].jobs == DEPTH // 2


def own_lease_ends(desk: Desk) -> None:
    with desk.store.begin() as db:
        db.exec_driver_sql("UPDATE batches SET lease_until = now() - interval '1 s'")


def test_single_jobs_that_fill_the_lane_leave_no_room(
    desk: Desk, begun: Begin, make_runner: Callable[..., Runner], small: Web, key: str
) -> None:
    begun(lines(3))
    client = ApiClient(small, key)
    for _ in range(DEPTH):
        assert client.post("/v1/jobs", json={"prompt": "x", "lane": "batch"}).status_code == 202
    runner = make_runner(small)
    own_lease_ends(desk)
    assert look(runner, runner.feed) == 0


def test_a_line_that_finds_no_room_waits_and_counts_as_no_refusal(
    desk: Desk, web: Web, store: Store, runner: Runner, begun: Begin, app: App, redis: Redis, query: Any
) -> None:
    set_limits(store, app, queued_jobs=4)
    batch_id = begun(lines(5))
    assert runner.feed() == 2, "half of what its app may have waiting"
    states = Counter(row.state for row in desk.lines(batch_id))
    assert states == {"submitted": 2, "waiting": 3}
    kept = {row.job_id for row in desk.lines(batch_id)}
    assert None not in kept
    assert runner.feed() == 0
    web.deps.submitter.refusals.counts.flush()
    assert query("SELECT count(*) FROM refusals") == [(0,)]
    assert not redis.keys(f"{KEY_PREFIX}knocks*")

    set_limits(store, app, queued_jobs=None)
    runner._feeder._resting.clear()
    assert runner.feed() == 3
    assert {job.id for job in desk.jobs(batch_id)} == kept, "under the ids that they were given first"


def test_an_apps_rates_do_not_bound_its_lines_nor_are_used_by_them(
    desk: Desk, client: ApiClient, store: Store, runner: Runner, begun: Begin, app: App
) -> None:
    set_limits(store, app, requests_per_minute=1, tokens_per_minute=100)
    begun(lines(3))
    assert runner.feed() == 3
    assert client.post("/v1/jobs", json={"prompt": "x", "max_tokens": 8}).status_code == 202


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"messages": []}, 400, "invalid_value"),
        ({"temperature": 9}, 400, "invalid_value"),
        ({"unheard_of": 1}, 400, "unknown_parameter"),
        ({"max_tokens": 1_000_000}, 400, "context_length_exceeded"),
        ({"stream": True}, 400, "invalid_value"),
        ({"job": {"webhook": "http://localhost/"}}, 400, "webhook_url_not_allowed"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_line_whose_request_is_refused_ends_with_the_answer_of_its_single_call(
    desk: Desk, client: ApiClient, runner: Runner, begun: Begin, change: dict[str, Any], status: int, code: str
) -> None:
    bad = line("bad", **change)
    batch_id = begun([line("good"), bad])
    assert runner.feed() == 1
    [row] = [row for row in desk.lines(batch_id) if row.custom_id == "bad"]
    assert (row.state, row.status_code, row.job_id) == ("failed", status, None)
    assert code in row.refusal
    if "stream" not in change:
        assert client.post(CHAT, json=bad["body"]).get_data(as_text=True).strip() == row.refusal
    assert desk.read(batch_id)["request_counts"] == {"total": 2, "completed": 0, "failed": 1}


def test_a_model_that_is_gone_by_then_is_not_found(desk: Desk, runner: Runner, begun: Begin, query: Any) -> None:
    batch_id = begun(lines(1))
    query("UPDATE batch_lines SET body = replace(body, :model, 'gone')", model=MODEL)
    assert runner.feed() == 0
    [row] = desk.lines(batch_id)
    assert (row.state, row.status_code) == ("failed", 404)
    assert "model_not_found" in row.refusal


@pytest.mark.parametrize("overflow", ["never", "allow"])
def test_only_the_batch_says_whether_a_paid_api_may_answer(
    desk: Desk, runner: Runner, begun: Begin, overflow: str
) -> None:
    job = {"overflow": "only", "lane": "high", "max_wait": 5}
    batch_id = begun([line("a", job=job)], job={"overflow": overflow})
    assert runner.feed() == 1, desk.lines(batch_id)
    [made] = desk.jobs(batch_id)
    assert (made.overflow, made.lane) == (overflow, "batch")
    assert made.start_by - made.created_at > timedelta(hours=23)


def test_no_line_runs_before_its_batch_may(desk: Desk, runner: Runner, begun: Begin, query: Any) -> None:
    begins = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0)
    batch_id = begun(lines(2), job={"not_before": begins.isoformat()})
    assert desk.read(batch_id)["expires_at"] == begins.timestamp() + 86_400
    assert runner.feed() == 0
    query("UPDATE batches SET not_before = now() - interval '1 s', expires_at = now() + interval '1 h'")
    assert look(runner, runner.feed) == 2


def test_a_model_whose_tokenizer_cannot_be_loaded_holds_up_no_other_batch(
    desk: Desk, build_web: Callable[..., Web], folder: Any, make_runner: Callable[..., Runner]
) -> None:
    pools = {name: PoolSettings(model=name, engine="simulator") for name in ("chat", "more")}
    web = build_web(batches=BatchSettings(files=FileSettings(store=str(folder))), pools=pools)
    runner = make_runner(web)
    stuck, good = (desk.submit([line("a", model=name)]) for name in pools)
    look(runner, runner.read, runner.lease, runner.read)

    def fail() -> Any:
        raise ConfigError("The hub does not answer.")

    web.deps.catalogue._models.clear()
    web.deps.catalogue._tokenizers["chat"].get = fail  # type: ignore[method-assign]
    assert look(runner, runner.feed) == 1
    assert [row.state for row in desk.lines(stuck)] == ["submitted"], "it is tried again"
    assert [job.queue for job in desk.jobs(good)] == ["more.batch"]


def test_lines_whose_pool_a_rule_chooses_go_where_room_is(
    desk: Desk, build_web: Callable[..., Web], folder: Any, make_runner: Callable[..., Runner], key: str
) -> None:
    web = build_web(
        batches=BatchSettings(files=FileSettings(store=str(folder))),
        pools={name: PoolSettings(model=name, engine="simulator") for name in ("chat", "more")},
        rules={"all": RuleSettings(pools=("chat", "more"))},
        lanes={Lane.BATCH: LaneSettings(depth_cap=DEPTH)},
    )
    for _ in range(DEPTH // 2):
        assert ApiClient(web, key).post("/v1/jobs", json={"prompt": "x", "lane": "batch"}).status_code == 202
    runner = make_runner(web)
    batch_id = desk.submit([line(str(number), f"Question {number}", model="auto") for number in range(2 * DEPTH)])
    look(runner, runner.read)
    assert look(runner, runner.feed) == DEPTH
    assert Counter(job.queue for job in desk.jobs(batch_id)) == {"chat.batch": DEPTH // 2, "more.batch": DEPTH // 2}


def test_the_room_of_lines_for_the_paid_api_is_that_of_its_queue(
    store: Store, runner: Runner, begun: Begin, app: App
) -> None:
    batch_id = begun(lines(1), job={"overflow": "only"})
    with store.begin() as db:
        batch = batches.find(db, app.id, batch_id)
    assert runner._feeder._queues(batch) == ["overflow.batch"]


def test_a_bug_in_one_line_ends_that_line_alone(
    desk: Desk, runner: Runner, begun: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = begun(lines(3))
    submit = Submitter.submit

    def fail_for_one(self: Submitter, draft: Any, *arguments: Any) -> Any:
        if {row.job_id: row.custom_id for row in desk.lines(batch_id)}[draft.job_id] == "1":
            raise KeyError("a bug")
        return submit(self, draft, *arguments)

    monkeypatch.setattr(Submitter, "submit", fail_for_one)
    assert runner.feed() == 2
    assert [(row.state, row.status_code) for row in desk.lines(batch_id)] == [
        ("submitted", None),
        ("failed", 500),
        ("submitted", None),
    ]


def test_a_runner_that_dies_before_it_submits_leaves_lines_that_are_submitted_later(
    desk: Desk, store: Store, runner: Runner, begun: Begin, query: Any
) -> None:
    batch_id = begun(lines(3))
    with store.begin() as db:
        taken = batches.take_lines(db, batch_id, 3)
    assert look(runner, runner.feed, runner.give_back_lost) == 0, "they may be on their way"
    age_submits(query)
    assert look(runner, runner.give_back_lost) == 3
    assert runner.feed() == 3
    assert {job.id for job in desk.jobs(batch_id)} == {each.job_id for each in taken}


def test_a_runner_that_dies_after_it_submitted_leaves_jobs_that_are_found(
    desk: Desk, web: Web, store: Store, runner: Runner, begun: Begin, app: App, query: Any
) -> None:
    batch_id = begun(lines(2))
    with store.begin() as db:
        batch, taken = batches.find(db, app.id, batch_id), batches.take_lines(db, batch_id, 2)
    for each in taken:
        web.deps.submitter.submit(draft_of(batch, each), app)
    age_submits(query)
    assert look(runner, runner.give_back_lost, runner.feed) == 0
    assert Counter(row.state for row in desk.lines(batch_id)) == {"submitted": 2}
    assert len(desk.jobs(batch_id)) == 2


def test_a_runner_that_dies_between_reservation_and_insert_leaves_no_place_taken(
    desk: Desk, runner: Runner, begun: Begin, admission: Admission, query: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = begun(lines(1))

    class Died(BaseException):
        """The process ends here."""

    def die(*_: object, **__: object) -> Any:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(intake, "insert_batch", die)
        patch.setattr(Admission, "give_back", lambda *_: 0)
        with pytest.raises(Died):
            runner.feed()
    assert admission.loads([QUEUE])[QUEUE].jobs == 1, "a place without a job"
    age_submits(query)
    assert look(runner, runner.give_back_lost, runner.feed) == 1
    assert admission.loads([QUEUE])[QUEUE].jobs == 1, "the same one"
    assert len(desk.jobs(batch_id)) == 1


@pytest.mark.parametrize("is_inserted", [False, True])
def test_a_postgres_that_does_not_say_whether_it_has_the_job_is_asked_later(
    desk: Desk,
    runner: Runner,
    begun: Begin,
    admission: Admission,
    query: Any,
    monkeypatch: pytest.MonkeyPatch,
    is_inserted: bool,
) -> None:
    batch_id, insert = begun(lines(2)), intake.insert_batch

    def lose(store: Store, rows: Sequence[tuple[JobSpec, Candidate]], **options: Any) -> Any:
        if is_inserted:
            insert(store, rows, **options)
        return [StoreUnavailable("gone")] * len(rows)

    with monkeypatch.context() as patch:
        patch.setattr(intake, "insert_batch", lose)
        assert runner.feed() == 0
    assert Counter(row.state for row in desk.lines(batch_id)) == {"submitted": 2}
    ids = {row.job_id for row in desk.lines(batch_id)}
    runner._feeder._resting.clear()
    age_submits(query)
    assert look(runner, runner.give_back_lost) == (0 if is_inserted else 2)
    assert runner.feed() == (0 if is_inserted else 2)
    assert {job.id for job in desk.jobs(batch_id)} == ids
    if not is_inserted:
        assert admission.loads([QUEUE])[QUEUE].jobs == 2


@pytest.mark.parametrize("is_taken_again", [False, True])
def test_a_refusal_ends_a_line_that_was_given_back_meanwhile(
    desk: Desk, web: Web, store: Store, begun: Begin, app: App, query: Any, is_taken_again: bool
) -> None:
    """It took so long to find out that it is refused. A second time would take as long."""
    batch_id = begun([line("bad", temperature=9)])
    with store.begin() as db:
        batch, [taken] = batches.find(db, app.id, batch_id), batches.take_lines(db, batch_id, 1)
    age_submits(query)
    with store.begin() as db:
        assert batches.give_back_lost(db, batch_id) == 1
        assert len(batches.take_lines(db, batch_id, 1) if is_taken_again else [taken]) == 1
    with pytest.raises(InvalidRequest) as refused:
        draft_of(batch, taken)
    assert note(web.deps, taken, refused.value)
    assert [(row.state, row.status_code) for row in desk.lines(batch_id)] == [("failed", 400)]
    assert desk.read(batch_id)["request_counts"] == {"total": 1, "completed": 0, "failed": 1}


def test_lines_that_take_long_delay_no_round_and_are_not_given_back(
    desk: Desk,
    runner: Runner,
    begun: Begin,
    query: Any,
    client_of: Callable[..., ApiClient],
    make_key: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch_id = begun([line(str(each), f"{each}" + "x" * 100_000) for each in range(40)])
    light = Desk(client_of(make_key("other")), desk.store).submit(lines(2))
    look(runner, runner.read, runner.lease)
    submit, is_free = Submitter.submit, threading.Event()

    def wait_if_heavy(self: Submitter, draft: Any, *arguments: Any) -> Any:
        if len(draft.messages[0].content) > 100_000:
            is_free.wait()
        return submit(self, draft, *arguments)

    monkeypatch.setattr(Submitter, "submit", wait_if_heavy)
    try:
        assert runner.feed() == 2
        assert {job.batch_id for job in desk.jobs(batch_id, light)} == {light}
        under_way = Counter(row.state for row in desk.lines(batch_id))["submitted"]
        assert APP_BYTES <= under_way * 100_000 < APP_BYTES + 200_000
        age_submits(query)
        assert look(runner, runner.give_back_lost, runner.feed) == 0
    finally:
        is_free.set()

    def refused() -> int:
        look(runner, runner.feed)
        return sum(row.status_code == 400 for row in desk.lines(batch_id))

    until(lambda: refused() == 40, "each line is refused")
    assert desk.read(batch_id)["request_counts"] == {"total": 40, "completed": 0, "failed": 40}


def test_a_line_that_was_given_back_too_early_makes_no_second_job(
    desk: Desk, runner: Runner, begun: Begin, admission: Admission, redis: Redis, query: Any
) -> None:
    """Its insert took longer than any should: it became visible after the line had been given back."""
    batch_id = begun(lines(2))
    assert runner.feed() == 2
    query("UPDATE batch_lines SET state = 'waiting'")
    assert look(runner, runner.feed) == 0
    assert Counter(row.state for row in desk.lines(batch_id)) == {"submitted": 2}
    assert (len(desk.jobs(batch_id)), admission.loads([QUEUE])[QUEUE].jobs, redis.llen(list_key(QUEUE))) == (2, 2, 2)


def test_a_second_submit_of_a_line_answers_with_its_job_and_leaves_its_place_in_the_books(
    desk: Desk,
    web: Web,
    runner: Runner,
    begun: Begin,
    store: Store,
    app: App,
    admission: Admission,
    redis: Redis,
    answer: Any,
) -> None:
    batch_id = begun(lines(2))
    assert runner.feed() == 2
    with store.begin() as db:
        batch = batches.find(db, app.id, batch_id)
    first = desk.lines(batch_id)[0]
    again = batches.Line(batch_id, first.number, first.custom_id, LineState.SUBMITTED, first.body, first.job_id)

    accepted = web.deps.submitter.submit(draft_of(batch, again), app)

    assert (accepted.job_id, accepted.is_replay) == (first.job_id, True)
    assert (len(desk.jobs(batch_id)), admission.loads([QUEUE])[QUEUE].jobs, redis.llen(list_key(QUEUE))) == (2, 2, 2)
    answer(batch_id, "0")
    assert web.deps.submitter.submit(draft_of(batch, again), app).state == "succeeded"
    assert admission.loads([QUEUE])[QUEUE].jobs == 1


def test_redis_that_is_away_stops_the_feeder_until_it_is_back(
    desk: Desk, runner: Runner, begun: Begin, replica_for_a_while: Any, query: Any
) -> None:
    batch_id = begun(lines(2))
    with replica_for_a_while():
        assert runner.feed() == 0
    assert desk.jobs(batch_id) == []
    runner._feeder._resting.clear()
    age_submits(query)
    look(runner, runner.give_back_lost)
    assert runner.feed() == 2


def test_a_loads_call_that_fails_takes_no_line(
    desk: Desk, runner: Runner, begun: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = begun(lines(2))

    def fail(*_: object) -> Any:
        raise BrokerUnavailable("gone")

    monkeypatch.setattr(Admission, "loads", fail)
    with pytest.raises(BrokerUnavailable):
        runner.feed()
    assert {row.state for row in desk.lines(batch_id)} == {"waiting"}
