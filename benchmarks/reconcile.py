"""Bills from outside against the ledger: how many planted faults of a month are found, each with its cause.

The claims: every fault is found, nothing else is reported, and once the causes are applied the bill and the ledger are
the same. Knows the system from outside: the tables of leases and charges, and the command line.
"""

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from rich.table import Table

from bed.testbed import console, line_of
from headrace.config import PROJECT_ROOT
from headrace.domain.ids import new_id
from headrace.stack.ports import free_port
from headrace.stack.postgres import Postgres
from headrace.store.money import cost_hours
from headrace.store.money.host_hours import HostTerms
from headrace.tables import hosts, ledger

DAYS = 30
RATE = Decimal("4.10")
MODELS = ("gpt-4o-mini", "some-model")
#: Of one call: USD, tokens of the prompt and of the answer.
CALL = (Decimal("0.00021"), 1000, 100)
CALLS_A_DAY = 40
LEDGER_TABLES = ("ledger", "hosts", "host_hours", "cost_hours", "bill_checks", "bills")
HOSTS_HEADER = ("day", "host", "type", "hours", "usd")
API_HEADER = ("day", "model", "requests", "prompt_tokens", "cached_tokens", "output_tokens", "usd")
#: Causes that are no errors, and are planted nowhere.
QUIET = ("none", "rounding")
#: For Postgres's own check of the shares against the bill.
INTERNAL = "SELECT count(*) FROM cost_reconciliation WHERE difference_usd <> 0"


@dataclass(frozen=True, slots=True)
class Lease:
    """A time of a machine, as one side has it. Attributes: pools: that share it."""

    machine: str
    began: datetime
    hours: int
    rate: Decimal = RATE
    pools: Sequence[str] = ("chat",)


@dataclass(frozen=True, slots=True)
class Fault:
    """What was planted: a row for each of these days must have this cause."""

    cause: str
    name: str
    days: Sequence[date]

    @property
    def rows(self) -> set[tuple[str, str, str]]:
        return {(self.cause, self.name, day.isoformat()) for day in self.days}


@dataclass(slots=True)
class World:
    """A month as Headrace has it, and as the providers have it.

    Attributes:
        booked, charged: the leases on either side.
        calls, served: calls of the paid API on either side, by model and day.
        twice: lines of the hosts' bill that are on it twice, by machine and day.
    """

    first: date
    booked: list[Lease] = field(default_factory=list)
    charged: list[Lease] = field(default_factory=list)
    calls: Counter[tuple[str, date]] = field(default_factory=Counter)
    served: Counter[tuple[str, date]] = field(default_factory=Counter)
    twice: list[tuple[str, date]] = field(default_factory=list)

    def day(self, number: int) -> date:
        return self.first + timedelta(days=number)

    def at(self, number: int, hour: int = 0) -> datetime:
        return datetime.combine(self.day(number), time(hour), UTC)


def quiet_month(chance: random.Random) -> World:
    """A month in which both sides agree: two machines that run through, one of two pools, and one for each day."""
    world = World(datetime.now(UTC).date() - timedelta(days=DAYS + 2))
    world.booked = [
        Lease("gpu-1", world.at(0), 24 * DAYS),
        Lease("gpu-2", world.at(0), 24 * DAYS, pools=("chat", "embed")),
        *(
            Lease(f"day-{number}", world.at(number, chance.randint(5, 8)), chance.randint(6, 12))
            for number in range(DAYS)
        ),
    ]
    world.charged = list(world.booked)
    for model in MODELS:
        for number in range(DAYS):
            world.calls[model, world.day(number)] = CALLS_A_DAY + chance.randint(0, 20)
    world.served = Counter(world.calls)
    return world


