"""Submits the lines of a file, so many at once, and waits for their answers."""

import hashlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from queue import SimpleQueue
from typing import Any

from headrace.cli.api import POLL_S, TOO_MANY, Api, ApiRefused, NoAnswer, TryLater
from headrace.cli.submit.lines import Line
from headrace.cli.submit.results import Outcome
from headrace.domain.states import TERMINAL, JobState

#: How long one request is tried again while the API is away, in seconds.
PATIENCE_S = 600.0
#: Between such tries, in seconds.
AWAY_S = 2.0
#: The pause after a full queue that will have room later than a Retry-After may say, in seconds.
LONG_PAUSE_S = 120.0
#: How often such a queue is asked again for the same line.
LONG_PAUSES = 5
#: The pause after a poll that came back at once, as from a server that holds as many open as it may, in seconds.
POLL_PAUSE_S = 0.5
#: How a job ends without an answer.
UNANSWERED = TERMINAL - {JobState.SUCCEEDED}
#: Codes of refusals that meet every line.
FOR_ALL = frozenset({"invalid_api_key", "scope_not_allowed", "budget_exceeded"})
#: What a server in trouble, or a proxy before it, answers.
AWAY = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
#: What to do, by the code of a job's end. Other errors say it themselves.
REMEDIES: Mapping[str, str] = {
    "expired": "Give it longer with --max-wait, or use --lane batch.",
    "deadline_exceeded": "Give it a later deadline, or a lower max_tokens.",
    "cancelled": "The same command submits it again.",
}


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is submitted for a while. Attributes: why: in the API's words."""

    why: str
    seconds: float


class Stopped(Exception):
    """The run was stopped."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How lines are submitted.

    Attributes:
        fields: of the body, for lines that do not say them.
        origin: what the keys of requests are derived from, beside the line: the files.
        tries: of a line before this run, by its number.
        at_once: jobs under way at once.
    """

    fields: Mapping[str, Any]
    origin: str
    tries: Callable[[int], int]
    at_once: int

    def body(self, line: Line) -> dict[str, Any]:
        """The body of `POST /v1/jobs` for a line."""
        return {**self.fields, **(line.body or {})}

    def key(self, line: Line, tries: int | None = None) -> str:
        """The same for each run that submits this line as the same try, so that no job is made twice.

        Args: tries: before this one; by default those of earlier runs.
        """
        what = [self.origin, line.number, self.tries(line.number) if tries is None else tries, self.body(line)]
        return f"file-{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()}"


class Run:
    """One run over the lines. Its threads submit and wait; the caller alone keeps what they bring."""

    def __init__(self, api: Api, lines: Iterator[Line], terms: Terms) -> None:
        self._api, self._lines, self._terms = api, lines, terms
        self._turn = threading.Lock()
        self._open_at = 0.0
        self._is_stopped = threading.Event()
        # Its `put` may be called by a signal handler while the same thread waits in `get`.
        self._news: SimpleQueue[Outcome | Pause | BaseException | None] = SimpleQueue()

    def stop(self) -> None:
        """Submit nothing more, and end `news` after what has come so far. May be called by a signal handler."""
        self._is_stopped.set()
        self._news.put(Stopped())

    def news(self) -> Iterator[Outcome | Pause]:
        """What happens, as it happens, until the last line has ended. Raises: click.ClickException. Stopped."""
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._terms.at_once)]
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running:
                match self._news.get():
                    case None:
                        running -= 1
                    case BaseException() as error:
                        raise error
                    case happened:
                        yield happened
        finally:
            self._is_stopped.set()

    def _work(self) -> None:
        try:
            while (line := self._next()) is not None:
                self._news.put(self._outcome(line))
        except Stopped:
            return
        except BaseException as error:
            self._is_stopped.set()
            self._news.put(error)
        self._news.put(None)

    def _next(self) -> Line | None:
        with self._turn:
            return None if self._is_stopped.is_set() else next(self._lines, None)

    def _outcome(self, line: Line) -> Outcome:
        if line.problem is not None:
            return Outcome(line, None, {"code": "unreadable", "message": line.problem})
        try:
            return _ended(line, self._job(line))
        except ApiRefused as error:
            if error.code in FOR_ALL:
                raise
            return Outcome(line, None, {"code": error.code or str(error.status), "message": error.message})

    def _job(self, line: Line) -> dict[str, Any]:
        """Submit a line, or find the job that an earlier run submitted for it, and wait for its end."""
        job = self._submitted(line)
        while True:
            asked_at = time.monotonic()
            job = self._insist("GET", f"/v1/jobs/{job['id']}", params={"wait": POLL_S})
            if job["status"] in TERMINAL:
                return job
            self._pause(max(0.0, POLL_PAUSE_S - (time.monotonic() - asked_at)))

    def _submitted(self, line: Line) -> dict[str, Any]:
        """Submit a line. An earlier run's job that ended without an answer, and was not recorded, is tried again."""
        for tries in itertools.count(self._terms.tries(line.number)):
            key = {"Idempotency-Key": self._terms.key(line, tries)}
            job = self._insist("POST", "/v1/jobs", json=self._terms.body(line), headers=key)
            if job["status"] not in UNANSWERED:
                break
        return job

    def _insist(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """Send a request until the API takes it. Raises: ApiRefused: it never will. NoAnswer: it is away for long."""
        give_up_at, long_pauses = time.monotonic() + PATIENCE_S, LONG_PAUSES
        while True:
            if method == "POST":
                self._pause(self._open_at - time.monotonic())
            try:
                return self._api.call(method, path, **arguments)
            except (ApiRefused, NoAnswer) as error:
                after_s = _after_s(error)
                if isinstance(error, ApiRefused) and error.status == TOO_MANY:
                    long_pauses -= not isinstance(error, TryLater)
                    if after_s is None or long_pauses < 0:
                        raise
                    self._close_for(after_s, error.message)
                elif after_s is None or time.monotonic() > give_up_at:
                    raise
                self._pause(after_s)

    def _close_for(self, seconds: float, why: str) -> None:
        """Have no thread submit for a while, as the API asks."""
        until = time.monotonic() + seconds
        with self._turn:
            is_later, self._open_at = until > self._open_at, max(until, self._open_at)
        if is_later:
            self._news.put(Pause(why, seconds))

    def _pause(self, seconds: float) -> None:
        """Raises: Stopped."""
        if self._is_stopped.wait(max(0.0, seconds)):
            raise Stopped


def _after_s(error: ApiRefused | NoAnswer) -> float | None:
    """When the same request may succeed; None if it never will."""
    if isinstance(error, TryLater):
        return error.after_s
    if isinstance(error, NoAnswer) or error.status in AWAY:
        return AWAY_S
    return LONG_PAUSE_S if error.code == "queue_full" else None


def _ended(line: Line, job: dict[str, Any]) -> Outcome:
    if job["status"] == JobState.SUCCEEDED:
        return Outcome(line, job, None)
    error = job["error"] or {"code": job["status"], "message": "It has no answer."}
    remedy = REMEDIES.get(error["code"])
    return Outcome(line, job, {**error, "message": f"{error['message']} {remedy}"} if remedy else error)
