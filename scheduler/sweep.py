"""The sweeps: each closes one window in which a job could be left behind, or removes what is old.

Every sweep may run twice, and on two machines at once: one holds the lock and works, the other raises LockHeld. Changes
in Redis are safe to repeat. Postgres is committed first, so that a sweep does its part there while Redis is down.
The sweeps do not know Celery: they must not depend on the broker that they repair.
Each returns how many rows, jobs or messages it dealt with. `bad` are jobs that Postgres refused in earlier batches.
"""

import logging
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row

from headrace.broker.messages import named_in
from headrace.broker.upkeep import Stay
from headrace.domain.ids import show_id
from headrace.domain.operators import Actor, Source
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.logging import named
from headrace.store import actions, analyst, clock, deliveries, escalations, jobs, locks, months
from headrace.store.audit import acting
from headrace.store.bad_rows import BadRows
from headrace.store.cache import exact_cache
from headrace.store.fleet import history, observations, processes, workers
from headrace.store.jobs import confinements, queued, texts
from headrace.store.jobs.insertion import forget_expired_keys
from headrace.store.money import budgets
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)

#: Messages of one queue that one `reconcile_admission` looks at: those that are taken next.
RECONCILE_MESSAGES = 1000
#: Parts of the books, of about a thousand jobs each, that one `reconcile_admission` compares with Postgres.
RECONCILE_PARTS = 20
#: Pages of each queue that one `publish_due` goes through.
MOST_PAGES = 20
#: Seconds after their end for which undelivered texts of jobs with `store=false` are kept. As long as their streams.
UNSTORED_S = 600.0


def publish_due(deps: ControlDeps) -> int:
    """Put jobs into their lists: retries that are due, and queued jobs whose message is missing.

    A message is missing if the API died between insert and commit, if a worker died between taking and claiming it,
    if a crash of Postgres has forgotten the claim, or if Redis was wiped. Each job is checked once, when it has been
    queued for `publish_grace_s`. A message that a worker takes is noted until its claim is on disk. So a backlog that
    waits costs nothing. All are checked once more when a Postgres was promoted or restored, which may have lost a
    claim: see `queued.timeline`. The job gets a new number first, since its worker may still run it.
    Bound: a due job waits one sweep, a missing message `publish_grace_s` and one sweep, both from when Redis answers;
    one sweep more for every `queued.PAGE_ROWS` times `MOST_PAGES` jobs of its queue that are missing before it.
    """
    with deps.store.begin() as db:
        locks.take(db, "publish_due")
        due = jobs.enqueue_due(db)
    pushed = _push(deps, due)
    looks = deps.admission.look(deps.queues, deps.settings.publish_grace_s)
    for queue, look in looks.items():
        if look.missing > 0:
            noted = deps.admission.compare(queue)
            log.warning("list_incomplete", extra={"queue": queue, "missing": look.missing, "noted": noted})
    pushed += _push_taken(deps, [(queue, stay) for queue, look in looks.items() for stay in look.overdue])
    pushed += _push_unchecked(deps, {queue: look.mark for queue, look in looks.items()})
    if pushed:
        log.info("messages_restored", extra={"messages": len(pushed), **named(pushed)})
    return len(pushed)


def _push(deps: ControlDeps, tickets: Sequence[Ticket], first: int = 1) -> list[UUID]:
    """Push missing messages; returns their jobs.

    A job that was claimed or cancelled after the read of Postgres and before the push is taken out again.
    Args: first: the number of a job that was never taken.
    """
    pushed = deps.admission.restore(tickets, first)
    if pushed:
        with deps.store.begin() as db:
            numbers = jobs.queued_numbers(db, [ticket.job_id for ticket in pushed])
        deps.admission.remove([ticket for ticket in pushed if numbers.get(ticket.job_id) != ticket.enqueue_no])
    return [ticket.job_id for ticket in pushed]


def _push_taken(deps: ControlDeps, taken: Sequence[tuple[str, Stay]]) -> list[UUID]:
    """Push messages that were taken and not claimed. Jobs that were claimed, or have ended, leave the books.

    Args: taken: each job's queue and its stay there.
    """
    if not taken:
        return []
    with deps.store.begin() as db:
        tickets = queued.renumber(db, [stay for _, stay in taken])
    pushed = _push(deps, tickets, first=2)
    deps.admission.settle(taken)
    return pushed


