"""Looks jobs up in the semantic cache while they wait in their queues: in the worker of an embedding model, in batches.

A job that has an entry ends with its answer, unless a worker claims the job first. Every other job becomes an entry
itself, once it is answered, even if a worker claimed or ended it before its look-up. Whatever fails here, the job runs
as if there were no cache. The workers of other models hold a new job back for a moment until it is looked up.
"""

import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection

from headrace.broker.admission import Admission
from headrace.broker.reuse import Lookups
from headrace.config import Settings
from headrace.domain.ids import new_id, time_of
from headrace.domain.prompts import Sampling
from headrace.domain.prompts.embeddings import floats, of_answer, text_input
from headrace.errors import BrokerUnavailable, EngineError, PromptRejected, Unavailable
from headrace.logging import named
from headrace.policies import caching
from headrace.policies.caching import HELD_S, Match, MatchKind, ReuseConditions
from headrace.policies.reuse.bound import Record, learned
from headrace.store import Store
from headrace.store.cache import semantic_cache, semantic_matches
from headrace.store.cache.semantic_cache import SemanticHit, SemanticQuestion, Sought
from headrace.store.cache.semantic_matches import Noted
from workers.engines.base import Engine, GenerationRequest

log = logging.getLogger(__name__)

#: The pause between two looks, in seconds.
LOOK_AGAIN_S = 0.02


