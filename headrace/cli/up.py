"""`headrace up`: the whole system on this machine, for development. Prints its state; `headrace.stack` runs it."""

import importlib.util
import json
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import click

from headrace.cli import hinting
from headrace.cli.access.analyst import make_analyst
from headrace.cli.access.keys import make_development_key
from headrace.cli.database import database
from headrace.cli.money.budgets import describe
from headrace.config import Settings
from headrace.policies.pricing import no_price
from headrace.stack.hosts import MAX_HOSTS, ScaleOptions, host_socket
from headrace.stack.machine import Machine, StackOptions
from headrace.stack.model import PreparedModel, prepare
from headrace.stack.state_folder import StackReport, state_lock
from headrace.stack.supervisor import Supervisor
from headrace.store.money import budgets, tariffs

Say = Callable[[str], None]
#: How a stack's addresses are printed, if at all.
Form = Literal["text", "json", "none"]


@click.command()
@click.option(
    "--engine",
    type=click.Choice(["vllm", "simulator", "openai"]),
    help="The engine of all pools with workers of their own. Default: each pool's.",
)
@click.option("--without", multiple=True, metavar="NAME", help="Leave a process of the Procfile out. Repeatable.")
@click.option("--port", type=click.IntRange(1, 65535), help="The API's port. Default: 8000, or the next free one.")
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Written as JSON once everything is ready, and again when a pid changes.",
)
@click.option("--brief", is_flag=True, help="Print no addresses, keys and passwords; the ready file has them.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON, as in the ready file, and nothing else.")
@click.option("--scale", is_flag=True, help="Let the autoscaler add and remove workers; each counts as a host.")
@click.option(
    "--max-hosts", type=click.IntRange(1), help=f"With --scale: the most workers. Default: max_hosts, or {MAX_HOSTS}."
)
@click.option(
    "--provision-s",
    type=click.FloatRange(0),
    metavar="S",
    help="With --scale: seconds from the order of a worker to its start, as at a provider. Default: 0.",
)
def up(engine: str | None, ready_file: Path | None, brief: bool, as_json: bool, **options: Any) -> None:
    """Run the whole system on this machine until Ctrl-C.

    \b
    headrace up --engine simulator     without a model: the answers are made up
    headrace up --json                 one line of JSON once everything is ready; the rest goes to standard error
    headrace up --without plugins      no process for batches of lines, which needs 120 MB
    """
    if brief and as_json:
        raise click.UsageError("Give --brief or --json, not both.")
    tell = say_aside if as_json else say
    form: Form = "json" if as_json else "none" if brief else "text"
    # Holds until the supervisor handles the signals. SystemExit lets the cleanup run; the bare signal would not.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    scale = _scale(**{name: options.pop(name) for name in ("scale", "max_hosts", "provision_s")})
    settings = choose_engine(engine, tell)
    settings.check_paid_api()
    settings.check_paid_pools()
    settings.check_budget_webhook()
    with state_lock(settings.state_dir) as lock:
        without, port = frozenset(options["without"]), options["port"]
        models = {name: prepare(settings, tell, pool) for name, pool in settings.pools.items() if pool.engine == "vllm"}
        machine = Machine(settings, StackOptions(without, port, models, scale), tell)
        for name, reason in machine.left_out.items():
            tell(f"{name} is left out: {reason}")
        roster = None if machine.hosts is None else machine.hosts.roster
        supervisor = Supervisor(machine.stages(), machine.logs, lock, tell, roster)
        files = [settings.state_dir / "stack.json"] + ([ready_file] if ready_file else [])
        announcement = _Announcement(machine, models.get(settings.pool), supervisor, files, form, tell)
        try:
            with nullcontext() if machine.hosts is None else host_socket(machine.host_socket, machine.hosts.answer):
                supervisor.run(announcement)
        finally:
            announcement.withdraw()


def _scale(scale: bool, max_hosts: int | None, provision_s: float | None) -> ScaleOptions | None:
    """The options of the autoscaler. Raises: UsageError: they are given without it."""
    if scale:
        return ScaleOptions(max_hosts, provision_s)
    if max_hosts is not None or provision_s is not None:
        raise click.UsageError("--max-hosts and --provision-s need --scale.")
    return None


def say(line: str) -> None:
    """Print a line. Must not fail when the reader has closed the pipe."""
    with suppress(OSError):
        click.echo(hinting(line))


def say_aside(line: str) -> None:
    """Print a line on standard error. Must not fail either."""
    with suppress(OSError):
        click.echo(hinting(line), err=True)


def choose_engine(asked: str | None, say: Say = say) -> Settings:
    """The settings with this engine. If vLLM is wanted but not installed, chooses the simulator and prints that."""
    settings = _with_engine(asked) if asked else Settings.load()
    is_wanted = any(settings.pools[name].engine == "vllm" for name in settings.own_pools)
    if is_wanted and importlib.util.find_spec("vllm") is None:
        say("vLLM is not installed on this machine: the simulator answers instead, and its answers are made up.")
        return _with_engine("simulator")
    return settings


