"""The look of the tables that commands print."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Wider than any row.
UNBOUNDED = 100_000


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
