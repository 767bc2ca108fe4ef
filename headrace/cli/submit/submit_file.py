"""Submits a file of prompts, some at once, and waits for the answers: a progress bar, and what is left at the end."""

import hashlib
import itertools
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from headrace.cli.client import AWAY, AWAY_S, PATIENCE_S, POLL_S, TOO_MANY, Api, ApiRefused, NoAnswer, TryLater
from headrace.cli.output import notes, out, print_json
from headrace.cli.submit.prompt_files import (
    PrintedResults,
    PromptLine,
    PromptOutcome,
    Results,
    read_lines,
    results_file,
)
from headrace.domain.states import TERMINAL, JobState

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
class SubmitTerms:
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

    def body(self, line: PromptLine) -> dict[str, Any]:
        """The body of `POST /v1/jobs` for a line."""
        return {**self.fields, **(line.body or {})}

    def key(self, line: PromptLine, tries: int | None = None) -> str:
        """The same for each run that submits this line as the same try, so that no job is made twice.

        Args: tries: before this one; by default those of earlier runs.
        """
        what = [self.origin, line.number, self.tries(line.number) if tries is None else tries, self.body(line)]
        return f"file-{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()}"


class SubmitRun:
    """One run over the lines. Its threads submit and wait; the caller alone keeps what they bring."""

    def __init__(self, api: Api, lines: Iterator[PromptLine], terms: SubmitTerms) -> None:
        self._api, self._lines, self._terms = api, lines, terms
        self._turn = threading.Lock()
        self._open_at = 0.0
        self._is_stopped = threading.Event()
        # Its `put` may be called by a signal handler while the same thread waits in `get`.
        self._news: SimpleQueue[PromptOutcome | Pause | BaseException | None] = SimpleQueue()

    def stop(self) -> None:
        """Submit nothing more, and end `news` after what has come so far. May be called by a signal handler."""
        self._is_stopped.set()
        self._news.put(Stopped())

    def news(self) -> Iterator[PromptOutcome | Pause]:
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

    def _next(self) -> PromptLine | None:
        with self._turn:
            return None if self._is_stopped.is_set() else next(self._lines, None)

    def _outcome(self, line: PromptLine) -> PromptOutcome:
        if line.problem is not None:
            return PromptOutcome(line, None, {"code": "unreadable", "message": line.problem})
        try:
            return _ended(line, self._job(line))
        except ApiRefused as error:
            if error.code in FOR_ALL:
                raise
            return PromptOutcome(line, None, {"code": error.code or str(error.status), "message": error.message})

    def _job(self, line: PromptLine) -> dict[str, Any]:
        """Submit a line, or find the job that an earlier run submitted for it, and wait for its end."""
        job = self._submitted(line)
        while True:
            asked_at = time.monotonic()
            job = self._insist("GET", f"/v1/jobs/{job['id']}", params={"wait": POLL_S})
            if job["status"] in TERMINAL:
                return job
            self._pause(max(0.0, POLL_PAUSE_S - (time.monotonic() - asked_at)))

    def _submitted(self, line: PromptLine) -> dict[str, Any]:
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
                else:
                    self._news.put(Pause(error.message, after_s))
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


def _ended(line: PromptLine, job: dict[str, Any]) -> PromptOutcome:
    if job["status"] == JobState.SUCCEEDED:
        return PromptOutcome(line, job, None)
    error = job["error"] or {"code": job["status"], "message": "It has no answer."}
    remedy = REMEDIES.get(error["code"])
    return PromptOutcome(line, job, {**error, "message": f"{error['message']} {remedy}"} if remedy else error)


#: Lines from which on a batch is better than a command that stays open.
MANY_LINES = 1000
HINT = "as a batch they would go on without this command: see 'headrace batch submit --help'."
#: What each line of a batch's file has.
OF_BATCHES = frozenset({"custom_id", "url", "body"})
#: Errors that are printed; further ones are counted.
ERRORS_SHOWN = 20
#: The exit status after Ctrl-C, as shells expect it.
INTERRUPTED = 130


class Interrupted(click.ClickException):
    """The run was stopped, and the same command goes on."""

    exit_code = INTERRUPTED


class PromptsUnanswered(click.ClickException):
    """Some lines have no answer."""


@dataclass(slots=True)
class Tally:
    """The counts of a run. Attributes: earlier: answered by earlier runs. wrong: without an answer."""

    lines: int
    earlier: int
    answered: int = 0
    wrong: int = 0
    tokens: int = 0
    usd: Decimal = Decimal(0)

    @property
    def left(self) -> int:
        """Lines that have not ended."""
        return self.lines - self.earlier - self.answered - self.wrong

    def add(self, outcome: PromptOutcome) -> None:
        self.answered += outcome.is_answered
        self.wrong += not outcome.is_answered
        job = outcome.job or {"usage": None, "cost": {"usd": "0"}}
        self.tokens += job["usage"]["total_tokens"] if job["usage"] else 0
        self.usd += Decimal(job["cost"]["usd"])

    def __str__(self) -> str:
        answered = f"{self.earlier + self.answered:,} of {self.lines:,} lines have an answer"
        before = f", {self.earlier:,} from earlier runs" if self.earlier else ""
        return f"{answered}{before}. This run: {self.tokens:,} tokens, {self.usd:f} USD."


