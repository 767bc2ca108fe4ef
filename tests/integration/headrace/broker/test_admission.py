"""The door on a real Valkey: caps, shares, rates, turns, and the books through everything that happens to a job."""

import base64
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from redis import Redis

from headrace.broker.admission import OUTLOOK, Admission, books_key
from headrace.broker.messages import ExecuteMessage, list_key, make_celery, named_in
from headrace.config import Settings
from headrace.connections.redis import DroppedConnection, redis_client
from headrace.domain.apps import UNLIMITED, AppLimits
from headrace.domain.ids import new_id, show_id
from headrace.domain.limits import RateLeft
from headrace.domain.places import Ask, Load, Place, Refusal
from headrace.domain.queues import EXECUTE, KEY_PREFIX, Candidate, Lane, Ticket, bell_key
from headrace.errors import BrokerUnavailable

QUEUE = "chat.normal"
SPILL = "overflow.normal"
START_BY = datetime.now(UTC) + timedelta(seconds=30)


def candidate(queue: str = QUEUE, cap: int = 500, cap_tokens: int = 1_000_000, ahead: int | None = None) -> Candidate:
    return Candidate(queue, cap, cap_tokens, ahead, "test")


def ask(
    *candidates: Candidate, app: UUID | None = None, tokens: int = 10, limits: AppLimits = UNLIMITED, **caps: Any
) -> Ask:
    return Ask(new_id(), app or new_id(), tokens, candidates or (candidate(**caps),), limits)


def ticket_of(asked: Ask, queue: str = QUEUE, enqueue_no: int = 1) -> Ticket:
    return Ticket(asked.job_id, asked.app_id, queue, Lane.NORMAL, asked.tokens, 0, START_BY, enqueue_no)


def ticket(app: UUID | None = None, enqueue_no: int = 1, tokens: int = 10) -> Ticket:
    return ticket_of(ask(app=app, tokens=tokens), enqueue_no=enqueue_no)


def reserve(door: Admission, asked: Ask) -> Place | Refusal:
    return door.reserve([asked])[0]


def accept(door: Admission, *asks: Ask) -> list[Ticket]:
    """Reserves and commits them, in this order; each must find a place."""
    tickets = []
    for asked, place in zip(asks, door.reserve(asks), strict=True):
        assert isinstance(place, Place)
        tickets.append(ticket_of(asked, place.candidate.queue))
    door.commit(tickets)
    return tickets


def submit(door: Admission, app: UUID, tokens: int, cap_tokens: int) -> bool:
    """Does what a web process does with one job; returns whether it was accepted."""
    asked = ask(app=app, tokens=tokens, cap_tokens=cap_tokens)
    got = reserve(door, asked)
    if isinstance(got, Place):
        door.commit([ticket_of(asked)])
    elif got.reason in ("depth", "tokens"):
        door.knock(app, QUEUE, tokens, for_s=30)
    return isinstance(got, Place)


def take(door: Admission, redis: Redis, queue: str = QUEUE) -> UUID:
    """Does what a worker does: pops a message, and says that its job waits no more."""
    name = named_in(redis.rpop(list_key(queue)))
    assert name is not None
    assert door.leave([name]) == 1
    return name[0]


def listed(redis: Redis, queue: str = QUEUE) -> list[tuple[UUID, int]]:
    """The jobs, with their `enqueue_no`, in the order in which they will be taken."""
    named = [named_in(message) for message in reversed(redis.lrange(list_key(queue), 0, -1))]
    return [name for name in named if name]


def minutes_pass(redis: Redis, app: UUID, minutes: float) -> None:
    """Moves an app's bucket into the past."""
    bucket = f"{KEY_PREFIX}rate:{app.hex}"
    redis.hset(bucket, "at", float(redis.hget(bucket, "at") or 0) - minutes * 60_000)


def lose(door: Admission, redis: Redis, *tickets: Ticket) -> None:
    """Does what a worker does that dies before its claim, long ago: takes their messages, and notes it."""
    for each in tickets:
        assert redis.lrem(list_key(QUEUE), 1, ExecuteMessage.of(door._message, each)) == 1
        redis.zadd(books_key("taken", QUEUE), {f"{each.job_id.hex} {each.enqueue_no}": 1})


