"""`headrace demo`: the whole system on this machine, with real prompts, from an app's point of view."""

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from headrace import connections
from headrace.cli import hinting
from headrace.cli.access.keys import DEVELOPMENT_APP
from headrace.cli.client import Api, wait_for_end
from headrace.cli.output import table
from headrace.config import Settings
from headrace.config.pools import DEFAULT_MODEL
from headrace.domain.states import JobState
from headrace.stack.loopback import Received, Receiver
from headrace.stack.postgres import bin_folder
from headrace.stack.stack import Stack
from headrace.stack.state_folder import StackReport
from headrace.store import Store, apps
from headrace.store.money import cost_hours
from headrace.store.money.cost_hours import Reconciliation
from headrace.store.money.host_hours import HostTerms
from plugins.demo.paid_stand_in import PaidStandIn


@dataclass(frozen=True, slots=True)
class Demo:
    """The results of one demo.

    Attributes:
        jobs: as the API shows them, in the order of `prompts`.
        paid: the job that the stand-in of the paid API answered; None without it.
        verified: the number of webhooks with a valid signature.
        bills: the ledger beside the bill of this machine.
        pool: that answers.
        env: settings that only the demo's own processes have, as variables of the environment.
        is_cold: True if the demo first had to install, convert or create something.
        first_answer_s: seconds from the start of the command, installation included.
    """

    report: StackReport
    prompts: tuple[str, ...]
    jobs: tuple[dict[str, Any], ...]
    paid: dict[str, Any] | None
    webhooks: tuple[Received, ...]
    verified: int
    secret: str
    bills: Reconciliation
    pool: str
    env: Mapping[str, str]
    is_cold: bool
    first_answer_s: float
    total_s: float

    @property
    def is_complete(self) -> bool:
        """True if every prompt has an answer with a price, and every job a webhook with a valid signature."""
        answered = all(
            job["status"] == JobState.SUCCEEDED and job["text"] and Decimal(job["cost"]["usd"]) > 0 for job in self.jobs
        )
        return answered and self.verified == len(self.webhooks) >= len(self.jobs)


def show(console: Console, demo: Demo) -> None:
    """Print the results for a person."""
    report = demo.report
    if report.engine == "simulator":
        console.print("These answers are made up: the simulator stands in for a model.", style="bold red")
    _show_answers(console, demo)
    console.print(_figures(demo))
    usd = sum((Decimal(job["cost"]["usd"]) for job in demo.jobs), Decimal(0))
    tokens = sum(job["usage"]["total_tokens"] for job in demo.jobs if job["usage"])
    source = f", {report.model_source}" if report.model_source else ""
    if report.engine != "openai":
        console.print("USD at a placeholder price of own tokens: docs/analytics.md says how they are measured.")
    console.print(f"{report.engine} with {report.model}{source}: {tokens} tokens for {usd:.6f} USD")
    _show_bills(console, demo)
    start = "cold" if demo.is_cold else "warm"
    console.print(f"{start} start: {demo.first_answer_s:.1f} s to the first answer, {demo.total_s:.1f} s to the last.")
    _show_webhooks(console, demo)


def _show_answers(console: Console, demo: Demo) -> None:
    for prompt, job in zip(demo.prompts, demo.jobs, strict=True):
        answer = job["text"] if job["text"] is not None else f"{job['status']}: {job['error']}"
        cut = f" […] cut at {job['max_tokens']} tokens" if job["finish_reason"] == "length" else ""
        console.print(f"[bold cyan]{job['lane']}[/]  [bold]{escape(prompt)}[/]")
        console.print(Padding(f"{escape(answer.strip())}[dim]{escape(cut)}[/]", (0, 0, 1, 2)))


