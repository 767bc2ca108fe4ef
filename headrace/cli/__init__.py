"""The terminal: one command a module. Knows how to show an error, and nothing of what the commands do."""

from typing import Any

import click

from headrace.cli.apps import apps
from headrace.cli.client import cancel, get, queues, submit
from headrace.cli.demo import demo
from headrace.cli.keys import keys
from headrace.cli.up import up
from headrace.errors import HeadraceError


class _Group(click.Group):
    """Shows our own errors as one sentence and exits with status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HeadraceError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group)
@click.version_option(package_name="headrace")
def main() -> None:
    """Headrace: asynchronous LLM jobs."""


for command in (demo, up, submit, get, cancel, queues, apps, keys):
    main.add_command(command)