class TestCaps:
    @pytest.mark.parametrize(("already", "is_admitted"), [(0, True), (1, True), (2, False), (3, False)])
    def test_a_queue_holds_as_many_jobs_as_its_cap(self, already: int, is_admitted: bool, admission: Admission) -> None:
        admission.commit([ticket() for _ in range(already)])

        got = reserve(admission, ask(cap=2))

        if is_admitted:
            assert isinstance(got, Place)
            assert (got.position, got.depth) == (already + 1, already + 1)
        else:
            assert isinstance(got, Refusal)
            assert (got.reason, got.cap_jobs, got.depth) == ("depth", 2, already)
            assert got.backlog_tokens == 10 * already

    @pytest.mark.parametrize(("tokens", "is_admitted"), [(70, True), (71, False)])
    def test_a_queue_holds_as_many_tokens_as_its_cap(
        self, tokens: int, is_admitted: bool, admission: Admission
    ) -> None:
        accept(admission, ask(tokens=30))

        got = reserve(admission, ask(tokens=tokens, cap_tokens=100))

        assert isinstance(got, Place) == is_admitted
        if isinstance(got, Refusal):
            assert (got.reason, got.cap_tokens, got.backlog_tokens) == ("tokens", 100, 30)

    def test_a_job_larger_than_the_cap_is_let_into_an_empty_queue(self, admission: Admission) -> None:
        assert isinstance(reserve(admission, ask(tokens=500, cap_tokens=100)), Place)
        assert isinstance(reserve(admission, ask(tokens=1, cap_tokens=100)), Refusal)

    def test_a_job_with_more_ahead_than_drains_in_time_is_refused(self, admission: Admission) -> None:
        app, tokens = new_id(), 10
        accept(admission, *(ask(app=app, tokens=tokens) for _ in range(5)))

        late = reserve(admission, ask(app=app, ahead=49))
        just = reserve(admission, ask(app=app, ahead=50))

        assert isinstance(late, Refusal)
        assert (late.reason, late.cap_tokens, late.depth, late.backlog_tokens) == ("wait", 49, 5, 50)
        assert isinstance(just, Place)
        assert just.ahead_tokens == 50

    def test_free_slots_take_jobs_at_once_whatever_is_ahead(self, admission: Admission) -> None:
        app = new_id()
        gone, *_ = accept(admission, *(ask(app=app) for _ in range(5)))
        admission.leave([(gone.job_id, 1)])
        departed = admission.standing(dict).departed[QUEUE.rpartition(".")[0]]
        assert departed == 1

        told = [
            reserve(admission, Ask(new_id(), app, 10, (replace(candidate(ahead=0), free_until=departed + free),)))
            for free in (3, 4, 5)
        ]

        assert [type(each) for each in told] == [Refusal, Place, Place]
        assert [each.free for each in told] == [3, 4, 5]

    def test_only_what_is_taken_before_it_counts_as_ahead_of_a_job(self, admission: Admission) -> None:
        many = new_id()
        accept(admission, *(ask(app=many) for _ in range(8)))
        # Another app's first job comes after one of theirs.
        assert isinstance(reserve(admission, ask(ahead=9)), Refusal)
        newcomer = reserve(admission, ask(ahead=10))
        assert isinstance(newcomer, Place)
        assert (newcomer.position, newcomer.depth, newcomer.ahead_tokens) == (2, 9, 10)

    def test_an_app_holds_as_many_jobs_as_its_own_cap_in_all_queues_together(
        self, admission: Admission, redis: Redis
    ) -> None:
        app, limits = new_id(), AppLimits(queued_jobs=2)
        accept(admission, ask(app=app, limits=limits), ask(candidate(SPILL), app=app, limits=limits))

        got = reserve(admission, ask(app=app, limits=limits))

        assert isinstance(got, Refusal)
        assert (got.reason, got.cap_jobs, got.depth) == ("app_jobs", 2, 1)
        assert isinstance(reserve(admission, ask(limits=limits)), Place), "another app has a cap of its own"
        take(admission, redis)
        assert isinstance(reserve(admission, ask(app=app, limits=limits)), Place)

    def test_candidates_are_tried_in_their_order_and_the_first_ones_reason_is_told(self, admission: Admission) -> None:
        options = candidate(cap=1), candidate(SPILL, cap_tokens=15)

        got = [reserve(admission, ask(*options)) for _ in range(3)]

        assert [each.candidate.queue for each in got if isinstance(each, Place)] == [QUEUE, SPILL]
        refused = got[2]
        assert isinstance(refused, Refusal)
        assert (refused.reason, refused.cap_jobs, refused.depth) == ("depth", 1, 1)

    def test_the_asks_of_one_call_meet_the_same_caps_as_those_of_many(self, admission: Admission) -> None:
        got = admission.reserve([ask(cap=3) for _ in range(5)])
        assert [isinstance(each, Place) for each in got] == [True, True, True, False, False]
        assert [each.position for each in got if isinstance(each, Place)] == [1, 2, 3]

    def test_no_cap_is_overshot_when_many_processes_reserve_at_once(self, settings: Settings, redis: Redis) -> None:
        message = ExecuteMessage(make_celery("test", settings))
        doors = [Admission(redis_client(settings), message, reservation_ttl_s=30) for _ in range(8)]
        app = new_id()

        def submit(i: int) -> int:
            asks = [ask(app=app, cap=50) for _ in range(1 + i % 3)]
            got = doors[i % 8].reserve(asks)
            placed = [asked for asked, place in zip(asks, got, strict=True) if isinstance(place, Place)]
            doors[i % 8].commit([ticket_of(asked) for asked in placed])
            return len(placed)

        with ThreadPoolExecutor(8) as threads:
            admitted = list(threads.map(submit, range(200)))

        assert sum(admitted) == 50
        assert redis.llen(list_key(QUEUE)) == 50
        assert doors[0].loads([QUEUE]) == {QUEUE: Load(50, 500, 1, 500)}


