"""`headrace demo`: the whole system on this machine, with real prompts, from an app's point of view."""

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from headrace import connections
from headrace.cli.api import Api
from headrace.cli.demo import report as demo_report
from headrace.cli.demo.report import Demo
from headrace.config import Settings
from headrace.domain.states import TERMINAL
from headrace.stack.development_key import APP
from headrace.stack.paid_stand_in import PaidStandIn
from headrace.stack.receiver import Received, Receiver
from headrace.stack.report import Report
from headrace.stack.stack import Stack
from headrace.store import Store
from headrace.store.clients import apps
from headrace.store.money import reconciliation

console = Console(highlight=False)

#: Seconds within which an answered job's webhook must arrive.
WEBHOOK_TIMEOUT_S = 30.0
#: What this machine is assumed to cost, unless [scaling].host_type says it, so that the demo has a bill to share.
HOST_TYPE, USD_PER_HOUR = "laptop", "0.10"
#: If the command began longer ago than this, in seconds, the installer has run first: a cold start.
INSTALLED_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """One of the demo's prompts, with its lane."""

    lane: str
    text: str
    max_tokens: int = 48
    overflow: str = "never"


PROMPTS = (
    Prompt("high", "What is the capital of Japan?"),
    Prompt("high", "What is 2 + 3?"),
    Prompt("normal", "Write one sentence about the sea."),
    Prompt("normal", "Name three colours of the rainbow."),
    Prompt("normal", "What do plants need to grow?"),
    Prompt("low", "Explain in one sentence what a water turbine does.", 64),
    Prompt("batch", "Write a short greeting for a new colleague.", 64),
    Prompt("batch", "Give one reason to drink water.", 64),
)
#: For the stand-in of the paid API, where no key of a real one is set.
PAID_PROMPT = Prompt("normal", "Who answers what this machine cannot?", overflow="only")


@click.command()
@click.option("--exit", "exits", is_flag=True, help="End after the answers: status 0 when every one is there.")
@click.option("--engine", type=click.Choice(["vllm", "simulator"]), help="The engine. Default: vllm where it runs.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a report."
)
def demo(exits: bool, engine: str | None, json_file: Path | None) -> None:
    """Start the whole system here, submit real prompts in every lane, and show the answers and their cost."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    settings = Settings.load()
    began = time.time() if settings.demo_started_at is None else settings.demo_started_at
    is_cold = not (settings.state_dir / "postgres").exists() or time.time() - began > INSTALLED_AFTER_S
    console.rule("Headrace: starting everything on this machine")
    with Receiver() as receiver, _paid_api(settings) as paid:
        options = ("--brief", *(("--engine", engine) if engine else ()))
        stack = Stack(settings.state_dir, options, _env(settings, paid), console.out)
        with stack:
            run = Run(settings, stack.report, receiver, paid, began)
            result = run.ask(is_cold)
            demo_report.show(console, result)
            if json_file is not None:
                demo_report.write(json_file, result)
            if not exits:
                demo_report.show_addresses(console, result)
                with suppress(KeyboardInterrupt):
                    console.print("Everything stays up. Ctrl-C stops it.", style="bold")
                    stack.wait()
            console.print("Stopping everything.")
        sys.exit(0 if result.is_complete else 1)


def _paid_api(settings: Settings) -> AbstractContextManager[PaidStandIn | None]:
    """A stand-in for the paid API, where it has a price and no key of a real one is set."""
    price = settings.prices.get(settings.overflow.model)
    return nullcontext() if settings.openai_api_key is not None or price is None else PaidStandIn(price)


def _env(settings: Settings, paid: PaidStandIn | None) -> dict[str, str]:
    """What the stack gets in addition to this process's environment."""
    env = {"HEADRACE_WEBHOOKS__ALLOW_PRIVATE": "true"}
    if settings.scaling.host_type is None:
        name = HOST_TYPE.upper()
        env |= {"HEADRACE_SCALING__HOST_TYPE": HOST_TYPE, f"HEADRACE_HOSTS__{name}__USD_PER_HOUR": USD_PER_HOUR}
    if paid is not None:
        env |= {"OPENAI_API_KEY": "sk-stand-in", "OPENAI_BASE_URL": paid.url, "HEADRACE_BUDGETS__DAY_USD": "1"}
    return env


