"""The messages that a taker has read from its queues, decoded one after the other."""

import json
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from headrace.domain.ids import parse_id
from headrace.domain.queues import Lane
from headrace.errors import NotFound


class Asked(NamedTuple):
    """The arguments of `KvBudget.hold`, as `ExecuteMessage` wrote them."""

    job_id: UUID
    lane: Lane
    prompt_tokens: int
    max_tokens: int
    alone: bool
    n: int


@dataclass(frozen=True, slots=True)
class Head:
    """The next message of a queue.

    Attributes:
        raw: the message as the list holds it.
        message: the decoded message.
        job: None for a message that is not Headrace's, which needs no room.
        stay: the job's entry in the queue's books while it waits here; empty without a job.
    """

    queue: str
    raw: str
    message: dict[str, Any]
    job: Asked | None
    stay: str

    @property
    def enqueue_no(self) -> int:
        """Of the job's stay."""
        return int(self.stay.rpartition(" ")[2])

    @classmethod
    def of(cls, queue: str, raw: str) -> "Head":
        message = json.loads(raw)
        # Celery's consumer needs these fields: a missing one would end the worker there.
        headers, tag = message["headers"], message["properties"]["delivery_tag"]
        job, stay = None, ""
        if (routing := headers.get("headrace")) is not None:
            job = Asked(
                job_id=parse_id(headers["id"]),
                lane=Lane(routing["lane"]),
                prompt_tokens=routing["prompt_tokens"],
                max_tokens=routing["max_tokens"],
                alone=routing["alone"],
                n=routing.get("n", 1),
            )
            stay = f"{job.job_id.hex} {int(tag.rpartition('.')[2])}"
        return cls(queue, raw, message, job, stay)


class Ahead:
    """The messages that were read from one queue.

    Attributes:
        head: the first one that can be decoded; None after the last.
        is_whole: True if the queue held no further messages.
    """

    def __init__(
        self,
        queue: str,
        raws: Sequence[str],
        is_whole: bool,
        drop: Callable[[str, str, Exception], None],
        elsewhere: Collection[UUID] = (),
    ) -> None:
        """Args: elsewhere: jobs to leave where they are."""
        self._queue, self._raws, self._drop, self._elsewhere = queue, deque(raws), drop, elsewhere
        self.is_whole = is_whole
        self.head: Head | None = None
        self.go_on()

    def go_on(self) -> None:
        """Move the head to the next message that this worker may take. Drops messages that cannot be decoded."""
        self.head = None
        while self._raws and self.head is None:
            raw = self._raws.popleft()
            try:
                head = Head.of(self._queue, raw)
                self.head = None if head.job is not None and head.job.job_id in self._elsewhere else head
            except (ValueError, KeyError, TypeError, AttributeError, NotFound) as error:
                self._drop(self._queue, raw, error)