@dataclass(frozen=True, slots=True)
class Files:
    """The file of prompts, and that of the results; None prints them."""

    prompts: Path
    results: Path | None

    @property
    def origin(self) -> str:
        """What makes requests of these files different from those of others."""
        results = "" if self.results is None else str(self.results.resolve())
        return f"{self.prompts.resolve()}\n{results}"


def submit_file(api: Api, files: Files, fields: dict[str, Any], at_once: int, as_json: bool) -> None:
    """Submit every line that has no answer yet, and keep the results. Raises: click.ClickException."""
    if files.results is not None and files.results.resolve() == files.prompts.resolve():
        raise click.UsageError("--output names the file of the prompts: name another one.")
    with ExitStack() as stack:
        results: Results
        results = PrintedResults() if files.results is None else stack.enter_context(results_file(files.results))
        tally = _counted(files, results)
        if tally.left >= MANY_LINES and not as_json:
            notes.print(f"{tally.left:,} lines: {HINT}", soft_wrap=True)
        tries = {number: past.tries for number, past in results.past.items()}
        terms = SubmitTerms(fields, files.origin, lambda number: tries.get(number, 0), min(at_once, max(1, tally.left)))
        run = SubmitRun(api, _unanswered(files.prompts, results), terms)
        is_stopped = _follow(run, results, tally)
    _end(tally, files, is_stopped, as_json)


def _counted(files: Files, results: Results) -> Tally:
    """Count the lines and what is answered.

    Raises: click.ClickException: this is no file of prompts, or an answer belongs to another line.
    """
    lines = earlier = 0
    for line in read_lines(files.prompts):
        lines += 1
        if lines == 1 and line.body is not None and line.body.keys() >= OF_BATCHES:
            raise click.ClickException(f"{files.prompts} is a batch's file: 'headrace batch submit' takes those.")
        past = results.past.get(line.number)
        if past is not None and past.is_answered:
            earlier += 1
            if past.digest != line.digest:
                raise click.ClickException(
                    f"Line {line.number} of {files.prompts} has changed since {files.results} got its answer: "
                    "undo the change, or name another file with --output."
                )
    if not lines:
        raise click.ClickException(f"{files.prompts} has no prompts: give one JSON object a line.")
    return Tally(lines, earlier)


def _unanswered(path: Path, results: Results) -> Iterator[PromptLine]:
    answered = frozenset(number for number, past in results.past.items() if past.is_answered)
    return (line for line in read_lines(path) if line.number not in answered)


def _follow(run: SubmitRun, results: Results, tally: Tally) -> bool:
    """Keep what comes, behind a progress bar on standard error. Returns: whether it was stopped before the end."""
    with _bar(tally) as tell, _stopping(run):
        try:
            for happened in run.news():
                if isinstance(happened, Pause):
                    tell(f"pausing {happened.seconds:.0f} s: {happened.why}")
                    continue
                results.add(happened)
                tally.add(happened)
                if happened.error is not None and tally.wrong <= ERRORS_SHOWN:
                    what = f"Line {happened.line.number}: {happened.error['code']}: {happened.error['message']}"
                    notes.print(what, markup=False, soft_wrap=True)
                tell("")
        except Stopped:
            return True
    return False


@contextmanager
def _bar(tally: Tally) -> Iterator[Callable[[str], None]]:
    """A progress bar. Yields: draws the tally, with a note."""
    columns = (
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[counts]}"),
        TextColumn("{task.fields[note]}", style="yellow"),
    )
    # Results that go to standard output must not be taken for lines of the terminal.
    with Progress(*columns, console=notes, redirect_stdout=out.is_terminal, transient=True) as progress:
        bar: TaskID = progress.add_task("", total=tally.lines, completed=tally.earlier, counts="", note="")

        def tell(note: str) -> None:
            wrong = f"[red]{tally.wrong:,} without an answer[/]  " if tally.wrong else ""
            done = tally.lines - tally.left
            progress.update(bar, completed=done, counts=f"{wrong}{tally.usd:f} USD", note=escape(note))

        yield tell


@contextmanager
def _stopping(run: SubmitRun) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM stop the run: once gently, then at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _: object) -> None:
        run.stop()
        signal.signal(number, signal.default_int_handler)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(tally: Tally, files: Files, is_stopped: bool, as_json: bool) -> None:
    """Print the tally. Raises: Interrupted. Unanswered."""
    where = "" if files.results is None else f" Results: {files.results}."
    if as_json and files.results is not None:
        print_json(
            {
                "file": str(files.prompts),
                "output": str(files.results),
                "lines": tally.lines,
                "answered": tally.earlier + tally.answered,
                "answered_earlier": tally.earlier,
                "without_answer": tally.wrong,
                "left": tally.left,
                "tokens": tally.tokens,
                "usd": f"{tally.usd:f}",
            }
        )
    notes.print(f"{tally}{where}", markup=False, soft_wrap=True)
    if tally.wrong > ERRORS_SHOWN:
        notes.print(f"{tally.wrong - ERRORS_SHOWN:,} more lines without an answer are not shown here.")
    if is_stopped:
        raise Interrupted(f"Stopped with {tally.left:,} lines left. Jobs under way go on; the same command finds them.")
    if tally.wrong:
        raise PromptsUnanswered(
            f"{tally.wrong:,} lines have no answer. Correct them; the same command tries them again."
        )
