"""Examples on pools, beside an API that answers as the test says."""

from typing import Any, Literal, cast

import click
import pytest

from headrace.cli.api import Api, TryLater
from headrace.cli.calibrate.labels import Label
from headrace.cli.calibrate.runs import check_workers, errors_of, run_all
from headrace.config import PoolSettings, ScalingSettings

POOLS = {"fast": PoolSettings(model="small"), "paid": PoolSettings(model="gpt", engine="openai")}
LABELS = [Label(prompt="a", answer="yes", task="t"), Label(prompt="bb", answer="no")]


class ScriptedApi:
    """`small` says yes, `gpt` fails. Attributes: busy: how many submits are refused for now."""

    def __init__(self, busy: int = 0, error: Exception | None = None) -> None:
        self.busy, self.error = busy, error
        self.bodies: list[dict[str, Any]] = []

    def call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        if method == "GET":
            return self.job(path.removeprefix("/v1/jobs/"))
        if self.error:
            raise self.error
        if self.busy:
            self.busy -= 1
            raise TryLater("full", 7.0)
        self.bodies.append(arguments["json"])
        return {"id": arguments["json"]["model"]}

    def job(self, model: str) -> dict[str, Any]:
        cost = {"usd": "0.002", "price_version": "v1"}
        if model == "gpt":
            return {"status": "failed", "error": {"code": "broken", "message": "Why."}, "text": None, "cost": cost}
        return {"status": "succeeded", "error": None, "text": "Yes.", "cost": cost}


def test_each_pool_answers_each_example_by_itself() -> None:
    api, told = ScriptedApi(), list[str]()
    runs = run_all(cast(Api, api), LABELS, POOLS, 2, told.append)

    assert sorted(told) == ["fast", "fast", "paid", "paid"]
    found = {(run.label.prompt, run.trial.pool): run.trial for run in runs}
    assert {key: trial.is_right for key, trial in found.items()} == {
        ("a", "fast"): True,
        ("bb", "fast"): False,
        ("a", "paid"): False,
        ("bb", "paid"): False,
    }
    assert (found["a", "fast"].task, found["bb", "fast"].task, found["bb", "fast"].chars) == ("t", None, 2)
    assert {(body["model"], body["overflow"], body["cache"]) for body in api.bodies} == {
        ("small", "never", "never"),
        ("gpt", "allow", "never"),
    }
    assert errors_of(runs) == [("paid", 2, "broken: Why.")]


def test_a_refusal_for_now_is_waited_for_and_another_one_ends_it() -> None:
    pauses = list[float]()
    run_all(cast(Api, ScriptedApi(busy=2)), LABELS[:1], {"fast": POOLS["fast"]}, 1, lambda _: None, pauses.append)
    assert pauses == [7.0, 7.0]
    refusing = cast(Api, ScriptedApi(error=click.ClickException("The model does not exist here.")))
    with pytest.raises(click.ClickException, match="does not exist"):
        run_all(refusing, LABELS, POOLS, 1, lambda _: None)


class Fleet:
    """An API that has these workers, by pool."""

    def __init__(self, **workers: int) -> None:
        self.workers = workers

    def call(self, method: str, path: str) -> dict[str, Any]:
        assert (method, path) == ("GET", "/v1/queues")
        return {"data": [{"pool": pool, "workers": count} for pool, count in self.workers.items() for _ in range(4)]}


@pytest.mark.parametrize(
    ("fleet", "named", "remedy"),
    [
        (Fleet(fast=0, overflow=1), "Pool 'fast' has no live worker", "HEADRACE_POOL=fast"),
        (Fleet(fast=2, overflow=0), "Pool 'paid' has no live worker", "the Procfile's line 'overflow'"),
    ],
)
def test_a_pool_without_workers_is_refused_with_its_name_and_the_remedy(fleet: Fleet, named: str, remedy: str) -> None:
    with pytest.raises(click.ClickException) as refused:
        check_workers(cast(Api, fleet), POOLS, ScalingSettings())
    assert named in refused.value.message
    assert remedy in refused.value.message


@pytest.mark.parametrize(
    ("fleet", "mode"),
    [
        (Fleet(fast=1, overflow=1, other=0), "advisory"),
        # The autoscaler adds a host for jobs that wait.
        (Fleet(fast=0, overflow=1), "active"),
        # The API refuses a job of a pool that it does not have, and says why.
        (Fleet(), "advisory"),
    ],
)
def test_other_pools_are_run(fleet: Fleet, mode: Literal["advisory", "active"]) -> None:
    check_workers(cast(Api, fleet), POOLS, ScalingSettings.model_construct(mode=mode))