class LookupHold:
    """Holds a new job back from an engine, in the job's own thread, until it is looked up. Safe for many threads."""

    def __init__(
        self,
        lookups: Sequence[Lookups] = (),
        held_s: float = HELD_S,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: lookups: of every pool whose workers look jobs up; without any, no job is held."""
        self._lookups, self._held_s, self._now = lookups, held_s, now
        self._sleep, self._clock = sleep, clock

    def may_hold(self, job_id: UUID) -> bool:
        """True if `wait` may have to wait for this job's look-up. Asks no server."""
        return self._left(job_id) > 0

    def wait(self, job_id: UUID) -> None:
        """Return when the job has been looked up, or is `held_s` old by its id, or was held for as long.

        Bound: `held_s` and one reply of Redis, whatever the clocks say. A job that waited in its queue for longer costs
        nothing.
        """
        until = self._clock() + self._left(job_id)
        while (left := until - self._clock()) > 0 and self._is_pending(job_id):
            self._sleep(min(left, LOOK_AGAIN_S))

    def _left(self, job_id: UUID) -> float:
        if not self._lookups or not self._held_s:
            return 0.0
        return min(self._held_s, self._held_s - (self._now() - time_of(job_id)).total_seconds())

    def _is_pending(self, job_id: UUID) -> bool:
        try:
            return any(each.is_pending(job_id) for each in self._lookups)
        except BrokerUnavailable:
            return False


#: Jobs of one look-up. In a larger one each of them would wait longer for the others: to embed and to read one takes
#: some milliseconds.
BATCH = 16
#: The longest wait for new jobs, in seconds. Redis must hear of this worker more often than each `OPEN_MS`
#: of `headrace/broker/reuse.py`.
IDLE_S = 1.0
#: The pause after a failure, in seconds.
AGAIN_AFTER_S = 1.0
#: Why the semantic cache seldom finds an entry with simulated vectors, and trusts none with simulated answers.
SIMULATED_VECTORS = "The simulator's vectors compare pieces of words, so most questions in other words are not found."
SIMULATED_ANSWERS = "The simulator's answers carry a hash of the prompt, so no two agree and no entry earns trust."
#: How old a record may be, in seconds. To read one takes some tens of milliseconds.
KEEP_S = 15.0
#: The apps and pools whose records are kept.
MOST_RECORDS = 1_000
#: Seconds that `end` waits for a look-up under way: an idle wait, and the time of a batch.
END_TIMEOUT_S = 5.0


@dataclass(slots=True)
class Records:
    """What the tries of an app in a pool say of its entries. For one thread."""

    clock: Callable[[], float] = time.monotonic
    _known: OrderedDict[tuple[UUID, str], tuple[float, Record]] = field(default_factory=OrderedDict)

    def read(self, db: Connection, app_id: UUID, pool: str) -> Record:
        """The record of this app in this pool."""
        now = self.clock()
        known = self._known.get((app_id, pool))
        if known is not None and now - known[0] < KEEP_S:
            return known[1]
        tried = semantic_matches.tries_of(db, app_id, pool)
        found = Record(learned(tried.entries), tried.rechecks, tried.wrong)
        self._known[app_id, pool] = now, found
        self._known.move_to_end((app_id, pool))
        if len(self._known) > MOST_RECORDS:
            self._known.popitem(last=False)
        return found


@dataclass(slots=True)
class Matcher:
    """Looks up the jobs of all pools whose semantic cache names this worker's pool.

    Attributes: roll: a random number from 0 to 1; see `caching.choose`.
    """

    settings: Settings
    store: Store
    engine: Engine
    lookups: Lookups
    admission: Admission
    roll: Callable[[], float] = random.random
    records: Records = field(default_factory=Records)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start to look jobs up. The engine has started."""
        for reason in self._simulated():
            log.warning("semantic_cache_is_simulated", extra={"reason": reason})
        self._thread = threading.Thread(target=self._look_up_until_ended, name="matcher", daemon=True)
        self._thread.start()

    def _simulated(self) -> Iterator[str]:
        """Why this cache serves next to nothing, if a simulator stands in for one of its models."""
        if self.engine.name == "simulator":
            yield SIMULATED_VECTORS
        for pool in self.settings.pools.values():
            if pool.semantic_cache.pool == self.lookups.pool and pool.engine == "simulator":
                yield SIMULATED_ANSWERS
                return

    def end(self) -> None:
        """Stop. Jobs that are not looked up yet run without. Does nothing before `begin`."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(END_TIMEOUT_S)

    def _look_up_until_ended(self) -> None:
        if not self._can_search():
            return
        while not self._ended.is_set():
            try:
                if not self.look_up():
                    self.lookups.wait(IDLE_S)
            except (Unavailable, EngineError) as error:
                log.warning("look_up_failed", extra={"error": str(error)})
                self._ended.wait(AGAIN_AFTER_S)
        try:
            self.lookups.close()
        except BrokerUnavailable as error:
            # It closes by itself.
            log.warning("look_ups_not_closed", extra={"error": str(error)})

    def _can_search(self) -> bool:
        """Whether Postgres has what the search needs. Waits for Postgres; False if this worker stops first."""
        while not self._ended.is_set():
            try:
                with self.store.autocommit() as db:
                    has_vectors = semantic_cache.has_vectors(db)
            except Unavailable as error:
                log.warning("look_up_failed", extra={"error": str(error)})
                self._ended.wait(AGAIN_AFTER_S)
                continue
            if not has_vectors:
                log.error("semantic_cache_is_off", extra={"reason": semantic_cache.REMEDY})
            return has_vectors
        return False

    def look_up(self) -> int:
        """Look one batch up. Returns: how many jobs it had.

        Raises: StoreUnavailable, BrokerUnavailable, EngineError: the jobs are looked up again a little later.
        """
        job_ids = self.lookups.take(BATCH)
        if not job_ids:
            return 0
        try:
            self._look_up(job_ids)
        except (Unavailable, EngineError):
            raise
        except Exception:
            # These jobs run without. To try again would fail again, and hold up all others.
            log.exception("look_up_fault", extra=named(job_ids))
        self.lookups.done(job_ids)
        return len(job_ids)

    def _look_up(self, job_ids: Sequence[UUID]) -> None:
        with self.store.autocommit() as db:
            asked = {each.job_id: each for each in semantic_cache.read_questions(db, job_ids)}
        sought = self._sought(list(asked.values()))
        if not sought:
            return
        with self.store.autocommit() as db:
            found = semantic_cache.nearest(db, sought)
            conditions = {
                each.job_id: self._conditions(db, asked[each.job_id]) for each in sought if each.job_id in found
            }
        chosen = {
            each.job_id: match
            for each in sought
            if each.job_id in found
            and (match := caching.choose(each.text, found[each.job_id], conditions[each.job_id], self.roll()))
        }
        waiting = [each for each in sought if each.job_id in chosen and asked[each.job_id].waits]
        served = self._serve(waiting, chosen)
        others = [each for each in sought if each.job_id not in served]
        with self.store.begin() as db:
            semantic_cache.add_entries(db, others)
            # A worker was first with these: so they are tests, which tell what serving them would have been.
            ran = [(each, chosen[each.job_id]) for each in others if each.job_id in chosen]
            semantic_matches.note(
                db, [_noted(each, match, "recheck" if match.kind == "served" else match.kind) for each, match in ran]
            )

    def _sought(self, asked: Sequence[SemanticQuestion]) -> list[Sought]:
        """The questions with their embeddings. Leaves out those that the cache takes no part in, or cannot embed."""
        texts = {each.job_id: text for each in asked if (text := self._text(each))}
        vectors = dict(zip(texts, self._embed(list(texts.values())), strict=True))
        embedder = self.settings.pools[self.lookups.pool].model
        made = []
        for each in asked:
            if (vector := vectors.get(each.job_id)) is None:
                continue
            pool = self.settings.pools[each.pool]
            scope = caching.scope_of(each, pool, self.settings, embedder)
            made.append(
                Sought(
                    job_id=each.job_id,
                    app_id=each.app_id,
                    pool=each.pool,
                    text=texts[each.job_id],
                    scope=scope,
                    fingerprints=caching.fingerprints_of(texts[each.job_id], scope),
                    embedding=vector,
                    keep_s=self._keep_s(each),
                    overflow=each.overflow,
                )
            )
        return made

    def _text(self, question: SemanticQuestion) -> str | None:
        """What the job asks; None if the semantic cache takes no part in it any more."""
        pool = self.settings.pools.get(question.pool)
        if pool is None or pool.semantic_cache.pool != self.lookups.pool:
            return None
        if question.max_error == 0 or not self._keep_s(question):
            return None
        return caching.question_of(question.messages)

    def _keep_s(self, question: SemanticQuestion) -> float:
        return self.settings.pools[question.pool].cache_s if question.cache_s is None else question.cache_s

    def _embed(self, texts: Sequence[str]) -> list[list[float] | None]:
        """The vector of each text; None of one that the model cannot take, such as a long one.

        Raises: EngineError.
        """
        if not texts:
            return []
        inputs = tuple(text_input(text) for text in texts)
        request = GenerationRequest(f"look-up-{new_id().hex}", inputs, Sampling(max_tokens=0))
        try:
            generation = self.engine.generate(request)
        except PromptRejected:
            if len(texts) == 1:
                return [None]
            half = len(texts) // 2
            return [*self._embed(texts[:half]), *self._embed(texts[half:])]
        if generation.finish_reason == "abort":
            return [None] * len(texts)
        return [floats(packed) for packed in of_answer(generation.text)]

    def _conditions(self, db: Connection, question: SemanticQuestion) -> ReuseConditions:
        pool = self.settings.pools[question.pool]
        max_error = caching.max_error_of(question.max_error, pool)
        has_record = pool.semantic_cache.record
        found = self.records.read(db, question.app_id, question.pool) if has_record else Record()
        return ReuseConditions(found.bound(max_error), pool.semantic_cache.shadow, found.prior)

    def _serve(self, sought: Sequence[Sought], chosen: dict[UUID, Match]) -> set[UUID]:
        """End the jobs that may be served; returns those that ended. A worker may have claimed the others first."""
        served = [each for each in sought if chosen[each.job_id].kind == "served"]
        if not served:
            return set()
        asked = [
            SemanticHit(each.job_id, each.app_id, chosen[each.job_id].candidate.job_id, each.keep_s, each.overflow)
            for each in served
        ]
        with self.store.begin() as db:
            ended = semantic_cache.serve(db, asked)
            ids = {each.ticket.job_id for each in ended}
            # From a look-up that a worker did not finish.
            semantic_cache.remove_entries(db, list(ids))
            semantic_matches.note(
                db, [_noted(each, chosen[each.job_id], "served") for each in served if each.job_id in ids]
            )
        self._announce(ended)
        return ids

    def _announce(self, ended: Sequence[semantic_cache.Served]) -> None:
        """Take ended jobs out of their queues, and wake their readers and the webhook workers."""
        if not ended:
            return
        job_ids = [each.ticket.job_id for each in ended]
        log.info("jobs_served_by_meaning", extra=named(job_ids))
        try:
            self.admission.remove([each.ticket for each in ended])
            has_webhooks = any(each.has_webhook for each in ended)
            self.admission.announce_ended(job_ids, has_webhooks=has_webhooks, moved=job_ids)
        except BrokerUnavailable as error:
            # The message finds nothing to claim, `reconcile_admission` frees the place, and readers look again anyway.
            log.warning("end_not_announced", extra={"error": str(error)})


def _noted(sought: Sought, match: Match, kind: MatchKind) -> Noted:
    candidate = match.candidate
    return Noted(sought.job_id, sought.app_id, sought.pool, candidate.job_id, candidate.similarity, kind)


def matcher_of(
    settings: Settings, store: Store, engine: Engine, lookups: Lookups, admission: Admission
) -> Matcher | None:
    """The matcher of this worker; None if no pool's semantic cache names its pool."""
    names = {pool.semantic_cache.pool for pool in settings.pools.values()}
    return Matcher(settings, store, engine, lookups, admission) if lookups.pool in names else None