def _figures(demo: Demo) -> Table:
    rows = table("lane")
    rows.expand = True
    rows.add_column("prompt", ratio=1, no_wrap=True)
    for heading in ("wait s", "run s", "tokens", "USD"):
        rows.add_column(heading, justify="right", no_wrap=True)
    for prompt, job in zip(demo.prompts, demo.jobs, strict=True):
        usage = job["usage"] or {"prompt_tokens": 0, "output_tokens": 0}
        times = ("-" if job[name] is None else f"{job[name]:.2f}" for name in ("wait_s", "run_s"))
        used, usd = f"{usage['prompt_tokens']}+{usage['output_tokens']}", f"{Decimal(job['cost']['usd']):.6f}"
        rows.add_row(job["lane"], escape(prompt), *times, used, usd)
    return rows


def _show_bills(console: Console, demo: Demo) -> None:
    """Whether the ledger adds up to the stand-in's own bill, and this machine's time so far."""
    bills, paid = demo.bills, demo.paid
    if paid is not None:
        said = paid["text"] if paid["text"] is not None else f"{paid['status']}: {paid['error']}"
        console.print(f"Stand-in of the paid API: {escape(said)} {Decimal(paid['cost']['usd']):.6f} USD.")
    if not bills.hosts_usd:
        return
    console.print(
        "The sum above is what the app is charged: its tokens at their price. The ledger below has what all requests "
        "of this stack have cost so far: their shares of this machine's time, and what the paid API bills."
    )
    rate = bills.hosts_usd / bills.host_hours
    console.print(
        f"Ledger: requests {bills.requests_usd:.6f} + platform {bills.platform_usd:.6f} = {bills.ledger_usd:.6f} USD. "
        f"Bills: {bills.host_hours:.4f} h of this machine at {rate:.2f} USD + paid API {bills.provider_usd:.6f} = "
        f"{bills.hosts_usd + bills.provider_usd:.6f} USD. Difference {abs(bills.difference_usd):.9f} USD, "
        f"{float(bills.share):.4%}."
    )


def _show_webhooks(console: Console, demo: Demo) -> None:
    console.rule("webhooks")
    console.print(f"{len(demo.webhooks)} received, {demo.verified} with a signature that holds. One of them:")
    for webhook in demo.webhooks[:1]:
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
            console.out(f"  {name}: {webhook.headers[name]}", highlight=False)
        console.out(f"  {webhook.body}", highlight=False)


def show_addresses(console: Console, demo: Demo) -> None:
    """Print addresses and commands to try by hand while the stack runs."""
    report = demo.report
    url = report.url
    console.rule("go on by hand")
    rows = {
        "API": url,
        "documentation": f"{url}/docs",
        "pages": f"{report.ops_url}/ops  ('bin/headrace operators create NAME --role admin' makes a login)",
        "Flower": f"{report.flower_url}  ({report.flower_auth})",
        "API key": report.api_key,
        "webhook secret": demo.secret,
    }
    for name, value in rows.items():
        console.out(f"{name:>14}  {value}", highlight=False)
    console.print()
    console.print(_notes(demo), markup=False)
    for name, text in _snippets(demo).items():
        console.print(f"\n{name}", style="bold")
        console.out(text, highlight=False)
    console.print()


def _notes(demo: Demo) -> str:
    """What this demo has of its own."""
    lines = []
    if (usd := demo.env.get("HEADRACE_BUDGETS__DAY_USD")) is not None:
        lines.append(
            f"Budget: {usd} USD a day for the stand-in of the paid API, which takes no money. A real one needs its "
            "key, and a budget of your own: 'bin/headrace budgets set --day-usd 5'."
        )
    if (tokens := demo.env.get(_variable(demo.pool, "default_max_tokens"))) is not None:
        lines.append(f"An answer has {tokens} tokens at most here, unless a request says max_tokens.")
    if demo.report.model == DEFAULT_MODEL and demo.report.engine == "vllm":
        lines.append(
            "Tools: so small a model seldom calls one by itself. With tool_choice 'required', or one function, it "
            "does, and its arguments keep to their schema, but they may be nonsense."
        )
    return "\n".join(lines)


