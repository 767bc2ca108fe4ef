"""`headrace settings`: prints the page of settings, or writes it into the checkout."""

import click

from headrace.cli.output import json_option, out, print_json
from headrace.cli.settings.page import PAGE, page, rows
from headrace.cli.settings.sections import sections
from headrace.config import PROJECT_ROOT


@click.command()
@click.option("--page", "writes", is_flag=True, help=f"Write it to {PAGE} in the checkout instead.")
@json_option
def settings(writes: bool, as_json: bool) -> None:
    """Print every setting: its variable, its values, its default and its meaning, as Markdown."""
    text = page(sections())
    if writes:
        (PROJECT_ROOT / PAGE).write_text(text, encoding="utf-8")
    if as_json:
        print_json(rows(sections()))
    elif writes:
        out.print(f"{PAGE} is made.")
    else:
        click.echo(text, nl=False)
