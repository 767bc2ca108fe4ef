"""How the terminal's tables look."""

from rich.table import Table


def table(*headings: str) -> Table:
    """An empty one with these columns: no lines, and narrow enough for 80 columns, which is also what a pipe gets."""
    return Table(*headings, box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
