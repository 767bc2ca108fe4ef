"""`headrace calibrate`: runs labelled examples on pools, and prints the cheapest rules within an error."""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import Any, Literal, Self, TextIO

import click
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from headrace.cli.client import Api, TryLater, wait_for_end
from headrace.cli.output import json_option, notes, print_json, table
from headrace.config import PoolSettings, ScalingSettings, Settings
from headrace.config.pools import DEFAULT_OWN_PRICE
from headrace.domain.queues import OVERFLOW
from headrace.domain.states import JobState
from headrace.errors import ConfigError
from headrace.policies.routing.calibration import (
    Cell,
    Part,
    Trial,
    calibrate,
    contains,
    labels_needed,
    risk_of_one,
    same_json,
    same_text,
    totals,
)

#: How an answer is compared with the right one. `exact`: as text, whatever its case, spaces and outer punctuation.
Match = Literal["exact", "json", "contains"]


class CalibrationTurn(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str


class Label(BaseModel):
    """A prompt with its right answer.

    Attributes:
        answer: a text, or any JSON value, which is compared as JSON.
        match: by default `json` where `answer` is no text or `response_format` asks for JSON, else `exact`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str | None = Field(None, min_length=1)
    messages: tuple[CalibrationTurn, ...] | None = Field(None, min_length=1)
    task: str | None = Field(None, min_length=1)
    answer: Any
    match: Match | None = None
    max_tokens: int | None = Field(None, gt=0)
    response_format: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give one of 'prompt' and 'messages'")
        return self

    @property
    def chars(self) -> int:
        """Characters of the whole prompt, as rules count them."""
        return len(self.prompt or "") + sum(len(turn.content) for turn in self.messages or ())

    def request(self) -> dict[str, Any]:
        """The fields of `POST /v1/jobs` that it decides."""
        given = {"prompt", "messages", "max_tokens", "response_format"}
        body = self.model_dump(mode="json", include=given, exclude_none=True)
        return body | ({"metadata": {"task": self.task}} if self.task else {})

    def is_right(self, text: str) -> bool:
        """Whether an answer is the right one."""
        wants_json = (self.response_format or {}).get("type", "text") != "text"
        match self.match or ("json" if wants_json or not isinstance(self.answer, str) else "exact"):
            case "json":
                is_text = isinstance(self.answer, str)
                return same_json(text, self.answer if is_text else json.dumps(self.answer))
            case "contains":
                return contains(text, str(self.answer))
            case _:
                return same_text(text, str(self.answer))


def read_labels(lines: Iterable[str], name: str) -> list[Label]:
    """The examples of a file. Args: name: the file's, for errors. Raises: ConfigError that names the line."""
    labels = [_label(line, f"{name}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not labels:
        raise ConfigError(f"{name} has no examples: give one JSON object a line.", param="FILE")
    return labels


def _label(line: str, where: str) -> Label:
    try:
        return Label.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        message = f"{where}: {f'{field}: ' if field else ''}{first['msg']}."
        raise ConfigError(message.replace("Value error, ", ""), param="FILE") from None


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
    job = wait_for_end(api, _submitted(api, body, sleep))
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


def cells_table(parts: Iterable[Part]) -> Table:
    """Every pool on every part; those of the rules are marked."""
    headings = ("labels", "wrong", "error", "at most", "USD/1000", "rule")
    rows = table("task", "prompts", "pool", numbers=headings)
    for part in parts:
        for cell in part.cells:
            rows.add_row(
                escape(cell.task or "-"),
                _lengths(cell),
                escape(cell.pool),
                f"{cell.labels}",
                f"{cell.wrong}",
                f"{cell.error:.1%}",
                f"{cell.most_error:.1%}",
                f"{cell.usd * 1000:.4f}",
                _mark(part, cell),
            )
    return rows


def _mark(part: Part, cell: Cell) -> str:
    if cell.pool not in part.chosen:
        return ""
    return "yes" if part.is_proven else "unproven"


def _lengths(cell: Cell) -> str:
    if cell.upto is None:
        return f"> {cell.above}" if cell.above else "all"
    return f"{cell.above + 1}-{cell.upto}" if cell.above else f"<= {cell.upto}"


def rules_toml(parts: Sequence[Part], longest: dict[str | None, int], confidence: float) -> str:
    """The rules as they stand in `headrace.toml`, each with what it rests on.

    Args: longest: of each task, the characters of its longest labelled prompt. Above it nothing is known.
    """
    names, blocks = set[str](), []
    for part in parts:
        cell, bound = part.best, part.best.upto
        if bound is None and part.is_proven:
            bound = longest[cell.task]
        name = _name(cell.task, names)
        why = f"{cell.wrong} of {cell.labels} wrong"
        sure = f"with {confidence:.0%} confidence at most {cell.most_error:.1%}"
        lines = [
            f"# {cell.pool}: {why}, {sure}." + ("" if part.is_proven else " Unproven: the best of the pools."),
            *(["# It also matches jobs of tasks that no rule names."] if cell.task is None else []),
            f"[rules.{name}]",
            *([f"tasks = [{_string(cell.task)}]"] if cell.task is not None else []),
            *([f"max_prompt_chars = {bound}"] if bound is not None else []),
            f"pools = [{', '.join(map(_string, part.chosen))}]",
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _name(task: str | None, taken: set[str]) -> str:
    """A name that TOML takes without quotes, and no other rule has."""
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", task or "").strip("-") or ("others" if task is None else "task")
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    taken.add(name)
    return name


def _string(text: str) -> str:
    """A basic string of TOML."""
    escaped = re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\u{ord(found[0]):04x}", re.sub(r'(["\\])', r"\\\1", text))
    return f'"{escaped}"'


def outcome_json(parts: Iterable[Part], toml: str) -> dict[str, Any]:
    """The same for a program."""
    return {
        "rules": [
            {
                "task": part.best.task,
                "above_chars": part.best.above,
                "upto_chars": part.best.upto,
                "pools": part.chosen,
                "is_proven": part.is_proven,
                "cells": [_cell(cell) for cell in part.cells],
            }
            for part in parts
        ],
        "toml": toml,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "pool": cell.pool,
        "labels": cell.labels,
        "wrong": cell.wrong,
        "error": cell.error,
        "most_error": cell.most_error,
        "usd_per_job": f"{cell.usd:f}",
    }


_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command("calibrate")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--rule", metavar="NAME", help="The pools of this rule of headrace.toml, from the cheapest to the best.")
@click.option("--pool", "names", multiple=True, metavar="NAME", help="In place of --rule, a pool. Repeatable.")
@click.option(
    "--max-error", type=_SHARE, default=0.05, show_default=True, help="The share of answers that may be wrong."
)
@click.option(
    "--confidence", type=_SHARE, default=0.95, show_default=True, help="The probability that all bounds hold."
)
@click.option("--at-once", type=click.IntRange(1, 256), default=8, show_default=True, help="Jobs under way at once.")
@json_option
def calibrate_(file: TextIO, rule: str | None, names: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Run labelled examples on pools, and print the cheapest rules for the model 'auto' within an error.

    FILE has one JSON object a line: 'prompt' or 'messages', 'answer', and if you like 'task', 'match' (exact, json or
    contains), 'max_tokens' and 'response_format'. FILE - reads standard input. A stack must run, with these pools in
    its headrace.toml. Each example is a job of its own on each pool, is charged, and stays in the ledger.

    \b
    headrace calibrate labels.jsonl --rule answers --max-error 0.02
    headrace calibrate labels.jsonl --pool fast --pool chat

    Rules go to standard output, to be pasted into headrace.toml, and everything else to standard error. A pool is
    within the error only if an upper bound of it is, so few labels prove little: docs/pools.md says more.
    """
    settings = Settings.load()
    pools = _pools(settings, rule, names)
    labels = read_labels(file, file.name)
    with closing(Api(settings)) as api:
        check_workers(api, pools, settings.scaling)
        runs = _runs(api, labels, pools, options["at_once"])
    max_error, confidence = options["max_error"], options["confidence"]
    parts = calibrate([run.trial for run in runs], list(pools), max_error, confidence)
    tasks = {each.task for each in labels}
    longest = {task: max(each.chars for each in labels if each.task == task) for task in tasks}
    toml = rules_toml(parts, longest, confidence)
    if as_json:
        print_json(outcome_json(parts, toml))
        return
    _tell(runs, parts)
    if any(not part.is_proven for part in parts):
        needed = labels_needed(max_error, risk_of_one(confidence, len(tasks), len(pools)))
        some = f"{max_error:.1%} takes at least {needed} labels, all answered right"
        notes.print(f"Unproven parts have too few labels or too many wrong answers: {some}.", markup=False)
    click.echo(toml, nl=False)


def _pools(settings: Settings, rule: str | None, names: Sequence[str]) -> Mapping[str, PoolSettings]:
    """The pools to try, in order. Raises: click.UsageError."""
    if (rule is None) == (not names):
        raise click.UsageError("Give --rule NAME, or --pool NAME at least twice.")
    if rule is not None:
        if rule not in settings.rules:
            known = ", ".join(settings.rules) or "none"
            raise click.UsageError(f"No rule '{rule}' in headrace.toml; its rules: {known}.")
        names = settings.rules[rule].pools
    names = list(dict.fromkeys(names))
    if wrong := [name for name in names if name not in settings.pools or settings.pools[name].is_embedding]:
        good = ", ".join(name for name, pool in settings.pools.items() if not pool.is_embedding)
        raise click.UsageError(f"No pool '{wrong[0]}' answers prompts; the pools that do: {good}.")
    if len(names) < 2:
        raise click.UsageError("One pool leaves nothing to choose: give at least two.")
    return {name: settings.pools[name] for name in names}


def _runs(api: Api, labels: Sequence[Label], pools: Mapping[str, PoolSettings], at_once: int) -> list[Run]:
    """Run them behind a progress bar on stderr."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=notes, transient=True) as progress:
        bars = {name: progress.add_task(escape(name), total=len(labels)) for name in pools}
        return run_all(api, labels, pools, at_once, lambda name: progress.advance(bars[name]))


def _tell(runs: Sequence[Run], parts: Sequence[Part]) -> None:
    """Print the table, and what to know of it, on standard error."""
    notes.print(cells_table(parts))
    for pool, count, error in errors_of(runs):
        notes.print(f"{count} jobs of pool '{pool}' have no answer, and count as wrong: {error}", markup=False)
    if any(run.price_version == DEFAULT_OWN_PRICE.version for run in runs):
        notes.print("Own pools have only a placeholder price: see [hosts.TYPE] in docs/settings.md.", markup=False)
    cost = dict(totals(parts))
    rules = cost.pop("rules")
    alone = ", ".join(f"{pool} alone {usd:.6f}" for pool, usd in cost.items())
    notes.print(f"These {len(runs) // len(cost)} examples cost {rules:.6f} USD by the rules; {alone}.", markup=False)