def _with_engine(engine: str) -> Settings:
    """The settings with this engine for each pool that the paid API does not answer alone, and for the served one."""
    pools = {name: {"engine": engine} for name in Settings.load().own_pools}
    return Settings.load(engine=engine, pools=pools) if pools else Settings.load(engine=engine)


def addresses(report: StackReport) -> dict[str, str]:
    """What to open in a browser or to call, in words, and the key. Without what does not run."""
    found = {"API key": report.api_key}
    if "web" not in report.left_out:
        found = {"API": report.url, **found, "documentation": f"{report.url}/docs"}
    if "ops" not in report.left_out:
        found["pages"] = f"{report.ops_url}/ops  ('headrace operators create NAME --role admin' makes a login)"
    if "flower" not in report.left_out:
        found["Flower"] = f"{report.flower_url}  (user and password: {report.flower_auth})"
    return found


class _Announcement:
    """Announces the stack's addresses: to the terminal once, to the ready file each time a pid changes."""

    def __init__(
        self,
        machine: Machine,
        model: PreparedModel | None,
        supervisor: Supervisor,
        files: Sequence[Path],
        form: Form,
        tell: Say,
    ) -> None:
        """Announce nothing yet. Args: form: of the addresses. tell: prints everything else."""
        self._machine = machine
        self._model = model
        self._supervisor = supervisor
        self._files, self._form, self._tell = files, form, tell
        self._api_key: str | None = None
        self._analyst_url: str | None = None
        self._is_written = True

    def __call__(self) -> bool:
        """Returns: False if a file could not be written. This does not stop the stack: a full disk may recover."""
        first = self._api_key is None
        if self._api_key is None:
            self._api_key = make_development_key(self._machine.settings)
            if self._machine.has_postgres:
                self._analyst_url = make_analyst(self._machine.settings)
        report = self._report(self._api_key)
        is_written = self._write(report)
        if first:
            self._print(report)
        return is_written

    def _write(self, report: StackReport) -> bool:
        try:
            for path in self._files:
                report.write(path)
        except OSError as error:
            if self._is_written:
                self._tell(f"{error.filename or path} cannot be written: {error.strerror}. It is tried again.")
            self._is_written = False
        else:
            if not self._is_written:
                self._tell("The report is written again.")
            self._is_written = True
        return self._is_written

    def withdraw(self) -> None:
        """Remove the files, because the stack no longer runs."""
        for path in self._files:
            path.unlink(missing_ok=True)

    def _report(self, api_key: str) -> StackReport:
        machine, settings = self._machine, self._machine.settings
        pool = settings.pools[settings.pool]
        return StackReport(
            url=machine.url,
            api_key=api_key,
            ops_url=machine.ops_url,
            flower_url=machine.flower_url,
            flower_auth=machine.flower_auth,
            database_url=settings.database_url,
            redis_url=settings.redis_url,
            engine=pool.engine,
            model=pool.model,
            model_source=self._model.source if self._model else None,
            left_out=machine.left_out,
            metrics_urls=machine.metrics_urls,
            pids=self._supervisor.pids,
            analyst_url=self._analyst_url,
        )

    def _print(self, report: StackReport) -> None:
        match self._form:
            case "text":
                self._show(report)
            case "json":
                say(json.dumps(asdict(report)))

    def _show(self, report: StackReport) -> None:
        about = {"simulator": " (its answers are made up)", "openai": " (the paid API)"}.get(report.engine, "")
        source = f", from {report.model_source}" if report.model_source else ""
        rows = addresses(report) | {
            "metrics": ", ".join(f"{url} ({name})" for name, url in report.metrics_urls.items()),
            "Postgres": report.database_url.replace("+psycopg", ""),
            "for analysts": report.analyst_url,
            "Redis": report.redis_url,
            "paid API": self._paid_api(),
            "engine": f"{report.engine}{about}",
            "model": f"{report.model}{source}",
            "more pools": self._more_pools(),
            "logs": str(self._machine.logs),
        }
        for name, value in rows.items():
            if value is not None:
                say(f"{name:>14}  {value}")
        say("Ctrl-C stops everything.")

    def _more_pools(self) -> str | None:
        """The other pools in words; None without any."""
        settings = self._machine.settings
        others = [(name, pool) for name, pool in settings.pools.items() if name != settings.pool]
        return ", ".join(f"{name}: {pool.model} ({pool.engine})" for name, pool in others) or None

    def _paid_api(self) -> str | None:
        """The paid API's limits, and its models without a price, in words; None without a key."""
        settings = self._machine.settings
        if settings.openai_api_key is None:
            return None
        with database(settings) as db:
            unpriced = tariffs.in_force(db, settings).unpriced
            return " ".join([describe(budgets.limits(db, settings.budgets)), *map(no_price, unpriced)])
