"""`headrace apps`, for operators: the clients of the API, with their limits and their activity."""

import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import click
from rich.markup import escape
from rich.table import Table

from headrace.cli import parameters
from headrace.cli.access.keys import key_json, key_table
from headrace.cli.database import database, operating
from headrace.cli.output import json_option, notes, out, print_json, table
from headrace.domain.apps import Activity, App, Changes
from headrace.domain.queues import Lane
from headrace.store import actions, keys
from headrace.store import apps as store
from headrace.store.jobs import confinements

#: The period that `show` reports.
PERIOD = timedelta(hours=24)

_LIMITS = {
    "queued_jobs": "Jobs of it that may wait at once.",
    "requests_per_minute": "Requests that submit a job.",
    "tokens_per_minute": "Tokens of its prompts and of the most they may be answered with.",
}
_CALLS = "Its calls of one web process, accepted submits aside."
_MAX_ERROR = "Share of its answers from the semantic cache that may be wrong; 0: no such answers."
_CACHE = "How long its answers serve its identical jobs; 0: never."
_BUDGETS = {
    "day_usd": "USD it may spend at the paid API in a day of UTC; 0: none.",
    "month_usd": "USD it may spend at the paid API in a month of UTC; 0: none.",
}


def _limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that `create` and `limit` share."""
    lanes = ",".join(Lane)
    command = click.option(
        "--max-error",
        metavar="SHARE",
        callback=parameters.share,
        help=f"{_MAX_ERROR} 'none': as the pools' semantic_cache.max_error says.",
    )(command)
    command = click.option(
        "--cache-s",
        metavar="SECONDS",
        callback=parameters.seconds,
        help=f"{_CACHE} 'none': as the pools' cache_s says.",
    )(command)
    command = click.option(
        "--calls-per-minute",
        metavar="N",
        callback=parameters.limit,
        help=f"{_CALLS} 'none': as the setting calls_per_minute says.",
    )(command)
    command = click.option(
        "--lanes", metavar="LANES", callback=parameters.lanes, help=f"The lanes it may use, of {lanes}; 'none': all."
    )(command)
    for name, meaning in reversed((_LIMITS | _BUDGETS).items()):
        metavar, callback = ("N", parameters.limit) if name in _LIMITS else ("USD", parameters.usd)
        option = f"--{name.replace('_', '-')}"
        command = click.option(option, metavar=metavar, callback=callback, help=f"{meaning} 'none': no limit.")(command)
    return command


@click.group()
def apps() -> None:
    """Make apps, set their limits, and see their activity.

    An app is a client of the API. It has its own jobs, limits and bill, and cannot see another app's.
    It calls with keys: see 'headrace keys'. Changes take effect everywhere within 3 seconds.
    """


@apps.command()
@click.argument("name", callback=parameters.app_name)
@_limit_options
@json_option
def create(name: str, as_json: bool, **options: Any) -> None:
    """Make the app NAME. Without limits here, only the queues' own limits apply to it.

    \b
    headrace apps create shop --queued-jobs 200 --lanes high,normal
    headrace keys create shop
    """
    with operating() as audit:
        app = actions.create_app(audit, name, _changes(options))
    if as_json:
        print_json(_app_json(app))
        return
    _print_limits(app)
    notes.print(f"'headrace keys create {shlex.quote(app.name)}' makes a key for it.", markup=False, soft_wrap=True)


@apps.command()
@click.argument("name", callback=parameters.app_name)
@_limit_options
@json_option
def limit(name: str, as_json: bool, **options: Any) -> None:
    """Change limits of the app NAME. Limits that are not named do not change.

    \b
    headrace apps limit shop --requests-per-minute 600 --queued-jobs none
    headrace apps limit shop --day-usd 5 --month-usd 100
    """
    if not (changes := _changes(options)):
        raise click.UsageError("Name a limit to change, such as --queued-jobs 200; 'none' removes one.")
    with operating() as audit:
        app = actions.limit_app(audit, name, changes)
    if as_json:
        print_json(_app_json(app))
        return
    _print_limits(app)


@apps.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_all(as_json: bool) -> None:
    """List every app with its limits."""
    with database() as db:
        found = store.list_apps(db)
    if as_json:
        print_json([_app_json(app) for app in found])
    else:
        out.print(_app_table(found))


@apps.command()
@click.argument("name", callback=parameters.app_name)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def show(name: str, as_json: bool) -> None:
    """Show the app NAME. Prints its limits, its keys, and its jobs and their cost in the last 24 hours.

    Also the pools in which it is confined: its prompts killed engines there.
    """
    with database() as db:
        app = store.find_app(db, name)
        records = keys.list_keys(db, app.id)
        recent = store.activity(db, app.id, PERIOD)
        confined = confinements.live(db, app.id).values()
    if as_json:
        accepted = {str(state): count for state, count in recent.jobs.items()}
        lately = {"jobs": accepted, "usd": str(recent.usd), "refused": dict(recent.refused)}
        shown = [{"pool": each.pool, "until": each.until.isoformat(), "held": each.held} for each in confined]
        more = {"keys": [key_json(key) for key in records], "last_24_h": lately, "confined": shown}
        print_json({**_app_json(app), **more})
        return
    _print_limits(app)
    out.print()
    no_key = f"It has no key: 'headrace keys create {escape(shlex.quote(name))}' makes one."
    out.print(key_table(records) if records else no_key)
    out.print()
    out.print(f"Last 24 hours: {_activity(recent)}", soft_wrap=True)
    for each in confined:
        until = f"{each.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        out.print(
            f"Confined in pool '{escape(each.pool)}' until {until}: {each.reason}. {each.held:,} jobs wait. "
            f"'headrace apps release {escape(shlex.quote(name))}' ends this.",
            soft_wrap=True,
        )


@apps.command()
@click.argument("name", callback=parameters.app_name)
@json_option
def release(name: str, as_json: bool) -> None:
    """End the confinements of the app NAME, and forget its poison prompts.

    An app is confined after two of its prompts have killed engines of a pool within an hour. Its jobs of that pool then
    run one at a time, on one worker.
    """
    with operating() as audit:
        pools = actions.release_app(audit, name)
    if as_json:
        print_json({"app": name, "pools": pools})
        return
    out.print(f"Released in {', '.join(pools)}." if pools else "It was not confined.", markup=False)


@apps.command("webhook-secret")
@click.argument("name", callback=parameters.app_name)
@click.option("--rotate", is_flag=True, help="Make a new one first. Both sign for a while.")
@click.option(
    "--keep-old-hours",
    type=click.IntRange(0, 24 * 365),
    help="With --rotate: hours in which both sign; 0 for a secret that has leaked.  [default: 24]",
)
@json_option
def webhook_secret(name: str, rotate: bool, keep_old_hours: int | None, as_json: bool) -> None:
    """Print the webhook secret of NAME. It signs the app's webhooks, and receivers verify them with it.

    After --rotate each webhook carries two signatures for a while, so a receiver with either secret accepts it.
    """
    if keep_old_hours is not None and not rotate:
        raise click.UsageError("--keep-old-hours needs --rotate.")
    if not rotate:
        with operating() as audit:
            app = actions.read_webhook_secret(audit, name)
        _print_secret(app, None, as_json)
        return
    overlap = timedelta(hours=24 if keep_old_hours is None else keep_old_hours)
    with operating() as audit:
        app, until = actions.rotate_webhook_secret(audit, name, overlap)
    _print_secret(app, until if overlap else None, as_json)
    if overlap and not as_json:
        notes.print(f"The old secret of '{app.name}' signs too until {until:%Y-%m-%d %H:%M} UTC.", markup=False)


def _print_secret(app: App, old_until: datetime | None, as_json: bool) -> None:
    if as_json:
        until = old_until and old_until.isoformat()
        print_json({"app": app.name, "webhook_secret": app.webhook_secret, "old_secret_signs_until": until})
    else:
        click.echo(app.webhook_secret)


def _changes(options: dict[str, Any]) -> Changes:
    """The limits that were given on the command line."""
    given = {name: value for name, value in options.items() if value is not None}
    return cast(Changes, {name: None if value == parameters.NONE else value for name, value in given.items()})


def _app_table(found: list[App]) -> Table:
    rows = table()
    rows.add_column("app", no_wrap=True)
    for heading in ("jobs", "req/min", "tok/min", "USD/day", "USD/month"):
        rows.add_column(heading, justify="right")
    rows.add_column("lanes")
    for app in found:
        limits = (getattr(app.limits, name) for name in (*_LIMITS, *_BUDGETS))
        shown = ("-" if value is None else _shown(value) for value in limits)
        rows.add_row(escape(app.name), *shown, "all" if app.lanes is None else ",".join(_in_order(app.lanes)))
    return rows


def _print_limits(app: App) -> None:
    """Print the app's row, and a sentence for each limit that has no column."""
    out.print(_app_table([app]))
    if app.limits.calls_per_minute is not None:
        out.print(f"It may make {app.limits.calls_per_minute:,} calls a minute of one web process.")
    if app.cache_s is not None:
        out.print(f"Its answers serve identical jobs for {app.cache_s:,} s.")
    if app.max_error is not None:
        out.print(f"Of its answers from the semantic cache, a share of {app.max_error:g} may be wrong.")


def _shown(value: int | Decimal) -> str:
    return f"{value.normalize():,f}" if isinstance(value, Decimal) else f"{value:,}"


def _app_json(app: App) -> dict[str, Any]:
    limits = {name: getattr(app.limits, name) for name in (*_LIMITS, "calls_per_minute")}
    usd = {name: getattr(app.limits, name) for name in _BUDGETS}
    limits |= {name: None if value is None else f"{value.normalize():f}" for name, value in usd.items()}
    lanes = None if app.lanes is None else _in_order(app.lanes)
    caching = {"cache_s": app.cache_s, "max_error": app.max_error}
    return {"id": str(app.id), "name": app.name, **limits, "lanes": lanes, **caching}


def _in_order(lanes: frozenset[Lane]) -> list[str]:
    return [str(lane) for lane in Lane if lane in lanes]


def _activity(recent: Activity) -> str:
    jobs = ", ".join(f"{count:,} {state}" for state, count in sorted(recent.jobs.items())) or "no jobs"
    refused = ", ".join(f"{count:,} {reason}" for reason, count in recent.refused.items())
    return f"{jobs}; {recent.usd:.6f} USD{f'; refused: {refused}' if refused else ''}"