class TestShares:
    def test_an_app_alone_may_fill_a_queue(self, admission: Admission) -> None:
        app = new_id()
        assert len(accept(admission, *(ask(app=app, cap=6) for _ in range(6)))) == 6

    def test_with_a_second_app_neither_is_admitted_beyond_its_share(self, admission: Admission) -> None:
        first, second = new_id(), new_id()
        accept(admission, ask(app=second), *(ask(app=first) for _ in range(3)))

        refused = reserve(admission, ask(app=first, cap=6))
        others = admission.reserve([ask(app=second, cap=6) for _ in range(3)])

        assert isinstance(refused, Refusal)
        assert (refused.reason, refused.cap_jobs, refused.depth) == ("share", 3, 4)
        assert [isinstance(each, Place) for each in others] == [True, True, False]

    def test_shares_are_rounded_up(self, admission: Admission) -> None:
        apps = [new_id() for _ in range(3)]
        accept(admission, *(ask(app=app) for app in apps))
        got = admission.reserve([ask(app=apps[0], cap=7) for _ in range(3)])
        assert [isinstance(each, Place) for each in got] == [True, True, False]

    def test_a_place_that_frees_is_kept_for_the_app_that_knocked(self, admission: Admission, redis: Redis) -> None:
        first, second = new_id(), new_id()
        accept(admission, *(ask(app=first, cap=4) for _ in range(4)))
        assert isinstance(reserve(admission, ask(app=second, cap=4)), Refusal)
        admission.knock(second, QUEUE, 10, for_s=30)
        take(admission, redis)

        back = reserve(admission, ask(app=first, cap=4))
        got = reserve(admission, ask(app=second, cap=4))

        assert isinstance(back, Refusal)
        assert (back.reason, back.cap_jobs) == ("share", 2)
        assert isinstance(got, Place)
        assert redis.exists(books_key("knocks", QUEUE)) == 0, "an app that is in knocks no more"

    def test_a_knock_counts_for_nothing_once_its_time_is_over(self, admission: Admission, redis: Redis) -> None:
        app = new_id()
        accept(admission, *(ask(app=app, cap=4) for _ in range(3)))
        admission.knock(new_id(), QUEUE, 10, for_s=-1)

        assert isinstance(reserve(admission, ask(app=app, cap=4)), Place)
        assert redis.exists(books_key("knocks", QUEUE)) == 0

    def test_apps_share_a_queue_fairly_where_the_token_cap_binds(self, admission: Admission, redis: Redis) -> None:
        """One app keeps the queue full of long jobs; another's short ones get their share of the tokens."""
        long, short, cap_tokens = new_id(), new_id(), 1_000_000
        while submit(admission, long, 8192, cap_tokens):
            pass
        assert admission.loads([QUEUE])[QUEUE] == Load(122, 122 * 8192, 1, 122 * 8192)

        admitted = 0
        for _ in range(200):
            take(admission, redis)
            for _ in range(3):
                submit(admission, long, 8192, cap_tokens)
            admitted += submit(admission, short, 500, cap_tokens)

        assert admitted >= 199, "the first place that frees is kept for it"
        held = {app: int(tokens) for app, tokens in redis.hgetall(books_key("tokens", QUEUE)).items()}
        assert held[long.hex] <= cap_tokens / 2

    def test_an_app_may_have_its_share_of_the_tokens_while_others_want_some(self, admission: Admission) -> None:
        first, second = new_id(), new_id()
        accept(admission, ask(app=second, tokens=10), ask(app=first, tokens=40))

        refused = reserve(admission, ask(app=first, tokens=11, cap_tokens=100))
        others = admission.reserve([ask(app=first, tokens=10, cap_tokens=100), ask(app=second, cap_tokens=100)])

        assert isinstance(refused, Refusal)
        assert (refused.reason, refused.cap_tokens, refused.backlog_tokens) == ("token_share", 50, 50)
        assert [isinstance(each, Place) for each in others] == [True, True]

    def test_an_app_alone_may_fill_a_queue_with_tokens(self, admission: Admission) -> None:
        app = new_id()
        got = admission.reserve([ask(app=app, tokens=25, cap_tokens=100) for _ in range(5)])
        assert [getattr(each, "reason", None) for each in got] == [None, None, None, None, "tokens"]

    def test_a_job_larger_than_a_share_gets_in_where_its_app_has_nothing(
        self, admission: Admission, redis: Redis
    ) -> None:
        small, large = [new_id() for _ in range(4)], new_id()
        for _ in range(25):
            for app in small:
                submit(admission, app, 1, 100)
        # A share is 20 tokens, its job has 60. It comes back once in a while, the others all the time.
        rounds = 0
        while not submit(admission, large, 60, 100):
            rounds += 1
            assert rounds < 20
            for _ in range(5):
                take(admission, redis)
                for app in small:
                    submit(admission, app, 1, 100)
        assert admission.loads([QUEUE])[QUEUE].tokens <= 100, "no cap is overshot for it"
        assert redis.exists(books_key("wishes", QUEUE)) == 0

    def test_books_without_tokens_of_apps_lock_no_app_out(self, admission: Admission, redis: Redis) -> None:
        """An older version keeps no `tokens:Q`: while it runs beside this one, they are too few or too many."""
        app, other, tokens = new_id(), new_id(), books_key("tokens", QUEUE)
        accept(admission, *(ask(app=app, tokens=20) for _ in range(3)), ask(app=other))
        redis.delete(tokens)
        take(admission, redis)
        assert int(redis.hget(tokens, app.hex) or 0) == 0
        accept(admission, ask(app=app, tokens=20))
        take(admission, redis)
        assert int(redis.hget(tokens, app.hex) or 0) >= 0

        # The older one's worker claims jobs and leaves their tokens behind.
        redis.hset(tokens, app.hex, 1_000_000)
        accept(admission, ask(app=other))
        assert isinstance(reserve(admission, ask(app=app, cap_tokens=100)), Refusal)
        while admission.loads([QUEUE])[QUEUE].jobs:
            take(admission, redis)
        accept(admission, ask(app=other), ask(app=app, tokens=20), ask(app=app, tokens=20))
        assert redis.hgetall(tokens) == {app.hex: "40", other.hex: "10"}

    def test_expected_tokens_that_an_older_version_leaves_behind_refuse_nobody(
        self, admission: Admission, redis: Redis
    ) -> None:
        """Its processes take jobs out of the books, and not what was expected of them."""
        asks = [replace(ask(tokens=100), expected_tokens=60) for _ in range(3)]
        gone, stays, again = accept(admission, *asks)
        expected, of_jobs = books_key("expected", QUEUE), KEY_PREFIX + "expected_tokens"
        redis.incrby(expected, 1_000_000)
        redis.hset(of_jobs, gone.job_id.hex, 60)

        assert admission.loads([QUEUE])[QUEUE].expected_tokens == 300
        place = reserve(admission, ask(ahead=300))
        assert isinstance(place, Place)
        assert place.ahead_tokens == 300

        # It took one out, which comes back without a word on what is expected of it.
        for each in (stays, again):
            admission.leave([(each.job_id, 1)])
        redis.hset(of_jobs, again.job_id.hex, 60)
        admission.restore([replace(again, enqueue_no=2)])
        assert not redis.hexists(of_jobs, again.job_id.hex)


