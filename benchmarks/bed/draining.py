"""Backlogs of jobs that the engine answers at once: how they are made, and how fast workers work them off.

Knows the system from outside: HTTP and SQL. Whose workers run, and what else is measured meanwhile, it does not know.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from bed.load import drive, request
from bed.testbed import Testbed, wait_until
from headrace.domain.ids import oldest_id

#: A backlog that takes longer is stuck.
LIMIT_S = 300.0
STUCK = "A backlog is not worked off."
SUBMITTERS = 16
#: Settings of an engine so fast that its time is nothing.
INSTANT = {
    "HEADRACE_SIMULATOR__PREFILL_TOKENS_PER_S": "1e9",
    "HEADRACE_SIMULATOR__DECODE_TOKENS_PER_S": "1e9",
    "HEADRACE_SIMULATOR__OUTPUT_TOKENS": "1",
    "HEADRACE_SIMULATOR__KV_TOKENS": "10000000",
}
SUBMIT = json.dumps({"prompt": "Say nothing.", "max_tokens": 1, "max_wait": 3600}).encode()
BEGUN = "SELECT EXISTS (SELECT FROM jobs WHERE started_at > to_timestamp(%s))"
#: One look for each state, since each has a partial index. The lines of batches may go on.
OPEN = "SELECT " + " OR ".join(
    f"EXISTS (SELECT FROM jobs WHERE state = '{state}' AND notes->>'batches' IS NULL)"
    for state in ("queued", "running", "waiting")
)
#: Of the jobs that were made since then: how many have an answer, and from the first start to the last end.
DRAINED = """
    SELECT count(*) FILTER (WHERE state = 'succeeded'), extract(epoch FROM max(ended_at) - min(started_at))::float,
        min(started_at), max(ended_at)
    FROM jobs WHERE id >= %s AND notes->>'batches' IS NULL
"""
LINES = """
    SELECT count(*) FROM jobs
    WHERE notes->>'batches' IS NOT NULL AND state = 'succeeded' AND ended_at BETWEEN %s AND %s
"""

Sql = Callable[..., list[tuple[Any, ...]]]


class Backlog:
    """Jobs that were submitted while no worker ran."""

    def __init__(self, bed: Testbed, urls: Sequence[str], key: Mapping[str, str], jobs: int) -> None:
        """Submit them. Args: key: the header of the app that does. Raises: ClickException: not all were accepted."""
        self._bed, self._jobs, self._began = bed, jobs, time.time()
        accepted = drive(urls, iter([request("POST", "/v1/jobs", key, SUBMIT)] * jobs), SUBMITTERS)
        if accepted.count(202) != jobs:
            raise click.ClickException(f"Not all were accepted: {dict(accepted.statuses)}")

    def is_begun(self, sql: Sql) -> bool:
        """Whether a job has started."""
        return bool(sql(BEGUN, self._began)[0][0])

    def wait(self, sql: Sql) -> None:
        """Return once no job of the system is open. Raises: ClickException: that takes too long."""
        wait_until(lambda: not sql(OPEN)[0][0], LIMIT_S, STUCK)

    def per_s(self) -> float:
        """Jobs a second, from the first start to the last end, and lines that were worked off beside them.

        Raises: ClickException: some have no answer.
        """
        first_id = oldest_id(datetime.fromtimestamp(self._began, UTC))
        succeeded, seconds, *span = self._bed.sql(DRAINED, first_id)[0]
        if succeeded != self._jobs:
            raise click.ClickException(f"Of {self._jobs} jobs {succeeded} have an answer.")
        [(lines,)] = self._bed.sql(LINES, *span)
        return float((self._jobs + lines) / seconds)
