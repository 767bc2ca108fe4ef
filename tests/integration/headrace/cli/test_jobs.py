"""`headrace jobs` and `headrace retry`: what an operator sees of jobs, and what failed ones are run again as."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from click.testing import Result

from headrace import installed
from headrace.domain.answers import Choice
from headrace.domain.apps import App
from headrace.domain.attempts import AttemptEnd, Usage
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import ID_PREFIXES, new_id, oldest_id, parse_id, show_id
from headrace.domain.limits import Cost
from headrace.domain.queues import Lane, Ticket
from headrace.domain.states import SUSPECT, JobState
from headrace.hooks import Plugin
from headrace.store import Store, apps, attempts
from headrace.store import jobs as job_store
from headrace.store.audit import this_user
from headrace.store.fleet import workers
from headrace.store.jobs import overview
from headrace.tables import deliveries, job_texts, jobs
from tests import one_attempt
from tests.integration.months_of_jobs import with_whole_indexes

Run = Callable[..., Result]
Failed = Callable[..., str]


@pytest.fixture
def failed(store: Store, queued: Callable[..., Ticket]) -> Failed:
    """Makes a job that has failed, and returns its id."""

    def make(code: str = "engine_crash", attempt: int = 2, **changes: Any) -> str:
        job_id = queued(**changes).job_id
        values = {"state": "failed", "attempt": attempt, "error_code": code, "error_message": "It died.", "usd": 0}
        with store.begin() as db:
            ended = sa.update(jobs).where(jobs.c.id == job_id).values(ended_at=sa.func.now(), **values)
            db.execute(ended)
        return show_id(job_id)

    return make


def cells(result: Result) -> list[list[str]]:
    """A table's rows, without its heading."""
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()[1:]]


def ids(result: Result) -> list[str]:
    return [row[0] for row in cells(result)]


