"""The command line: one module per command. Shows errors, and knows nothing else of the commands."""

from typing import Any

import click

from headrace.cli.analyst.command import analyst
from headrace.cli.apps import apps
from headrace.cli.audit import audit
from headrace.cli.backtest.command import backtest
from headrace.cli.bench.command import bench
from headrace.cli.calibrate.command import calibrate_
from headrace.cli.client import cancel, get
from headrace.cli.deliveries import deliveries
from headrace.cli.demo.command import demo
from headrace.cli.hosts import hosts
from headrace.cli.jobs import jobs, retry
from headrace.cli.keys import keys
from headrace.cli.money.budgets import budgets
from headrace.cli.money.costs import costs
from headrace.cli.money.prices import prices
from headrace.cli.operators.command import operators
from headrace.cli.plan import plan_
from headrace.cli.queues.command import queues
from headrace.cli.scale.command import scale
from headrace.cli.settings.command import settings
from headrace.cli.submit.command import submit
from headrace.cli.up import up
from headrace.errors import HeadraceError


class _Group(click.Group):
    """Shows Headrace's own errors as one sentence and exits with status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HeadraceError as error:
            raise click.ClickException(str(error)) from error


#: `bin/headrace` handles these itself, because they must work before anything is installed.
_OF_THE_CHECKOUT = """\
\b
In a checkout, two more:
  bin/headrace install [--dev]   Make the environment and do nothing else.
  bin/headrace python FILE ...   Run FILE with the environment's Python.
"""


@click.group(cls=_Group, epilog=_OF_THE_CHECKOUT)
@click.version_option(package_name="headrace")
def main() -> None:
    """Headrace: asynchronous LLM jobs."""


for command in (
    demo,
    up,
    submit,
    get,
    cancel,
    queues,
    jobs,
    retry,
    deliveries,
    apps,
    keys,
    budgets,
    costs,
    prices,
    analyst,
    operators,
    audit,
    hosts,
    plan_,
    scale,
    settings,
    calibrate_,
    backtest,
    bench,
):
    main.add_command(command)
