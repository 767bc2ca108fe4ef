"""The books in Redis against a model of them in plain Python, through whatever may happen to jobs, at every step."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck
from hypothesis import settings as effort
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis import Redis

from headrace.broker.admission import Admission, books_key
from headrace.broker.messages import list_key, named_in
from headrace.domain.apps import UNLIMITED, AppLimits
from headrace.domain.ids import new_id
from headrace.domain.limits import RateLeft, RatesLeft
from headrace.domain.places import Ask, Place, Refusal, bound_of
from headrace.domain.queues import KEY_PREFIX, Candidate, Lane, Ticket

QUEUES = ("chat.normal", "overflow.normal")
APPS = {
    new_id(): UNLIMITED,
    new_id(): AppLimits(queued_jobs=3),
    new_id(): AppLimits(requests_per_minute=4, tokens_per_minute=12),
    new_id(): AppLimits(queued_jobs=4, tokens_per_minute=9),
}
#: The books that have a field for each app.
PER_APP = ("jobs", "turns", "tokens")
#: A call that takes longer than this, in ms, would find an app's minute a little fuller than the model has it.
STALL_MS = 4000
EXAMPLES = 150
START_BY = datetime.now(UTC) + timedelta(hours=1)


@dataclass(frozen=True)
class Entry:
    """A job that waits. `likely`: fewer tokens than it may take, if as many were expected when it took its place."""

    queue: str
    app: UUID
    tokens: int
    number: int
    turn: int = 0
    likely: int | None = None

    @property
    def expected(self) -> int:
        return self.tokens if self.likely is None else self.likely


def pool_of(queue: str) -> str:
    return queue.rpartition(".")[0]


class Books:
    """What `lua/books.lua` says, without Redis, and without voids: messages that stand for nothing.

    Attributes:
        reserved: the jobs that are not committed yet, with whether their time is over.
        lists: of each queue, the jobs that have a message there, next to be taken first.
        taken: the jobs that a worker took and has not claimed.
        turns: the last turn an app was given in a queue.
        knocks: of each queue, the apps that knock, and the tokens of the job that was refused.
        used: requests and tokens an app has used up of its minute.
        departed: of each pool, the jobs that ever left its queues.
    """

    def __init__(self) -> None:
        self.entries: dict[UUID, Entry] = {}
        self.reserved: dict[UUID, bool] = {}
        self.lists: dict[str, list[UUID]] = {queue: [] for queue in QUEUES}
        self.taken: set[UUID] = set()
        self.turns: dict[tuple[str, UUID], int] = {}
        self.knocks: dict[str, dict[UUID, int]] = {queue: {} for queue in QUEUES}
        self.used: dict[UUID, tuple[int, int]] = {}
        self.departed: Counter[str] = Counter()

    def waiting(self, queue: str) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.queue == queue]

    def leave(self, job: UUID) -> bool:
        entry = self.entries.pop(job, None)
        self.reserved.pop(job, None)
        self.taken.discard(job)
        if entry and all(each.app != entry.app for each in self.waiting(entry.queue)):
            del self.turns[entry.queue, entry.app]
        if entry:
            self.departed[pool_of(entry.queue)] += 1
        return entry is not None

    def served(self, queue: str) -> int:
        if self.lists[queue]:
            return self.entries[self.lists[queue][0]].turn
        return min((entry.turn for entry in self.waiting(queue)), default=1)

    def next_turn(self, queue: str, app: UUID) -> int:
        return max(self.turns.get((queue, app), 0) + 1, self.served(queue))

    def enter(self, job: UUID, entry: Entry) -> None:
        self.entries[job] = entry
        self.turns[entry.queue, entry.app] = max(entry.turn, self.turns.get((entry.queue, entry.app), 0))

    def push(self, job: UUID) -> None:
        jobs, turn = self.lists[self.entries[job].queue], self.entries[job].turn
        jobs.insert(bisect_right([self.entries[each].turn for each in jobs], turn), job)

    def commit(self, job: UUID, entry: Entry) -> None:
        if job not in self.entries:
            self.enter(job, replace(entry, turn=self.next_turn(entry.queue, entry.app), likely=None))
        elif self.reserved.pop(job, None) is None:
            return
        self.push(job)

    def restore(self, jobs: Iterable[tuple[UUID, Entry]], first: int) -> int:
        """One queue's, oldest first. Args: first: the number of a job that was never taken."""
        pushed, returned = 0, dict[UUID, Entry]()
        for job, entry in jobs:
            is_reserved = self.reserved.pop(job, None) is not None
            known, is_returned = self.entries.get(job), entry.number > first
            if known and known.number >= entry.number and not (is_reserved and known.number == entry.number):
                continue
            pushed += 1
            self.taken.discard(job)
            if is_returned:
                self.leave(job)
                returned[job] = entry
                continue
            if not known or known.number != entry.number:
                self.leave(job)
                turn = known.turn if known else self.next_turn(entry.queue, entry.app)
                self.enter(job, replace(entry, turn=turn, likely=None))
            self.push(job)
        for job, entry in reversed(returned.items()):
            self.enter(job, replace(entry, turn=self.served(entry.queue), likely=None))
            self.lists[entry.queue].insert(0, job)
        return pushed

    def reserve(self, ask: Ask) -> Place | Refusal:
        is_paid = self.leave(ask.job_id)
        of_app = (not is_paid and self._rate_refusal(ask)) or self._app_refusal(ask)
        reasons = [of_app] if of_app else []
        free_in_first = self._free(ask.candidates[0])
        for each in () if of_app else ask.candidates:
            free = self._free(each)
            objection = self._objection(ask, each, free)
            if objection is None:
                return self._take(ask, each, is_paid, free)
            reasons.append(objection)
        # Whose time is over goes out while the first candidate is asked.
        first = self.waiting(ask.candidates[0].queue)
        reason, number = reasons[0]
        tokens = sum(entry.tokens for entry in first), sum(entry.expected for entry in first)
        return Refusal(reason, len(first), *tokens, self._left(ask), free_in_first, **bound_of(reason, number))

    def _free(self, to: Candidate) -> int:
        return max(0, to.free_until - self.departed[pool_of(to.queue)])

    def _rate_refusal(self, ask: Ask) -> tuple[Any, int] | None:
        left = self._left(ask)
        if left.requests and left.requests.left < 1:
            return "requests_per_minute", 60_000 // left.requests.limit
        if left.tokens and left.tokens.left < ask.tokens:
            return "tokens_per_minute", -(-(ask.tokens - left.tokens.left) * 60_000 // left.tokens.limit)
        return None

    def _app_refusal(self, ask: Ask) -> tuple[Any, int] | None:
        cap = ask.limits.queued_jobs
        if cap is not None and sum(entry.app == ask.app_id for entry in self.entries.values()) >= cap:
            return "app_jobs", cap
        return None

    def _objection(self, ask: Ask, to: Candidate, free: int) -> tuple[Any, int] | None:
        for job in [job for job, is_over in self.reserved.items() if is_over and self.entries[job].queue == to.queue]:
            self.leave(job)
        waiting = self.waiting(to.queue)
        backlog = sum(entry.tokens for entry in waiting)
        if len(waiting) >= to.depth_cap:
            return "depth", to.depth_cap
        if waiting and backlog + ask.tokens > to.backlog_cap_tokens:
            return "tokens", to.backlog_cap_tokens
        at_work = {entry.app for entry in waiting}
        apps = at_work | self.knocks[to.queue].keys() | {ask.app_id}
        share = -(-to.depth_cap // len(apps))
        own = [entry.tokens for entry in waiting if entry.app == ask.app_id]
        if len(own) >= share:
            return "share", share
        others = apps - {ask.app_id}
        if own and others:
            largest = max((self.knocks[to.queue][other] for other in others - at_work), default=0)
            left = max(0, to.backlog_cap_tokens - largest)
            share = min(-(-to.backlog_cap_tokens // len(apps)), left // len(others))
            if sum(own) + ask.tokens > share:
                return "token_share", share
        ahead = sum(entry.turn <= self.next_turn(to.queue, ask.app_id) for entry in waiting)
        most, expected = to.ahead_cap_tokens, sum(entry.expected for entry in waiting)
        if most is not None and waiting and ahead >= free and expected * (ahead - free) / len(waiting) > most:
            return "wait", most
        return None

    def _take(self, ask: Ask, to: Candidate, is_paid: bool, free: int) -> Place:
        waiting, turn = self.waiting(to.queue), self.next_turn(to.queue, ask.app_id)
        ahead = sum(entry.turn <= turn for entry in waiting)
        before = sum(entry.expected for entry in waiting) * ahead // len(waiting) if waiting else 0
        likely = None if ask.expected_tokens is None else min(ask.expected_tokens, ask.tokens)
        self.enter(ask.job_id, Entry(to.queue, ask.app_id, ask.tokens, 1, turn, likely))
        self.reserved[ask.job_id] = False
        self.knocks[to.queue].pop(ask.app_id, None)
        if not is_paid:
            requests, tokens = self.used.get(ask.app_id, (0, 0))
            self.used[ask.app_id] = requests + 1, tokens + ask.tokens
        return Place(to, ahead + 1, len(waiting) + 1, before, self._left(ask), free)

    def _left(self, ask: Ask) -> RatesLeft:
        caps = ask.limits.requests_per_minute, ask.limits.tokens_per_minute
        used = self.used.get(ask.app_id, (0, 0))
        return RatesLeft(*(cap and RateLeft(cap, cap - gone) for cap, gone in zip(caps, used, strict=True)))


candidates = st.builds(
    Candidate,
    queue=st.sampled_from(QUEUES),
    depth_cap=st.sampled_from([10, 6, 3]),
    backlog_cap_tokens=st.sampled_from([100, 100, 16, 9]),
    ahead_cap_tokens=st.sampled_from([None, None, None, None, 6, 2, 0]),
    reason=st.just("test"),
    free_until=st.sampled_from([0, 0, 3, 12]),
)
asks = st.builds(
    lambda app, tokens, options, expected: Ask(new_id(), app, tokens, tuple(options), APPS[app], expected),
    st.sampled_from(list(APPS)),
    st.sampled_from([1, 2, 3]),
    st.lists(candidates, min_size=1, max_size=2, unique_by=lambda each: each.queue),
    st.sampled_from([None, 1, 2, 4]),
)
batches = st.lists(asks, min_size=1, max_size=8)


class Door(RuleBasedStateMachine):
    """What API processes, workers and sweeps do, and what happens to them.

    Attributes:
        lapsed: jobs that were placed, inserted, and then lost their places; their commit is still to come.
        running: jobs that were claimed, as they were when they waited.
        order: the committed, in the order of their acceptance.
    """

    def __init__(self, redis: Redis, admission: Admission) -> None:
        super().__init__()
        redis.flushall()
        self.redis, self.door, self.books = redis, admission, Books()
        self.asked: dict[UUID, Ask] = {}
        self.lapsed: dict[UUID, Entry] = {}
        self.running: dict[UUID, Entry] = {}
        self.order: list[UUID] = []

    def ticket(self, job: UUID, entry: Entry) -> Ticket:
        return Ticket(job, entry.app, entry.queue, Lane.NORMAL, entry.tokens, 0, START_BY, entry.number)

    def queued(self) -> dict[UUID, Entry]:
        """What Postgres would have as queued, oldest first."""
        return {job: self.books.entries[job] for job in self.order if job in self.books.entries}

    @rule(batch=batches)
    def reserve(self, batch: list[Ask]) -> None:
        self.stop_clock()
        expected = [self.books.reserve(ask) for ask in batch]
        got = self.door.reserve(batch)
        for each, told in zip(got, expected, strict=True):
            self.compare(each, told)
        self.asked |= {ask.job_id: ask for ask in batch}
        for place in got:
            assert isinstance(place, Refusal) or place.depth <= place.candidate.depth_cap

    @rule(batch=batches)
    def accept(self, batch: list[Ask]) -> None:
        self.reserve(batch)
        placed = [ask.job_id for ask in batch if ask.job_id in self.books.reserved]
        self.commit_all({job: self.books.entries[job] for job in placed})

    @precondition(lambda self: self.books.reserved)
    @rule(data=st.data())
    def reserve_again_after_a_lost_answer(self, data: st.DataObject) -> None:
        ask = self.asked[data.draw(st.sampled_from(sorted(self.books.reserved)))]
        self.stop_clock()
        expected = self.books.reserve(ask)
        self.compare(self.door.reserve([ask])[0], expected)

    @staticmethod
    def compare(got: Place | Refusal, expected: Place | Refusal) -> None:
        if isinstance(got, Refusal) and isinstance(expected, Refusal) and got.reason.endswith("_per_minute"):
            assert got.retry_in_ms is not None
            assert expected.retry_in_ms is not None
            assert expected.retry_in_ms - STALL_MS <= got.retry_in_ms <= expected.retry_in_ms
            got = replace(got, retry_in_ms=expected.retry_in_ms)
        assert got == expected

    def stop_clock(self) -> None:
        """Nothing fills up between two steps."""
        now_ms = int(float(".".join(f"{part:06}" for part in self.redis.time())) * 1000)
        for key in self.redis.scan_iter(f"{KEY_PREFIX}rate:*"):
            self.redis.hset(key, "at", now_ms)

    @precondition(lambda self: self.books.reserved or self.lapsed)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        waiting = {**{job: self.books.entries[job] for job in self.books.reserved}, **self.lapsed}
        chosen = data.draw(st.lists(st.sampled_from(sorted(waiting)), min_size=1, max_size=6, unique=True))
        self.commit_all({job: waiting[job] for job in chosen})

    def commit_all(self, jobs: dict[UUID, Entry]) -> None:
        self.door.commit([self.ticket(*each) for each in jobs.items()])
        for job, entry in jobs.items():
            self.books.commit(job, entry)
            self.lapsed.pop(job, None)
        self.order += jobs

    @precondition(lambda self: self.queued())
    @rule(data=st.data())
    def commit_again_after_a_lost_answer(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.queued())))
        entry = self.books.entries[job]
        self.door.commit([self.ticket(job, entry)])
        self.books.commit(job, entry)

    @precondition(lambda self: self.books.reserved)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.books.reserved)))
        assert self.door.give_back([job]) == self.books.leave(job) == 1

    @precondition(lambda self: self.queued())
    @rule(data=st.data())
    def a_second_submit_changes_nothing(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.queued())))
        entry = self.books.entries[job]
        limits = AppLimits(queued_jobs=0, requests_per_minute=1, tokens_per_minute=1)
        ask = Ask(job, entry.app, entry.tokens, (Candidate(entry.queue, 0, 0, 0, "test"),), limits)
        assert isinstance(self.door.reserve([ask])[0], Place)
        assert self.door.give_back([job]) == 0

    @precondition(lambda self: self.books.reserved)
    @rule(data=st.data(), is_inserted=st.booleans())
    def reservation_runs_out(self, data: st.DataObject, is_inserted: bool) -> None:
        job = data.draw(st.sampled_from(sorted(self.books.reserved)))
        entry = self.books.entries[job]
        self.redis.zadd(books_key("reservations", entry.queue), {job.hex: 1})
        self.books.reserved[job] = True
        if is_inserted:
            self.drop_stale()
            self.lapsed[job] = entry

    @precondition(lambda self: self.books.reserved)
    @rule()
    def drop_stale(self) -> None:
        stale = [job for job, is_over in self.books.reserved.items() if is_over]
        assert self.door.drop_stale_reservations(QUEUES) == len(stale)
        for job in stale:
            self.books.leave(job)

    def has_messages(self) -> bool:
        return any(self.books.lists.values())

    def pop(self, data: st.DataObject) -> UUID:
        queue = data.draw(st.sampled_from([queue for queue in QUEUES if self.books.lists[queue]]))
        job = self.books.lists[queue].pop(0)
        number = self.books.entries[job].number
        assert named_in(self.redis.rpop(list_key(queue))) == (job, number)
        # As `take.lua` does it; long ago, so that its claim is overdue.
        self.redis.zadd(books_key("taken", queue), {f"{job.hex} {number}": 1})
        self.books.taken.add(job)
        return job

    @precondition(has_messages)
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        job = self.pop(data)
        entry = self.running[job] = self.books.entries[job]
        assert self.door.leave([(job, entry.number)]) == self.books.leave(job) == 1

    @precondition(has_messages)
    @rule(data=st.data())
    def worker_dies_before_its_claim(self, data: st.DataObject) -> None:
        self.pop(data)

    @precondition(has_messages)
    @rule(data=st.data())
    def worker_dies_after_its_claim_and_is_struck_out(self, data: st.DataObject) -> None:
        job = self.pop(data)
        entry = self.running[job] = self.books.entries[job]
        assert self.door.committed(0)[1][job] == entry.number
        assert self.door.leave([(job, entry.number)]) == self.books.leave(job) == 1

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def work_comes_back(self, data: st.DataObject) -> None:
        jobs = data.draw(st.lists(st.sampled_from(sorted(self.running)), min_size=1, max_size=3, unique=True))
        back = {job: replace(entry, number=entry.number + 1) for job in jobs if (entry := self.running.pop(job))}
        self.order = [job for job in self.order if job not in back] + jobs
        self.restored(back)

    @precondition(lambda self: self.queued())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.queued())))
        entry = self.books.entries[job]
        has_message = job in self.books.lists[entry.queue]
        assert self.door.remove([self.ticket(job, entry)]) == has_message
        self.books.leave(job)
        if has_message:
            self.books.lists[entry.queue].remove(job)

    @precondition(lambda self: self.queued())
    @rule(data=st.data())
    def an_older_stay_changes_nothing(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.queued())))
        older = replace(self.books.entries[job], number=self.books.entries[job].number - 1)
        assert self.door.leave([(job, older.number)]) == 0
        if older.number:
            assert self.door.restore([self.ticket(job, older)]) == []

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def a_job_that_has_left_leaves_again(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.running)))
        assert self.door.leave([(job, self.running[job].number)]) == 0
        assert self.door.remove([self.ticket(job, self.running[job])]) == 0

    @precondition(lambda self: self.queued())
    @rule()
    def publish_due(self) -> None:
        queued, taken = self.queued(), set(self.books.taken)
        self.restored({job: entry for job, entry in queued.items() if job not in taken})
        again = {job: replace(entry, number=entry.number + 1) for job, entry in queued.items() if job in taken}
        self.restored(again, first=2)

    @precondition(lambda self: self.queued())
    @rule()
    def redis_is_wiped_and_rebuilt(self) -> None:
        self.redis.flushall()
        queued, reserved = self.queued(), list(self.books.reserved)
        self.lapsed |= {job: self.books.entries[job] for job in reserved}
        self.books = Books()
        self.restored(queued)

    def restored(self, jobs: dict[UUID, Entry], first: int = 1) -> None:
        pushed = self.door.restore([self.ticket(*each) for each in jobs.items()], first)
        of_queue = [[each for each in jobs.items() if each[1].queue == queue] for queue in QUEUES]
        assert len(pushed) == sum(self.books.restore(each, first) for each in of_queue)

    @precondition(lambda self: self.queued())
    @rule(queue=st.sampled_from(QUEUES), app=st.sampled_from(list(APPS)), tokens=st.sampled_from([1, 3, 8, 200]))
    def knock(self, queue: str, app: UUID, tokens: int) -> None:
        self.door.knock(app, queue, tokens, for_s=600)
        self.books.knocks[queue][app] = tokens

    @precondition(lambda self: self.books.used)
    @rule(data=st.data())
    def minute_passes(self, data: st.DataObject) -> None:
        app = data.draw(st.sampled_from(sorted(self.books.used)))
        self.redis.delete(f"{KEY_PREFIX}rate:{app.hex}")
        del self.books.used[app]

    @invariant()
    def redis_has_what_the_model_has_and_nothing_else(self) -> None:
        assert self.in_redis() == self.in_model()

    @invariant()
    def no_list_lacks_a_message_that_was_not_taken(self) -> None:
        assert {look.missing for look in self.door.look(QUEUES, 0).values()} == {0}

    @invariant()
    def messages_stand_in_the_order_of_their_turns(self) -> None:
        for jobs in self.books.lists.values():
            turns = [self.books.entries[job].turn for job in jobs]
            assert turns == sorted(turns)

    def in_redis(self) -> dict[str, Any]:
        """All that is kept, by its key; but for the knocks and the rates, which show in what is let in."""
        pipeline = self.redis.pipeline()
        for queue in QUEUES:
            pipeline.lrange(list_key(queue), 0, -1)
            pipeline.get(books_key("backlog", queue))
            pipeline.get(books_key("expected", queue))
            pipeline.zrange(books_key("line", queue), 0, -1, withscores=True)
            for kind in ("reservations", "taken"):
                pipeline.zrange(books_key(kind, queue), 0, -1)
            for kind in PER_APP:
                pipeline.hgetall(books_key(kind, queue))
        pipeline.hgetall(KEY_PREFIX + "app_jobs").hgetall(KEY_PREFIX + "departed")
        pipeline.hgetall(KEY_PREFIX + "expected_tokens")
        pipeline.hgetall(KEY_PREFIX + "waiting").keys()
        answers = iter(pipeline.execute())
        found: dict[str, Any] = {}
        for queue in QUEUES:
            found[list_key(queue)] = [named_in(message) for message in reversed(next(answers))]
            found[books_key("backlog", queue)] = int(next(answers) or 0)
            found[books_key("expected", queue)] = int(next(answers) or 0)
            found[books_key("line", queue)] = dict(next(answers))
            for kind in ("reservations", "taken"):
                found[books_key(kind, queue)] = set(next(answers))
            for kind in PER_APP:
                found[books_key(kind, queue)] = {app: int(value) for app, value in next(answers).items()}
        for key in ("app_jobs", "departed", "expected_tokens"):
            found[KEY_PREFIX + key] = {name: int(value) for name, value in next(answers).items()}
        found[KEY_PREFIX + "waiting"] = next(answers)
        not_books = tuple(f"{KEY_PREFIX}{kind}:" for kind in ("rate", "knocks", "wishes", "bell"))
        kept = {key for key in next(answers) if not key.startswith(not_books)}
        assert kept == {key for key, value in found.items() if value}
        return found

    def in_model(self) -> dict[str, Any]:
        books, found = self.books, dict[str, Any]()
        for queue in QUEUES:
            waiting = {job: entry for job, entry in books.entries.items() if entry.queue == queue}
            found[list_key(queue)] = [(job, books.entries[job].number) for job in books.lists[queue]]
            found[books_key("backlog", queue)] = sum(entry.tokens for entry in waiting.values())
            found[books_key("expected", queue)] = sum(entry.expected for entry in waiting.values())
            found[books_key("line", queue)] = {job.hex: entry.turn for job, entry in waiting.items()}
            found[books_key("reservations", queue)] = {job.hex for job in books.reserved if job in waiting}
            taken = {job: waiting[job].number for job in books.taken if job in waiting}
            found[books_key("taken", queue)] = {f"{job.hex} {number}" for job, number in taken.items()}
            found[books_key("jobs", queue)] = Counter(entry.app.hex for entry in waiting.values())
            tokens = found[books_key("tokens", queue)] = Counter[str]()
            for entry in waiting.values():
                tokens[entry.app.hex] += entry.tokens
            found[books_key("turns", queue)] = {app.hex: n for (of, app), n in books.turns.items() if of == queue}
        found[KEY_PREFIX + "app_jobs"] = Counter(entry.app.hex for entry in books.entries.values())
        found[KEY_PREFIX + "departed"] = +books.departed
        fewer = {job.hex: it.expected for job, it in books.entries.items() if it.expected < it.tokens}
        found[KEY_PREFIX + "expected_tokens"] = fewer
        told = {job.hex: f"{it.queue} {it.app.hex} {it.tokens} {it.number}" for job, it in books.entries.items()}
        found[KEY_PREFIX + "waiting"] = told
        return found


def test_the_books_equal_their_model_whatever_happens(redis: Redis, admission: Admission) -> None:
    run_state_machine_as_test(
        lambda: Door(redis, admission),
        settings=effort(
            max_examples=EXAMPLES, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