class TestRates:
    def test_an_app_makes_as_many_requests_as_it_may(self, admission: Admission) -> None:
        app, limits = new_id(), AppLimits(requests_per_minute=3)

        got = admission.reserve([ask(app=app, limits=limits) for _ in range(4)])

        assert [each.rates_left.requests for each in got] == [RateLeft(3, left) for left in (2, 1, 0, 0)]
        assert [each.rates_left.tokens for each in got] == [None] * 4
        refused = got[3]
        assert isinstance(refused, Refusal)
        assert refused.reason == "requests_per_minute"
        assert 19_000 <= (refused.retry_in_ms or 0) <= 20_000, "a third of a minute until one more is allowed"

    def test_an_app_uses_as_many_tokens_as_it_may(self, admission: Admission) -> None:
        app, limits = new_id(), AppLimits(tokens_per_minute=100)

        got = admission.reserve([ask(app=app, tokens=60, limits=limits) for _ in range(2)])

        assert got[0].rates_left.tokens == RateLeft(100, 40)
        refused = got[1]
        assert isinstance(refused, Refusal)
        assert refused.reason == "tokens_per_minute"
        assert 11_000 <= (refused.retry_in_ms or 0) <= 12_000, "20 tokens more take a fifth of a minute"
        assert isinstance(reserve(admission, ask(app=app, tokens=40, limits=limits)), Place)

    def test_rates_fill_as_the_minute_passes_and_hold_a_minutes_worth(self, admission: Admission, redis: Redis) -> None:
        app, limits = new_id(), AppLimits(requests_per_minute=4, tokens_per_minute=400)
        admission.reserve([ask(app=app, tokens=100, limits=limits) for _ in range(4)])

        minutes_pass(redis, app, 0.5)
        half = reserve(admission, ask(app=app, tokens=10, limits=limits))
        minutes_pass(redis, app, 10)
        full = reserve(admission, ask(app=app, tokens=10, limits=limits))

        assert half.rates_left.requests == RateLeft(4, 1)
        assert half.rates_left.tokens is not None
        assert 190 <= half.rates_left.tokens.left <= 191
        assert full.rates_left.requests == RateLeft(4, 3)
        assert full.rates_left.tokens == RateLeft(400, 390)

    def test_a_clock_that_is_set_back_takes_nothing_away(self, admission: Admission, redis: Redis) -> None:
        app, limits = new_id(), AppLimits(requests_per_minute=3)
        reserve(admission, ask(app=app, limits=limits))
        minutes_pass(redis, app, -60)
        assert reserve(admission, ask(app=app, limits=limits)).rates_left.requests == RateLeft(3, 1)

    def test_a_refusal_uses_nothing_up(self, admission: Admission) -> None:
        app, limits = new_id(), AppLimits(requests_per_minute=5, tokens_per_minute=500)
        admission.commit([ticket()])

        got = [reserve(admission, ask(app=app, cap=1, limits=limits)) for _ in range(3)]

        assert all(isinstance(each, Refusal) and each.reason == "depth" for each in got)
        assert [(each.rates_left.requests, each.rates_left.tokens) for each in got] == [
            (RateLeft(5, 5), RateLeft(500, 500))
        ] * 3

    def test_a_limit_that_is_set_later_starts_with_a_full_minute(self, admission: Admission) -> None:
        app = new_id()
        reserve(admission, ask(app=app, limits=AppLimits(requests_per_minute=5)))
        got = reserve(admission, ask(app=app, limits=AppLimits(requests_per_minute=5, tokens_per_minute=100)))
        assert isinstance(got, Place)
        assert got.rates_left.tokens == RateLeft(100, 90)