def _push_unchecked(deps: ControlDeps, marks: dict[str, str]) -> list[UUID]:
    """Check the jobs that were queued since the marks, and push those that the books do not have."""
    pushed: list[UUID] = []
    for _ in range(MOST_PAGES):
        with deps.store.begin() as db:
            until = queued.horizon(db, deps.settings.publish_grace_s)
            pages = queued.pages(db, marks, until)
        for queue, page in pages.items():
            pushed += _push_unknown(deps, queue, page.tickets)
        # A mark that has changed: Redis was wiped, or another process moved the mark. The next sweep starts from it.
        kept = {queue for queue, page in pages.items() if deps.admission.check(queue, marks[queue], page.mark)}
        marks = {queue: page.mark for queue, page in pages.items() if page.is_full and queue in kept}
        if not marks:
            return pushed
    log.info("messages_left_to_check", extra={"queues": sorted(marks)})
    return pushed


def _push_unknown(deps: ControlDeps, queue: str, tickets: Sequence[Ticket]) -> list[UUID]:
    unknown = deps.admission.unknown(queue, tickets)
    if not unknown:
        return []
    with deps.store.begin() as db:
        renumbered = queued.renumber(db, [(ticket.job_id, ticket.enqueue_no) for ticket in unknown])
    return _push(deps, renumbered, first=2)


def expire(deps: ControlDeps, bad: BadRows | None = None) -> int:
    """End the jobs whose `start_by` or `finish_by` passed while no worker ran them, and free their places.

    One batch has `jobs.SWEEP_ROWS` at most.
    Bound: one sweep after the time passed, which is repeated at once after a full batch. While Redis is down the state
    changes as promptly, and `reconcile_admission` frees the place once Redis is back.
    """

    def choose(db: Connection, *conditions: ColumnElement[bool]) -> list[Row[Any]]:
        locks.take(db, "expire")
        return jobs.late(db, *conditions)

    def end(db: Connection, late: Sequence[Row[Any]]) -> list[Ticket]:
        return jobs.expire(db, [job.id for job in late])

    tickets, tried = (bad or BadRows("expire")).move(deps.store, choose, end, jobs.SWEEP_ROWS)
    if tickets:
        ended = [ticket.job_id for ticket in tickets]
        log.info("jobs_expired", extra=named(ended))
        deps.admission.remove(tickets)
        deps.tell_ended(ended)
    return tried


def give_turn(deps: ControlDeps) -> int:
    """Let the next job of each confined app run. `publish_due` puts it into its list.

    Bound: one sweep after the app's last job in the pool has ended, and one of `publish_due`.
    """
    with deps.store.begin() as db:
        locks.take(db, "give_turn")
        chosen = confinements.give_turn(db)
    if chosen:
        log.info("turns_given", extra=named(chosen))
    return len(chosen)


def give_kept(deps: ControlDeps, bad: BadRows | None = None) -> int:
    """End the jobs that have an answer, and have waited for a better one until their `stand_by`.

    Bound: one sweep after that, which is repeated at once where it found `escalations.STAND_ROWS`.
    """

    def choose(db: Connection, *conditions: ColumnElement[bool]) -> Sequence[Row[Any]]:
        locks.take(db, "give_kept")
        return escalations.overdue(db, *conditions)

    bad = bad or BadRows("give_kept")
    rows, tried = bad.move(deps.store, choose, escalations.stand, escalations.STAND_ROWS)
    if rows:
        ended = [row.id for row in rows]
        log.info("kept_answers_given", extra=named(ended))
        deps.admission.remove([Ticket.of(row) for row in rows])
        deps.tell_ended(ended)
    return tried


def settle_followers(deps: ControlDeps, bad: BadRows | None = None) -> int:
    """End the jobs that share the answer of a job that has ended; where it has none, let one of them make it.

    Their readers need not wait for this: they end a job that they find so themselves.
    Bound: one sweep after the end, which is repeated at once where it found `exact_cache.SETTLE_ROWS`. A job that leads
    now is in its queue one sweep of `publish_due` later.
    """

    def choose(db: Connection, *conditions: ColumnElement[bool]) -> Sequence[Row[Any]]:
        locks.take(db, "settle_followers")
        return exact_cache.of_ended_leaders(db, *conditions)

    bad = bad or BadRows("settle_followers")
    settled, tried = bad.move(deps.store, choose, exact_cache.settle_followers, exact_cache.SETTLE_ROWS)
    if settled:
        done, ended = [each.job_id for each in settled], [each.job_id for each in settled if each.has_ended]
        log.info("followers_settled", extra={"ended": len(ended), "moved": len(done) - len(ended), **named(done)})
        deps.admission.announce_ended(done, has_webhooks=bool(ended), moved=ended)
    return tried


