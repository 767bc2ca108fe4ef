"""The semantic cache on real servers: who is served, who is only tried, and who is first where two want a job."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from redis import Redis

from headrace.broker import reuse as lookups_module
from headrace.broker.admission import Admission
from headrace.broker.messages import list_key
from headrace.broker.news import News, channel_of
from headrace.broker.reuse import Lookups
from headrace.domain.apps import App, Changes
from headrace.domain.attempts import Claim
from headrace.domain.ids import new_id, show_id
from headrace.domain.jobs import JobSpec
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import KEY_PREFIX, Overflow, Ticket
from headrace.errors import EngineUnavailable
from headrace.store import Store, apps
from headrace.store.cache import exact_cache, semantic_cache
from headrace.store.cache.exact_cache import Follower
from headrace.store.jobs import texts
from tests.integration.matching import ANSWER, ASKED, OPPOSITE, SAME, WordEngine
from tests.waiting import until
from workers.matching import SIMULATED_ANSWERS, SIMULATED_VECTORS, Matcher

Ask = Callable[..., Ticket]
Query = Callable[..., list[tuple[Any, ...]]]

STATE = "SELECT state, cache, served_by_job FROM jobs WHERE id = :id"
MATCH = "SELECT kind, entry_id FROM cache_matches WHERE job_id = :id"


def state(query: Query, ticket: Ticket) -> tuple[Any, ...]:
    [row] = query(STATE, id=ticket.job_id)
    return row


def test_the_same_question_in_other_words_ends_with_the_answer(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query, redis: Redis, lookups: Lookups
) -> None:
    first = entry()
    heard = redis.pubsub(ignore_subscribe_messages=True)
    channel = channel_of(new_id())
    heard.subscribe(channel)
    second = ask(SAME, end_user="ann", webhook_url="https://h.example/1", prompt_tokens=5)
    News(redis).listen([second.job_id], channel)
    assert lookups.is_pending(second.job_id)

    assert matcher.look_up() == 1

    assert state(query, second) == ("succeeded", "semantic", first.job_id)
    assert query("SELECT answer, cache_key FROM job_texts WHERE job_id = :id", id=second.job_id) == [(ANSWER, None)]
    bill = "SELECT kind, usd, saved_usd, end_user, prompt_tokens, cached_tokens, output_tokens FROM ledger"
    assert query(f"{bill} WHERE job_id = :id", id=second.job_id) == [("cache", 0, Decimal("0.5"), "ann", 5, 0, 7)]
    assert query("SELECT job_id, event FROM deliveries") == [(second.job_id, "response.completed")]
    assert query("SELECT count(*) FROM attempts") == [(1,)]
    assert query(MATCH, id=second.job_id) == [("served", first.job_id)]
    assert not lookups.is_pending(second.job_id)
    # It has left its queue, and its readers know.
    assert not redis.hexists(f"{KEY_PREFIX}waiting", second.job_id.hex)
    assert not [message for message in redis.lrange(list_key("chat.normal"), 0, -1) if second.job_id.hex in message]
    until(
        lambda: (heard.get_message(timeout=0.1) or {}).get("data") == f"ended {second.job_id.hex}",
        "the notice of its end",
    )
    assert query("SELECT job_id FROM cache_entries") == [(first.job_id,)], "what was served is no entry"


def test_the_view_counts_it_by_app_and_day(matcher: Matcher, entry: Ask, ask: Ask, query: Query) -> None:
    entry()
    ask(SAME)
    matcher.look_up()
    counted = "SELECT app, pool, served, compared, compared_wrong, would_serve, error_share FROM semantic_cache_per_day"
    rows = query(f"{counted} ORDER BY day DESC")
    assert sum(row[2] for row in rows) == 1
    assert {row[:2] for row in rows} == {("test", "chat")}
    assert (sum(row[3] for row in rows), sum(row[4] for row in rows), sum(row[5] for row in rows)) == (60, 0, 0)
    assert query("SELECT semantic, hits, saved_usd FROM cache_per_day") == [(1, 0, Decimal("0.5"))]


def test_what_differs_in_more_than_words_is_not_served(matcher: Matcher, entry: Ask, ask: Ask, query: Query) -> None:
    entry()
    others = [
        ask(SAME, before=(Message("system", "Answer in verse."),)),
        ask(SAME, before=(Message("user", "Hi"), Message("assistant", "Hello"))),
        ask(SAME, sampling=Sampling(max_tokens=16, temperature=0.0, response_format={"type": "json_object"})),
        ask(SAME, model="other"),
        ask(SAME, overflow=Overflow.ONLY),
        ask(OPPOSITE),
        ask("Where is the nearest station?"),
    ]
    assert matcher.look_up() == len(others)
    assert [state(query, each) for each in others] == [("queued", "miss", None)] * len(others)
    assert query("SELECT count(*) FROM cache_matches WHERE kind <> 'try'") == [(0,)]
    assert query("SELECT count(*) FROM cache_entries") == [(len(others) + 1,)]


def test_an_entry_without_trust_is_tried_and_a_wrong_one_serves_nothing(
    make: Callable[..., Matcher], entry: Ask, ask: Ask, query: Query, trust: Callable[..., None]
) -> None:
    matcher, first = make(), entry(tries=0)
    untrusted = ask(SAME)
    matcher.look_up()
    assert state(query, untrusted) == ("queued", "miss", None)
    assert query(MATCH, id=untrusted.job_id) == [("try", first.job_id)]

    trust(first.job_id, 60)
    trust(first.job_id, 3, right=False)
    distrusted = ask(f"{SAME} ")
    matcher.look_up()
    assert state(query, distrusted)[0] == "queued"


def test_some_jobs_run_although_they_could_be_served(
    make: Callable[..., Matcher], entry: Ask, ask: Ask, query: Query
) -> None:
    entry()
    ticket = ask(SAME)
    make(roll=0.0).look_up()
    assert state(query, ticket)[0] == "queued"
    assert [kind for kind, _ in query(MATCH, id=ticket.job_id)] == ["recheck"]


def test_in_shadow_nothing_is_served_and_all_is_counted(
    make: Callable[..., Matcher], entry: Ask, ask: Ask, query: Query
) -> None:
    first = entry()
    ticket = ask(SAME)
    make(shadow=True).look_up()
    assert state(query, ticket) == ("queued", "miss", None)
    assert query(MATCH, id=ticket.job_id) == [("shadow", first.job_id)]
    assert query("SELECT sum(would_serve), sum(served) FROM semantic_cache_per_day") == [(1, 0)]


def test_an_app_may_want_no_errors_at_all_or_more_of_them(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query, store: Store, app: App
) -> None:
    entry(tries=8)

    def served_at(max_error: float | None) -> bool:
        with store.begin() as db:
            apps.set_limits(db, app.name, Changes(max_error=max_error))
        query("DELETE FROM cache_entries WHERE job_id NOT IN (SELECT entry_id FROM cache_matches)")
        ticket = ask(SAME)
        matcher.look_up()
        return bool(state(query, ticket)[0] == "succeeded")

    assert [served_at(each) for each in (None, 0.0, 0.2)] == [False, False, True]


def test_a_worker_that_claims_first_keeps_the_job(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query, claim: Callable[[Ticket], Claim | None]
) -> None:
    first = entry()
    ticket = ask(SAME)
    assert claim(ticket) is not None
    assert matcher.look_up() == 1
    assert state(query, ticket) == ("running", "miss", None)
    assert query(MATCH, id=ticket.job_id) == [("recheck", first.job_id)]


def test_a_job_that_was_answered_before_its_look_up_becomes_an_entry_too(
    matcher: Matcher, ask: Ask, answer: Callable[..., None], query: Query, trust: Callable[..., None]
) -> None:
    first = ask()
    answer(first)
    matcher.look_up()
    trust(first.job_id)
    second = ask(SAME)
    matcher.look_up()
    assert state(query, second) == ("succeeded", "semantic", first.job_id)


def during_the_search(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do this between the search and what follows from it."""
    search = semantic_cache.nearest

    def nearest(*arguments: Any) -> Any:
        found = search(*arguments)
        act()
        return found

    monkeypatch.setattr(semantic_cache, "nearest", nearest)


