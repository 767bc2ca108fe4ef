"""`headrace status`: what is wrong, what to do, and which processes run, as on the first page of /ops."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.markup import escape

from headrace import connections
from headrace.broker import overview
from headrace.broker.admission import Admission
from headrace.broker.messages import ExecuteMessage, make_celery
from headrace.cli.database import hints, local_stack, operator_settings
from headrace.cli.output import json_option, out, plain, print_json, table
from headrace.config import Settings
from headrace.connections.redis import redis_client
from headrace.policies.health import LaneFacts, Process, problems, processes_of
from headrace.store import Store


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Say what is wrong and what to do, which queues have jobs, and which processes run.

    Reads Postgres and Redis, and needs no process of Headrace. The first page of /ops shows the same. What a locked
    table holds back is left out, and the session that holds the lock is named.

    \b
    state      live: it gives a sign of life every 2 s; stopped: it said so; lost: it was killed, or hangs
    last sign  seconds ago
    lost       lives that ended without a word in the last hour

    The status is 1 if a person must act.
    """
    settings = _settings()
    with hints(settings):
        found = _read(settings)
    wrong, processes = problems(found.facts), processes_of(found.facts.lives)
    if as_json:
        shown = {"problems": [asdict(each) for each in wrong], "processes": [_json(each) for each in processes]}
        depths = {each.queue: each.depth for each in found.facts.lanes}
        print_json({**shown, "depths": depths, "not_available": dict(found.facts.unread)})
    else:
        for each in wrong:
            style = "bold red" if each.severity == "act" else "yellow"
            out.print(f"[{style}]{escape(each.text)}[/] {escape(each.remedy)}")
        for name, why in found.facts.unread.items():
            out.print(f"Not available: {name}, since {why}.", markup=False)
        out.print("" if wrong else "Nothing is wrong.")
        for paused in found.facts.paused:
            text = f"Webhooks of {paused.app} to {paused.receiver} are paused since {paused.since:%Y-%m-%d %H:%M} UTC"
            out.print(f"{text} by {paused.operator}: {paused.deliveries:,} wait.", markup=False)
        out.print(_queues(found.facts.lanes))
        out.print(_table(processes))
        for process in processes:
            if process.end_reason is not None:
                out.print(f"{process.newest.name}, lost: {process.end_reason}", markup=False)
    sys.exit(any(each.severity == "act" for each in wrong))


def _settings() -> Settings:
    """The operator's, with the Redis of the same stack."""
    stack, settings = local_stack(Settings.load()), operator_settings()
    return settings if stack is None else settings.model_copy(update={"redis_url": stack.redis_url})


def _read(settings: Settings) -> overview.Overview:
    """Raises: StoreUnavailable."""
    store, redis = Store(connections.postgres(settings, pool_size=2)), redis_client(settings)
    message = ExecuteMessage(make_celery("headrace-status", settings))
    admission = Admission(redis, message, reservation_ttl_s=settings.reservation_ttl_s)
    try:
        return overview.read(store, admission, settings, lambda _queue: None)
    finally:
        store.close()
        redis.close()


def _queues(lanes: Sequence[LaneFacts]) -> Any:
    """The queues with jobs, and those whose depth is unknown."""
    rows = table("queue", numbers=("waiting", "oldest wait"))
    for lane in lanes:
        if lane.depth != 0:
            wait = "-" if lane.oldest_wait_s is None else f"{lane.oldest_wait_s:,.0f} s"
            rows.add_row(lane.queue, "-" if lane.depth is None else f"{lane.depth:,}", wait)
    return rows if rows.rows else "No job waits."


def _table(processes: list[Process]) -> Any:
    rows = table("process", "state", "host", "pool", "version", numbers=("last sign", "lost"))
    for each in processes:
        life = each.newest
        name = f"{life.name} ({each.alive})" if each.alive > 1 else life.name
        state = f"[red]{each.state}[/]" if each.state == "lost" else each.state
        cells = (escape(life.host_id), escape(life.pool or "-"), life.version)
        rows.add_row(escape(name), state, *cells, f"{life.silent_s:.0f} s", str(len(each.lost_s)))
    return rows


def _json(process: Process) -> dict[str, Any]:
    about = {"state": process.state, "alive": process.alive, "lost_last_hour": len(process.lost_s)}
    about["last_end_reason"] = process.end_reason
    return {**{name: plain(value) for name, value in asdict(process.newest).items()}, **about}
