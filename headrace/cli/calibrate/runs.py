"""Runs examples on pools through the API of a running stack."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import Any

import click

from headrace.cli.api import POLL_S, Api, TryLater
from headrace.cli.calibrate.labels import Label
from headrace.config import PoolSettings, ScalingSettings
from headrace.domain.queues import OVERFLOW
from headrace.domain.states import TERMINAL, JobState
from headrace.policies.routing.calibration import Trial

#: A job that is refused for a full queue is submitted again for so long, in seconds.
PATIENCE_S = 600.0
#: How long a job may wait for its start, in seconds.
MAX_WAIT_S = 3600


@dataclass(frozen=True, slots=True)
class Run:
    """One example, answered by one pool.

    Attributes:
        price_version: the price at which it was charged; None if it was not.
        error: why there is no answer; None with one.
    """

    label: Label
    trial: Trial
    price_version: str | None
    error: str | None


def check_workers(api: Api, pools: Mapping[str, PoolSettings], scaling: ScalingSettings) -> None:
    """Refuse pools whose jobs nothing would start. A pool that the API does not have is left to its own refusal.

    Raises: click.ClickException: a pool has no worker, and no autoscaler that adds one for jobs that wait.
    """
    workers = {each["pool"]: each["workers"] for each in api.call("GET", "/v1/queues")["data"]}
    for name, pool in pools.items():
        # One pool of workers calls the paid API for all pools that it answers.
        where = OVERFLOW if pool.is_paid else name
        if workers.get(where) != 0 or (scaling.mode == "active" and not pool.is_paid):
            continue
        line = "line 'overflow'" if pool.is_paid else f"line 'gpu' with HEADRACE_POOL={name}"
        raise click.ClickException(
            f"Pool '{name}' has no live worker, so its jobs would wait until they expire. Start one: run 'headrace up' "
            f"with no --without that leaves it out, or the Procfile's {line}. 'headrace queues' shows the workers."
        )


def run_all(
    api: Api,
    labels: Sequence[Label],
    pools: Mapping[str, PoolSettings],
    at_once: int,
    tell: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> list[Run]:
    """Have each pool answer each example. Args: tell: called with the pool of each run that has ended.

    Raises: click.ClickException: the API refuses a job, or does not answer. Jobs that were submitted go on.
    """
    asked = list(product(labels, pools.items()))
    runs = []
    with ThreadPoolExecutor(at_once) as threads:
        waits = [threads.submit(_run, api, label, name, pool, sleep) for label, (name, pool) in asked]
        try:
            for wait in as_completed(waits):
                runs.append(wait.result())
                tell(runs[-1].trial.pool)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return runs


def _run(api: Api, label: Label, name: str, pool: PoolSettings, sleep: Callable[[float], None]) -> Run:
    body = label.request() | {
        "model": pool.model,
        "temperature": 0,
        "seed": 0,
        "cache": "never",
        "max_wait": MAX_WAIT_S,
        # The pool itself is measured, not what the paid API would say in its place.
        "overflow": "allow" if pool.is_paid else "never",
    }
    job = _ended(api, _submitted(api, body, sleep))
    is_answered = job["status"] == JobState.SUCCEEDED
    is_right = is_answered and label.is_right(job["text"] or "")
    trial = Trial(label.task, label.chars, name, is_right, Decimal(job["cost"]["usd"]))
    return Run(label, trial, job["cost"]["price_version"], None if is_answered else _why(job))


def _submitted(api: Api, body: dict[str, Any], sleep: Callable[[float], None]) -> str:
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return str(api.call("POST", "/v1/jobs", json=body)["id"])
        except TryLater as refused:
            if time.monotonic() > give_up_at:
                raise
            sleep(refused.after_s)


def _ended(api: Api, job_id: str) -> dict[str, Any]:
    while True:
        job = api.call("GET", f"/v1/jobs/{job_id}", params={"wait": POLL_S})
        if job["status"] in TERMINAL:
            return job


def _why(job: Mapping[str, Any]) -> str:
    error = job["error"] or {"code": job["status"], "message": "It has no answer."}
    return f"{error['code']}: {error['message']}"


def errors_of(runs: Iterable[Run]) -> list[tuple[str, int, str]]:
    """By pool, how many runs have no answer, and the first one's reason."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if run.error is not None:
            found.setdefault(run.trial.pool, []).append(run.error)
    return [(pool, len(errors), errors[0]) for pool, errors in sorted(found.items())]
