"""Watches a batch until it ends: how far it is, how fast, and when it will likely end."""

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Protocol

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from headrace.cli.client import Api, patiently
from headrace.cli.output import note, notes, out, print_json, table
from headrace.cli.submit.submit_file import Interrupted
from plugins.batches.domain import LINE_PREFIX, BatchState

#: The rate of lines is that of this time, in seconds.
RECENT_S = 60.0
#: From one poll to the next, in seconds: short at first, and longer for one who watches for hours.
FIRST_POLL_S, LONGEST_POLL_S = 1.0, 30.0
#: The pause between two polls is the time since the watch began, divided by this.
POLLS_SLOW_BY = 60
#: Seconds between printed lines, where there is no terminal to draw in.
PRINT_EVERY_S = 10.0
#: Lines without an answer that are shown at the end.
FAILED_SHOWN = 10
#: Characters of a custom_id that are shown.
CUSTOM_ID_CHARS = 24


class LinesUnanswered(click.ClickException):
    """The batch has ended, and not all lines have an answer."""


@dataclass(slots=True)
class BatchPace:
    """How fast lines end. Attributes: seen: times on the monotonic clock, and how many lines had ended then."""

    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, at: float, ended: int) -> None:
        """Note how many lines have ended by now."""
        self.seen.append((at, ended))
        while len(self.seen) > 2 and self.seen[1][0] <= at - RECENT_S:
            self.seen.popleft()

    @property
    def lines_a_second(self) -> float:
        """Of the last `RECENT_S`; 0 as long as it is unknown."""
        if len(self.seen) < 2:
            return 0.0
        (began, before), (at, ended) = self.seen[0], self.seen[-1]
        return (ended - before) / (at - began) if at > began else 0.0

    def left_s(self, left: int) -> float | None:
        """Seconds until this number of further lines has ended; None if none ends now."""
        return left / self.lines_a_second if self.lines_a_second > 0 else None


class Screen(Protocol):
    """Where the progress is shown."""

    def show(self, batch: dict[str, Any], pace: BatchPace) -> None:
        """Show the batch as it stands."""

    def tell(self, text: str) -> None:
        """Say why it may not be current."""


def watch(api: Api, batch_id: str) -> dict[str, Any]:
    """Show a batch until it ends. Returns: it, as it ended. Raises: Interrupted: by Ctrl-C. click.ClickException."""
    pace, began = BatchPace(), time.monotonic()
    try:
        with _drawn() if notes.is_terminal else _printed() as screen:
            while True:
                batch = patiently(lambda: api.call("GET", f"/v1/batches/{batch_id}"), screen.tell)
                pace.note(time.monotonic(), ended_lines(batch))
                if BatchState(batch["status"]).is_terminal:
                    return batch
                screen.show(batch, pace)
                lasted_s = time.monotonic() - began
                time.sleep(min(LONGEST_POLL_S, max(FIRST_POLL_S, lasted_s / POLLS_SLOW_BY)))
    except KeyboardInterrupt:
        raise Interrupted(f"Stopped watching. The batch goes on: 'headrace batch watch {batch_id}'.") from None


@contextmanager
def _drawn() -> Iterator[Screen]:
    """A progress bar on standard error."""
    columns = (
        TextColumn("{task.fields[state]}"),
        BarColumn(12),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TextColumn("{task.fields[note]}", style="yellow"),
    )
    with Progress(*columns, console=notes, transient=True) as progress:
        yield _Drawn(progress)


class _Drawn:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar = progress.add_task("", total=None, state="", facts="", note="")

    def show(self, batch: dict[str, Any], pace: BatchPace) -> None:
        total, facts = batch["request_counts"]["total"] or None, escape("  ".join(_facts(batch, pace)))
        values = {"state": batch["status"], "facts": facts, "note": ""}
        self._progress.update(self._bar, total=total, completed=ended_lines(batch), **values)

    def tell(self, text: str) -> None:
        self._progress.update(self._bar, note=escape(text))


@contextmanager
def _printed() -> Iterator[Screen]:
    """A line on standard error now and then, where nothing can be drawn."""
    yield _Printed()


class _Printed:
    def __init__(self) -> None:
        self._told, self._next_at = "", 0.0

    def show(self, batch: dict[str, Any], pace: BatchPace) -> None:
        state, now = batch["status"], time.monotonic()
        if state == self._told and now < self._next_at:
            return
        self._told, self._next_at = state, now + PRINT_EVERY_S
        total = batch["request_counts"]["total"]
        lines = [f"{ended_lines(batch):,} of {total:,} lines"] if total else []
        note("  ".join([f"{datetime.now(UTC):%H:%M:%S}", state, *lines, *_facts(batch, pace)]))

    def tell(self, text: str) -> None:
        note(text)


def ended_lines(batch: dict[str, Any]) -> int:
    """Lines that have ended, with an answer and without."""
    counts = batch["request_counts"]
    return int(counts["completed"] + counts["failed"])