def new_ids(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [line.split(" is retried as ")[1] for line in result.stdout.splitlines()]


def test_failed_jobs_are_listed_newest_first_with_why_and_when(
    run: Run, failed: Failed, queued: Callable[..., Ticket]
) -> None:
    first, second = failed(), failed("worker_lost", attempt=3)
    queued()

    listed = cells(run("jobs", "--dead"))

    assert [row[:4] for row in listed] == [[second, "test", "worker_lost", "3"], [first, "test", "engine_crash", "2"]]
    [told, _] = json.loads(run("jobs", "--dead", "--json").stdout)
    assert told["error"] == {"code": "worker_lost", "message": "It died."}
    assert (told["id"], told["app"], told["status"], told["attempts"]) == (second, "test", "failed", 3)
    assert "T".join(listed[0][4:]) in told["ended_at"]


def test_the_jobs_of_which_a_plugin_has_noted_something_are_listed(
    run: Run, failed: Failed, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "tried"
    monkeypatch.setattr(installed, "plugins", lambda: (Plugin(name=name),))
    first = failed(notes={name: "one"})
    second = show_id(queued(notes={name: "one"}).job_id)
    failed(notes={name: "two"})
    failed()
    assert ids(run("jobs", "--note", f"{name}=one")) == [second, first]
    assert ids(run("jobs", "--note", f"{name}=one", "--state", "failed")) == [first]
    wrong = run("jobs", "--note", "missing=one")
    assert (wrong.exit_code, "'missing=one' is not PLUGIN=TEXT; the plugins:" in wrong.stderr) == (2, True)


def test_a_list_fits_a_terminal_of_80_columns_with_the_id_whole(run: Run, failed: Failed) -> None:
    job = failed("deadline_exceeded")
    shown = run("jobs", "--dead", COLUMNS="80").stdout
    assert job in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_no_name_is_cut_however_narrow_it_is(run: Run, failed: Failed, query: Callable[..., Any]) -> None:
    failed("deadline_exceeded")
    query("UPDATE apps SET name = 'development-of-the-shop'")
    assert "development-of-the-shop deadline_exceeded" in run("jobs", COLUMNS="40").stdout


def test_all_jobs_are_listed_with_where_they_stand(run: Run, failed: Failed, queued: Callable[..., Ticket]) -> None:
    dead, waiting = failed(), show_id(queued().job_id)
    listed = cells(run("jobs"))
    assert listed[0] == [waiting, "test", "queued", "0", "-"]
    assert listed[1][:3] == [dead, "test", "engine_crash"]


def test_a_list_is_of_one_app_and_no_longer_than_asked_and_says_that_there_is_more(
    run: Run, store: Store, failed: Failed
) -> None:
    with store.begin() as db:
        other = apps.create(db, "[red]other", {})
    mine, theirs = failed(), failed(app_id=other.id)

    assert [row[:2] for row in cells(run("jobs", "--dead", "--app", "[red]other"))] == [[theirs, "[red]other"]]
    newest = run("jobs", "--dead", "--limit", "1")
    assert ids(newest) == [theirs]
    assert "There may be more" in newest.stderr
    assert ids(run("jobs", "--dead")) == [theirs, mine]
    assert "There may be more" not in run("jobs", "--dead").stderr


def test_where_there_is_nothing_a_list_says_so(run: Run, app: App) -> None:
    assert run("jobs").stdout == "There are no jobs.\n"
    assert run("jobs", "--dead").stdout == "No job has failed that was not retried.\n"
    assert run("jobs", "--dead", "--json").stdout == "[]\n"


def test_a_failed_job_is_retried_as_a_new_one_and_leaves_the_list(run: Run, failed: Failed) -> None:
    first, second = failed(), failed()

    result = run("retry", first, second, first)

    news = new_ids(result)
    assert result.stdout.splitlines() == [f"{first} is retried as {news[0]}", f"{second} is retried as {news[1]}"]
    assert ids(run("jobs", "--dead")) == []
    listed = {job["id"]: job for job in json.loads(run("jobs", "--json").stdout)}
    assert [(listed[new]["status"], listed[new]["retry_of"]) for new in news] == [
        ("queued", first),
        ("queued", second),
    ]
    assert listed[first]["status"] == "failed"


def test_what_failed_again_can_be_retried_again(run: Run, store: Store, failed: Failed) -> None:
    [again] = new_ids(run("retry", failed()))
    with store.begin() as db:
        db.execute(sa.update(jobs).where(jobs.c.id == parse_id(again)).values(state="failed", ended_at=sa.func.now()))

    assert ids(run("jobs", "--dead")) == [again]
    assert len(new_ids(run("retry", again))) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("state = 'queued', ended_at = NULL", "is queued: it has not failed, and may yet succeed."),
        ("state = 'succeeded'", "has succeeded: only one that has failed can be retried."),
        ("state = 'cancelled'", "has been cancelled: only one that has failed can be retried."),
        ("retry_of = NULL; DELETE FROM job_texts", "was deleted: its prompt is gone."),
    ],
)
def test_what_cannot_be_retried_is_named_and_nothing_else_is(
    run: Run, store: Store, failed: Failed, change: str, message: str
) -> None:
    wrong = failed()
    with store.begin() as db:
        db.execute(sa.text(f"UPDATE jobs SET {change}"))
    good = failed()

    result = run("retry", good, wrong)

    assert result.exit_code == 1
    assert result.stderr == f"Error: Job '{wrong}' {message}\n"
    assert good in ids(run("jobs", "--dead"))


def poison(store: Store, *job_ids: str) -> None:
    """Make these look as if each had killed an engine in which it ran alone."""
    with store.begin() as db:
        these = jobs.c.id.in_([parse_id(job_id) for job_id in job_ids])
        db.execute(sa.update(jobs).where(these).values(suspicion=SUSPECT))


def test_poison_prompts_are_retried_only_when_that_is_forced(run: Run, store: Store, failed: Failed) -> None:
    first, innocent, second = failed(), failed("worker_lost"), failed()
    poison(store, first, second)

    refused = run("retry", first, innocent, second)

    assert refused.exit_code == 1
    assert f"'headrace retry --force' runs them all the same: {first}, {second}." in refused.stderr
    assert ids(run("jobs", "--dead")) == [second, innocent, first]
    assert len(new_ids(run("retry", "--force", first, innocent, second))) == 3


