"""How all commands print: an answer to standard output, everything else to standard error; and their tables.

A pipe gets only the answer.
"""

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: The option of every command that has a result.
json_option = click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")

out = Console(highlight=False)
notes = Console(stderr=True, highlight=False)

#: Wider than any row.
UNBOUNDED = 100_000


def print_json(value: Any) -> None:
    """Print a result for a program, on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """Print one of many results for a program: one JSON object a line."""
    click.echo(json.dumps(value, ensure_ascii=False))


def table(*headings: str) -> Table:
    """An empty table with these columns, without lines. It must stay narrow: a pipe gets 80 characters a line."""
    return Table(*headings, box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)


def print_uncut(console: Console, rows: Table) -> None:
    """Print a table whose cells people copy, such as URLs: none is cut or folded, whatever the console's width.

    A terminal continues a long row on its next line, and copies it as one.
    """
    for line in console.render_lines(rows, console.options.update(width=UNBOUNDED), pad=False):
        text = Text.assemble(*((each.text, each.style or "") for each in line))
        text.rstrip()
        console.print(text, soft_wrap=True)
