"""`headrace hosts`, for operators: lists the leases of worker hosts, drains one by hand, and calls it back."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import click
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Connection

from headrace.cli.database import database, operating, operator_settings
from headrace.cli.output import json_option, notes, out, plain, print_json, table
from headrace.config import Settings
from headrace.domain.hosts import HostEnd, HostLease, HostState, HostWork
from headrace.errors import ConfigError
from headrace.policies.host_bills import lease_spans, machines_of
from headrace.store import actions, clock
from headrace.store.fleet import host_list, processes
from headrace.store.fleet.host_list import ListedHost
from headrace.store.fleet.hosts import removed_notice, removed_pools

#: A terminal of this width has room for the hosts' types and the provider's names of the machines.
WIDE = 110


@click.group(invoke_without_command=True)
@click.option("--all", "with_ended", is_flag=True, help="Also those that have ended.")
@click.option("--pool", metavar="NAME", help="Only those of this pool.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many ended ones.")
@click.option("--json", "as_json", is_flag=True, help="Print every field of each as JSON.")
@click.pass_context
def hosts(context: click.Context, with_ended: bool, pool: str | None, limit: int, as_json: bool) -> None:
    """List the worker hosts that the autoscaler keeps leases of.

    \b
    headrace hosts --all                ended ones as well, newest first
    headrace hosts drain host-018f2c…   it finishes its jobs, then it is ended
    headrace hosts resume host-018f2c…  it takes jobs again

    \b
    state    requested: on its way; ready; draining: it finishes its jobs; ended
    since    how long it has been in this state; of an ended host, how long ago it ended
    workers  its live workers
    jobs     running jobs
    USD/h    its machine's price when its lease began
    USD      its cost so far
    why      what made it so, and the number of the decision, which 'headrace scale' lists

    A machine that serves several pools has a lease for each, is billed once, and is one line, since its last change.
    JSON, and the ended ones, have each lease. '-' means unknown: 'headrace.toml' has no price for the host's type. A
    terminal of 110 columns also shows the type and the provider's name of the machine.
    """
    if context.invoked_subcommand is not None:
        return
    settings = operator_settings()
    with database(settings) as db:
        settings = _as_run(db, settings)
        _check_pool(settings, pool, db)
        now, removed = clock.now(db), removed_pools(db, settings.own_pools)
        found = host_list.live(db, pool)
        gone = host_list.ended(db, pool, limit) if with_ended else []
    if as_json:
        print_json([_json(each, now) for each in [*found, *gone]])
    elif found or gone:
        _print(found, gone, now)
    else:
        out.print(_nothing(settings, with_ended))
    if len(gone) == limit:
        notes.print(f"More may have ended: these are the last {limit}, --limit N shows more.")
    for name in removed if pool is None else {pool}.intersection(removed):
        notes.print(removed_notice(name, settings.scaling.mode), markup=False)


def _print(found: Sequence[ListedHost], gone: Sequence[ListedHost], now: datetime) -> None:
    """The table, and below it what operators did by hand."""
    out.print(_table([*_machines(found), *([each] for each in gone)], now))
    for each in [*found, *gone]:
        if each.by_hand is not None:
            notes.print(f"{each.work.lease.id}: {each.by_hand}", markup=False, soft_wrap=True)


_of_pool = click.option("--pool", metavar="NAME", help="Its pool, if the machine serves several.")


@hosts.command()
@click.argument("name", metavar="ID")
@_of_pool
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def drain(name: str, pool: str | None, yes: bool, as_json: bool) -> None:
    """Drain a host, then end it. ID is one that 'headrace hosts' lists, or the provider's name of the machine.

    Its workers take no more jobs within a second or two. They finish what runs, for at most drain_host_s (15 minutes by
    default); what still runs then is handed back to its queue. Then the machine is ended. Until then 'headrace hosts
    resume' calls it back. The autoscaler does not, but it may order another host instead.
    """
    settings = operator_settings()
    if not yes:
        with database(settings) as db:
            host, running = host_list.find(db, name, pool), _as_run(db, settings)
        _confirm(host, running)
    with operating(settings) as audit:
        settings = _as_run(audit.db, settings)
        before = actions.drain_host(audit, name, pool)
        hosts_now = host_list.live(audit.db, before.lease.pool)
        now = clock.now(audit.db)
    [after] = [each for each in hosts_now if each.work.lease.id == before.lease.id]
    if as_json:
        print_json(_json(after, now))
    else:
        click.echo(_drained(before))
    for note in _limits(before.lease, settings):
        notes.print(note)


@hosts.command()
@click.argument("name", metavar="ID")
@_of_pool
@json_option
def resume(name: str, pool: str | None, as_json: bool) -> None:
    """Call a draining host back: its workers take jobs again within a second or two.

    This is possible until its machine is being ended. If the load does not need it, the autoscaler drains it again.
    """
    with operating() as audit:
        host_id = actions.resume_host(audit, name, pool).lease.id
    if as_json:
        print_json({"id": host_id, "state": str(HostState.READY)})
    else:
        click.echo(f"{host_id} takes jobs again")


def _as_run(db: Connection, settings: Settings) -> Settings:
    """The settings, with the mode of the control process that runs: `headrace up --scale` starts it with another."""
    mode = processes.scaling_mode(db) or settings.scaling.mode
    return settings.model_copy(update={"scaling": settings.scaling.model_copy(update={"mode": mode})})


def _check_pool(settings: Settings, pool: str | None, db: Connection) -> None:
    if pool is not None and pool not in settings.own_pools and not host_list.had_hosts(db, pool):
        known = ", ".join(settings.own_pools) or "none"
        raise ConfigError(f"There is no pool '{pool}' with hosts of its own: headrace.toml has {known}.", param="pool")


def _confirm(host: HostWork, settings: Settings) -> None:
    lease = host.lease
    what = f"Host {lease.id} of pool '{lease.pool}' is {lease.state} and runs {host.running} jobs."
    notes.print(what, *_limits(lease, settings), sep="\n", markup=False)
    click.confirm("Drain it?", abort=True, err=True)


def _limits(lease: HostLease, settings: Settings) -> list[str]:
    """What is left to the operator."""
    if settings.scaling.mode == "advisory":
        return ["The autoscaler is advisory and ends no machine: end it yourself once it runs no job."]
    if lease.is_adopted and lease.provider_id is None:
        about = f"The actuator '{settings.scaling.actuator}' does not know its machine, because it did not start it"
        return [f"{about}: end it yourself once it runs no job."]
    return []


def _drained(before: HostWork) -> str:
    lease = before.lease
    if lease.end_reason is HostEnd.BY_HAND:
        return f"{lease.id} drains already, by hand"
    if lease.end_reason is HostEnd.WRITTEN_OFF:
        return f"{lease.id} was written off and is being ended"
    if lease.state is HostState.DRAINING:
        return f"{lease.id} drains already; the autoscaler does not call it back any more"
    return f"{lease.id} drains: {before.running} jobs still run on it"


def _nothing(settings: Settings, with_ended: bool) -> str:
    if with_ended:
        return "There are no hosts, and there were none."
    if settings.scaling.mode == "advisory":
        return "There are no hosts. The autoscaler is advisory: it orders none. Is a worker running, and 'control'?"
    return "There are no hosts. Is 'control' running? 'headrace scale' says what is wanted; --all lists ended ones."


def _machines(found: Sequence[ListedHost]) -> list[list[ListedHost]]:
    """The leases of each machine together, in the order of their first ones."""
    by_id = {each.work.lease.id: each for each in found}
    machines = [[by_id[lease.id] for lease in machine] for machine in machines_of([each.work.lease for each in found])]
    return sorted(machines, key=lambda machine: found.index(machine[0]))


def _table(machines: Sequence[Sequence[ListedHost]], now: datetime) -> Table:
    leases = [each.work.lease for machine in machines for each in machine]
    has_types = out.width >= WIDE and any(lease.instance_type for lease in leases)
    has_names = out.width >= WIDE and any(lease.provider_id for lease in leases)
    rows = table()
    rows.add_column("host", overflow="fold")
    rows.add_column("pool", overflow="fold")
    if has_types:
        rows.add_column("type")
    if has_names:
        rows.add_column("machine", overflow="fold")
    rows.add_column("state", no_wrap=True)
    for heading in ("since", "workers", "jobs", "USD/h", "USD"):
        rows.add_column(heading, justify="right", no_wrap=True)
    rows.add_column("why", no_wrap=True)
    for machine in machines:
        of_it = [each.work.lease for each in machine]
        price = next((lease.usd_per_hour for lease in of_it if lease.usd_per_hour is not None), None)
        cells = [of_it[0].id, _each(lease.pool for lease in of_it)]
        cells += [_each(lease.instance_type for lease in of_it)] if has_types else []
        cells += [_each(lease.provider_id for lease in of_it)] if has_names else []
        cells += [_each(str(lease.state) for lease in of_it), age(now - max(map(_since, of_it)))]
        cells += [str(sum(each.work.workers for each in machine)), str(sum(each.work.running for each in machine))]
        cells += [_usd(price), _usd(_cost(of_it, now)), _each(map(_why, machine))]
        rows.add_row(*map(escape, cells))
    return rows


def _each(values: Iterable[str | None]) -> str:
    """The different values; `-` without any."""
    return ", ".join(dict.fromkeys(filter(None, values))) or "-"


def _cost(leases: Sequence[HostLease], now: datetime) -> Decimal | None:
    """What a machine has cost by its leases; None if its price is unknown."""
    if all(lease.usd_per_hour is None for lease in leases):
        return None
    spans = lease_spans(leases, now)
    return sum(
        (span.usd_per_hour * Decimal((span.ended_at - span.began_at) / timedelta(hours=1)) for span in spans), Decimal()
    )


def age(passed: timedelta) -> str:
    """A time in one unit, such as `12 m`."""
    seconds = max(0, int(passed.total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _since(lease: HostLease) -> datetime:
    """When its present state began."""
    return lease.ended_at or lease.drain_at or lease.ready_at or lease.requested_at


def _usd(amount: Decimal | None) -> str:
    return "-" if amount is None else f"{amount:.2f}"


def _why(each: ListedHost) -> str:
    lease = each.work.lease
    cause = lease.end_reason or ("adopted" if lease.is_adopted else "ordered")
    return f"{cause} {each.decision_id}" if each.decision_id is not None else str(cause)


def _json(each: ListedHost, now: datetime) -> dict[str, Any]:
    lease = each.work.lease
    fields = {name: plain(value) for name, value in asdict(lease).items()}
    usd = lease.usd(now)
    return {
        **fields,
        "state": str(lease.state),
        "since": _since(lease).isoformat(),
        "workers": each.work.workers,
        "draining_workers": each.work.draining,
        "running": each.work.running,
        "usd": None if usd is None else str(usd),
        "decision_id": each.decision_id,
        "reason": each.reason,
        "by_hand": each.by_hand,
    }