def _facts(batch: dict[str, Any], pace: BatchPace) -> list[str]:
    """What is known beside the state and the lines: failures, rate, and the expected end."""
    counts, now = batch["request_counts"], datetime.now(UTC)
    facts = [f"{counts['failed']:,} failed"] if counts["failed"] else []
    if batch["status"] != BatchState.IN_PROGRESS:
        return facts
    begins = batch["job"]["not_before"]
    if begins is not None and (at := time_of(begins)) > now:
        return [*facts, f"begins {moment(at)}"]
    left_s = pace.left_s(counts["total"] - ended_lines(batch))
    if left_s is None:
        return facts
    ends, expires = now + timedelta(seconds=left_s), time_of(batch["expires_at"])
    late = f"its window ends first, {moment(expires)}"
    return [*facts, f"{pace.lines_a_second:,.1f}/s", late if ends > expires else f"ends about {moment(ends)}"]


def time_of(given: float | str) -> datetime:
    """A time as the API writes it: seconds since 1970, or ISO 8601."""
    return datetime.fromisoformat(given) if isinstance(given, str) else datetime.fromtimestamp(given, UTC)


def moment(at: datetime) -> str:
    """A time in UTC; of this day, without its date."""
    at, today = at.astimezone(UTC), datetime.now(UTC).date()
    return f"{at:%H:%M} UTC" if at.date() == today else f"{at:%m-%d %H:%M} UTC"


def report(api: Api, batch: dict[str, Any], *, as_json: bool) -> None:
    """Print how a batch has ended, and the first lines without an answer.

    Raises: Unanswered: not all lines have one. click.ClickException.
    """
    if as_json:
        print_json(batch)
    else:
        out.print(_summary(batch), soft_wrap=True)
    if batch["errors"]:
        _print_errors(batch["errors"]["data"])
    elif batch["error_file_id"]:
        _print_failed(api, batch)
    if batch["status"] != BatchState.COMPLETED or batch["request_counts"]["failed"]:
        raise LinesUnanswered(_remedy(batch))


def _summary(batch: dict[str, Any]) -> str:
    counts, tokens = batch["request_counts"], batch["usage"]["total_tokens"]
    if not counts["total"]:
        return f"{batch['id']}  {batch['status']}"
    answered = f"{counts['completed']:,} of {counts['total']:,} lines have an answer"
    return f"{batch['id']}  {batch['status']}  {answered}  {tokens:,} tokens  {batch['job']['usd']} USD"


def _remedy(batch: dict[str, Any]) -> str:
    name, failed = batch["id"], batch["request_counts"]["failed"]
    again = f"'headrace batch retry {name}' runs them again"
    match batch["status"]:
        case BatchState.FAILED:
            return "The file is no batch: correct it, and submit it again."
        case BatchState.EXPIRED:
            return f"Its window ended before {failed:,} lines had an answer: {again}, '--window' for longer."
        case BatchState.CANCELLED:
            return f"It was cancelled, and {failed:,} lines have no answer: {again}."
    return f"{failed:,} lines have no answer: 'headrace batch results {name} --errors' says why, {again}."


def _print_errors(errors: list[dict[str, Any]]) -> None:
    rows = table("line", "code", "what is wrong")
    rows.columns[0].no_wrap = rows.columns[1].no_wrap = True
    for error in errors:
        line = "-" if error["line"] is None else f"{error['line']:,}"
        rows.add_row(line, *map(escape, (error["code"], error["message"])))
    notes.print(rows)


def _print_failed(api: Api, batch: dict[str, Any]) -> None:
    """Print the first lines without an answer. A file that cannot be read is only noted."""
    path = f"/v1/files/{batch['error_file_id']}/content"
    rows = table("line", "custom_id", "code", "why")
    rows.columns[0].no_wrap = rows.columns[2].no_wrap = True
    try:
        for raw in islice(api.lines(path), FAILED_SHOWN):
            result = result_of(raw)
            error = error_of(result) or {}
            name = result["custom_id"]
            name = name if len(name) <= CUSTOM_ID_CHARS else f"{name[: CUSTOM_ID_CHARS - 1]}…"
            cells = (str(line_of(result)), name, str(error.get("code")), str(error.get("message")))
            rows.add_row(*map(escape, cells))
    except click.ClickException as error:
        note(f"The lines without an answer cannot be read: {error.message}")
    if rows.row_count:
        notes.print(rows)
    if (more := batch["request_counts"]["failed"] - rows.row_count) > 0 and rows.row_count:
        note(f"{more:,} more are not shown here: 'headrace batch results {batch['id']} --errors' has all.")


def result_of(raw: bytes) -> dict[str, Any]:
    """The result of a line, as it stands in a file of results."""
    result: dict[str, Any] = json.loads(raw)
    return result


def line_of(result: dict[str, Any]) -> int:
    """The number of a result's line in the file."""
    return int(result["id"].removeprefix(LINE_PREFIX).rpartition("_")[2])


def error_of(result: dict[str, Any]) -> dict[str, Any] | None:
    """Why a line has no answer: `code` and `message`; None if it has one."""
    error: dict[str, Any] | None = result["error"]
    if error is None and result["response"]["status_code"] >= 400:
        error = result["response"]["body"]["error"]
    return error