def settle_calls(deps: ControlDeps) -> int:
    """Settle the calls to the paid API that ended while their budgets' rows were locked.

    Two processes may do so at once: each takes other calls.
    Bound: one sweep after the rows are free, which is repeated at once where it found `budgets.LATE_ROWS`.
    Returns: calls that were settled.
    Raises: StoreUnavailable, also while the rows are locked.
    """
    with deps.store.begin() as db:
        settled = budgets.settle_late(db)
    if settled:
        log.info("calls_settled", extra={"calls": settled})
    return settled


def cancel(deps: ControlDeps, job_id: UUID, operator: str) -> JobState:
    """Cancel a job for an operator, as its app's own cancel does. Returns: its state now. Raises: NotFound."""
    with acting(deps.store, Actor(operator, Source.CELERY)) as audit:
        job = actions.cancel_job(audit, job_id)
    log.info("job_cancelled", extra={"job_id": show_id(job_id), "state": job.state})
    if job.state is JobState.CANCELLED:
        deps.admission.remove([job.ticket])
        deps.tell_ended([job_id])
    return job.state


def reconcile_admission(deps: ControlDeps) -> int:
    """Remove stale entries: reservations without a job, and places and messages of jobs that are not queued.

    Bound: a reservation lives `reservation_ttl_s` and one sweep. A message lives one sweep once it is among the
    `RECONCILE_MESSAGES` that are taken next; until then its claim finds nothing. A place lives one sweep for each
    `RECONCILE_PARTS` parts of the books, which the sweeps compare in turn.
    """
    freed = deps.admission.drop_stale_reservations(deps.queues)
    touched: list[UUID] = []
    discarded = sum(_discard_void(deps, queue, touched) for queue in deps.queues)
    freed += _strike_out(deps, touched)
    if freed or discarded:
        log.info("books_reconciled", extra={"places": freed, "messages": discarded, **named(touched)})
    return freed


def _discard_void(deps: ControlDeps, queue: str, touched: list[UUID]) -> int:
    """Remove a queue's void messages, and note their jobs in `touched`. Returns: how many.

    The list must be read before Postgres: a message is pushed only after its job's commit. So a job that is then not
    queued under the message's number never will be again.
    """
    found = {message: named_in(message) for message in deps.admission.messages(queue, RECONCILE_MESSAGES)}
    named_jobs = {message: name for message, name in found.items() if name is not None}
    if not named_jobs:
        return 0
    with deps.store.begin() as db:
        numbers = jobs.queued_numbers(db, [job_id for job_id, _ in named_jobs.values()])
    void = [message for message, (job_id, enqueue_no) in named_jobs.items() if numbers.get(job_id) != enqueue_no]
    touched += [named_jobs[message][0] for message in void]
    return deps.admission.discard(queue, void) if void else 0


def _strike_out(deps: ControlDeps, touched: list[UUID]) -> int:
    """Remove jobs that do not wait any more from the books: a worker claimed them and died, or a call to Redis failed.

    The books must be read before Postgres: a job's place is committed only after its insert. Returns: how many.
    """
    struck, cursor = 0, deps.admission.cursor()
    for _ in range(RECONCILE_PARTS):
        cursor, waiting = deps.admission.committed(cursor)
        with deps.store.begin() as db:
            numbers = jobs.queued_numbers(db, list(waiting))
        gone = [each for each in waiting.items() if numbers.get(each[0], 0) < each[1]]
        touched += [job_id for job_id, _ in gone]
        struck += deps.admission.leave(gone)
        if not cursor:
            break
    deps.admission.keep_cursor(cursor)
    return struck


def forget_keys(deps: ControlDeps) -> int:
    """Delete Idempotency-Keys, poison prompts and confinements that have expired.

    No job waits for this: expired rows have no effect.
    Bound: one sweep after the expiry, which is repeated at once where it found `insertion.FORGET_ROWS`.
    """
    with deps.store.begin() as db:
        locks.take(db, "forget_keys")
        return forget_expired_keys(db) + confinements.forget_poison(db) + confinements.forget_old(db)


