"""The files of the hot statements, and how they are read."""

import re
from itertools import pairwise
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.config import PROJECT_ROOT
from headrace.domain.ids import month_of
from headrace.domain.states import TRANSITIONS, JobState
from headrace.store.sql import delete_chosen, text_of
from headrace.tables import jobs

FOLDER = PROJECT_ROOT / "headrace" / "store" / "sql"
NAMES = sorted(path.stem for path in FOLDER.glob("*.sql"))
INSERTS = ("insert", "insert_answered", "insert_following")
JOB = UUID("01936d2e-0000-7000-8000-000000000001")


def read(name: str) -> str:
    return (FOLDER / f"{name}.sql").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_begins_with_what_it_does_who_runs_it_its_parameters_and_its_rows(name: str) -> None:
    text = read(name)
    head = text[: re.search(r"^(?!--)", text, re.MULTILINE).start()]  # type: ignore[union-attr]
    assert all(begin < end for begin, end in pairwise(head.index(word) for word in ("-- ", "Run by:", "Returns:")))
    by = re.search(r"Run by: .*\((headrace/[\w/.]+)\)", head, re.DOTALL)
    assert by is not None
    assert (PROJECT_ROOT / by[1]).exists()
    if "As find.sql" not in head:
        assert {each for each in re.findall(r":'(\w+)'", text) if not re.search(rf"\b{each}\b", head)} == set()


def test_variables_of_psql_become_parameters_and_comments_go() -> None:
    assert "%(given)s::json" in text_of("hold")
    assert "--" not in text_of("hold")
    assert ":'" not in text_of("hold")


def test_the_bounds_of_a_month_are_literals() -> None:
    since, until = month_of(JOB)
    bounds = f"jobs.id BETWEEN '{since}' AND '{UUID(int=until.int - 1)}'"
    assert bounds in text_of("hold", (since, until))
    assert since <= JOB < until


def test_psycopg_keeps_the_hot_statements_that_it_has_read() -> None:
    """It reads a longer one anew for each run."""
    assert max(len(text_of(name, month_of(JOB))) for name in NAMES) <= 4096


def test_every_insert_takes_its_keys_in_the_same_words() -> None:
    words = {
        re.sub(
            r"FROM (given|found)\n", "FROM new\n", re.search(r"wanted AS \(.*?\), fresh AS", read(name), re.DOTALL)[0]
        )  # type: ignore[index]
        for name in INSERTS
    }
    assert len(words) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_job_goes_only_where_the_table_of_transitions_lets_it(name: str) -> None:
    for target, source in re.findall(
        r"UPDATE jobs\s+SET state = (\S+?),.*?jobs\.state \|\| '' = '(\w+)'", read(name), re.DOTALL
    ):
        targets = {JobState(target.strip("'"))} if target.startswith("'") else set()
        assert targets <= TRANSITIONS[JobState(source)]
    assert ("UPDATE jobs" in read(name)) == (name in ("claim", "finish"))


def test_rows_of_a_table_in_partitions_are_not_deleted_by_their_position() -> None:
    with pytest.raises(AssertionError, match="one of each partition"):
        delete_chosen(sa.select(jobs.c.id).limit(1), jobs)
