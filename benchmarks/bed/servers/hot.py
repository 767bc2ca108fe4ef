"""Polls and plain submits: batches serve them, and no thread waits for its turn or its outcome.

A thread serves a batch, and makes and sends its replies while another serves the next one.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from api.call import Call, Reply
from api.door.plain_jobs import PLAIN_BYTES
from api.handlers import jobs
from api.handlers.problems import problem
from api.handlers.submitting import accept, checked_body
from api.schemas.job_request import JobRequest
from bed.servers.exchange import Exchange
from bed.servers.posts import Posts
from headrace.broker import ending
from headrace.domain.ids import parse_id
from headrace.domain.jobs import Job
from headrace.errors import Unavailable
from headrace.store import jobs as job_rows

if TYPE_CHECKING:
    from bed.servers.mount import Mount

Outcome = Any


class Hot:
    """The operations that most calls are."""

    def __init__(self, mount: "Mount") -> None:
        self._mount, self._web = mount, mount.web
        self._reads = Posts(self._web.reader.batching, mount.threads)
        self._submits = Posts(self._web.plain_jobs.batching, mount.threads)

    async def poll(self, exchange: Exchange, call: Call, public_id: str) -> None:
        """Read a job. The call is admitted."""
        try:
            job_id = parse_id(public_id)
        except Exception as error:
            self._mount.send(exchange, jobs.READ_JOB.path, call, problem(error, call.id))
            return

        def reply(found: Outcome) -> Reply:
            return jobs.job_reply(self._read(call.app.id, job_id, found))

        sent = asyncio.get_running_loop().create_future()
        send = partial(self._send, sent, exchange, jobs.READ_JOB.path, call, reply)
        self._reads.post((call.app.id, job_id), send)
        await sent

    def _read(self, app_id: UUID, job_id: UUID, found: Job | BaseException | None) -> Job:
        """As `Reader.read`."""
        store, admission = self._web.store, self._web.admission
        if isinstance(found, Unavailable):
            raise found
        if isinstance(found, BaseException):
            # A row that cannot be read must fail only its own reader.
            return ending.read(store, admission, app_id, job_id)
        if found is None:
            raise job_rows.not_found(job_id)
        return ending.ended_if_over(store, admission, found)

    def takes(self, call: Call) -> bool:
        """Whether a submit may be plain."""
        plain = self._web.plain_jobs
        is_short = len(call.body) <= PLAIN_BYTES and call.headers.get("Idempotency-Key") is None
        return is_short and not plain._is_off()

    async def submit(self, exchange: Exchange, call: Call) -> None:
        """Submit a job that may be plain."""
        path, refusals = jobs.SUBMIT_JOB.path, self._web.submitter.refusals
        if refusals.refuses_early and (refused := refusals.early(call.app.id, call.body)) is not None:
            self._mount.send(exchange, path, call, problem(refused, call.id))
            return
        sent = asyncio.get_running_loop().create_future()
        alone = partial(self._send, sent, exchange, path, call, partial(self._submitted_alone, call))
        if self._web.plain_jobs._was_refused(call.app):
            self._mount.threads.start(partial(alone, None))
        else:
            send = partial(self._send, sent, exchange, path, call, partial(_submitted, call))
            self._submits.post(call, partial(self._finish, send, alone))
        await sent

    def _finish(self, send: Callable[[Outcome], None], alone: Callable[[Outcome], None], found: Outcome) -> None:
        """Send the reply; a job that is not plain is submitted by itself."""
        if found is None:
            self._mount.threads.start(partial(alone, None))
        else:
            send(found)

    def _submitted_alone(self, call: Call, _: Outcome) -> Reply:
        """As `jobs.submit` does what is not plain."""
        draft = checked_body(JobRequest, self._web, call).to_draft()
        return jobs.accepted_reply(accept(self._web, call, draft))

    def _send(
        self,
        sent: "asyncio.Future[None]",
        exchange: Exchange,
        path: str,
        call: Call,
        reply_to: Callable[[Outcome], Reply],
        found: Outcome,
    ) -> None:
        """Make the reply to an outcome, and send it. In a thread."""
        try:
            try:
                reply = reply_to(found)
            except Exception as error:
                reply = problem(error, call.id)
            self._mount.send(exchange, path, call, reply)
        finally:
            self._mount.mailbox.post(partial(_end, sent))


def _submitted(call: Call, found: Outcome) -> Reply:
    if isinstance(found, BaseException):
        raise found
    reply: Reply = found() if isinstance(found, partial) else found
    call.calls_due = 0
    return reply


def _end(sent: "asyncio.Future[None]") -> None:
    if not sent.done():
        sent.set_result(None)
