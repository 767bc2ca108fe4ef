"""Takes mechanisms away, for a counter-proof: `NEIGHBOUR_OFF=a,b` and this folder on PYTHONPATH, and nowhere else.

Python runs this at its start. `encoding`: long texts are encoded under the GIL, as many at once as come; `values`: a
body's values are counted when all of them have been read; `checksum`: every key is looked up in Postgres; `waits`: one
app may hold all the waits of a process, and an abandoned one is held until its job has ended; `judge`: an answer is
judged by a schema's patterns whatever that takes; `checking`: as many bodies are checked at once as come; `process`:
the API serves the operators' pages too; `logins`: as many passwords are compared at once as come; `readiness`: each
call checks everything anew.
"""

import os

OFF = os.environ.get("NEIGHBOUR_OFF", "").split(",")  # noqa: TID251 - no setting: the product knows nothing of it.

if "encoding" in OFF:
    from contextlib import nullcontext

    import tokenizers

    from api.bodies import fair_semaphore
    from headrace.policies import tokens

    def encoded(tokenizer: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
        """The text's encoding, which keeps the GIL."""
        return tokenizer.encode(text, add_special_tokens=False)

    tokens._encoded = encoded
    fair_semaphore.FairSemaphore.hold = lambda self, app_id: nullcontext()  # type: ignore[method-assign]
if "values" in OFF:
    from api.schemas import body

    body._values = lambda raw: 0
if "checksum" in OFF:
    from headrace.store.clients import keys

    keys.may_exist = lambda key, pepper: True
if "waits" in OFF:
    from uuid import UUID

    from api.reading import slots, waits

    def take(held: slots.Slots, app_id: UUID) -> slots.Slot | None:
        """A slot as long as one is free, without shares for apps."""
        with held._lock:
            if held._held.total() >= held._count:
                return None
            held._held[app_id] += 1
            return slots.Slot(held, app_id)

    slots.Slots.take = take  # type: ignore[method-assign]
    waits.Watch.look_for_client = lambda self, found, now: None  # type: ignore[method-assign]
if "judge" in OFF:
    import re
    from typing import Any

    from headrace.policies.routing import cascade

    def verdict(value: Any, schema: Any) -> str:
        """By patterns alone, with an engine that backtracks and whatever it takes."""
        patterns = [part["pattern"] for part in schema.get("allOf", [schema]) if "pattern" in part]
        return "kept" if all(re.search(pattern, str(value)) for pattern in patterns) else "broken"

    cascade.verdict = verdict  # type: ignore[assignment]
if "checking" in OFF:
    from api.bodies import in_flight

    class Many(in_flight.FairSemaphore):
        """With a slot for each body."""

        def __init__(self, slots: int) -> None:
            super().__init__(slots * 10_000)

    in_flight.FairSemaphore = Many  # type: ignore[misc]
if "process" in OFF:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    import api.wsgi
    import ops.app
    from headrace.config import Settings

    def together(app: WSGIApplication) -> WSGIApplication:
        """The API, with the operators' pages at their path."""
        pages = ops.app.create_app(Settings.load())

        def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            return (pages if environ["PATH_INFO"].startswith("/ops") else app)(environ, start_response)

        return call

    api.wsgi._probing = together
if "logins" in OFF:
    from headrace.domain.operators.accounts import Operator
    from ops import logins

    def check(self: logins.Logins, name: str, password: str, address: str | None) -> Operator | None:
        """In the request's own thread, beside all others."""
        return self._check(name, password)[0]

    logins.Logins.check = check  # type: ignore[method-assign]
if "readiness" in OFF:
    from api import readiness

    readiness.revisions.newest = readiness.revisions.newest.__wrapped__  # type: ignore[assignment]
    readiness.Readiness.report = readiness.Readiness.check  # type: ignore[method-assign]
