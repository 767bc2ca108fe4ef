"""The steps of a submit, on the parts of a web process that is made here. Knows the parts, not what is claimed."""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from flask import Flask, Response, jsonify
from werkzeug.test import EnvironBuilder

from api.app import create_app
from api.asgi import SWITCH_S
from api.deps import WebDeps
from api.door.drafts import Draft
from api.door.specify import specify
from api.routes.jobs import accepted_reply
from api.schemas.body import parse_object, validated
from api.schemas.jobs import JobRequest
from api.turns import Turn
from bed.steps.meter import Meter
from bed.testbed import Testbed, bearer
from headrace.config import LaneSettings, Settings
from headrace.domain.apps import App
from headrace.domain.jobs import Inserted, JobSpec
from headrace.domain.places import Place
from headrace.domain.queues import Lane, Ticket
from headrace.store.jobs.insertion import insert_batch

#: Jobs that share a step's round trip, as they do under 32 connections.
SHARE = 8
CLIENTS = 16
#: Steps of whole requests.
AT_ONCE, POLL = f"whole, {CLIENTS} at once", f"poll, {CLIENTS} at once"
#: A prompt that makes the body about 1 kB, as in `submit.py`.
PROMPT = "Explain in plain words why the sky is blue. " * 22
BODY = json.dumps({"prompt": PROMPT, "max_tokens": 64, "metadata": {"source": "benchmark"}}).encode()
FULL_BODY = json.dumps({"prompt": PROMPT, "max_tokens": 64, "lane": "high", "metadata": {"source": "x"}}).encode()
ROOMY = LaneSettings(depth_cap=10**8, backlog_cap_tokens=10**12, max_wait_s=86_400)
SHUT = LaneSettings(depth_cap=1, backlog_cap_tokens=10**12, max_wait_s=86_400)