class TestTurns:
    def test_apps_are_served_in_turn_whatever_the_order_they_came_in(self, admission: Admission, redis: Redis) -> None:
        a, b, c = (new_id() for _ in range(3))
        tickets = accept(admission, *(ask(app=app) for app in (a, a, a, a, b, b, c)))

        order = [job_id for job_id, _ in listed(redis)]

        ids = [each.job_id for each in tickets]
        assert order == [ids[0], ids[4], ids[6], ids[1], ids[5], ids[2], ids[3]]

    def test_a_place_says_how_many_are_taken_before_it(self, admission: Admission, redis: Redis) -> None:
        a, b = new_id(), new_id()
        accept(admission, *(ask(app=a, tokens=30) for _ in range(4)))
        asked = ask(app=b)

        place = reserve(admission, asked)
        admission.commit([ticket_of(asked)])

        assert isinstance(place, Place)
        assert listed(redis)[place.position - 1] == (asked.job_id, 1)
        assert (place.position, place.depth, place.ahead_tokens) == (2, 5, 30)

    def test_messages_stand_in_the_order_of_their_places_whichever_is_committed_first(
        self, admission: Admission, redis: Redis
    ) -> None:
        app = new_id()
        asks = [ask(app=app) for _ in range(4)]
        admission.reserve(asks)
        for i in (2, 0, 3, 1):
            admission.commit([ticket_of(asks[i])])
        assert [job_id for job_id, _ in listed(redis)] == [asked.job_id for asked in asks]

    def test_an_app_that_was_served_comes_after_those_that_wait_for_that_turn(
        self, admission: Admission, redis: Redis
    ) -> None:
        busy, quick = new_id(), new_id()
        accept(admission, *(ask(app=busy) for _ in range(20)))
        apps = []
        owner = {job_id: busy for job_id, _ in listed(redis)}
        for _ in range(12):
            if quick not in owner.values():
                [new] = accept(admission, ask(app=quick))
                owner[new.job_id] = quick
            apps.append(owner.pop(take(admission, redis)))
        assert apps == [busy, quick] * 6, "one job at a time gives an app no more than its turn"

    def test_a_place_whose_process_died_gives_newcomers_no_precedence(self, admission: Admission, redis: Redis) -> None:
        old, new = new_id(), new_id()
        assert isinstance(reserve(admission, ask()), Place)  # Never committed.
        accept(admission, *(ask(app=old) for _ in range(40)))
        for _ in range(20):
            take(admission, redis)

        tickets = accept(admission, *(ask(app=new) for _ in range(10)))

        ours = {each.job_id for each in tickets}
        assert [job_id in ours for job_id, _ in listed(redis)[:20]] == [False, True] * 10