def plant(world: World, chance: random.Random) -> list[Fault]:
    """Put one fault of each kind into a quiet month, each where no other one is."""
    missing, longer, dearer, double, lost, shifted = chance.sample(range(1, DAYS - 2), 6)
    by_name = {lease.machine: lease for lease in world.booked}

    def charge(lease: Lease, **changes: Any) -> Lease:
        world.charged[world.charged.index(lease)] = changed = replace(lease, **changes)
        return changed

    world.charged.remove(by_name[f"day-{missing}"])
    ghost = Lease("ghost-1", world.at(chance.randint(0, DAYS - 3), 20), 30, Decimal("0.81"))
    world.charged.append(ghost)
    charge(by_name[f"day-{dearer}"], rate=Decimal("4.60"))
    charge(by_name["gpu-1"], rate=Decimal("3.90"))
    charge(by_name[f"day-{longer}"], hours=by_name[f"day-{longer}"].hours + chance.randint(1, 3))
    world.twice.append(("gpu-2", world.day(double)))
    gone = chance.randint(5, 30)
    world.calls[MODELS[0], world.day(lost)] -= gone
    late = chance.randint(1, 9)
    world.calls[MODELS[1], world.day(shifted)] -= late
    world.calls[MODELS[1], world.day(shifted + 1)] += late
    days = [world.day(number) for number in range(DAYS)]
    return [
        Fault("missing_host", f"day-{missing}", [world.day(missing)]),
        Fault("unknown_host", "ghost-1", sorted(hours_by_day(ghost))),
        Fault("price", f"day-{dearer}", [world.day(dearer)]),
        Fault("price", "gpu-1", days),
        Fault("hours", f"day-{longer}", [world.day(longer)]),
        Fault("double", "gpu-2", [world.day(double)]),
        Fault("unbooked", MODELS[0], [world.day(lost)]),
        Fault("midnight", MODELS[1], [world.day(shifted), world.day(shifted + 1)]),
    ]


def hours_by_day(lease: Lease) -> Counter[date]:
    """The whole hours of a lease, which begins at a whole hour, by day of UTC."""
    return Counter((lease.began + timedelta(hours=number)).date() for number in range(lease.hours))


def book(db: sa.Connection, world: World) -> None:
    """Write what Headrace has, and close its hours."""
    db.execute(sa.text(f"TRUNCATE {', '.join(LEDGER_TABLES)}"))
    for lease in world.booked:
        ended = lease.began + timedelta(hours=lease.hours)
        times = {"requested_at": lease.began, "ordered_at": lease.began, "ready_at": lease.began, "ended_at": ended}
        more = {"usd_per_hour": lease.rate, "instance_type": "gpu", "provider_id": lease.machine, "end_reason": "gone"}
        for pool in lease.pools:
            db.execute(sa.insert(hosts).values(id=f"{lease.machine}.{pool}", pool=pool, **times, **more))
            tokens = {"prompt_tokens": 900, "output_tokens": 90, "engine_s": 20, "usd": Decimal("0.004")}
            entry = {"kind": "compute", "pool": pool, "host_id": lease.machine, "at": lease.began, **tokens}
            db.execute(sa.insert(ledger).values(job_id=new_id(), **entry))
    usd, prompt, output = CALL
    for (model, day), calls in world.calls.items():
        at = datetime.combine(day, time(12), UTC)
        entry = {"kind": "api", "pool": "chat", "model": model, "at": at, "usd": usd}
        entry |= {"prompt_tokens": prompt, "output_tokens": output}
        db.execute(sa.insert(ledger), [{**entry, "job_id": new_id()} for _ in range(calls)])
    close(db)


def close(db: sa.Connection) -> None:
    terms = HostTerms()
    while bills := cost_hours.open_bills(db, terms):
        for bill in bills:
            cost_hours.close_hour(db, bill, terms.costs)


def write_bills(world: World, folder: Path) -> list[Path]:
    """Write what the providers have, as the simple files of the documentation."""
    lines = [
        (day.isoformat(), lease.machine, "gpu", hours, lease.rate * hours)
        for lease in world.charged
        for day, hours in sorted(hours_by_day(lease).items())
    ]
    twice = [line for line in lines if (line[1], date.fromisoformat(line[0])) in world.twice]
    usd, prompt, output = CALL
    calls = [
        (day.isoformat(), model, number, prompt * number, 0, output * number, usd * number)
        for (model, day), number in world.served.items()
    ]
    paths = []
    for name, header, rows in (("hosts", HOSTS_HEADER, lines + twice), ("api", API_HEADER, calls)):
        paths.append(folder / f"{name}.csv")
        with paths[-1].open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows([header, *rows])
    return paths