def roll_up_samples(deps: ControlDeps) -> int:
    """Roll samples of queues up to minutes after a day and to hours after a week; delete the hours after a year.

    Bound: one sweep after that, which is repeated at once where it found `observations.FORGET_ROWS`.
    """
    with deps.store.begin() as db:
        locks.take(db, "roll_up_samples")
        return history.roll_up(db)


def forget_samples(deps: ControlDeps) -> int:
    """Delete old samples of workers, counts of refusals, decisions, and rows of dead workers and other processes.

    They are kept for `keep_samples_days`. Bound: one sweep after that, which is repeated at once where it found
    `observations.FORGET_ROWS`.
    """
    with deps.store.begin() as db:
        locks.take(db, "forget_samples")
        keep_days = deps.settings.keep_samples_days
        ended = workers.forget_old(db, keep_days) + processes.forget_old(db, keep_days)
        return observations.forget_samples(db, keep_days) + ended


def forget_deliveries(deps: ControlDeps) -> int:
    """Delete deliveries that ended, and receivers that answered 410, more than `keep_deliveries_days` ago.

    Bound: one sweep after that, which is repeated at once where it found `deliveries.FORGET_ROWS`.
    """
    with deps.store.begin() as db:
        locks.take(db, "forget_deliveries")
        keep_days = deps.settings.keep_deliveries_days
        return deliveries.forget_old(db, keep_days) + deliveries.forget_gone(db, keep_days)


def forget_texts(deps: ControlDeps) -> int:
    """Erase the texts of jobs that ended more than `keep_texts_days` ago, as their apps' own delete does.

    Of jobs with `store=false`, those that ended `UNSTORED_S` ago: the process that was to erase them once they were
    delivered has died, or no client asked for them.
    Bound: one sweep after that, which is repeated at once where it found `texts.FORGET_JOBS`. Their streams in Redis
    have expired by then. With `keep_texts_days = "forever"` no other texts are erased.
    """
    keep_days = deps.settings.keep_texts_days
    with deps.store.begin() as db:
        locks.take(db, "forget_texts")
        old = 0 if keep_days is None else texts.forget_old(db, keep_days)
        return old + texts.forget_unstored(db, UNSTORED_S)


def make_months(deps: ControlDeps) -> int:
    """Make the partitions of the months up to `months.AHEAD` after the present one.

    Bound: the month's predecessors, less one sweep. A sweep that does not get its locks gives way to the next one.
    """
    with deps.store.begin() as db:
        locks.take(db, "months")
        made = months.make(db, clock.now(db))
    if made:
        log.info("months_made", extra={"months": made})
    return len(made)


def detach_months(deps: ControlDeps) -> int:
    """Detach the oldest month, once it ended `keep_jobs_months` months before the present one began.

    Bound: one sweep after that, and one for each further month, once its jobs have ended, its webhooks are delivered
    and its texts are erased, by their apps or by `forget_texts`. Without `keep_jobs_months` nothing is detached.
    """
    keep_months = deps.settings.keep_jobs_months
    if keep_months is None:
        return 0
    with deps.store.begin() as db:
        locks.take(db, "months")
        month = months.oldest(db, clock.now(db), keep_months)
        if month is None:
            return 0
        open_rows = months.detach(db, month)
    if open_rows:
        log.warning("month_kept", extra={"month": month.name, "has": open_rows})
        return 0
    log.info("month_detached", extra={"month": month.name})
    return 1


class AnalystsEnder:
    """Ends sessions of the roles that `headrace analyst` made, whatever limits a session has set itself."""

    def __init__(self, deps: ControlDeps) -> None:
        self._deps = deps
        self._told: frozenset[str] = frozenset()

    def __call__(self) -> int:
        """End the sessions that `analyst.end_sessions` finds. Two processes may do so at once.

        Bound: one sweep after the limit.
        Raises: StoreUnavailable.
        """
        with self._deps.store.begin() as db:
            ended = analyst.end_sessions(db)
            beyond = frozenset(analyst.out_of_reach(db))
        for row in ended:
            facts = {"role": row.role, "pid": row.pid, "transaction_s": row.seconds and round(float(row.seconds), 1)}
            log.warning("analyst_ended", extra=facts)
        for role in sorted(beyond - self._told):
            log.warning("analyst_out_of_reach", extra={"role": role, "remedy": "run 'headrace analyst' again"})
        self._told = beyond
        return len(ended)
