"""The look of the tables that commands print."""

from rich.table import Table


def table(*headings: str) -> Table:
    """An empty table with these columns, without lines. It must stay narrow: a pipe gets 80 characters a line."""
    return Table(*headings, box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
