"""From a WSGI request to its reply: who calls, the body, the handler, its wait, its errors, and what each reply has."""

import time
from typing import TYPE_CHECKING

from werkzeug.datastructures import EnvironHeaders
from werkzeug.exceptions import HTTPException

from api.call import Call, Reply, Wait
from api.cors import cors_headers
from api.deps import WebDeps
from api.handlers.operation import Operation
from api.handlers.problems import problem
from api.mounts.body import Body
from api.reading.peers import Peer, peer_of
from api.reading.waits import ClientGone
from headrace.domain.jobs import Job
from headrace.errors import StoreUnavailable

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def call_of(environ: "WSGIEnvironment") -> Call:
    """The call that begins now."""
    return Call(
        environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""), EnvironHeaders(environ)
    )


def serve(web: WebDeps, operation: Operation, environ: "WSGIEnvironment", *names: str) -> Reply:
    """The finished reply to a request. Args: names: the path's parameters. Raises: HTTPException."""
    call = call_of(environ)
    body = Body(web.bodies, web.settings.body_limit_bytes, environ)
    try:
        if not operation.is_open:
            _admit(web, operation, call)
        if operation.body is not None:
            call.body = body.read(call)
        reply = operation.handle(web, call, *names)
        if isinstance(reply, Wait):
            # A wait takes minutes. The body is not needed any more.
            call.body = b""
            body.release()
            reply = _waited(web, reply, peer_of(environ))
    except HTTPException:  # Flask's own. It answers it.
        raise
    except Exception as error:
        reply = problem(error, call.id)
        if body.late is not None:
            # The client has the whole reply before the request ends. `BodyReader` says what breaks without the join.
            reply.on_close.append(body.late.join)
    finally:
        body.release()
    return finished(web, operation.path, call, reply)


def _admit(web: WebDeps, operation: Operation, call: Call) -> None:
    header, submits = call.headers.get("Authorization"), operation.makes_job
    call.caller = web.callers.admit(header, call.method, submits=submits)
    call.calls_due = 1 if submits else 0


def _waited(web: WebDeps, wait: Wait, peer: Peer | None) -> Reply:
    found: Job | Exception
    try:
        found = web.waits.follow(wait.job_id, wait.read, wait.for_s, peer)
    except (ClientGone, StoreUnavailable) as error:
        found = error
    finally:
        # Before the reply, which may cancel the job: once that is seen, the slot is free.
        wait.slot.release()
    return wait.reply(found)


def finished(web: WebDeps, path: str | None, call: Call, reply: Reply) -> Reply:
    """The reply with the headers that every reply has; counts the request.

    Args: path: the operation's, with its parameters in braces; None if the path leads nowhere.
    """
    if call.calls_due and call.caller is not None:
        web.callers.rates.charge(call.caller, call.calls_due)
    took_s = time.monotonic() - call.began
    reply.headers["x-request-id"] = call.id
    reply.headers["openai-processing-ms"] = str(round(took_s * 1000))
    if call.path.startswith("/v1/"):
        reply.headers["Cache-Control"] = "no-store"
    if origins := web.settings.cors.origins:
        reply.headers |= cors_headers(origins, call)
    web.metrics.note(call.method, path, reply.status, took_s, kind=call.kind)
    if reply.refusal is not None:
        web.metrics.note_refusal(reply.refusal)
    return reply
