"""`headrace deliveries`, for operators: lists webhook deliveries, and retries them."""

from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from headrace.cli import parameters
from headrace.cli.database import database, operating
from headrace.cli.output import json_option, note_more, out, print_json, print_uncut, say, table
from headrace.domain.ids import show_id
from headrace.store import actions, apps
from headrace.store import deliveries as store
from headrace.store.deliveries import ListedDelivery

#: The width of a receiver's last answer, which goes on below.
ANSWER_CHARS = 60


@click.group(invoke_without_command=True)
@click.option("--failed", "is_failed", is_flag=True, help="Only those that failed for good.")
@click.option(
    "--app", metavar="NAME", callback=parameters.app_name, help="Only those of this app, of the newest 100,000."
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="Print every field of each as JSON.")
@click.pass_context
def deliveries(context: click.Context, is_failed: bool, app: str | None, limit: int, as_json: bool) -> None:
    """List the newest webhook deliveries of all apps, each with its URL, its tries and the last answer.

    \b
    headrace deliveries --failed
    headrace deliveries --failed --app shop --json
    headrace deliveries --failed --json | jq -r '.[].id' | xargs -r headrace deliveries retry
    headrace deliveries pause shop hooks.example.com    nothing is sent there; 'resume' sends again, 'paused' lists
    """
    if context.invoked_subcommand is not None:
        return
    with database() as db:
        app_id = apps.find_app(db, app).id if app is not None else None
        found = store.newest(db, state="failed" if is_failed else None, app_id=app_id, limit=limit)
    if as_json:
        print_json([_json(each) for each in found])
    elif found:
        print_uncut(out, _table(found))
    else:
        out.print("No delivery has failed for good." if is_failed else "There are no deliveries.")
    if len(found) == limit:
        note_more(limit)


@deliveries.command()
@click.argument("delivery_ids", metavar="ID...", nargs=-1, required=True)
@json_option
def retry(delivery_ids: tuple[str, ...], as_json: bool) -> None:
    """Send deliveries again. ID is one that 'headrace deliveries' lists, the 'webhook-id' that receivers see.

    Each is tried within a second or two, and starts its schedule of tries anew, whatever its state was. A receiver that
    already has it gets it again under the same 'webhook-id'. A URL that answered 410 is tried again too. Either all
    deliveries are tried again or, with an error, none.
    """
    with operating() as audit:
        retried = [_event_id(delivery_id.hex) for delivery_id in actions.retry_deliveries(audit, delivery_ids)]
    if as_json:
        print_json([{"id": event_id} for event_id in retried])
        return
    for event_id in retried:
        click.echo(f"{event_id} is tried again")


@deliveries.command()
@click.argument("app", metavar="APP", callback=parameters.app_name)
@click.argument("receiver", metavar="RECEIVER")
@json_option
def pause(app: str, receiver: str, as_json: bool) -> None:
    """Send no webhooks of an app to a receiver until 'headrace deliveries resume'.

    RECEIVER is the host of their URLs, and the port if they name one; a whole URL does, too. They wait, and count no
    failed try. A try that runs ends. The app's jobs, and its other receivers, are not affected.
    """
    with operating() as audit:
        name, waiting = actions.pause_receiver(audit, app, receiver)
    _print_receiver(app, name, waiting, "is paused", as_json=as_json)


@deliveries.command()
@click.argument("app", metavar="APP", callback=parameters.app_name)
@click.argument("receiver", metavar="RECEIVER")
@json_option
def resume(app: str, receiver: str, as_json: bool) -> None:
    """Send webhooks to a paused receiver again, each as soon as its next try is due."""
    with operating() as audit:
        name, waiting = actions.resume_receiver(audit, app, receiver)
    _print_receiver(app, name, waiting, "is sent to again", as_json=as_json)


def _print_receiver(app: str, receiver: str, waiting: int, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"app": app, "receiver": receiver, "waiting": waiting})
    else:
        say(f"{receiver} {what}: {waiting:,} webhooks of {app} wait for it")


@deliveries.command()
@json_option
def paused(as_json: bool) -> None:
    """List the paused receivers: since when, by whom, and how many webhooks wait."""
    with database() as db:
        found = store.paused(db)
    if as_json:
        print_json([{**each._asdict(), "since": each.since.isoformat()} for each in found])
    elif found:
        rows = table("app", "receiver", "since (UTC)", "by", numbers=("waiting",))
        for each in found:
            since, by = f"{each.since:%Y-%m-%d %H:%M}", each.operator or "-"
            rows.add_row(*map(escape, (each.app, each.receiver, since, by, f"{each.deliveries:,}")))
        print_uncut(out, rows)
    else:
        out.print("No receiver is paused.")


def _table(found: list[ListedDelivery]) -> Table:
    rows = table()
    rows.add_column("delivery", no_wrap=True)
    rows.add_column("app")
    rows.add_column("state", no_wrap=True)
    rows.add_column("tries", justify="right", no_wrap=True)
    rows.add_column("last answer", max_width=ANSWER_CHARS)
    rows.add_column("url")
    for each in found:
        answer = each.last_error or str(each.last_status or "-")
        cells = (_event_id(each.id.hex), each.app or "-", each.shown_state, str(each.tries), answer, each.url)
        rows.add_row(*map(escape, cells))
    return rows


def _json(each: ListedDelivery) -> dict[str, Any]:
    return {
        "id": _event_id(each.id.hex),
        "app": each.app,
        "job_id": each.job_id and show_id(each.job_id),
        "subject": each.subject,
        "event": each.event,
        "url": each.url,
        "state": each.state,
        "tries": each.tries,
        "last_status": each.last_status,
        "last_error": each.last_error,
        "created_at": each.created_at.isoformat(),
        "next_at": each.next_at and each.next_at.isoformat(),
    }


def _event_id(digits: str) -> str:
    return f"evt_{digits}"
