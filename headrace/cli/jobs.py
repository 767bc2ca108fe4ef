"""`headrace jobs` and `headrace retry`, for operators: lists of jobs, one job's timeline, and another try."""

import json
from textwrap import wrap
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from headrace.cli import parameters
from headrace.cli.database import database, operating
from headrace.cli.output import json_option, note_more, notes, out, print_json, print_uncut, say, table
from headrace.domain.ids import parse_id, show_id
from headrace.domain.queues import Lane
from headrace.domain.states import JobState
from headrace.store import actions, apps
from headrace.store.jobs import overview
from headrace.store.jobs.overview import (
    Event,
    History,
    ListedJob,
    Wanted,
    history,
    message,
    plain,
    suspicion_in_words,
    timeline,
)


@click.group(invoke_without_command=True)
@click.option("--dead", "is_dead", is_flag=True, help="Only those that failed for good and were not retried.")
@click.option("--state", type=click.Choice([state.value for state in JobState]), help="Only those in this state.")
@click.option("--lane", type=click.Choice([lane.value for lane in Lane]), help="Only those of this lane.")
@click.option("--app", metavar="NAME", callback=parameters.app_name, help="Only those of this app.")
@click.option(
    "--note",
    metavar="PLUGIN=TEXT",
    callback=parameters.note,
    help="Only those of which a plugin has noted this, such as batches=batch_0197….",
)
@click.option("--since", metavar="TIME", callback=parameters.moment, help="Only those accepted at this time or later.")
@click.option("--until", metavar="TIME", callback=parameters.moment, help="Only those accepted before this time.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON, each with what its error says.")
@click.pass_context
def jobs(context: click.Context, /, is_dead: bool, limit: int, as_json: bool, **filters: Any) -> None:
    """List the newest jobs of all apps, without prompts and answers.

    \b
    headrace jobs --dead                            failed jobs and their errors
    headrace jobs --dead --app shop --json
    headrace jobs --state expired --lane high --since 2h
    headrace jobs --note batches=batch_0197… --state failed
    headrace jobs --since 2026-03-01T08:00 --until 2026-03-01T09:00
    headrace jobs --dead --json | jq -r '.[] | select(.error.code != "engine_crash") | .id' | xargs -r headrace retry
    headrace jobs show JOB                          one job's timeline

    A job has failed for good when its error cannot pass, such as 'engine_crash' or 'prompt_rejected', when its last
    attempt failed too, or when its deadline passed. docs/api.md explains each error.

    TIME is an age such as 90s, 30m, 2h or 7d, or a date with a time, in UTC unless it has an offset. A list searches at
    most the newest 100,000 jobs within TIME. It prints a note if it stops there.
    """
    if context.invoked_subcommand is not None:
        return
    if is_dead and filters["state"] not in (None, JobState.FAILED):
        raise click.UsageError("--dead lists failed jobs: leave --state out.")
    app = filters.pop("app")
    with database() as db:
        app_id = apps.find_app(db, app).id if app is not None else None
        wanted = Wanted(app_id=app_id, is_dead=is_dead, **filters)
        found = overview.newest(db, wanted, limit)
        looked_back_to = overview.looked_back_to(db, wanted) if len(found) < limit else None
    if as_json:
        print_json([_json(job) for job in found])
    elif found:
        print_uncut(out, _table(found, "error" if is_dead else "status or error"))
    else:
        out.print(_nothing(wanted))
    if len(found) == limit:
        note_more(limit)
    elif looked_back_to is not None:
        notes.print(f"There may be older ones: '--until {looked_back_to:%Y-%m-%dT%H:%M:%S}' looks further back.")


@click.command()
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@click.option("--force", "with_poison", is_flag=True, help="Also jobs that killed an engine in which they ran alone.")
@json_option
def retry(job_ids: tuple[str, ...], with_poison: bool, as_json: bool) -> None:
    """Run failed jobs again. JOB is the id of a job that 'headrace jobs --dead' lists.

    Each runs again as a new job of the same app, with the same prompt and settings, but its own bill and webhook. The
    old job stays as it is, with its cost. Either all jobs are retried or, with an error, none. No job is retried twice.

    The new job waits in the same queue. It gets the old job's full maximum wait from now on, and its app's limits do
    not apply. It enters the queue within some seconds, so a shorter deadline passes again. A job under which an engine
    died runs alone. One that killed an engine while it ran alone is refused, unless you --force it: the next try kills
    an engine again, until a change of the engine or model has removed the cause.
    """
    with operating() as audit:
        news = actions.retry_jobs(audit, map(parse_id, job_ids), with_poison=with_poison)
    if as_json:
        print_json([{"job_id": show_id(old), "retried_as": show_id(new)} for old, new in news.items()])
        return
    for old, new in news.items():
        click.echo(f"{show_id(old)} is retried as {show_id(new)}")


def _nothing(wanted: Wanted) -> str:
    if wanted.is_dead:
        return "No job has failed that was not retried."
    return "There are no jobs." if wanted == Wanted() else "There are no such jobs."