def test_a_suspicion_is_said_in_words(run: Run, store: Store, failed: Failed, queued: Callable[..., Ticket]) -> None:
    dead, waits = failed(), show_id(queued().job_id)
    assert told(run, dead)["suspicion_means"] is None
    poison(store, dead, waits)
    [again] = new_ids(run("retry", "--force", dead))

    assert "A poison prompt: its engine died also while it ran alone." in run("jobs", "show", dead).stdout
    assert told(run, waits)["suspicion_means"] == (
        "An engine died under it before its first token, or a second time, so it runs alone. "
        "If an engine dies again, it fails."
    )
    assert told(run, again)["suspicion_means"].startswith("An engine died under an earlier try of it")
    with store.begin() as db:
        db.execute(sa.update(jobs).where(jobs.c.id == parse_id(waits)).values(suspicion=1))
    assert told(run, waits)["suspicion_means"].endswith("after its first token. If one dies again, it runs alone.")


def test_both_jobs_of_a_retry_say_who_retried(run: Run, failed: Failed) -> None:
    old, unrelated = failed("worker_lost"), failed("worker_lost")
    [new] = new_ids(run("retry", old))
    run("retry", unrelated)

    for job_id in (old, new):
        [deed] = [each for each in told(run, job_id)["timeline"] if each["event"].startswith("operator_")]
        assert deed["event"] == "operator_retried"
        assert (deed["operator"], deed["source"]) == (this_user().name, "cli")
        assert (deed["subject"], deed["retried_as"]) == (old, new)


def test_a_retry_of_what_was_retried_names_the_new_job(run: Run, failed: Failed) -> None:
    job = failed()
    [new] = new_ids(run("retry", job))

    again = run("retry", job)

    assert again.exit_code == 1
    assert again.stderr == f"Error: Job '{job}' was retried already, as '{new}': retry that.\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["retry"], 2, "Missing argument 'JOB...'"),
        (["retry", "17"], 1, "No job with id '17'."),
        (
            ["retry", "job_01a21546000070000000000000000000"],
            1,
            "No job with id 'job_01a21546000070000000000000000000'.",
        ),
        (["jobs", "--app", "nobody"], 1, "There is no app 'nobody'"),
        (["jobs", "--limit", "0"], 2, "'--limit'"),
        (["jobs", "--dead", "--state", "queued"], 2, "--dead lists failed jobs: leave --state out."),
        (["jobs", "--since", "yesterday"], 2, "'yesterday' is neither an age, such as 2h or 7d, nor a time"),
        (["jobs", "--until", "9999999d"], 2, "'9999999d' is neither an age"),
    ],
)
def test_a_mistake_is_named(run: Run, arguments: list[str], status: int, message: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, message in result.stderr) == (status, True), result.output


def test_jobs_are_filtered_by_state_and_lane_and_app(
    run: Run, store: Store, failed: Failed, queued: Callable[..., Ticket]
) -> None:
    with store.begin() as db:
        other = apps.create(db, "other", {})
    dead, urgent, theirs = failed(), show_id(queued(lane=Lane.HIGH).job_id), show_id(queued(app_id=other.id).job_id)
    done = show_id(queued().job_id)
    with store.begin() as db:
        db.execute(sa.update(jobs).where(jobs.c.id == parse_id(done)).values(state="succeeded"))

    assert ids(run("jobs", "--state", "failed")) == [dead]
    assert ids(run("jobs", "--state", "succeeded")) == [done]
    assert ids(run("jobs", "--state", "queued")) == [theirs, urgent]
    assert ids(run("jobs", "--lane", "high")) == [urgent]
    assert ids(run("jobs", "--state", "queued", "--app", "other")) == [theirs]
    assert run("jobs", "--state", "expired").stdout == "There are no such jobs.\n"


def test_jobs_are_filtered_by_when_they_were_accepted(run: Run, queued: Callable[..., Ticket]) -> None:
    old, new = (
        queued(id=UUID(int=oldest_id(datetime(2026, 3, 1, hour, tzinfo=UTC)).int | (new_id().int & ((1 << 80) - 1))))
        for hour in (8, 10)
    )
    of_old, of_new, of_now = (show_id(each.job_id) for each in (old, new, queued()))

    assert ids(run("jobs", "--since", "2026-03-01T09:00")) == [of_now, of_new]
    assert ids(run("jobs", "--until", "2026-03-01T09:00")) == [of_old]
    assert ids(run("jobs", "--since", "2026-03-01T11:00+02:00", "--until", "1h")) == [of_new]
    assert ids(run("jobs", "--since", "1h")) == [of_now]