def _snippets(demo: Demo) -> dict[str, str]:
    """Commands to try by hand, each under what it is."""
    report = demo.report
    url, key, model = report.url, report.api_key, report.model
    database = report.database_url.replace("+psycopg", "")
    # So short an answer that the demo's model on a CPU ends it while the SDK's lines wait.
    terms = {"max_tokens": 64, "temperature": 0}
    body = json.dumps({"model": model, "prompt": "Why is the sky blue?", "lane": "high", **terms})
    return {
        "curl, and the answer by the id that it prints": (
            f"curl {url}/v1/jobs -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{body}'\n"
            "bin/headrace get job_..."
        ),
        "terminal": "bin/headrace submit 'Why is the sky blue?' --max-tokens 64 --temperature 0 --wait",
        "openai SDK, with `bin/headrace python FILE`": "\n".join(
            (
                "from openai import OpenAI",
                f"client = OpenAI(base_url='{url}/v1', api_key='{key}')",
                f"job = client.responses.create(model='{model}', input='Why is the sky blue?', background=True, "
                "max_output_tokens=64, temperature=0)",
                "print(client.responses.retrieve(job.id, extra_query={'wait': 30}).output_text)",
            )
        ),
        "settings that only the demo's processes have, for commands such as `budgets`": (
            f"export {' '.join(f'{name}={value}' for name, value in demo.env.items())}"
        ),
        "psql": f"{_psql()} '{database}' -c 'SELECT lane, prompt_tokens, output_tokens, usd FROM cost_per_request'",
    }


def _psql() -> str:
    """The `psql` on the PATH, or else the embedded Postgres's."""
    return "psql" if shutil.which("psql") else str(bin_folder() / "psql")


def write(path: Path, demo: Demo) -> None:
    """Write the results for a program, times in seconds from the start of the command, installation included.

    `start` is `cold` when something was installed or made first. `paid` is the job that a stand-in of the paid API
    answered. `ledger_usd` is what the ledger has; `bills_usd` is the stand-in's own bill and this machine's time times
    its price.
    """
    report = demo.report
    summary = {
        "start": "cold" if demo.is_cold else "warm",
        "first_answer_s": round(demo.first_answer_s, 3),
        "total_s": round(demo.total_s, 3),
        "engine": report.engine,
        "model": report.model,
        "model_source": report.model_source,
        "webhooks_received": len(demo.webhooks),
        "webhooks_verified": demo.verified,
        "complete": demo.is_complete,
        "ledger_usd": f"{demo.bills.ledger_usd:f}",
        "bills_usd": f"{demo.bills.hosts_usd + demo.bills.provider_usd:.9f}",
        "paid": None if demo.paid is None else {name: demo.paid[name] for name in ("id", "status", "engine", "text")},
        "jobs": [_facts_of(demo, *each) for each in zip(demo.prompts, demo.jobs, strict=True)],
    }
    path.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def _facts_of(demo: Demo, prompt: str, job: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": job["id"],
        "lane": job["lane"],
        "status": job["status"],
        "engine": job["engine"],
        "model": job["model_served"],
        "model_source": demo.report.model_source,
        "prompt": prompt,
        "text": job["text"],
        "tokens": job["usage"],
        "wait_s": job["wait_s"],
        "run_s": job["run_s"],
        "usd": job["cost"]["usd"],
    }


console = Console(highlight=False)

