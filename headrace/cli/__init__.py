"""The command line: its commands, each imported when it is called. Shows errors, and knows nothing else of them."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import click

from headrace.errors import HeadraceError
from headrace.installed import plugins

_CHECKOUT = Path(__file__).resolve().parents[2]
#: Each command of the core: its module, its name there, and its short help, which `--help` shows without an import.
_OF_THE_CORE = {
    "up": ("headrace.cli.up:up", "Run the whole system on this machine until Ctrl-C."),
    "submit": (
        "headrace.cli.submit.submit:submit",
        "Submit PROMPT as a job and print its id and its place in the queue.",
    ),
    "get": ("headrace.cli.client:get", "Show the job ID: its status, its answer and its cost."),
    "cancel": ("headrace.cli.client:cancel", "Cancel the job ID."),
    "status": (
        "headrace.cli.status:status",
        "Say what is wrong and what to do, which queues have jobs, and which processes run.",
    ),
    "queues": (
        "headrace.cli.queues:queues",
        "Show how full each queue is, how fast its pool drains it, and how many workers the pool has.",
    ),
    "jobs": ("headrace.cli.jobs:jobs", "List the newest jobs of all apps, without prompts and answers."),
    "retry": ("headrace.cli.jobs:retry", "Run failed jobs again."),
    "deliveries": (
        "headrace.cli.deliveries:deliveries",
        "List the newest webhook deliveries of all apps, each with its URL, its tries and the last answer.",
    ),
    "apps": ("headrace.cli.access.apps:apps", "Make apps, set their limits, and see their activity."),
    "keys": ("headrace.cli.access.keys:keys", "Make, list, rotate and end API keys."),
    "budgets": (
        "headrace.cli.money.budgets:budgets",
        "Show the budgets of the paid API: the limits, and the spending of this day and this month.",
    ),
    "costs": (
        "headrace.cli.money.costs:costs",
        "Show what a month cost, and whether the shares of the requests add up to the hosts' bill.",
    ),
    "prices": (
        "headrace.cli.money.prices:prices",
        "Show the prices of tokens, in USD per million, which of them are in force, and since when.",
    ),
    "analyst": (
        "headrace.cli.access.analyst:analyst",
        "Make a role in Postgres that reads the figures, and print its URL.",
    ),
    "operators": (
        "headrace.cli.access.operators:operators",
        "Make, list and delete the accounts of the pages at /ops.",
    ),
    "audit": (
        "headrace.cli.access.audit:audit",
        "List what operators did, newest first: at /ops, in a terminal, and by Flower or 'celery control'.",
    ),
    "hosts": ("headrace.cli.hosts:hosts", "List the worker hosts that the autoscaler keeps leases of."),
    "plan": ("headrace.cli.plan:plan_", "Size a model's KV cache on paper, before renting a GPU."),
    "scale": (
        "headrace.cli.scale.scale:scale",
        "Show what the autoscaler sees, what it wants and why, and what it expects of the next hours.",
    ),
    "settings": (
        "headrace.cli.settings:settings",
        "Print every setting: its variable, its values, its default and its meaning, as Markdown.",
    ),
    "bench": (
        "benchmarks.bench.command:bench",
        "Measure the project's claims, and record each figure with its commit.",
    ),
}
_OF_PLUGINS = {name: (each.place, each.short_help) for plugin in plugins() for name, each in plugin.commands.items()}
_COMMANDS = _OF_THE_CORE | {name: each for name, each in _OF_PLUGINS.items() if " " not in name}

#: What stands for characters that a terminal would obey: all control characters but tab and newline.
_SHOWN = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"}
_SHOWN |= {0x7F: "\u2421", **dict.fromkeys(range(0x80, 0xA0), "\ufffd")}


def visible(text: str) -> str:
    """A text of an app, an engine or a provider, for a terminal: no character in it is a command."""
    return text.replace("\r\n", "\n").translate(_SHOWN)


def hinting(text: str) -> str:
    """A text in which commands have the name by which the user calls this program: `bin/headrace up`."""
    return text.replace("'headrace ", f"'{LazyGroup.program} ")


class LazyGroup(click.Group):
    """Imports a command when it is called, because all of them together take seconds.

    `commands` holds a placeholder for each. It has what `--help`, the error for an unknown command and the shell's
    completion show: the name and the short help. Headrace's own errors are shown as one sentence, with status 1.
    """

    #: How the user calls this program.
    program = "headrace"
    #: Surrounds the import of a command.
    importing: Callable[[], AbstractContextManager[None]] = nullcontext

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and self.load(str(name)), rest

    def load(self, name: str) -> click.Command:
        """Import the command of this name. Raises: ClickException: it is not part of this installation."""
        found = self._import(_COMMANDS[name][0], name)
        for path, (place, _) in _OF_PLUGINS.items():
            group, _, below = path.partition(" ")
            if below and group == name:
                cast(click.Group, found).add_command(self._import(place, path), below)
        _hint(found)
        return found

    def _import(self, place: str, name: str) -> click.Command:
        module, _, attribute = place.partition(":")
        if module.startswith("benchmarks.") and str(_CHECKOUT) not in sys.path:
            if not (_CHECKOUT / "benchmarks").is_dir():
                raise click.ClickException(f"'{name}' needs a checkout: its code and its scripts are in benchmarks/.")
            sys.path.append(str(_CHECKOUT))
        with self.importing():
            return cast(click.Command, getattr(import_module(module), attribute))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HeadraceError as error:
            raise click.ClickException(visible(hinting(str(error)))) from error
        except click.ClickException as error:
            # Click's own class says Final. Its subclasses have more that must be kept, such as the context.
            error.message = visible(hinting(error.message))  # type: ignore[misc]
            raise


def _hint(command: click.Command) -> None:
    """Name the program in the help of a command, of its options and of the commands below it."""
    command.help = command.help and hinting(command.help)
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.help:
            parameter.help = hinting(parameter.help)
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        _hint(each)


#: `bin/headrace` handles these itself, because they must work before anything is installed.
_OF_THE_CHECKOUT = """\
\b
In a checkout, two more:
  bin/headrace install [--dev]   Make the environment and do nothing else.
  bin/headrace python FILE ...   Run FILE with the environment's Python.
"""


@click.group(
    cls=LazyGroup,
    commands={name: click.Command(name, help=short_help) for name, (_, short_help) in _COMMANDS.items()},
    epilog=_OF_THE_CHECKOUT,
)
@click.version_option(package_name="headrace")
def main() -> None:
    """Headrace: asynchronous LLM jobs."""
