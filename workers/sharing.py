"""Shares batches between the asks of many threads. No thread waits: an ask is a future of its outcome.

An ask takes two hand-overs: from its thread to the one that serves the batch, and from there to what waits for it. An
ask that makes its batch fail fails alone. Independent of the work.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, Generic, TypeVar

from headrace.batching import Batching, Gathering
from headrace.errors import StoreBusy, Unavailable

Ask = TypeVar("Ask", bound="Future[Any]")
Result = TypeVar("Result")

#: The most asks in one batch. With more, each would only wait longer for the slowest one.
MOST = 64
#: Calls of the paid API take a second or more, and each would cost 16 queries by itself. Calls that come
#: `PAID_EACH_S` apart are a crowd, and a statement waits `PAID_GATHER_S` for more of them.
PAID_EACH_S, PAID_GATHER_S = 0.025, 0.02

#: Asks of a batch that may fail because Postgres is busy before the rest of it fails, too: then more than single rows
#: is locked, and each ask would wait for as long.
MOST_BUSY = 2


def gathering_paid() -> Gathering:
    """How statements about calls of the paid API wait for more of them."""
    return Gathering(PAID_GATHER_S, each_s=PAID_EACH_S)


def settle(ask: "Future[Any]", outcome: object) -> None:
    """End an ask with its result or its error."""
    if isinstance(outcome, BaseException):
        ask.set_exception(outcome)
    else:
        ask.set_result(outcome)


class Sharing(Generic[Ask, Result]):
    """Serves asks in batches, one batch at a time. Safe for many threads."""

    def __init__(
        self,
        threads: Executor,
        serve: Callable[[Sequence[Ask]], Sequence[Result]],
        gathering: Gathering | None = None,
        *,
        tell: Callable[[Ask, Result | BaseException], object] = settle,
        alike: Callable[[Ask], Hashable] = lambda _: None,
        after: Callable[[], object] = lambda: None,
    ) -> None:
        """Serve nothing yet.

        Args:
            threads: one of them serves a batch while another one tells the outcomes of the last.
            serve: does the work of asks that are alike. Returns: their outcomes, in order. If it raises, each ask is
                served alone; an outage fails all of them.
            gathering: how a batch waits for more asks.
            tell: takes an ask's outcome, or its error. Must not block or raise.
            alike: asks of a batch for which it returns the same are served together, and no others.
            after: called after the outcomes of a batch were passed on.
        """
        self._serve, self._tell, self._alike, self._after = serve, tell, alike, after
        self._batching = Batching[Ask, Result](self._serve_batch, MOST, gathering)
        self._threads = threads
        self._asking = threading.Lock()

    @property
    def waiting(self) -> int:
        """Number of asks that are in no batch yet."""
        return self._batching.waiting

    def ask(self, *asks: Ask) -> None:
        """Serve these together, as far as they fit into one batch."""
        with self._asking:
            for ask in asks:
                self._batching.post(ask, partial(self._tell, ask), self._start)

    def _start(self, lead: Callable[[], object]) -> None:
        self._threads.submit(self._lead, lead)

    def _lead(self, lead: Callable[[], object]) -> None:
        with self._asking:
            """What is asked together has been posted."""
        lead()
        self._after()

    def _serve_batch(self, asks: Sequence[Ask]) -> Sequence[Result | BaseException]:
        groups = defaultdict[Hashable, list[Ask]](list)
        for ask in asks:
            groups[self._alike(ask)].append(ask)
        outcomes, outage = dict[Ask, Result | BaseException](), None
        for group in groups.values():
            served = self._serve_alike(group) if outage is None else [outage] * len(group)
            outage = next(filter(is_outage, served), None)
            outcomes |= zip(group, served, strict=True)
        return [outcomes[ask] for ask in asks]

    def _serve_alike(self, asks: Sequence[Ask]) -> Sequence[Any]:
        try:
            return self._serve(asks)
        except Exception as error:
            if len(asks) == 1 or is_outage(error):
                return [error] * len(asks)
        return self._serve_apart(asks)

    def _serve_apart(self, asks: Sequence[Ask]) -> Sequence[Any]:
        """Serve each alone. Once Postgres does not answer, or is busy again and again, the rest fails with that."""
        outcomes, busy = list[Any](), 0
        for ask in asks:
            try:
                outcomes += self._serve([ask])
            except Exception as error:
                outcomes.append(error)
                busy += isinstance(error, StoreBusy)
                if is_outage(error) or busy == MOST_BUSY:
                    break
        return [*outcomes, *outcomes[-1:] * (len(asks) - len(outcomes))]


def is_outage(outcome: object) -> bool:
    """True if no ask of the failed batch can succeed now. Alone, those whose rows are not locked can."""
    return isinstance(outcome, Unavailable) and not isinstance(outcome, StoreBusy)
