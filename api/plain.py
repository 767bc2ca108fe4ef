"""Plain jobs: submits that ask for nothing unusual. One thread submits a share of them, one after the other.

In threads of their own, which hand each other the GIL and run with cold caches, the same steps take 2.5 times as long.
Each request's own thread only reads the body, waits once, and sends the answer.

A submit that is not plain, or that fails before its job asks for a place, is left to the routes, which do all of it
again. So there is one set of rules, and one text of each error. A plain job takes the steps of `Submitter.submit`.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from api.door.drafts import Draft
from api.door.intake import Admitted, Bid, Outcome
from api.door.specify import is_long
from api.door.submit import Submitter
from api.routes.submission import headers_of
from api.schemas.body import parse_object, validated
from api.schemas.job_request import JobRequest
from api.schemas.jobs import AcceptedBody
from headrace.batching import Batching
from headrace.config.rules import AUTO
from headrace.domain.apps import App

#: Bytes of a body. A longer one costs so much by itself that others must not wait for it.
PLAIN_BYTES = 4096
#: The fields of a plain body. They are cheap to check, and none of them needs anything but a place and a row.
PLAIN_FIELDS = frozenset(
    {
        *("model", "prompt", "messages", "max_tokens", "lane", "max_wait", "deadline", "overflow", "max_cost_usd"),
        *("temperature", "top_p", "stop", "seed", "metadata", "webhook", "end_user"),
    }
)
#: Jobs in one share. In a larger one, each request would wait longer for the others.
SHARE = 64
#: A job that takes one of its steps for so many seconds waits for a server. Others must not wait one after the other:
#: for the next seconds the requests' own threads do it all.
SLOW_S = 0.25
OFF_S = 1.0
#: Seconds for which the jobs of an app that was refused are left to the routes, which say why.
REFUSED_S = 1.0


class Answer(NamedTuple):
    """The answer to an accepted job: its JSON, and the headers that depend on the job."""

    body: bytes
    headers: Mapping[str, str]


class Post(NamedTuple):
    """One request. Attributes: raw: its body. request_id: for the log."""

    app: App
    raw: bytes
    request_id: str


class _Entry(NamedTuple):
    """A job of a share, which asks for a place."""

    post: Post
    draft: Draft
    bid: Bid


class _Accepted(NamedTuple):
    """A job that the request's own thread must answer."""

    entry: _Entry
    admitted: Admitted


#: The outcome of one post; None: it is left to the routes.
_Outcome = Answer | _Accepted | None


class PlainJobs:
    """Submits plain jobs for all threads of one process. Knows no HTTP but the headers of an answer."""

    def __init__(self, submitter: Submitter, clock: Callable[[], float] = time.monotonic) -> None:
        """Submit nothing yet."""
        self._submitter, self._clock = submitter, clock
        self.batching = Batching[Post, _Outcome](self._serve, SHARE)
        #: Until when requests' own threads do it all, and until when they do it for an app.
        self._off_until = -math.inf
        self._left_until: dict[UUID, float] = {}

    def submit(self, post: Post) -> Answer | None:
        """Submit one job; returns once it is durable. None: it is left to the routes, and nothing was done for it.

        Raises: any error of the intake. The job may exist, so it must not be submitted again.
        """
        if len(post.raw) > PLAIN_BYTES or self._is_off() or self._is_left(post.app):
            return None
        told = self.batching.call(post)
        return self._answer(*told) if isinstance(told, _Accepted) else told

    def _is_off(self) -> bool:
        return self._clock() < self._off_until

    def _is_left(self, app: App) -> bool:
        until = self._left_until.get(app.id)
        if until is None:
            return False
        if self._clock() < until:
            return True
        self._left_until.pop(app.id, None)
        return False

    def _serve(self, posts: Sequence[Post]) -> list[_Outcome | BaseException]:
        entries = [self._entry(post) for post in posts]
        bids = [entry.bid for entry in entries if entry is not None]
        outcomes = iter(self._submitter.intake.accept_all(bids) if bids else ())
        return [None if entry is None else self._told(entry, next(outcomes)) for entry in entries]

    def _entry(self, post: Post) -> _Entry | None:
        """What a request asks for; None if it is left to the routes."""
        if self._is_off():
            return None
        began = self._clock()
        try:
            draft = _plain_draft(post.raw)
            bid = None if draft is None else self._submitter.bid(draft, post.app, post.request_id)
            return None if draft is None or bid is None else _Entry(post, draft, bid)
        except Exception:  # The routes meet it again, and say it.
            return None
        finally:
            self._note_slow(began)

    def _told(self, entry: _Entry, outcome: Outcome | BaseException) -> _Outcome | BaseException:
        if isinstance(outcome, BaseException):
            return outcome
        if not isinstance(outcome, Admitted):
            # Refused: the routes say why, and ask again if they must.
            self._left_until[entry.post.app.id] = self._clock() + REFUSED_S
            return None
        if self._is_off():
            return _Accepted(entry, outcome)
        began = self._clock()
        try:
            return self._answer(entry, outcome)
        except Exception as error:  # A bug. It is this job's alone.
            return error
        finally:
            self._note_slow(began)

    def _answer(self, entry: _Entry, admitted: Admitted) -> Answer:
        accepted = self._submitter.admitted(entry.draft, entry.post.app, entry.bid.spec, admitted)
        return Answer(f"{AcceptedBody.of(accepted).model_dump_json()}\n".encode(), headers_of(accepted))

    def _note_slow(self, began: float) -> None:
        now = self._clock()
        if now - began > SLOW_S:
            self._off_until = now + OFF_S


def _plain_draft(raw: bytes) -> Draft | None:
    """The draft of a plain body; None for another. Raises: InvalidRequest."""
    body = parse_object(raw)
    if not PLAIN_FIELDS.issuperset(body) or body.get("model") == AUTO:
        return None
    draft = validated(JobRequest, body).to_draft()
    return None if is_long(draft) else draft
