"""Takes mechanisms away, for a counter-proof: `NEIGHBOUR_OFF=a,b` and this folder on PYTHONPATH, and nowhere else.

Python runs this at its start. `encoding`: long texts are encoded under the GIL, as many at once as come; `values`: a
body's values are counted when all of them have been read; `checksum`: every key is looked up in Postgres; `waits`: one
app may hold all the waits of a process, and an abandoned one is held until its job has ended; `judge`: an answer is
judged by a schema's patterns whatever that takes; `checking`: as many bodies are checked at once as come; `process`:
the API serves the operators' pages too; `logins`: as many passwords are compared at once as come; `readiness`: each
call checks everything anew; `heads`: a head has as much room as the server gives by default, and its parts any length;
`idle`: a head may take the server's default time; `downloads`: one app may hold all slots of files, however slowly it
reads; `turns`: the process of batches takes each step with whole batches, and submits lines in rounds of any size;
`requests`: a line keeps its request when it will never run; `pages`: a page of results is read with all requests,
which stay.
"""

import os
import sys

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

    from api import server, slots

    async def never(_: server.Exchange) -> None:
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
    server.Exchange.left = never  # type: ignore[method-assign]
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
    from typing import Any

    from flask import Response
    from werkzeug.exceptions import NotFound
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    import api.app
    import ops.app
    from headrace.config import Settings

    create = api.app.create_app

    def together(settings: Settings, *begin: object) -> api.app.WebServer:
        """The API, with the operators' pages at their path."""
        both = create(settings, *begin)  # type: ignore[arg-type]
        pages = DispatcherMiddleware(NotFound(), {"/ops": ops.app.create_app(settings)})
        respond = both._respond

        def answer(environ: dict[str, Any]) -> Response:
            """By the pages, if the path is theirs."""
            if environ["PATH_INFO"].startswith("/ops"):
                return Response.from_app(pages, environ, buffered=True)
            return respond(environ)

        vars(both).update(_respond=answer)
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
    health.ReadinessCheck.report = health.ReadinessCheck.check  # type: ignore[method-assign]


def drop(option: str) -> None:
    """Take an option of this process's command line away, with its value."""
    if option in sys.argv:
        at = sys.argv.index(option)
        del sys.argv[at : at + 2]


if "heads" in OFF:
    from api.routes import requests
    from headrace import http
    from plugins.batches.routes import files

    drop("--http1-buffer-size")
    http.check_headers.__defaults__ = ({},)
    files.BOUNDARY_CHARS_LIMIT = files.PART_HEAD_BYTES = requests.QUERY_FIELDS_LIMIT = 2**30
if "idle" in OFF:
    drop("--http1-header-read-timeout")
if "downloads" in OFF:
    from api import server
    from plugins.batches import web

    async def send(self: server.Exchange, data: bytes) -> None:
        """Wait for the client as long as it takes."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    web.FILE_SHARE = 1.0
    server.Exchange.send = send  # type: ignore[method-assign]
if "turns" in OFF:
    from collections.abc import Callable

    from plugins.batches.domain import Batch
    from plugins.batches.running import feeding, runner

    def take(self: runner.Turns, due: Callable[[], list[Batch]]) -> int:
        """Each batch to its end, one after the other."""
        return sum(sum(self._step(batch)) for batch in due())

    runner.Turns.take = take  # type: ignore[method-assign]
    feeding.APP_BYTES = feeding.BYTES = feeding.LONG_CHARS = 2**40
    feeding.ROUND_S = 3600.0
if "requests" in OFF or "pages" in OFF:
    from plugins.batches import store as batches

    batches.WITHOUT_REQUEST = {}
if "pages" in OFF:
    from sqlalchemy import Connection

    from plugins.batches.domain import Batch, Line
    from plugins.batches.store import line_texts

    def ended(db: Connection, batch: Batch, after: int, limit: int, *, has_tools: bool) -> list[Line]:
        """A page by lines alone, with their requests."""
        lines = line_texts.batch_lines
        has_ended = (lines.c.state + "").not_in(["waiting", "submitted"])
        columns = (*line_texts._COLUMNS, *line_texts._REFUSAL, lines.c.body)
        found = line_texts.sa.select(*columns).where(lines.c.batch_id == batch.id, lines.c.number > after, has_ended)
        return [line_texts.line_of(batch.id, row) for row in db.execute(found.order_by(lines.c.number).limit(limit))]

    line_texts.ended = ended