#: Seconds within which an answered job's webhook must arrive.
WEBHOOK_TIMEOUT_S = 30.0
#: What this machine is assumed to cost, unless [scaling].host_type says it, so that the demo has a bill to share.
HOST_TYPE, USD_PER_HOUR = "laptop", "0.10"
#: The default of max_tokens. A laptop's CPU makes this number of tokens within seconds.
MAX_TOKENS = 128
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
# `bin/demo` sets it before it installs.
@click.option("--began", type=float, envvar="DEMO_BEGAN", hidden=True, help="When the command began, since 1970.")
def demo(exits: bool, engine: str | None, json_file: Path | None, began: float | None) -> None:
    """Start the whole system here, submit real prompts in every lane, and show the answers and their cost."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # A shell's background job ignores it, and this command runs until it comes.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings = Settings.load()
    began = began or time.time()
    is_cold = not (settings.state_dir / "postgres").exists() or time.time() - began > INSTALLED_AFTER_S
    console.rule("Headrace: starting everything on this machine")
    with Receiver() as receiver, _paid_api(settings) as paid:
        options = ("--brief", *(("--engine", engine) if engine else ()))
        stack = Stack(settings.state_dir, options, _env(settings, paid), lambda line: console.out(hinting(line)))
        with stack:
            result = _ask(settings, stack.report, receiver, paid, began, is_cold)
            show(console, result)
            if json_file is not None:
                write(json_file, result)
            if not exits:
                show_addresses(console, result)
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
    pool = settings.pools.get(settings.pool)
    if pool is not None and pool.model == DEFAULT_MODEL and not pool.is_paid:
        env[_variable(settings.pool, "default_max_tokens")] = str(min(pool.default_max_tokens, MAX_TOKENS))
        if pool.tool_parser is not None:
            env[_variable(settings.pool, "tool_strict_level")] = pool.tool_strict_level or "parameter"
    if settings.scaling.host_type is None:
        name = HOST_TYPE.upper()
        env |= {"HEADRACE_SCALING__HOST_TYPE": HOST_TYPE, f"HEADRACE_HOSTS__{name}__USD_PER_HOUR": USD_PER_HOUR}
    if paid is not None:
        env |= {
            "HEADRACE_OPENAI_API_KEY": "sk-stand-in",
            "HEADRACE_OPENAI_BASE_URL": paid.url,
            "HEADRACE_BUDGETS__DAY_USD": "1",
        }
    return env


def _variable(pool: str, setting: str) -> str:
    """The variable of a pool's setting."""
    return f"HEADRACE_POOLS__{pool.upper()}__{setting.upper()}"


def _ask(
    settings: Settings, report: StackReport, receiver: Receiver, paid: PaidStandIn | None, began: float, is_cold: bool
) -> Demo:
    """Submit every prompt, wait for every answer and every webhook. Args: began: the command's start, since 1970."""
    api = Api(settings.model_copy(update={"url": report.url, "api_key": SecretStr(report.api_key)}))
    console.rule(f"{len(PROMPTS)} prompts over HTTP, in four lanes")
    with _store(settings, report) as store:
        with store.begin() as db:
            paid_before_usd = cost_hours.paid_usd(db)
        jobs, first_answer_s = _submit_and_wait(api, report.model, receiver.url, began)
        webhooks = receiver.wait_for(len(jobs), WEBHOOK_TIMEOUT_S)
        paid_job = None if paid is None else _answer(api, report.model, PAID_PROMPT, None)
        with store.begin() as db:
            secret = apps.find_app(db, DEVELOPMENT_APP).webhook_secret
            provider_usd = None if paid is None else paid_before_usd + paid.bill_usd
            bills = cost_hours.reconcile(db, HostTerms.of(settings), provider_usd)
    return Demo(
        report=report,
        prompts=tuple(prompt.text for prompt in PROMPTS),
        jobs=tuple(jobs),
        paid=paid_job,
        webhooks=tuple(webhooks),
        verified=sum(webhook.is_signed_with(secret) for webhook in webhooks),
        secret=secret,
        bills=bills,
        pool=settings.pool,
        env={name: text for name, text in _env(settings, paid).items() if name.startswith("HEADRACE_")},
        is_cold=is_cold,
        first_answer_s=first_answer_s,
        total_s=time.time() - began,
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
    return wait_for_end(api, api.call("POST", "/v1/jobs", json=body)["id"])


@contextmanager
def _store(settings: Settings, report: StackReport) -> Iterator[Store]:
    """The stack's Postgres."""
    store = Store(connections.postgres(settings.model_copy(update={"database_url": report.database_url}), pool_size=1))
    try:
        yield store
    finally:
        store.close()
