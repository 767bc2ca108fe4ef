"""`headrace settings`: prints the page of settings, or writes it into the checkout."""

import click

from headrace.cli.client import out
from headrace.cli.settings.page import PAGE, page
from headrace.cli.settings.sections import sections
from headrace.config import PROJECT_ROOT


@click.command()
@click.option("--page", "writes", is_flag=True, help=f"Write it to {PAGE} in the checkout instead.")
def settings(writes: bool) -> None:
    """Print every setting: its variable, its values, its default and its meaning, as Markdown."""
    text = page(sections())
    if not writes:
        click.echo(text, nl=False)
        return
    (PROJECT_ROOT / PAGE).write_text(text, encoding="utf-8")
    out.print(f"{PAGE} is made.")
