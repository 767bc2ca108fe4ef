from io import StringIO

from rich.console import Console

from headrace.cli.table import table


def test_columns_stand_side_by_side_without_lines_or_edges() -> None:
    rows, file = table("app"), StringIO()
    rows.add_column("jobs", justify="right")
    rows.add_row("shop", "7")
    Console(file=file, width=80).print(rows)

    assert [line.rstrip() for line in file.getvalue().splitlines()] == ["app  jobs", "shop    7"]