def _table(found: list[ListedJob], why: str) -> Table:
    """Args: why: the heading of the column with a job's error, or else its status."""
    rows = table()
    rows.add_column("job", no_wrap=True)
    rows.add_column("app")
    rows.add_column(why, no_wrap=True)
    rows.add_column("attempts", justify="right", no_wrap=True)
    rows.add_column("ended (UTC)", no_wrap=True)
    for job in found:
        ended = "-" if job.ended_at is None else f"{job.ended_at:%m-%d %H:%M}"
        cells = (show_id(job.id), job.app, job.error_code or str(job.state), str(job.attempt), ended)
        rows.add_row(*map(escape, cells))
    return rows


def _json(job: ListedJob) -> dict[str, Any]:
    error = {"code": job.error_code, "message": job.error_message} if job.error_code else None
    return {
        "id": show_id(job.id),
        "app": job.app,
        "status": str(job.state),
        "lane": job.lane,
        "queue": job.queue,
        "error": error,
        "attempts": job.attempt,
        "usd": str(job.usd),
        "created_at": job.created_at.isoformat(),
        "ended_at": job.ended_at and job.ended_at.isoformat(),
        "retry_of": job.retry_of and show_id(job.retry_of),
    }


#: The job's fields that are shown beside its events.
_FACTS = (
    *("lane", "pool", "queue", "route", "route_reason", "overflow", "model_requested", "model_served"),
    *("adapter", "stream", "background", "suspicion", "attempt", "prompt_tokens", "max_tokens", "output_tokens"),
    *("cached_tokens", "reasoning_tokens", "finish_reason", "error_code", "usd", "max_cost_usd", "cache"),
    *("created_at", "queued_at", "started_at", "ended_at", "start_by", "finish_by"),
)
#: Before the facts of an event, where they are below it.
_INDENT = "    "
_TEXTS = ("messages", "sampling", "reasoning", "answer", "tool_calls", "choices")


@jobs.command()
@click.argument("job_id", metavar="JOB")
@click.option("--text", "with_texts", is_flag=True, help="Show its prompt and its answer too; the audit log has it.")
@click.option("--json", "as_json", is_flag=True, help="Print every field of it as JSON.")
def show(job_id: str, with_texts: bool, as_json: bool) -> None:
    """Show one job's timeline, for a job of any app. JOB is its id: job_..., resp_... or chatcmpl-...

    \b
    headrace jobs show job_019b2f64a3c17d20b6f1c2d3e4f50617
    headrace jobs show resp_019b2f64a3c17d20b6f1c2d3e4f50617 --json | jq .timeline

    The timeline has its acceptance, its last place in a queue, each attempt, each charge and its webhook. Times are in
    UTC. The processes' logs show the id printed here as `job_id`.
    """
    if with_texts:
        with operating() as audit:
            found = actions.read_texts(audit, parse_id(job_id))
    else:
        with database() as db:
            found = history(db, parse_id(job_id))
    events = sorted(timeline(found), key=lambda event: event.at)
    if as_json:
        print_json(_history_json(found, events))
        return
    _print_history(found, events)
    if found.texts is not None:
        for name in _TEXTS:
            say(f"\n{name}:\n{_text(getattr(found.texts, name))}")
    elif with_texts:
        notes.print("Its prompt and answer are erased.")


def _history_json(found: History, events: list[Event]) -> dict[str, Any]:
    job = found.job
    shown = {
        "id": show_id(job.id),
        "app": job.app,
        "status": job.state,
        **{name: plain(getattr(job, name)) for name in _FACTS},
        **message(found),
        "suspicion_means": suspicion_in_words(job),
        "retry_of": job.retry_of and show_id(job.retry_of),
        "retried_as": job.retried_as and show_id(job.retried_as),
        "timeline": [{"at": event.at.isoformat(), "event": event.name, **event.facts} for event in events],
    }
    if found.texts is not None:
        shown["text"] = {name: getattr(found.texts, name) for name in _TEXTS}
    return shown


def _print_history(found: History, events: list[Event]) -> None:
    """Print the events, one a row. Where a fact is wider than its column, the facts are below: no id is broken."""
    out.print(escape(_title(found)), soft_wrap=True)
    if means := suspicion_in_words(found.job):
        out.print(means)
    lines = [(f"{event.at:%m-%d %H:%M:%S.%f}"[:-3], event.name, _facts(event)) for event in events]
    room = out.width - sum(max(len(line[at]) for line in lines) + 1 for at in (0, 1))
    if all(len(fact) <= room for *_, facts in lines for fact in facts):
        rows = table("at (UTC)", "event", "what is known of it")
        rows.columns[0].no_wrap = rows.columns[1].no_wrap = True
        for at, name, facts in lines:
            rows.add_row(at, name, escape(" ".join(facts)))
        out.print(rows)
        return
    for at, name, facts in lines:
        out.print(f"{at} [bold]{name}[/bold]", soft_wrap=True)
        for part in wrap(" ".join(facts), out.width - len(_INDENT), break_long_words=False, break_on_hyphens=False):
            out.print(_INDENT + escape(part), soft_wrap=True)


def _title(found: History) -> str:
    job = found.job
    title = f"{show_id(job.id)} of {job.app}: {job.state}"
    if job.retry_of is not None:
        title += f", retry of {show_id(job.retry_of)}"
    if job.retried_as is not None:
        title += f", retried as {show_id(job.retried_as)}"
    return title


def _facts(event: Event) -> list[str]:
    """The words of its facts."""
    return " ".join(f"{name}={value}" for name, value in event.facts.items()).split()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
