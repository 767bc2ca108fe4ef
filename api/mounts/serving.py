"""What both mounts do about a call beside its handler: who calls, and what each reply has."""

import time

from api.call import Call, Reply
from api.cors import cors_headers
from api.deps import WebDeps
from api.handlers.operation import Operation
from headrace.domain.apps import App


def admit(web: WebDeps, operation: Operation, call: Call, app: App) -> None:
    """Check that this app may make the call. Raises: AppLimited. PermissionDenied."""
    web.callers.admit(app, call.method, submits=operation.makes_job)
    call.caller = app
    call.calls_due = 1 if operation.makes_job else 0


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
