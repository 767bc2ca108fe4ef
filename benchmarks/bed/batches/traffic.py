"""Interactive traffic: chat completions of the lane `high`, by the unchanged SDK, which come by chance at one rate."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import openai

from headrace.stack.state_folder import StackReport

#: Prompts under way at once, at most; while something is down, those that come wait here.
THREADS = 64
#: Seconds after which an interactive caller gives up.
TIMEOUT_S = 60.0


class Span(NamedTuple):
    """A time on the machine's clock, which is Postgres's too."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.ended - self.began

    def has(self, at: float) -> bool:
        """Whether this moment is in it."""
        return self.began <= at < self.ended


class Asked(NamedTuple):
    """One prompt. Attributes: seconds: until its whole answer was there; None for an error."""

    at: float
    seconds: float | None


class Traffic:
    """Asks prompts while a `with` block runs. Attributes: asked: all of them."""

    def __init__(self, report: StackReport, per_s: float, max_tokens: int) -> None:
        self._sdk = openai.OpenAI(base_url=f"{report.url}/v1", api_key=report.api_key, timeout=TIMEOUT_S)
        self._model, self._per_s, self._max_tokens = report.model, per_s, max_tokens
        self._random = random.Random(1)
        self._number = 0
        self.asked: list[Asked] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask; leaving the block waits for the answers."""
        over = threading.Event()
        with ThreadPoolExecutor(THREADS, "traffic") as threads:
            asking = threading.Thread(target=self._keep_asking, args=(threads, over))
            asking.start()
            try:
                yield
            finally:
                over.set()
                asking.join()

    def seconds_in(self, spans: Sequence[Span], apart: Sequence[Span] = ()) -> list[float | None]:
        """The answers to what was asked in these times. Args: apart: times that are left out."""
        return [
            each.seconds
            for each in list(self.asked)
            if any(span.has(each.at) for span in spans) and not any(span.has(each.at) for span in apart)
        ]

    def close(self) -> None:
        """Close its connections."""
        self._sdk.close()

    def _keep_asking(self, threads: ThreadPoolExecutor, over: threading.Event) -> None:
        due = time.monotonic()
        while not over.wait(max(0.0, due - time.monotonic())):
            due += self._random.expovariate(self._per_s)
            self._number += 1
            threads.submit(self._ask, self._number)

    def _ask(self, number: int) -> None:
        at, began, seconds = time.time(), time.monotonic(), None
        try:
            self._sdk.chat.completions.create(
                model=self._model,
                messages=[{"role": "user", "content": f"Question {number}: what is a headrace?"}],
                max_tokens=self._max_tokens,
                extra_body={"job": {"lane": "high"}},
            )
            seconds = time.monotonic() - began
        except openai.OpenAIError:
            pass
        self.asked.append(Asked(at, seconds))