@dataclass(frozen=True, slots=True)
class Run:
    """The demo on a running stack. Attributes: began: when the command did, since 1970."""

    settings: Settings
    report: Report
    receiver: Receiver
    paid: PaidStandIn | None
    began: float

    def ask(self, is_cold: bool) -> Demo:
        """Submit every prompt, wait for every answer and every webhook."""
        api = Api(self.settings.model_copy(update={"url": self.report.url, "api_key": SecretStr(self.report.api_key)}))
        console.rule(f"{len(PROMPTS)} prompts over HTTP, in four lanes")
        with _store(self.settings, self.report) as store:
            with store.begin() as db:
                paid_before_usd = reconciliation.paid_usd(db)
            jobs, first_answer_s = _submit_and_wait(api, self.report.model, self.receiver.url, self.began)
            webhooks = self.receiver.wait_for(len(jobs), WEBHOOK_TIMEOUT_S)
            paid = None if self.paid is None else _answer(api, self.report.model, PAID_PROMPT, None)
            with store.begin() as db:
                secret = apps.find_app(db, APP).webhook_secret
                provider_usd = None if self.paid is None else paid_before_usd + self.paid.bill_usd
                bills = reconciliation.reconcile(db, self.settings.costs, provider_usd)
        return Demo(
            report=self.report,
            prompts=tuple(prompt.text for prompt in PROMPTS),
            jobs=tuple(jobs),
            paid=paid,
            webhooks=tuple(webhooks),
            verified=_count_verified(webhooks, secret),
            secret=secret,
            bills=bills,
            env={name: text for name, text in _env(self.settings, self.paid).items() if name.startswith("HEADRACE_")},
            is_cold=is_cold,
            first_answer_s=first_answer_s,
            total_s=time.time() - self.began,
        )


def _submit_and_wait(api: Api, model: str, webhook: str, began: float) -> tuple[list[dict[str, Any]], float]:
    """Returns: the ended jobs in the order of the prompts, and the seconds from the start to the first answer."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    first_answer_s = 0.0
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(len(PROMPTS)) as threads:
        bar = progress.add_task("answered", total=len(PROMPTS))
        waits = [threads.submit(_answer, api, model, prompt, webhook) for prompt in PROMPTS]
        for _ in as_completed(waits):
            first_answer_s = first_answer_s or time.time() - began
            progress.advance(bar)
    return [wait.result() for wait in waits], first_answer_s


def _answer(api: Api, model: str, prompt: Prompt, webhook: str | None) -> dict[str, Any]:
    """Submit one prompt and poll until it has ended."""
    body = {
        "model": model,
        "prompt": prompt.text,
        "lane": prompt.lane,
        "max_tokens": prompt.max_tokens,
        "max_wait": 300,
        "overflow": prompt.overflow,
        "temperature": 0,
    } | ({} if webhook is None else {"webhook": webhook})
    job_id = api.call("POST", "/v1/jobs", json=body)["id"]
    while True:
        job = api.call("GET", f"/v1/jobs/{job_id}", params={"wait": 20})
        if job["status"] in TERMINAL:
            return job


@contextmanager
def _store(settings: Settings, report: Report) -> Iterator[Store]:
    """The stack's Postgres."""
    store = Store(connections.postgres(settings.model_copy(update={"database_url": report.database_url}), pool_size=1))
    try:
        yield store
    finally:
        store.close()


def _count_verified(webhooks: Sequence[Received], secret: str) -> int:
    return sum(webhook.is_signed_with(secret) for webhook in webhooks)
