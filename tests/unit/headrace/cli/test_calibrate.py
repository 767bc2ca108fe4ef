"""Labelled examples on pools, beside an API that answers as the test says, and the rules that follow."""

import io
import tomllib
from decimal import Decimal
from typing import Any, Literal, cast

import click
import pytest
from rich.console import Console

from headrace.cli.calibrate import (
    Label,
    cells_table,
    check_workers,
    errors_of,
    outcome_json,
    read_labels,
    rules_toml,
    run_all,
)
from headrace.cli.client import Api, TryLater
from headrace.config import PoolSettings, ScalingSettings
from headrace.config.rules import RuleSettings
from headrace.errors import ConfigError
from headrace.policies.routing.calibration import Cell, Part

LINE = '{"prompt": "Is it spam?", "task": "classify", "answer": "no"}'


def test_a_file_has_an_example_on_each_line_that_is_not_empty() -> None:
    turns = '[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]'
    one, other = read_labels([LINE, "\n", f'{{"messages": {turns}, "answer": "Hi"}}'], "x.jsonl")

    assert one.request() == {"prompt": "Is it spam?", "metadata": {"task": "classify"}}
    assert (one.chars, other.chars) == (len("Is it spam?"), len("Be brief.Hi"))
    assert other.request() == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"x\.jsonl:2: Invalid JSON"),
        ('["a"]', r"x\.jsonl:2: "),
        ('{"prompt": "x"}', r"x\.jsonl:2: answer: Field required"),
        ('{"answer": "x"}', r"x\.jsonl:2: give one of 'prompt' and 'messages'"),
        ('{"prompt": "x", "messages": [{"role": "user", "content": "x"}], "answer": "x"}', "give one of"),
        ('{"prompt": "x", "answer": "x", "match": "about"}', r"x\.jsonl:2: match: .*'exact', 'json' or 'contains'"),
        ('{"prompt": "x", "answer": "x", "label": 1}', r"x\.jsonl:2: label: Extra inputs are not permitted"),
        ('{"messages": [{"role": "tool", "content": "x"}], "answer": "x"}', r"x\.jsonl:2: messages\.0\.role: "),
    ],
)
def test_a_wrong_line_is_named(line: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_labels([LINE, line], "x.jsonl")


def test_a_file_without_examples_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"x\.jsonl has no examples"):
        read_labels(["\n"], "x.jsonl")


@pytest.mark.parametrize(
    ("label", "text", "is_right"),
    [
        ({"answer": "no"}, " No. ", True),
        ({"answer": "no"}, "No, it is not.", False),
        ({"answer": "no", "match": "contains"}, "No, it is not.", True),
        ({"answer": {"a": 1}}, '{ "a": 1 }', True),
        ({"answer": {"a": 1}}, "a is 1", False),
        ({"answer": 5}, "5", True),
        ({"answer": '{"a": 1}', "response_format": {"type": "json_object"}}, '{"a":1}', True),
        ({"answer": '{"a": 1}', "match": "json"}, '{"a":1}', True),
        ({"answer": '{"a": 1}'}, '{"a":1}', False),
        ({"answer": 5, "match": "contains"}, "It is 5.", True),
    ],
)
def test_an_answer_is_right_by_what_the_label_asks_for(label: dict[str, Any], text: str, is_right: bool) -> None:
    assert Label(prompt="x", **label).is_right(text) is is_right


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


def part(task: str | None, above: int, upto: int | None, *pools: str, is_proven: bool = True) -> Part:
    cells = [
        Cell(task, above, upto, pool, 120, wrong, 0.04, Decimal("0.001") * (wrong + 1))
        for wrong, pool in enumerate(("fast", "chat"))
    ]
    return Part(tuple(cells), pools, is_proven)


PARTS = [
    part("classify", 0, 400, "fast", "chat"),
    part("classify", 400, None, "chat", is_proven=False),
    part('say "hi"\\\n', 0, None, "fast"),
    part(None, 0, None, "chat"),
]
LONGEST = {"classify": 900, 'say "hi"\\\n': 50, None: 77}


def test_the_rules_are_what_the_settings_take() -> None:
    text = rules_toml(PARTS, LONGEST, 0.95)
    read = {name: RuleSettings(**rule) for name, rule in tomllib.loads(text)["rules"].items()}

    assert list(read) == ["classify", "classify-2", "say-hi", "others"]
    assert [(rule.tasks, rule.max_prompt_chars, rule.pools) for rule in read.values()] == [
        ({"classify"}, 400, ("fast", "chat")),
        ({"classify"}, None, ("chat",)),
        ({'say "hi"\\\n'}, 50, ("fast",)),
        (frozenset(), 77, ("chat",)),
    ]


def test_each_rule_says_what_it_rests_on() -> None:
    text = rules_toml(PARTS, LONGEST, 0.95)
    assert "# fast: 0 of 120 wrong, with 95% confidence at most 4.0%.\n[rules.classify]" in text
    assert "# chat: 1 of 120 wrong, with 95% confidence at most 4.0%. Unproven: the best of the pools.\n" in text
    assert "# It also matches jobs of tasks that no rule names.\n[rules.others]" in text


def test_the_table_has_every_pool_of_every_part() -> None:
    console = Console(width=100, file=io.StringIO())
    console.print(cells_table(PARTS[:2]))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]

    assert [line.split() for line in lines[1:]] == [
        ["classify", "<=", "400", "fast", "120", "0", "0.0%", "4.0%", "1.0000", "yes"],
        ["classify", "<=", "400", "chat", "120", "1", "0.8%", "4.0%", "2.0000", "yes"],
        ["classify", ">", "400", "fast", "120", "0", "0.0%", "4.0%", "1.0000"],
        ["classify", ">", "400", "chat", "120", "1", "0.8%", "4.0%", "2.0000", "unproven"],
    ]


def test_a_program_gets_the_same() -> None:
    told = outcome_json(PARTS, "text")
    assert [rule["pools"] for rule in told["rules"]] == [("fast", "chat"), ("chat",), ("fast",), ("chat",)]
    assert told["rules"][0]["cells"][1] == {
        "pool": "chat",
        "labels": 120,
        "wrong": 1,
        "error": 1 / 120,
        "most_error": 0.04,
        "usd_per_job": "0.002",
    }