@pytest.mark.parametrize("num_apps", [2, 3, 5])
def test_apps_that_flood_a_queue_share_it_and_a_newcomer_starts_soon(
    num_apps: int, admission: Admission, redis: Redis
) -> None:
    """Design: alone, an app may fill a queue; with a second app there, shares at the door and turns at `take`.

    One that arrives behind another's full share starts within 2 x (apps waiting) takes.
    """
    cap, apps = 30, [new_id() for _ in range(num_apps)]
    owner: dict[UUID, UUID] = {}
    accepted_at: dict[UUID, int] = {}
    first_wait: dict[UUID, int] = {}
    taken: list[UUID] = []

    def submit(app: UUID) -> bool:
        waiting = Counter(owner[job_id] for job_id in owner)
        asked = ask(app=app, cap=cap)
        got = reserve(admission, asked)
        if isinstance(got, Refusal):
            admission.knock(app, QUEUE, asked.tokens, for_s=30)
            return False
        if len(waiting.keys() | {app}) > 1:
            assert waiting[app] < -(-cap // len(waiting.keys() | {app})), "admitted beyond its share"
        admission.commit([ticket_of(asked)])
        owner[asked.job_id], accepted_at[asked.job_id] = app, len(taken)
        return True

    while submit(apps[0]):
        pass
    assert len(owner) == cap, "alone, an app may fill the queue"
    for _ in range(10 * cap):
        for app in apps:
            submit(app)
        job_id = take(admission, redis)
        app = owner.pop(job_id)
        first_wait.setdefault(app, len(taken) - accepted_at[job_id] + 1)
        taken.append(app)

    assert all(first_wait[app] <= 2 * num_apps for app in apps[1:])
    lately = Counter(taken[-num_apps * 20 :])
    assert lately == dict.fromkeys(apps, 20), "served in turn"
    assert max(Counter(owner.values()).values()) <= -(-cap // num_apps), "each holds its share at most"


class TestBooks:
    def test_a_commit_makes_the_place_a_message_and_keeps_the_depth(self, admission: Admission, redis: Redis) -> None:
        asked = ask()
        reserve(admission, asked)
        before = admission.loads([QUEUE])

        admission.commit([ticket_of(asked)])

        assert admission.loads([QUEUE]) == before == {QUEUE: Load(1, 10, 1, 10)}
        assert redis.llen(list_key(QUEUE)) == 1
        assert redis.zcard(books_key("reservations", QUEUE)) == 0

    def test_a_commit_after_its_place_ran_out_still_makes_the_message(self, admission: Admission, redis: Redis) -> None:
        late = ticket()
        admission.commit([late])
        assert listed(redis) == [(late.job_id, 1)]
        assert admission.loads([QUEUE]) == {QUEUE: Load(1, 10, 1, 10)}

    def test_a_reserve_that_is_sent_twice_takes_one_place_and_is_paid_for_once(self, admission: Admission) -> None:
        asked = ask(cap=1, limits=AppLimits(requests_per_minute=1, tokens_per_minute=15))
        got = [reserve(admission, asked) for _ in range(2)]
        assert all(isinstance(each, Place) and each.position == 1 for each in got)
        assert [each.rates_left.tokens for each in got] == [RateLeft(15, 5)] * 2
        assert admission.loads([QUEUE]) == {QUEUE: Load(1, 10, 1, 10)}

    def test_a_commit_that_is_sent_twice_makes_one_message(self, admission: Admission, redis: Redis) -> None:
        tickets = accept(admission, ask(), ask())
        admission.commit(tickets)
        assert listed(redis) == [(each.job_id, 1) for each in tickets]

    def test_a_commit_that_comes_after_a_restore_makes_no_second_message(
        self, admission: Admission, redis: Redis
    ) -> None:
        asked = ask()
        reserve(admission, asked)
        admission.restore([ticket_of(asked)])
        admission.commit([ticket_of(asked)])
        assert listed(redis) == [(asked.job_id, 1)]

    def test_nothing_is_left_when_all_have_left(self, admission: Admission, redis: Redis) -> None:
        accept(admission, *(ask() for _ in range(3)))
        for _ in range(3):
            take(admission, redis)
        assert set(redis.keys()) == {KEY_PREFIX + "departed", bell_key("chat")}, "which count on"

    def test_a_place_that_ran_out_is_free_again(self, redis: Redis, settings: Settings) -> None:
        door = Admission(redis, ExecuteMessage(make_celery("test", settings)), reservation_ttl_s=0)
        reserve(door, ask(cap=1))
        got = reserve(door, ask(cap=1))
        assert isinstance(got, Place)
        assert got.position == 1

    def test_a_place_that_was_given_back_is_free_again(self, admission: Admission) -> None:
        asked = ask(cap=1)
        reserve(admission, asked)

        assert admission.leave([(asked.job_id, 1)]) == 1
        assert admission.leave([(asked.job_id, 1)]) == 0
        assert isinstance(reserve(admission, ask(cap=1)), Place)

    @pytest.mark.parametrize(("enqueue_no", "left"), [(1, 0), (2, 1), (3, 1)])
    def test_the_end_of_an_earlier_stay_leaves_a_later_one_alone(
        self, enqueue_no: int, left: int, admission: Admission
    ) -> None:
        back = ticket(enqueue_no=2)
        admission.restore([back])

        assert admission.leave([(back.job_id, enqueue_no)]) == left
        assert admission.loads([QUEUE])[QUEUE].jobs == 1 - left

    def test_remove_takes_exactly_the_named_jobs_out(self, admission: Admission, redis: Redis) -> None:
        kept, gone = accept(admission, ask(), ask())

        assert admission.remove([gone]) == 1
        assert admission.remove([gone]) == 0
        assert listed(redis) == [(kept.job_id, 1)]
        assert admission.loads([QUEUE]) == {QUEUE: Load(1, 10, 1, 10)}

    def test_remove_frees_the_place_of_a_job_whose_message_is_gone(self, admission: Admission, redis: Redis) -> None:
        [gone] = accept(admission, ask())
        redis.delete(list_key(QUEUE))
        assert admission.remove([gone]) == 0
        assert admission.loads([QUEUE])[QUEUE].jobs == 0

    def test_loads_are_of_each_queue(self, admission: Admission) -> None:
        app = new_id()
        accept(admission, ask(app=app, tokens=5), ask(app=app, tokens=7), ask(), ask(candidate(SPILL)))
        assert admission.loads([QUEUE, SPILL, "chat.high"]) == {
            QUEUE: Load(3, 22, 2, 22),
            SPILL: Load(1, 10, 1, 10),
            "chat.high": Load(0, 0, 0, 0),
        }

    def test_only_reservations_whose_time_is_over_are_dropped(self, redis: Redis, settings: Settings) -> None:
        message = ExecuteMessage(make_celery("test", settings))
        stale, live = (Admission(redis, message, reservation_ttl_s=ttl_s) for ttl_s in (-5, 30))
        reserve(live, ask(candidate(SPILL)))
        committed, dropped = ask(), ask()
        stale.reserve([committed, dropped])
        stale.commit([ticket_of(committed)])

        assert live.drop_stale_reservations([QUEUE, SPILL]) == 1
        assert live.loads([QUEUE, SPILL]) == {QUEUE: Load(1, 10, 1, 10), SPILL: Load(1, 10, 1, 10)}

    def test_the_committed_are_those_past_their_reservation(self, admission: Admission) -> None:
        reserve(admission, ask())
        [first] = accept(admission, ask())
        back = ticket(enqueue_no=3)
        admission.restore([back])

        assert admission.committed(0) == (0, {first.job_id: 1, back.job_id: 3})

    def test_the_committed_come_in_parts_that_miss_nobody(self, admission: Admission) -> None:
        tickets = [ticket() for _ in range(2500)]
        admission.restore(tickets)
        found: dict[UUID, int] = {}
        cursor, num_parts = 0, 0
        while num_parts == 0 or cursor:
            cursor, part = admission.committed(cursor)
            found |= part
            num_parts += 1
        assert found == {each.job_id: 1 for each in tickets}
        assert num_parts > 1

    def test_discard_takes_these_very_messages(self, admission: Admission, redis: Redis) -> None:
        accept(admission, *(ask() for _ in range(3)))
        messages = admission.messages(QUEUE, 2)
        assert [named_in(message) for message in reversed(messages)] == listed(redis)[:2]

        assert admission.discard(QUEUE, [*messages, "unknown"]) == 2
        assert len(listed(redis)) == 1


class TestRestore:
    def test_what_is_missing_is_pushed_once_in_the_order_given(self, admission: Admission, redis: Redis) -> None:
        app = new_id()
        tickets = accept(admission, *(ask(app=app) for _ in range(3)))
        lose(admission, redis, *tickets[:2])

        again = [replace(each, enqueue_no=2) for each in tickets[:2]]
        assert admission.restore([*again, tickets[2]], first=2) == again
        assert admission.restore([*again, tickets[2]], first=2) == []
        assert listed(redis) == [(each.job_id, each.enqueue_no) for each in (*again, tickets[2])]
        assert admission.loads([QUEUE]) == {QUEUE: Load(3, 30, 1, 30)}

    def test_a_wiped_redis_is_rebuilt_with_its_turns(self, admission: Admission, redis: Redis) -> None:
        a, b = new_id(), new_id()
        tickets = accept(admission, *(ask(app=app) for app in (a, a, a, b, b)))
        before = listed(redis)
        redis.flushall()

        assert admission.restore(tickets) == tickets
        assert listed(redis) == before
        assert admission.loads([QUEUE]) == {QUEUE: Load(5, 50, 2, 50)}

    def test_work_that_comes_back_goes_first_the_oldest_before_the_others(
        self, admission: Admission, redis: Redis
    ) -> None:
        waiting = accept(admission, *(ask() for _ in range(3)))
        back = [ticket(enqueue_no=2) for _ in range(2)]

        assert admission.restore(back) == back
        assert [job_id for job_id, _ in listed(redis)] == [each.job_id for each in (*back, *waiting)]

    def test_work_that_comes_back_enters_above_the_cap_and_closes_the_door(self, admission: Admission) -> None:
        accept(admission, ask(cap=1))
        admission.restore([ticket(enqueue_no=2)])
        got = reserve(admission, ask(cap=2))
        assert isinstance(got, Refusal)
        assert (got.reason, got.depth) == ("depth", 2)

    def test_work_whose_message_was_lost_again_goes_first_again(self, admission: Admission, redis: Redis) -> None:
        [waiting] = accept(admission, ask())
        back = ticket(enqueue_no=2)
        admission.restore([back])
        lose(admission, redis, back)

        again = replace(back, enqueue_no=3)
        assert admission.restore([again], first=2) == [again]
        assert listed(redis) == [(back.job_id, 3), (waiting.job_id, 1)]
        assert admission.loads([QUEUE]) == {QUEUE: Load(2, 20, 2, 20)}

    def test_work_that_comes_back_has_the_turn_of_what_it_goes_before(self, admission: Admission, redis: Redis) -> None:
        app = new_id()
        first, second = accept(admission, ask(app=app), ask(app=app))
        lose(admission, redis, first)
        back = ticket(enqueue_no=2)

        admission.restore([replace(first, enqueue_no=2), replace(back, enqueue_no=3)], first=2)

        assert [job_id for job_id, _ in listed(redis)] == [each.job_id for each in (back, first, second)]
        turns = dict(redis.zrange(books_key("line", QUEUE), 0, -1, withscores=True))
        assert turns == {back.job_id.hex: 1, first.job_id.hex: 1, second.job_id.hex: 2}

    def test_a_later_stay_ends_the_earlier_one(self, admission: Admission, redis: Redis) -> None:
        asked = ask()
        [first] = accept(admission, asked)
        redis.rpop(list_key(QUEUE))

        assert len(admission.restore([ticket_of(asked, enqueue_no=2)])) == 1
        assert admission.loads([QUEUE]) == {QUEUE: Load(1, 10, 1, 10)}
        assert admission.committed(0)[1] == {first.job_id: 2}

    def test_an_earlier_stay_is_not_put_back_over_a_later_one(self, admission: Admission, redis: Redis) -> None:
        asked = ask()
        admission.restore([ticket_of(asked, enqueue_no=2)])

        assert admission.restore([ticket_of(asked)]) == []
        assert listed(redis) == [(asked.job_id, 2)]
        assert admission.committed(0)[1] == {asked.job_id: 2}

    def test_what_was_reserved_and_is_restored_has_no_reservation_any_more(
        self, admission: Admission, redis: Redis
    ) -> None:
        asked = ask()
        reserve(admission, asked)
        assert len(admission.restore([ticket_of(asked)])) == 1
        assert redis.zcard(books_key("reservations", QUEUE)) == 0
        assert admission.loads([QUEUE]) == {QUEUE: Load(1, 10, 1, 10)}


def test_message_equals_what_celery_itself_would_send(settings: Settings, redis: Redis) -> None:
    celery = make_celery("test", settings)
    mine = ticket(enqueue_no=3)
    headers = {
        "headrace": {
            "app": mine.app_id.hex,
            "lane": "normal",
            "prompt_tokens": 10,
            "max_tokens": 0,
            "alone": False,
            "start_by": int(mine.start_by.timestamp()),
        }
    }
    task_id = show_id(mine.job_id)
    celery.send_task(EXECUTE, (task_id, 3), queue=QUEUE, task_id=task_id, headers=headers, ignore_result=True)
    sent = json.loads(redis.lpop(list_key(QUEUE)))

    ours = json.loads(ExecuteMessage(celery).of(mine))

    assert _meaning(ours) == _meaning(sent)
    assert ours["properties"]["delivery_tag"] == f"{task_id}.3"


def _meaning(message: dict[str, Any]) -> dict[str, Any]:
    """A message without what is random or says only who sent it and how the body is wrapped."""
    properties = dict(message["properties"])
    encoded = message["body"].encode()
    body = base64.b64decode(encoded) if properties.pop("body_encoding") == "base64" else encoded
    properties.pop("delivery_tag")
    properties.pop("reply_to", None)
    headers = {key: value for key, value in message["headers"].items() if key != "origin"}
    return {**message, "body": json.loads(body), "properties": properties, "headers": headers}


def test_redis_that_is_gone_is_reported_not_waited_for(settings: Settings) -> None:
    gone = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    door = Admission(redis_client(gone), ExecuteMessage(make_celery("test", gone)), reservation_ttl_s=30)
    calls: Sequence[Any] = (
        lambda: reserve(door, ask()),
        lambda: door.commit([ticket()]),
        lambda: door.leave([(new_id(), 1)]),
        lambda: door.restore([ticket()]),
        lambda: door.remove([ticket()]),
        lambda: door.loads([QUEUE]),
        lambda: door.committed(0),
        lambda: door.knock(new_id(), QUEUE, 10, 1),
        door.outlook,
        lambda: door.standing(dict),
    )
    for call in calls:
        with pytest.raises(BrokerUnavailable):
            call()


def test_the_outlook_is_read_back_until_it_is_forgotten(admission: Admission, redis: Redis) -> None:
    assert admission.outlook() is None
    admission.publish_outlook('{"chat": 1}', for_s=60)
    assert admission.outlook() == '{"chat": 1}'
    assert 50_000 < redis.pttl(OUTLOOK) <= 60_000  # type: ignore[operator]


def test_redis_may_forget_the_scripts_and_close_connections(
    admission: Admission, redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(admission, ask())
    redis.script_flush()
    accept(admission, ask())
    # Redis closes the connection after redis-py's look at it, so that the call meets it.
    monkeypatch.setattr(DroppedConnection, "can_read", lambda *_, **__: False)
    with Redis.from_url(redis_url) as other:
        other.client_kill_filter(_type="normal", skipme=True)
    accept(admission, ask())

    assert admission.loads([QUEUE])[QUEUE].jobs == 3


def test_a_refused_request_is_new_to_one_process_alone_in_a_minute(
    admission: Admission, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now_s=6000.0)
    monkeypatch.setattr("headrace.broker.admission.time", SimpleNamespace(time=lambda: clock.now_s))
    first, second = bytes(8), b"\xff\xfe\x00binary"
    assert admission.note_refused([]) == set()
    assert admission.note_refused([first, second]) == {first, second}
    assert admission.note_refused([first]) == set()
    clock.now_s += 60
    assert admission.note_refused([first]) == {first}
    assert 0 < redis.ttl(f"{KEY_PREFIX}refused:100") <= 120
