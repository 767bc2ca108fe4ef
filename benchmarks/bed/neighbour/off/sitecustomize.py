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

    from api import slots
    from headrace.policies import tokens

    def encoded(tokenizer: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
        """The text's encoding, which keeps the GIL."""
        return tokenizer.encode(text, add_special_tokens=False)

    tokens._encoded = encoded
    slots.FairSemaphore.hold = lambda self, app_id: nullcontext()  # type: ignore[method-assign]
if "values" in OFF:
    from api.schemas import body

    body._values = lambda raw: 0
if "checksum" in OFF:
    from headrace.store import keys

    keys.may_exist = lambda key, pepper: True
if "waits" in OFF:
    import asyncio
    from uuid import UUID

    from api import slots
    from api.mounts import exchange

    async def never(_: exchange.Exchange) -> None:
        """No client is seen to leave."""
        await asyncio.Event().wait()

    def take(held: slots.Slots, app_id: UUID) -> slots.Slot | None:
        """A slot as long as one is free, without shares for apps."""
        with held._lock:
            if held._held.total() >= held._count:
                return None
            held._held[app_id] += 1
            return slots.Slot(held, app_id)

    slots.Slots.take = take  # type: ignore[method-assign]
    exchange.Exchange.left = never  # type: ignore[method-assign]
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
    from api import bodies

    class Many(bodies.FairSemaphore):
        """With a slot for each body."""

        def __init__(self, slots: int) -> None:
            super().__init__(slots * 10_000)

    bodies.FairSemaphore = Many  # type: ignore[misc]
if "process" in OFF:
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    import api.app
    import ops.app
    from api.mounts.mount import Mount
    from headrace.config import Settings

    create = api.app.create_app

    def together(settings: Settings, *begin: object) -> Mount:
        """The API, with the operators' pages at their path."""
        both = create(settings, *begin)  # type: ignore[arg-type]
        pages = {"/ops": ops.app.create_app(settings)}
        vars(both.flask).update(wsgi_app=DispatcherMiddleware(both.flask.wsgi_app, pages))
        return both

    api.app.create_app = together
if "logins" in OFF:
    from headrace.domain.operators import Operator
    from ops import logins

    def check(self: logins.Logins, name: str, password: str, address: str | None) -> Operator | None:
        """In the request's own thread, beside all others."""
        return self._check(name, password)[0]

    logins.Logins.check = check  # type: ignore[method-assign]
if "readiness" in OFF:
    from api import health

    health.revisions.newest = health.revisions.newest.__wrapped__  # type: ignore[assignment]
    health.Readiness.report = health.Readiness.check  # type: ignore[method-assign]