class Requests:
    """Sends one request again and again to an app, as an HTTP server would."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, app: Any, path: str, body: bytes, key: str, status: int
    ) -> None:
        self._loop, self._app, self._body, self._status = loop, app, body, status
        headers = [(b"authorization", key.encode()), (b"content-length", str(len(body)).encode())]
        self._scope = {
            "method": "POST" if body else "GET",
            "scheme": "http",
            "http_version": "1.1",
            "path": path,
            "query_string": b"",
            "headers": headers if body else headers[:1],
        }

    def run(self, number: int, at_once: int) -> bytes:
        """Send this number of requests, `at_once` concurrently. Returns the body of one answer."""
        return self._loop.run_until_complete(self._all(number, at_once))

    async def _all(self, number: int, at_once: int) -> bytes:
        left = iter(range(number))

        async def client() -> bytes:
            body = b""
            for _ in left:
                body = await self._one()
            return body

        return max(await asyncio.gather(*(client() for _ in range(at_once))))

    async def _one(self) -> bytes:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": self._body}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._app(self._scope, receive, send)
        head, body = sent
        assert head["status"] == self._status, body
        answer: bytes = body["body"]
        return answer


class Door:
    """One web process's parts, and the job that is submitted again and again.

    Attributes:
        specs: the jobs of the last round, which are in their queue.
    """

    def __init__(self, bed: Testbed) -> None:
        self._web, self._loop = create_app(_settings(bed)), asyncio.new_event_loop()
        self._parts: WebDeps = self._web.web
        self._submitter = self._parts.submitter
        self._key = bearer(bed.api_key)
        self._app: App = self._parts.callers.authenticator.authenticate(self._key["Authorization"])
        self._draft: Draft = validated(JobRequest, parse_object(BODY)).to_draft()
        self.specs: list[JobSpec] = []
        sys.setswitchinterval(SWITCH_S)

    def close(self) -> None:
        """Close the connections."""
        self._web.close()
        self._loop.close()

    def measure(self, meter: Meter, jobs: int) -> None:
        """One round of every step."""
        self._alone(meter, jobs)
        self._shares(meter, jobs)
        self._whole(meter, jobs)

    def _alone(self, meter: Meter, jobs: int) -> None:
        """The steps that ask no server."""
        parts, submitter, draft = self._parts, self._submitter, self._draft
        header, body = self._key["Authorization"], parse_object(BODY)
        spec = self._spec()
        callers, turn = parts.callers, Turn()
        known = callers.authenticator.authenticate
        meter.each("auth", jobs, lambda: callers.admit(turn, "POST", known(header), submits=True))
        meter.each("parse", jobs, lambda: parse_object(BODY))
        meter.each("validate", jobs, lambda: validated(JobRequest, body).to_draft())
        tokenizer = parts.catalogue.find(None).tokenizer
        meter.each("count", jobs, lambda: tokenizer.count(draft.messages))  # type: ignore[union-attr]
        meter.each("specify", jobs, self._spec)
        meter.each("poison, cache", jobs, lambda: (submitter.poison.check(spec), submitter.cache.release(spec)))
        meter.each("candidates", jobs, lambda: submitter._bid(draft, self._app, spec, "req_1"))

    def _spec(self) -> JobSpec:
        return specify(self._draft, self._app, self._parts.catalogue, self._parts.settings)

    def _shares(self, meter: Meter, jobs: int) -> None:
        """The steps that jobs share, and those that need what a server has said."""
        admission = self._parts.admission
        specs = self.specs = [self._spec() for _ in range(jobs)]
        bids = [self._submitter._bid(self._draft, self._app, spec, "req_1") for spec in specs]
        places: list[Place] = []
        meter.step("reserve share", jobs, lambda: [places.extend(_placed(admission.reserve(s))) for s in _shares(bids)])
        rows = [(spec, place.candidate) for spec, place in zip(specs, places, strict=True)]
        inserted: list[Any] = []
        meter.step(
            "insert share", jobs, lambda: [inserted.extend(insert_batch(self._parts.store, s)) for s in _shares(rows)]
        )
        places = [replace(place, start_by=_start_by(each)) for place, each in zip(places, inserted, strict=True)]
        tickets = [
            Ticket(s.id, s.app_id, p.candidate.queue, s.lane, s.prompt_tokens, s.sampling.max_tokens, p.start_by)
            for s, p in zip(specs, places, strict=True)
        ]
        meter.step("commit share", jobs, lambda: [admission.commit(share) for share in _shares(tickets)])
        meter.each("forecast", jobs, lambda: self._submitter._placed(bids[-1], places[-1]))
        accepted = self._submitter._placed(bids[-1], places[-1])
        meter.each("answer", jobs, lambda: accepted_reply(accepted))

    def _whole(self, meter: Meter, jobs: int) -> None:
        """Whole requests, without the HTTP server."""
        hello, environ = _hello(), EnvironBuilder("/hello").get_environ()
        submit = self._requests("/v1/jobs", BODY, 202)
        full = self._requests("/v1/jobs", FULL_BODY, 429)
        poll = self._requests(f"/v1/jobs/{json.loads(submit.run(1, 1))['id']}", b"", 200)
        meter.each("frame: a Flask hello", jobs, lambda: b"".join(hello.wsgi_app({**environ}, lambda *_: None)))  # type: ignore[arg-type, return-value]
        with suppress(AssertionError):  # It has room for one.
            full.run(1, 1)
        meter.step("whole, refused", jobs, lambda: full.run(jobs, 1))
        meter.step("whole, one after the other", jobs // 4, lambda: submit.run(jobs // 4, 1))
        meter.step(POLL, jobs, lambda: poll.run(jobs, CLIENTS))
        meter.step(AT_ONCE, jobs, lambda: submit.run(jobs, CLIENTS))

    def _requests(self, path: str, body: bytes, status: int) -> Requests:
        return Requests(self._loop, self._web, path, body, self._key["Authorization"], status)


def _settings(bed: Testbed) -> Settings:
    pepper, report = (bed.folder / "pepper").read_text().strip(), bed.stack.report
    servers = {"database_url": report.database_url, "redis_url": report.redis_url}
    settings = Settings.load(**servers, engine="simulator", pepper=pepper)
    lanes = {**settings.lanes, Lane.NORMAL: ROOMY, Lane.HIGH: SHUT}
    # One app makes all calls.
    return settings.model_copy(update={"lanes": lanes, "calls_per_minute": 10**9})


def _hello() -> Flask:
    app = Flask("hello", static_folder=None)

    @app.get("/hello")
    def hello() -> Response:
        return jsonify(ok=True)

    return app


def _shares(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[at : at + SHARE] for at in range(0, len(items), SHARE))


def _placed(outcomes: Sequence[Any]) -> Sequence[Place]:
    assert all(isinstance(each, Place) for each in outcomes), outcomes
    return outcomes


def _start_by(inserted: Any) -> Any:
    assert isinstance(inserted, Inserted), inserted
    return inserted.start_by
