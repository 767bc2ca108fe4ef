"""Plain jobs: submits that need nothing but a place and a row. One thread submits a share of them, one after the other.

In threads of their own, which hand each other the GIL and run with cold caches, the same steps take 2.5 times as long.
Knows no HTTP.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar
from uuid import UUID

from api.call import Call
from api.door.accepted import Accepted
from api.door.drafts import Bid, Draft
from api.door.intake import Outcome
from api.door.specify import is_long
from api.door.submit import Submitter
from headrace.batching import Batching
from headrace.domain.apps import App
from headrace.domain.places import Place, Refusal

#: What a submitted job is answered with.
Answer = TypeVar("Answer")

#: Bytes of a body. A longer one costs so much by itself that others must not wait for it.
PLAIN_BYTES = 4096
#: Jobs in one share. In a larger one, each request would wait longer for the others.
SHARE = 64
#: Seconds that a share waits for as many jobs as the one before it had. A submit takes some 10 ms.
PATIENCE_S = 0.002
#: A job that takes one of its steps for so many seconds waits for a server. Others must not wait one after the other:
#: for the next seconds the requests' own threads take all steps.
SLOW_S = 0.25
OFF_S = 1.0
#: Seconds for which the jobs of an app that was refused take their own threads: to say why costs more than to accept.
REFUSED_S = 1.0


class PlainJobs(Generic[Answer]):
    """Submits plain jobs for all threads of one process, by the steps of `Submitter.submit`."""

    def __init__(
        self,
        submitter: Submitter,
        draft_of: Callable[[bytes], Draft | None],
        answer_to: Callable[[Accepted], Answer],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Submit nothing yet.

        Args:
            draft_of: the draft of a plain body; None for another. Raises: InvalidRequest.
            answer_to: makes the answer to an accepted job.
        """
        self._submitter, self._draft_of, self._answer_to, self._clock = submitter, draft_of, answer_to, clock
        #: The answer to each job that is durable now, perhaps still to be made; its error, after which the job may
        #: exist, so that it must not be submitted again; None: it is not plain, and nothing was done for it.
        self.batching = Batching[Call, Answer | partial[Answer] | None](self._serve, SHARE, patience_s=PATIENCE_S)
        #: Until then the requests' own threads take all steps.
        self._off_until = -math.inf
        #: Until when the jobs of an app that was refused are submitted by their own threads.
        self._refused_until: dict[UUID, float] = {}

    def takes(self, call: Call) -> bool:
        """Whether `batching` may submit this job."""
        return len(call.body) <= PLAIN_BYTES and not self._is_off() and not self._was_refused(call.app)

    def _is_off(self) -> bool:
        return self._clock() < self._off_until

    def _was_refused(self, app: App) -> bool:
        until = self._refused_until.get(app.id)
        if until is not None and self._clock() >= until:
            self._refused_until.pop(app.id, None)
            return False
        return until is not None

    def _serve(self, calls: Sequence[Call]) -> list[Answer | partial[Answer] | BaseException | None]:
        bids = [self._bid(call) for call in calls]
        asked = [bid for bid in bids if isinstance(bid, Bid)]
        outcomes = iter(self._submitter.intake.accept_all(asked) if asked else ())
        return [self._told(bid, next(outcomes)) if isinstance(bid, Bid) else bid for bid in bids]

    def _bid(self, call: Call) -> Bid | Exception | None:
        """What a call asks for, or its error; None if it is not plain."""
        if self._is_off():
            return None
        began = self._clock()
        try:
            draft = self._draft_of(call.body)
            return None if draft is None or is_long(draft) else self._submitter.bid(draft, call.app, call.id)
        except Exception as error:  # Of this job alone.
            return error
        finally:
            self._note_slow(began)

    def _told(self, bid: Bid, outcome: Outcome | BaseException) -> Answer | partial[Answer] | BaseException:
        began = self._clock()
        try:
            if isinstance(outcome, BaseException):
                return outcome
            if isinstance(outcome, Refusal):
                self._refused_until[bid.app.id] = self._clock() + REFUSED_S
                return self._submitter.refused(bid, outcome)
            assert isinstance(outcome, Place), "A plain job has no Idempotency-Key."
            answer = partial(self._answer, bid, outcome)
            return answer if self._is_off() else answer()
        except Exception as error:  # A bug. It is this job's alone.
            return error
        finally:
            self._note_slow(began)

    def _answer(self, bid: Bid, place: Place) -> Answer:
        return self._answer_to(self._submitter.accepted(bid, place))

    def _note_slow(self, began: float) -> None:
        now = self._clock()
        if now - began > SLOW_S:
            self._off_until = now + OFF_S
