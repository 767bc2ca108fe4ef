"""A file of prompts in the terminal: a progress bar, results as they come, and what is left at the end."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from headrace.cli.api import Api
from headrace.cli.output import notes, out, print_json
from headrace.cli.submit.lines import Line, read_lines
from headrace.cli.submit.results import Outcome, PrintedResults, Results, results_file
from headrace.cli.submit.run import Pause, Run, Stopped, Terms

#: Errors that are printed; further ones are counted.
ERRORS_SHOWN = 20
#: The exit status after Ctrl-C, as shells expect it.
INTERRUPTED = 130


class Interrupted(click.ClickException):
    """The run was stopped, and the same command goes on."""

    exit_code = INTERRUPTED


class Unanswered(click.ClickException):
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

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
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
        tries = {number: past.tries for number, past in results.past.items()}
        terms = Terms(fields, files.origin, lambda number: tries.get(number, 0), min(at_once, max(1, tally.left)))
        run = Run(api, _unanswered(files.prompts, results), terms)
        is_stopped = _follow(run, results, tally)
    _end(tally, files, is_stopped, as_json)


def _counted(files: Files, results: Results) -> Tally:
    """Count the lines and what is answered. Raises: click.ClickException: an answer belongs to another line."""
    lines = earlier = 0
    for line in read_lines(files.prompts):
        lines += 1
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


def _unanswered(path: Path, results: Results) -> Iterator[Line]:
    answered = frozenset(number for number, past in results.past.items() if past.is_answered)
    return (line for line in read_lines(path) if line.number not in answered)


def _follow(run: Run, results: Results, tally: Tally) -> bool:
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
def _stopping(run: Run) -> Iterator[None]:
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
        raise Unanswered(f"{tally.wrong:,} lines have no answer. Correct them; the same command tries them again.")
