"""`headrace jobs` and `headrace retry`, for operators: which jobs there are, which have failed, and another try."""

import json
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from headrace.cli import parameters
from headrace.cli.client import notes, out
from headrace.cli.database import database
from headrace.cli.table import table
from headrace.jobs import parse_id, show_id
from headrace.store import apps, overview, retries
from headrace.store.overview import Listed


@click.command()
@click.option("--dead", "is_dead", is_flag=True, help="Only those that failed for good and were not retried.")
@click.option("--app", metavar="NAME", callback=parameters.app_name, help="Only those of this app.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON, each with what its error says.")
def jobs(is_dead: bool, app: str | None, limit: int, as_json: bool) -> None:
    """List the newest jobs of all apps, without what they say.

    \b
    headrace jobs --dead                            what has failed, and why
    headrace jobs --dead --app shop --json
    headrace jobs --dead --json | jq -r '.[].id' | xargs -r headrace retry

    A job has failed for good when its error cannot pass, such as 'engine_crash' or 'prompt_rejected', when its last
    attempt failed too, or when its deadline passed. docs/api.md says what each error means.
    """
    with database() as db:
        app_id = apps.find_app(db, app).id if app is not None else None
        found = overview.newest(db, is_dead=is_dead, app_id=app_id, limit=limit)
    if as_json:
        click.echo(json.dumps([_json(job) for job in found], indent=2, ensure_ascii=False))
    elif found:
        out.print(_table(found, "error" if is_dead else "status or error"))
    else:
        out.print("No job has failed that was not retried." if is_dead else "There are no jobs.")
    if len(found) == limit:
        notes.print(f"There may be more: these are the newest {limit}, --limit N shows more.")


@click.command()
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
def retry(job_ids: tuple[str, ...]) -> None:
    """Run failed jobs again. JOB is the id of one that 'headrace jobs --dead' lists.

    Each is run again as a new job of the same app, with the same prompt and settings, its own bill and its own webhook.
    The old job stays as it is, with what it has cost. Either all of them are retried or, with an error, none; none is
    retried twice.

    The new job waits in the same queue for as long as the old one might have, from now on, and no limit of its app
    holds it back. It is in the queue within some seconds: a deadline that is shorter passes again. One that an engine
    died under runs alone.
    """
    with database() as db:
        news = retries.retry(db, map(parse_id, job_ids))
    for old, new in news.items():
        click.echo(f"{show_id(old)} is retried as {show_id(new)}")


def _table(found: list[Listed], why: str) -> Table:
    """Args: why: the heading of what a job's error or else its status is told under."""
    rows = table()
    rows.add_column("job", no_wrap=True)
    # A name may be cut before the reason is.
    rows.add_column("app")
    rows.add_column(why, no_wrap=True)
    rows.add_column("attempts", justify="right", no_wrap=True)
    rows.add_column("ended (UTC)", no_wrap=True)
    for job in found:
        ended = "-" if job.ended_at is None else f"{job.ended_at:%m-%d %H:%M}"
        cells = (show_id(job.id), job.app, job.error_code or str(job.state), str(job.attempt), ended)
        rows.add_row(*map(escape, cells))
    return rows


def _json(job: Listed) -> dict[str, Any]:
    error = {"code": job.error_code, "message": job.error_message} if job.error_code else None
    return {
        "id": show_id(job.id),
        "app": job.app,
        "status": str(job.state),
        "queue": job.queue,
        "error": error,
        "attempts": job.attempt,
        "usd": str(job.usd),
        "created_at": job.created_at.isoformat(),
        "ended_at": job.ended_at and job.ended_at.isoformat(),
        "retry_of": job.retry_of and show_id(job.retry_of),
    }
