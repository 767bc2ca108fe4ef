"""What a stream asks of the events that it sends. Pure."""

from collections.abc import Iterable
from typing import Any, Protocol

from api.schemas.logprobs import Fragments
from headrace.domain.jobs import Job, StreamEvent


class Teller(Protocol):
    """Turns a job's progress into events: `opening`, then `more` any number of times, then one of the other three."""

    @property
    def is_over(self) -> bool:
        """True when no more events follow, whatever happens to the job."""

    @property
    def fragments(self) -> Fragments:
        """The stored JSON for which its events have marks."""

    def opening(self) -> Iterable[Any]:
        """The events before any entry."""

    def more(self, entries: Iterable[StreamEvent]) -> Iterable[Any]:
        """The events of new entries of the job's stream."""

    def ending(self, job: Job) -> Iterable[Any]:
        """The events of the job's end, with the part of its answer that the stream did not have."""

    def interrupted(self) -> Iterable[Any]:
        """The events that end the stream while its job goes on."""

    def gone(self) -> Iterable[Any]:
        """The events that end the stream of a job that no longer exists."""