def reconcile(url: str, bills: Sequence[Path]) -> list[dict[str, Any]]:
    """The checks that `headrace costs reconcile` prints for each of these bills."""
    checks = []
    env = {**os.environ, "DATABASE_URL": url}  # noqa: TID251
    for bill in bills:
        argv = [sys.executable, "-m", "headrace", "costs", "reconcile", "--bill", str(bill), "--json"]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, cwd=PROJECT_ROOT)
        if not done.stdout:
            raise click.ClickException(f"{' '.join(argv)} failed: {done.stderr}")
        checks += json.loads(done.stdout)["checks"]
    return checks


def found_rows(checks: Sequence[Mapping[str, Any]]) -> set[tuple[str, str, str]]:
    return {(each["cause"], each["name"], each["day"]) for each in checks if each["cause"] not in QUIET}


def apply(db: sa.Connection, world: World, checks: Sequence[Mapping[str, Any]]) -> None:
    """Do what an operator would do about each cause, who knows nothing but the checks."""
    corrected: set[str] = set()
    for each in checks:
        day = datetime.combine(date.fromisoformat(each["day"]), time(), UTC)
        billed, billed_usd = Decimal(each["billed_quantity"]), Decimal(each["billed_usd"])
        of_name = (hosts.c.provider_id == each["name"], hosts.c.ended_at > day)
        match each["cause"]:
            case "missing_host":
                db.execute(sa.delete(hosts).where(*of_name, hosts.c.ordered_at < day + timedelta(days=1)))
            case "unknown_host":
                ended = day + timedelta(hours=float(billed))
                times = {"requested_at": day, "ordered_at": day, "ready_at": day, "ended_at": ended}
                row = {"id": new_id().hex, "pool": "chat", "provider_id": each["name"], "end_reason": "gone"}
                db.execute(sa.insert(hosts).values(**row, **times, usd_per_hour=billed_usd / billed))
            case "price" if each["name"] not in corrected:
                corrected.add(each["name"])
                base = [one for one in checks if (one["name"], one["day"]) == (each["name"], each["day"])]
                usd = sum((Decimal(one["billed_usd"]) for one in base), Decimal())
                hours = sum((Decimal(one["billed_quantity"]) for one in base), Decimal())
                db.execute(sa.update(hosts).where(*of_name).values(usd_per_hour=usd / hours))
            case "hours":
                more = timedelta(hours=float(billed))
                db.execute(sa.update(hosts).where(*of_name).values(ended_at=hosts.c.ended_at + more))
            case "double":
                # The provider takes the line back.
                world.twice = [line for line in world.twice if line != (each["name"], day.date())]
            case "unbooked":
                entry = {"kind": "api", "pool": "chat", "model": each["name"], "at": day, "usd": billed_usd}
                db.execute(sa.insert(ledger).values(prompt_tokens=int(billed), **entry))


@dataclass(frozen=True, slots=True)
class Round:
    """What became of one month.

    Attributes:
        found: planted faults of which every day was reported with its cause.
        internal: hours in which the check without a bill from outside reports something.
        false_alarms: reported rows that were not planted, in this month and in the quiet one before.
        difference_share: of bills and ledger after the causes were applied.
    """

    planted: int
    found: int
    internal: int
    false_alarms: int
    difference_share: Decimal
    causes: Mapping[str, int]