def test_a_claim_between_search_and_hit_wins_and_becomes_a_test(
    matcher: Matcher,
    entry: Ask,
    ask: Ask,
    query: Query,
    claim: Callable[[Ticket], Claim | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = entry()
    ticket = ask(SAME)
    during_the_search(monkeypatch, lambda: claim(ticket))
    matcher.look_up()
    assert state(query, ticket) == ("running", "miss", None)
    assert query("SELECT count(*) FROM ledger WHERE job_id = :id", id=ticket.job_id) == [(0,)]
    assert query(MATCH, id=ticket.job_id) == [("recheck", first.job_id)]


def test_a_hit_before_the_claim_leaves_the_worker_nothing(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query, claim: Callable[[Ticket], Claim | None]
) -> None:
    entry()
    ticket = ask(SAME)
    matcher.look_up()
    assert claim(ticket) is None
    assert state(query, ticket)[0] == "succeeded"
    assert query("SELECT kind FROM ledger WHERE job_id = :id", id=ticket.job_id) == [("cache",)]


def test_an_answer_that_is_erased_between_search_and_hit_serves_nothing(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query, store: Store, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = entry()
    ticket = ask(SAME)

    def erase() -> None:
        with store.begin() as db:
            texts.erase(db, app.id, first.job_id)

    during_the_search(monkeypatch, erase)
    matcher.look_up()
    assert state(query, ticket) == ("queued", "miss", None)
    assert query("SELECT job_id FROM cache_entries") == [(ticket.job_id,)], "the erased question is gone too"


def test_a_cancel_between_search_and_hit_wins(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry()
    ticket = ask(SAME)
    cancel = "UPDATE jobs SET state = 'cancelled', ended_at = now() WHERE id = :id"
    during_the_search(monkeypatch, lambda: query(cancel, id=ticket.job_id))
    matcher.look_up()
    assert state(query, ticket)[0] == "cancelled"


@pytest.mark.parametrize("age_s", [59, 61])
def test_an_answer_serves_as_long_as_cache_s(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query, grow_old: Callable[[UUID, timedelta], None], age_s: int
) -> None:
    first = entry()
    grow_old(first.job_id, timedelta(seconds=age_s))
    ticket = ask(SAME)
    matcher.look_up()
    assert (state(query, ticket)[0] == "succeeded") == (age_s < 60)


def test_no_entry_serves_another_app_even_if_it_claims_to_be_of_it(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query, store: Store
) -> None:
    first = entry()
    with store.begin() as db:
        other = apps.ensure(db, "other")
    theirs = ask(SAME, app_id=other.id)
    matcher.look_up()
    assert state(query, theirs) == ("queued", "miss", None)
    assert query(MATCH, id=theirs.job_id) == []

    # As if a row of this app had been written into the other's: the job's own row has the last word.
    forged = "UPDATE cache_entries SET app_id = :app, scope = (SELECT scope FROM cache_entries WHERE job_id = :theirs)"
    query(f"{forged} WHERE job_id = :id", app=other.id, theirs=theirs.job_id, id=first.job_id)
    again = ask(f"{SAME} ", app_id=other.id)
    matcher.look_up()
    assert state(query, again) == ("queued", "miss", None)
    assert query("SELECT count(*) FROM job_texts WHERE answer IS NOT NULL") == [(1,)]


def test_a_job_that_has_started_once_keeps_its_own_answer(matcher: Matcher, entry: Ask, ask: Ask, query: Query) -> None:
    """Its readers may have a part of it."""
    entry()
    ticket = ask(SAME)
    query("UPDATE jobs SET started_at = now() WHERE id = :id", id=ticket.job_id)
    matcher.look_up()
    assert state(query, ticket)[0] == "queued"


def test_jobs_that_follow_a_served_one_get_its_answer(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query, store: Store, make_spec: Callable[..., JobSpec]
) -> None:
    entry()
    leader = ask(SAME)
    spec = make_spec()
    exact_cache.follow(store, [Follower(spec, leader.job_id, "chat.normal")])
    matcher.look_up()
    with store.begin() as db:
        exact_cache.settle_followers(db, exact_cache.of_ended_leaders(db))
    assert query("SELECT state, cache FROM jobs WHERE id = :id", id=spec.id) == [("succeeded", "shared")]
    assert query("SELECT answer FROM job_texts WHERE job_id = :id", id=spec.id) == [(ANSWER,)]
    bill = "SELECT usd, saved_usd FROM ledger WHERE job_id = :id"
    assert query(bill, id=spec.id) == [(0, Decimal("0.5"))]


def test_what_a_dead_worker_took_is_looked_up_by_another(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query, lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry()
    ticket = ask(SAME)
    monkeypatch.setattr(lookups_module, "LOOK_UP_MS", 100)
    assert lookups.take(1) == [ticket.job_id]
    assert matcher.look_up() == 0
    until(lambda: matcher.look_up() == 1, "the job is due again")
    assert state(query, ticket)[0] == "succeeded"


def test_a_dead_engine_costs_no_job_its_look_up(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query, words: WordEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry()
    ticket = ask(SAME)
    monkeypatch.setattr(lookups_module, "LOOK_UP_MS", 50)
    words.fails = EngineUnavailable("dead")
    with pytest.raises(EngineUnavailable):
        matcher.look_up()
    assert state(query, ticket)[0] == "queued"
    words.fails = None
    until(lambda: matcher.look_up() == 1, "the job is due again")
    assert state(query, ticket)[0] == "succeeded"


def test_a_text_that_the_model_cannot_take_costs_the_others_nothing(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query
) -> None:
    entry()
    long, ticket = ask("word " * 200), ask(SAME)
    assert matcher.look_up() == 2
    assert [state(query, each)[0] for each in (long, ticket)] == ["queued", "succeeded"]


def test_a_fault_of_the_look_up_leaves_the_jobs_to_the_workers(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query, lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry()
    ticket = ask(SAME)
    during_the_search(monkeypatch, lambda: {}["nothing"])
    assert matcher.look_up() == 1
    assert state(query, ticket)[0] == "queued"
    assert not lookups.is_pending(ticket.job_id)


def test_one_question_is_one_entry(matcher: Matcher, ask: Ask, query: Query) -> None:
    for _ in range(3):
        ask(ASKED)
    matcher.look_up()
    assert query("SELECT count(*) FROM cache_entries") == [(1,)]


def test_its_thread_looks_up_what_comes_and_closes_the_look_ups_at_its_end(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query, redis: Redis
) -> None:
    entry()
    matcher.begin()
    tickets = [ask(f"{SAME}{' ' * number}") for number in range(3)]
    until(lambda: all(state(query, each)[0] == "succeeded" for each in tickets), "all are served")
    matcher.end()
    assert not redis.exists(f"{KEY_PREFIX}looking:embed")


def test_without_pgvector_it_says_so_once_and_stays_off(
    matcher: Matcher, ask: Ask, query: Query, lookups: Lookups, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    query("DROP EXTENSION vector")
    try:
        matcher.begin()
        until(lambda: "semantic_cache_is_off" in caplog.messages, "the word of it")
        matcher.end()
        [record] = [each for each in caplog.records if each.message == "semantic_cache_is_off"]
        assert "CREATE EXTENSION vector" in record.__dict__["reason"]
        lookups.close()
        ticket = ask()
        assert not lookups.is_pending(ticket.job_id), "nothing is entered that is not looked up"
        assert not redis.exists(f"{KEY_PREFIX}lookups:embed")
        assert state(query, ticket)[0] == "queued"
    finally:
        query("CREATE EXTENSION vector")


@pytest.mark.parametrize(
    ("embeds", "answers", "reasons"),
    [
        ("simulator", "vllm", [SIMULATED_VECTORS]),
        ("vllm", "simulator", [SIMULATED_ANSWERS]),
        ("vllm", "vllm", []),
    ],
)
def test_it_says_once_why_a_simulator_serves_next_to_nothing(
    matcher: Matcher,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    embeds: str,
    answers: str,
    reasons: list[str],
) -> None:
    pools = {name: pool.model_copy(update={"engine": answers}) for name, pool in matcher.settings.pools.items()}
    monkeypatch.setattr(matcher, "settings", matcher.settings.model_copy(update={"pools": pools}))
    monkeypatch.setattr(matcher.engine, "name", embeds)
    matcher.begin()
    matcher.end()
    told = [each.__dict__["reason"] for each in caplog.records if each.message == "semantic_cache_is_simulated"]
    assert told == reasons


def test_a_commit_without_look_ups_enters_none(admission: Admission, ask: Ask, lookups: Lookups) -> None:
    ticket = ask()
    lookups.done([ticket.job_id])
    admission.commit([ticket])
    assert not lookups.is_pending(ticket.job_id)


def test_the_right_entry_is_found_among_many_that_look_more_alike(
    matcher: Matcher, entry: Ask, ask: Ask, answer: Callable[..., None], query: Query
) -> None:
    """An embedding sees a question in the words that most others have, and about other things."""
    right = entry("Tell me how to open the door.")
    numbers = range(2, 2 + semantic_cache.NEAREST)
    others = [ask(f"Please tell me how to open the {number} door.") for number in numbers]
    while matcher.look_up():
        pass
    for each in others:
        answer(each)
    ticket = ask("Please tell me how to open the door.")
    matcher.look_up()
    assert state(query, ticket) == ("succeeded", "semantic", right.job_id)


def test_a_prompt_that_cannot_be_read_is_named_and_the_others_of_its_batch_are_looked_up(
    matcher: Matcher, entry: Ask, ask: Ask, query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    first = entry()
    bad, good = ask(SAME), ask(SAME)
    query("UPDATE job_texts SET messages = '7' WHERE job_id = :id", id=bad.job_id)

    assert matcher.look_up() == 2

    assert state(query, good) == ("succeeded", "semantic", first.job_id)
    assert state(query, bad)[0] == "queued", "it runs without a look-up"
    [line] = [vars(record) for record in caplog.records if record.levelname == "ERROR"]
    assert (line["message"], line["sweep"], line["job_id"]) == ("row_refused", "look_up", show_id(bad.job_id))