def test_a_list_of_jobs_looks_through_so_many_and_says_how_to_look_further(
    run: Run, store: Store, failed: Failed, queued: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "LOOK_ROWS", 2)
    long_ago = UUID(int=oldest_id(datetime(2026, 3, 1, tzinfo=UTC)).int | 1)
    expired = show_id(queued(id=long_ago).job_id)
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET state = 'expired'"))
    queued(), queued()

    newest = run("jobs", "--state", "expired")

    assert newest.stdout == "There are no such jobs.\n"
    assert "'--until 2026-03-01T00:00:01' looks further back." in newest.stderr
    assert ids(run("jobs", "--state", "expired", "--until", "2026-03-01T00:00:01")) == [expired]


@pytest.mark.parametrize("state", ["failed", "queued", "waiting", "running"])
def test_a_rare_state_is_listed_by_an_index_of_its_own(store: Store, state: str) -> None:
    with store.begin() as db:
        db.execute(sa.text("SET LOCAL enable_seqscan = off"))
        statement = overview._near(overview.Wanted(state=JobState(state)))
        sql = statement.compile(db, compile_kwargs={"literal_binds": True})
        plan = with_whole_indexes(db, "\n".join(db.scalars(sa.text(f"EXPLAIN {sql}"))))
    assert "ix_jobs_" in plan, plan


HOOK = "https://hooks.example.com/jobs"
DONE = AttemptEnd("succeeded", 0.5, Cost(usd=0, price_version="v1"), "compute", Usage(8, 5), text="A channel.")


@pytest.fixture
def worker(store: Store) -> UUID:
    info = WorkerInfo(
        **{"id": new_id(), "name": "chat-1", "host_id": "host-1", "pool": "chat", "engine": "simulator"},
        **{"model": "test-model", "max_model_tokens": None, "max_running": 4, "kv_tokens": None},
        **{"kv_block_tokens": None},
    )
    with store.begin() as db:
        workers.register(db, info, 10.0)
    return info.id


@pytest.fixture
def ended(store: Store, queued: Callable[..., Ticket], worker: UUID) -> Ticket:
    """A job that failed once, waited, ran again, succeeded, and told its webhook once in vain."""
    ticket = queued(webhook_url=HOOK)
    with store.begin() as db:
        first = one_attempt.claim(db, ticket.job_id, ticket.enqueue_no, worker, "simulator")
        assert first is not None
        broken = replace(DONE, outcome="failed", kind="waste", error_code="engine_timeout", text=None)
        assert attempts.retry(db, first, broken, 0.0) is JobState.WAITING
    with store.begin() as db:
        [again] = job_store.enqueue_due(db)
        second = one_attempt.claim(db, again.job_id, again.enqueue_no, worker, "simulator")
        assert second is not None
    with store.begin() as db:
        assert one_attempt.finish(db, second, JobState.SUCCEEDED, DONE)
        db.execute(sa.update(deliveries).values(tries=1, last_status=500))
    return ticket


def told(run: Run, job_id: str, *options: str) -> dict[str, Any]:
    result = run("jobs", "show", job_id, "--json", *options)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_jobs_show_tells_a_job_s_whole_life_in_order(run: Run, ended: Ticket) -> None:
    life = told(run, show_id(ended.job_id))

    assert (life["id"], life["app"], life["status"]) == (show_id(ended.job_id), "test", "succeeded")
    names = [event["event"] for event in life["timeline"]]
    assert names == [
        *("accepted", "attempt_started", "attempt_ended", "charged", "queued_again"),
        *("attempt_started", "attempt_ended", "charged", "ended", "webhook"),
    ]
    assert sorted(event["at"] for event in life["timeline"]) == [event["at"] for event in life["timeline"]]
    first, second = (event for event in life["timeline"] if event["event"] == "attempt_started")
    assert (first["attempt"], first["worker"], first["host_id"], first["engine"]) == (
        1,
        "chat-1",
        "host-1",
        "simulator",
    )
    assert second["attempt"] == 2
    failed, succeeded = (event for event in life["timeline"] if event["event"] == "attempt_ended")
    assert (failed["outcome"], failed["error_code"]) == ("failed", "engine_timeout")
    assert (succeeded["outcome"], succeeded["prompt_tokens"], succeeded["output_tokens"]) == ("succeeded", 8, 5)
    charges = [(event["kind"], event["usd"]) for event in life["timeline"] if event["event"] == "charged"]
    assert [kind for kind, _ in charges] == ["waste", "compute"]
    webhook = life["timeline"][-1]
    assert (webhook["url"], webhook["state"], webhook["tries"], webhook["last_status"]) == (HOOK, "pending", 1, 500)