def run_round(engine: sa.Engine, url: str, seed: int, folder: Path) -> Round:
    """A quiet month, the same one with faults, and the same one with the causes applied."""
    quiet = quiet_month(random.Random(seed))
    with engine.begin() as db:
        book(db, quiet)
    false_alarms = len(found_rows(reconcile(url, write_bills(quiet, folder))))
    world = quiet_month(random.Random(seed))
    faults = plant(world, random.Random(-seed))
    with engine.begin() as db:
        book(db, world)
        internal = int(db.scalar(sa.text(INTERNAL)) or 0)
    checks = reconcile(url, write_bills(world, folder))
    reported = found_rows(checks)
    found = [fault for fault in faults if fault.rows <= reported]
    strange = reported.difference(*(fault.rows for fault in faults))
    with engine.begin() as db:
        apply(db, world, checks)
    after = reconcile(url, write_bills(world, folder))
    billed, booked = (sum((Decimal(each[f"{side}_usd"]) for each in after), Decimal()) for side in ("billed", "ledger"))
    for fault in faults:
        console.print(f"{fault.cause} of {fault.name}: {'found' if fault in found else 'NOT FOUND'}")
    for row in sorted(strange):
        console.print(f"false alarm: {row}")
    causes = Counter(each["cause"] for each in checks)
    share = round(abs(billed - booked) / billed, 9)
    return Round(len(faults), len(found), internal, false_alarms + len(strange), share, causes)


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """A Postgres of its own, with the tables and views."""
    postgres = Postgres(folder / "postgres", free_port())
    with postgres.running():
        os.environ["DATABASE_URL"] = postgres.url  # noqa: TID251
        command.upgrade(Config(toml_file=PROJECT_ROOT / "pyproject.toml"), "head")
        yield postgres.url


def show(rounds: Sequence[Round]) -> None:
    table = Table("month", header_style="bold")
    for name in ("planted", "found", "false alarms", "difference after"):
        table.add_column(name, justify="right")
    for number, each in enumerate(rounds, 1):
        counts = (each.planted, each.found, each.false_alarms, each.difference_share)
        table.add_row(str(number), *map(str, counts))
    console.print(table)


@click.command()
@click.option("--months", type=click.IntRange(min=1), default=5, show_default=True, help="Each with faults elsewhere.")
@click.option(
    "--off",
    type=click.Choice(["bill"]),
    help="Look for the faults as well without a bill from outside, by the shares of the ledger alone. It finds none.",
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write every figure."
)
def main(months: int, off: str | None, file: Path | None) -> None:
    """Plant faults into months of hosts and paid calls, and count what `headrace costs reconcile` finds.

    Starts Postgres in a temporary folder. A month has two machines that run through, one of them with two pools, one
    machine for each day, and calls of two models of the paid API. First both sides agree; then a host is missing on the
    bill, a machine runs that Headrace does not know, two prices are wrong, one of them all month, a host ran longer, a
    line is on the bill twice, calls are lost to the ledger, and calls of the time around midnight are on the other day.
    Then each cause is applied as an operator would, by what the command printed, and both are compared again.

    The last line is name=value pairs: planted faults; found, those of which each day was reported with its cause;
    false_alarms, what else was reported; difference_share, how far bills and ledger are apart after that. With --off
    bill also found_off: faults that the internal check reports. The status is 1 unless all is found, and nothing else.

    \b
    bin/headrace python benchmarks/reconcile.py
    bin/headrace python benchmarks/reconcile.py --off bill
    """
    with tempfile.TemporaryDirectory(prefix="headrace-reconcile-") as name, database(Path(name)) as url:
        engine = sa.create_engine(url)
        rounds = []
        for seed in range(1, months + 1):
            console.rule(f"Month {seed} of {months}")
            rounds.append(run_round(engine, url, seed, Path(name)))
        engine.dispose()
    show(rounds)
    figures: dict[str, float] = {
        "planted": sum(each.planted for each in rounds),
        "found": sum(each.found for each in rounds),
        "false_alarms": sum(each.false_alarms for each in rounds),
        "difference_share": float(max(each.difference_share for each in rounds)),
        "missed": sum(each.planted - each.found for each in rounds),
    }
    if off:
        figures["found_off"] = sum(min(each.internal, each.planted) for each in rounds)
    if file is not None:
        months_json = [asdict(each) for each in rounds]
        file.write_text(json.dumps({"off": off, "months": months_json}, indent=2, default=str) + "\n")
    print(line_of(figures))
    sys.exit(0 if not (figures["missed"] or figures["false_alarms"] or figures["difference_share"]) else 1)


if __name__ == "__main__":
    main()
