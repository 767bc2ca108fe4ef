from io import StringIO

from rich.console import Console

from headrace.cli.output import print_uncut, table


def test_columns_stand_side_by_side_without_lines_or_edges() -> None:
    rows, file = table("app"), StringIO()
    rows.add_column("jobs", justify="right")
    rows.add_row("shop", "7")
    Console(file=file, width=80).print(rows)

    assert [line.rstrip() for line in file.getvalue().splitlines()] == ["app  jobs", "shop    7"]


def test_a_cell_that_people_copy_is_neither_cut_nor_folded_on_a_narrow_screen() -> None:
    rows, file, url = table("app", "url"), StringIO(), "https://receiver.example/" + "x" * 300
    rows.add_row("shop", url)
    rows.add_row("search", "https://other.example/")
    print_uncut(Console(file=file, width=80), rows)

    assert file.getvalue().splitlines() == ["app    url", f"shop   {url}", "search https://other.example/"]