def test_jobs_show_prints_a_table_that_names_each_event(run: Run, ended: Ticket) -> None:
    result = run("jobs", "show", show_id(ended.job_id))
    assert result.exit_code == 0, result.output
    heading, *lines = result.stdout.splitlines()
    assert heading.strip() == f"{show_id(ended.job_id)} of test: succeeded"
    for part in ("accepted", "queued_again", "worker=chat-1", "error_code=engine_timeout", "kind=compute", HOOK):
        assert any(part in line for line in lines), part


@pytest.mark.parametrize("width", [80, 200])
def test_jobs_show_breaks_no_id(run: Run, ended: Ticket, width: int) -> None:
    result = run("jobs", "show", show_id(ended.job_id), COLUMNS=str(width))
    lines = result.stdout.splitlines()
    facts = [
        f"{name}={value}"
        for event in told(run, show_id(ended.job_id))["timeline"]
        for name, value in event.items()
        if name.endswith("id") and name != "job_id"
    ]
    assert len(facts) > 3
    assert [fact for fact in facts if not any(fact in line for line in lines)] == []
    assert [line for line in lines if len(line) > width] == []


@pytest.mark.parametrize("prefix", ID_PREFIXES)
def test_jobs_show_takes_an_id_as_each_api_spells_it(run: Run, queued: Callable[..., Ticket], prefix: str) -> None:
    job_id = queued().job_id
    assert told(run, show_id(job_id, prefix))["id"] == show_id(job_id)


def test_jobs_show_keeps_prompt_and_answer_to_itself_unless_asked(run: Run, store: Store, ended: Ticket) -> None:
    job = show_id(ended.job_id)
    for secret in ("What is a headrace?", "A channel."):
        assert secret not in run("jobs", "show", job).output
        assert secret not in run("jobs", "show", job, "--json").output
        assert secret in run("jobs", "show", job, "--text").stdout
    text = told(run, job, "--text")["text"]
    assert (text["messages"][0]["content"], text["answer"]) == ("What is a headrace?", "A channel.")

    with store.begin() as db:
        db.execute(sa.update(job_texts).values(choices=[Choice("A second answer.", "stop").to_fields()]))
    assert "A second answer." in run("jobs", "show", job, "--text").stdout
    with store.begin() as db:
        db.execute(sa.delete(job_texts))
    assert "erased" in run("jobs", "show", job, "--text").stderr


def test_jobs_show_names_the_retry_and_what_it_is_the_retry_of(
    run: Run, store: Store, queued: Callable[..., Ticket]
) -> None:
    old = show_id(queued().job_id)
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET state = 'failed', ended_at = now()"))
    new = run("retry", old).stdout.split()[-1]
    assert told(run, old)["retried_as"] == new
    assert told(run, new)["retry_of"] == old


@pytest.mark.parametrize("job_id", ["17", "job_01a21546000070000000000000000000"])
def test_jobs_show_names_an_unknown_id(run: Run, job_id: str) -> None:
    result = run("jobs", "show", job_id)
    assert (result.exit_code, result.stderr) == (1, f"Error: No job with id '{job_id}'.\n")


def test_jobs_show_keeps_what_the_paid_api_said_for_the_texts(
    run: Run, store: Store, queued: Callable[..., Ticket]
) -> None:
    job = show_id(queued().job_id)
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET state = 'failed', error_message = 'Bad: my prompt', ended_at = now()"))
    assert "my prompt" in " ".join(run("jobs", "show", job).stdout.split())
    with store.begin() as db:
        db.execute(sa.text("UPDATE jobs SET route = 'overflow'"))
    assert "my prompt" not in run("jobs", "show", job, "--json").output
    assert "my prompt" in " ".join(run("jobs", "show", job, "--text").stdout.split())
