"""`headrace jobs show`, for operators: one job's timeline, from its acceptance to its end."""

import json
from textwrap import wrap
from typing import Any

import click
from rich.markup import escape

from headrace.cli.database import database, operating
from headrace.cli.output import notes, out, table
from headrace.domain.ids import parse_id, show_id
from headrace.store import actions
from headrace.store.jobs.history import Event, History, history, message, plain, timeline

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


@click.command()
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
        click.echo(json.dumps(_json(found, events), indent=2, ensure_ascii=False))
        return
    _print(found, events)
    if found.texts is not None:
        for name in _TEXTS:
            click.echo(f"\n{name}:\n{_text(getattr(found.texts, name))}")
    elif with_texts:
        notes.print("Its prompt and answer are erased.")


def _json(found: History, events: list[Event]) -> dict[str, Any]:
    job = found.job
    told = {
        "id": show_id(job.id),
        "app": job.app,
        "status": job.state,
        **{name: plain(getattr(job, name)) for name in _FACTS},
        **message(found),
        "retry_of": job.retry_of and show_id(job.retry_of),
        "retried_as": job.retried_as and show_id(job.retried_as),
        "timeline": [{"at": event.at.isoformat(), "event": event.name, **event.facts} for event in events],
    }
    if found.texts is not None:
        told["text"] = {name: getattr(found.texts, name) for name in _TEXTS}
    return told


def _print(found: History, events: list[Event]) -> None:
    """Print the events, one a row. Where a fact is wider than its column, the facts are below: no id is broken."""
    out.print(escape(_title(found)), soft_wrap=True)
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
