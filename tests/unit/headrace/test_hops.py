"""The hops of a job, logged or not."""

import logging
from collections.abc import Iterator

import pytest

from headrace import hops
from headrace.domain.ids import new_id, show_id


@pytest.fixture(autouse=True)
def off() -> Iterator[None]:
    yield
    hops.switch(is_on=False)


def test_hops_are_logged_only_when_they_are_switched_on(caplog: pytest.LogCaptureFixture) -> None:
    job_id = new_id()
    hops.switch(is_on=False)
    hops.reach("take", job_id)
    assert (caplog.records, hops.are_logged()) == ([], False)

    hops.switch(is_on=True)
    hops.reach("claim", job_id, 12.3456789)
    [line] = caplog.records
    assert (line.levelno, line.message) == (logging.DEBUG, "hop")
    assert {name: vars(line)[name] for name in ("job_id", "hop", "monotonic_s")} == {
        "job_id": show_id(job_id),
        "hop": "claim",
        "monotonic_s": 12.345679,
    }
