"""One hostile app beside twenty good ones: what it costs them, against as many harmless requests in its place.

Real processes, a simulated engine, the attack in a process of its own. Knows the system from outside: HTTP, SQL,
webhooks.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import click
import tokenizers
from rich.table import Table
from tokenizers import decoders, models, pre_tokenizers, trainers

from bed.load import percentile
from bed.neighbour.good import TIMEOUT_S, GoodApps, Told
from bed.neighbour.receivers import DrippingReceiver, GoodReceiver
from bed.neighbour.sending import Orders
from bed.testbed import Counts, Testbed, console, line_of, patched
from headrace.config import Settings
from headrace.connections import postgres
from headrace.store import apps, keys

GOOD_APPS = 20
#: What settings take away: the bound of bodies in flight, an app's rate of calls, and webhook slots for each app and
#: receiver with a deadline.
OFF_BY_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "bodies": {"HEADRACE_BODIES_IN_FLIGHT_BYTES": str(2**40)},
    "calls": {"HEADRACE_CALLS_PER_MINUTE": str(2**31 - 1)},
    "receivers": {
        "HEADRACE_WEBHOOKS__TIMEOUT_S": "3600",
        "HEADRACE_WEBHOOKS__MAX_RUNNING_PER_APP": "1000",
        "HEADRACE_WEBHOOKS__MAX_RUNNING_PER_RECEIVER": "1000",
    },
}
#: The mechanisms that `neighbour/off` takes away, and those that settings do.
OFF = (
    *("encoding", "values", "checksum", "waits", "judge", "checking", "process", "logins", "readiness"),
    *("heads", "idle", "downloads", "turns", "requests", "pages"),
    *OFF_BY_SETTINGS,
)
#: The own pool, and the length of an answer that nothing cuts short.
SLOTS, TOKENS_PER_S, ANSWER_TOKENS = 32, 100, 200
#: The model's limit, and the longest text of one of its tokens: a prompt with fewer characters than one times the other
#: has to be counted.
LIMIT_TOKENS, TOKEN_CHARS = 32_768, 48
LONG_CHARS = 1_500_000
#: Open waits of a process: few enough that one app could take them all.
WAIT_SLOTS = 60
#: The attack, in requests a second.
RATES = {
    "long_texts": 1.0,
    "huge_bodies": 1.0,
    "dripping_receivers": 2.0,
    "abandoned_waits": 20.0,
    "random_keys": 50.0,
    "token_cap": 20.0,
    "schemas": 1.0,
    "silent_logins": 20.0,
    "login_floods": 40.0,
    "wrong_bodies": 100.0,
    "readiness": 60.0,
    "conditions": 32.0,
    "boundaries": 1.0,
    "long_queries": 32.0,
    "half_requests": 150.0,
    "dear_lines": 0.2,
    "cancels": 2.0,
    "blank_lines": 0.2,
    "fat_results": 2.0,
    "slow_readers": 4.0,
    "retries": 0.5,
}
#: What comes at once at the beginning: about as many long answers as a queue's cap in tokens has room for, and more
#: silent connections than the API has threads.
AT_ONCE = {"token_cap": 130, "silent_logins": 2150, "half_requests": 4300, "cancels": 40, "slow_readers": 64}
WARM_UP_S = 10.0
#: After the end of the load, what has not come by then is counted as if it had.
WEBHOOKS_S = 20.0
#: Until all jobs have ended.
ENDED_S = 180.0
#: Processes that no app of this needs.
WITHOUT = ("overflow", "flower", "gpu-better")
GOALS = {"p95_ratio": 1.3, "good_refused": 0, "webhook_p95_ratio": 1.5, "batch_p95_ratio": 1.5}
#: A cascade, whose judge reads the neighbour's schemas. No worker serves its second pool, which no good answer needs.
CONFIG = """
[pools.chat]
model = "small"

[pools.better]
model = "better"

[rules.all]
pools = ["chat", "better"]
cascade = true
escalation_wait_s = 1
"""
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


@dataclass(frozen=True, slots=True)
class Arm:
    """What came of one run.

    Attributes:
        answer_p95_s, webhook_p95_s, batch_p95_s: of the good apps: from the submit to the answer, from the end to the
            webhook, from the upload of a batch's file to its results.
        refused: good requests that were not answered, by status.
        attack: statuses of the neighbour's requests, by kind, and what it sent of each a second.
        counts: what became of all jobs.
        good: the same for the good apps alone.
        peak_mib: the most memory that a process has had, by its name.
        lines_mib: the requests of batches' lines in Postgres, before it compresses them.
    """

    answer_p95_s: float
    webhook_p95_s: float
    batch_p95_s: float
    answered: int
    refused: dict[int, int]
    webhooks: int
    webhooks_missing: int
    attack: dict[str, Any]
    counts: Counts
    good: dict[str, int]
    peak_mib: dict[str, int]
    lines_mib: int


def write_model(folder: Path) -> None:
    """A tokenizer over bytes with a chat template, whose longest token is as long as a real one's."""
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|im_start|>", "<|im_end|>", "=" * TOKEN_CHARS]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(["What is a headrace? The channel that feeds a turbine."] * 20, trainer)
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "headrace.toml").write_text(CONFIG)


def settings(model: Path, off: tuple[str, ...]) -> dict[str, str]:
    """Of the stack."""
    patches = patched(Path(__file__).parent / "bed" / "neighbour" / "off") | {"NEIGHBOUR_OFF": ",".join(off)}
    return {
        "HEADRACE_CONFIG": str(model / "headrace.toml"),
        "HEADRACE_POOLS__CHAT__MODEL_DIR": str(model),
        "HEADRACE_POOLS__BETTER__MODEL_DIR": str(model),
        "HEADRACE_POOLS__CHAT__MAX_MODEL_TOKENS": str(LIMIT_TOKENS),
        "HEADRACE_POOLS__CHAT__MAX_RUNNING": str(SLOTS),
        "HEADRACE_SIMULATOR__OUTPUT_TOKENS": str(ANSWER_TOKENS),
        "HEADRACE_SIMULATOR__DECODE_TOKENS_PER_S": str(TOKENS_PER_S),
        # The engine's memory is not what is fought for here.
        "HEADRACE_SIMULATOR__KV_TOKENS": "8000000",
        "HEADRACE_WAIT_SLOTS": str(WAIT_SLOTS),
        "HEADRACE_WEBHOOKS__ALLOW_PRIVATE": "true",
        **{name: value for each in off for name, value in OFF_BY_SETTINGS.get(each, {}).items()},
        **(patches if off else {}),
    }


def make_keys(bed: Testbed, names: list[str]) -> list[str]:
    """A key of an app of each name; the command line would take seconds for each."""
    pepper = (bed.folder / "pepper").read_text().strip()
    engine = postgres(Settings.load(database_url=bed.stack.report.database_url), pool_size=1)
    try:
        with engine.begin() as db:
            return [keys.make(db, apps.ensure(db, name).id, pepper) for name in names]
    finally:
        engine.dispose()


@contextmanager
def attack(orders: Orders) -> Iterator[dict[str, Any]]:
    """The neighbour at work, in a process of its own; afterwards what it was told is in the dictionary."""
    command, told = [sys.executable, "-m", "bed.neighbour.attacks"], dict[str, Any]()
    process = subprocess.Popen(
        command, cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(asdict(orders)) + "\n")
        process.stdin.flush()
        process.stdout.readline()
        yield told
        process.stdin.close()
        told.update(json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()


def measure(bed: Testbed, seconds: float, login_url: str, *, is_hostile: bool, rates: Mapping[str, float]) -> Arm:
    """One run: the neighbour first, then the good apps, who are counted once both are under way.

    Args: login_url: the server of the operators' pages.
    """
    *good_keys, neighbours_key = make_keys(bed, [*(f"good-{number}" for number in range(GOOD_APPS)), "neighbour"])
    address, login = urlsplit(bed.url), urlsplit(login_url)
    with GoodReceiver() as receiver, GoodReceiver() as other, DrippingReceiver() as dripping:
        urls = {"drip_url": dripping.url, "good_url": other.url}
        sizes = {"answer_tokens": ANSWER_TOKENS, "long_chars": LONG_CHARS, "at_once": AT_ONCE, "rates": rates}
        hosts = (address.hostname or "", address.port or 80, login.hostname or "", login.port or 80)
        orders = Orders(*hosts, neighbours_key, is_hostile, **urls, **sizes)
        good = GoodApps(bed.url, good_keys, every_s=2.0, webhook_url=receiver.url)
        try:
            time.sleep(2)
            with attack(orders) as attacked:
                time.sleep(WARM_UP_S)
                good.forget()
                began = time.monotonic()
                while (passed_s := time.monotonic() - began) < seconds:
                    time.sleep(min(10.0, seconds - passed_s))
                    answered, refused = good.so_far()
                    console.print(
                        f"  {time.monotonic() - began:3.0f} s: {answered} answered, {refused} refused", style="dim"
                    )
                told = good.end()
        finally:
            good.end()
        arrived, missing = _webhooks(bed, told, receiver)
    return _arm(bed, told, attacked, arrived, missing)


def _webhooks(bed: Testbed, told: Told, receiver: GoodReceiver) -> tuple[list[float], int]:
    """Seconds from the end of each good job to its webhook, and how many have not come; those count as come by now."""
    until = time.monotonic() + WEBHOOKS_S
    while time.monotonic() < until and not receiver.received_at.keys() >= set(told.job_ids):
        time.sleep(0.2)
    now = time.time()
    rows = bed.sql(
        "SELECT replace(id::text, '-', ''), extract(epoch FROM ended_at)::float FROM jobs"
        " WHERE replace(id::text, '-', '') = ANY(%s)",
        told.job_ids,
    )
    missing = sum(job_id not in receiver.received_at for job_id, _ in rows)
    return [max(0.0, receiver.received_at.get(job_id, now) - ended_at) for job_id, ended_at in rows], missing


def _arm(bed: Testbed, told: Told, attacked: Mapping[str, Any], arrived: list[float], missing: int) -> Arm:
    try:
        bed.wait_until_all_ended(ENDED_S)
    except click.ClickException as error:
        # Where a mechanism is off, this is what the neighbour does to the others. The counts show what is still open.
        console.print(f"  {error.message}", style="yellow")
    states = bed.sql(
        "SELECT jobs.state, count(*) FROM jobs JOIN apps ON apps.id = jobs.app_id"
        " WHERE starts_with(apps.name, 'good-') GROUP BY 1"
    )
    per_s = {name: round(sum(each.values()) / attacked["seconds"], 1) for name, each in attacked["statuses"].items()}
    return Arm(
        percentile(told.answered_s, 95),
        percentile(arrived, 95),
        percentile(told.batches_s, 95) if told.batches_s else TIMEOUT_S,
        len(told.answered_s),
        dict(told.refused),
        len(arrived),
        missing,
        {"per_s": per_s, "statuses": attacked["statuses"]},
        bed.count(),
        dict(states),
        {name: _peak_mib(bed.stack.report.pids[name]) for name in ("web", "plugins")},
        int(bed.sql("SELECT coalesce(sum(octet_length(body)), 0) / 1048576 FROM batch_lines")[0][0]),
    )


def _peak_mib(pid: int) -> int:
    """The most memory that this process, or one that it started, has had."""
    path = Path(f"/proc/{pid}")
    found = re.search(r"VmHWM:\s+(\d+) kB", (path / "status").read_text())
    assert found is not None
    children = [int(each) for file in path.glob("task/*/children") for each in file.read_text().split()]
    return max(int(found[1]) // 1024, *map(_peak_mib, children), 0)


def run(seconds: float, off: tuple[str, ...], rates: Mapping[str, float]) -> dict[str, Arm]:
    """Both arms, each on a stack of its own."""
    arms = {}
    with TemporaryDirectory(prefix="headrace-neighbour-") as folder:
        write_model(Path(folder))
        for name in ("harmless", "hostile"):
            console.print(f"{name} neighbour, {seconds:.0f} s", style="dim")
            with Testbed(settings(Path(folder), off), WITHOUT, has_batches=True) as bed:
                login_url = bed.url if "process" in off else bed.stack.report.ops_url
                arms[name] = measure(bed, seconds, login_url, is_hostile=name == "hostile", rates=rates)
    return arms


def show(arms: Mapping[str, Arm]) -> None:
    """Both arms side by side."""
    table = Table("", *arms, header_style="bold", title=f"One neighbour beside {GOOD_APPS} good apps")
    for title, value in {
        "good: p95 from submit to answer": lambda arm: f"{arm.answer_p95_s:.2f} s",
        "good: answered": lambda arm: str(arm.answered),
        "good: refused, by status": lambda arm: str(arm.refused or "none"),
        "good: p95 from end to webhook": lambda arm: f"{arm.webhook_p95_s:.3f} s",
        "good: p95 of a batch": lambda arm: f"{arm.batch_p95_s:.2f} s",
        "good: webhooks, missing": lambda arm: f"{arm.webhooks}, {arm.webhooks_missing}",
        "good: jobs, by state": lambda arm: str(arm.good),
        "peak memory, MiB": lambda arm: f"web={arm.peak_mib['web']} batches={arm.peak_mib['batches']}",
        "lines in Postgres, MiB": lambda arm: str(arm.lines_mib),
        "all jobs": lambda arm: " ".join(f"{name}={count}" for name, count in asdict(arm.counts).items()),
    }.items():
        table.add_row(title, *(value(arm) for arm in arms.values()))
    for kind, counts in next(iter(arms.values())).attack["statuses"].items():
        if not counts:
            continue
        shown = (f"{arm.attack['per_s'][kind]}/s {arm.attack['statuses'][kind]}" for arm in arms.values())
        table.add_row(f"neighbour: {kind}", *shown)
    console.print(table)


def figures(arms: Mapping[str, Arm]) -> dict[str, Any]:
    """What the last line says."""
    harmless, hostile = arms["harmless"], arms["hostile"]
    return {
        "p95_ratio": hostile.answer_p95_s / harmless.answer_p95_s,
        "good_refused": sum(hostile.refused.values()),
        # Below a hundredth of a second both are noise.
        "batch_p95_ratio": hostile.batch_p95_s / harmless.batch_p95_s,
        "webhook_p95_ratio": max(0.01, hostile.webhook_p95_s) / max(0.01, harmless.webhook_p95_s),
    }


@click.command()
@click.option("--seconds", type=click.FloatRange(min=5), default=60, show_default=True, help="Of each arm's load.")
@click.option("--only", multiple=True, type=click.Choice(list(RATES)), help="These attacks alone; repeat it for more.")
@click.option(
    "--off", multiple=True, type=click.Choice(OFF), help="A mechanism that is taken away, for a counter-proof."
)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(seconds: float, only: tuple[str, ...], off: tuple[str, ...], file: Path | None) -> None:
    """Put a hostile app beside twenty good ones, and see what it costs them.

    Good apps send ten requests a second together: half are jobs with a webhook, half synchronous chat completions. Five
    of them also run a batch of three lines every five seconds, from its upload to its answers. The hostile app sends,
    in a second, 1 text that has to be counted and is too long, 1 body of 8 MiB full of empty objects, 2 jobs whose
    receiver drips its header without end, 20 synchronous calls whose caller hangs up, 50 random keys, 20 jobs with
    answers of 200 tokens that say they may have 8,192, of which 130 come at once, 1 job of a cascade whose schema is
    dear to judge, 20 logins whose body never comes, of which 2,150 come at once and stay, 40 logins with invented
    names, 100 bodies that end in 400, and 60 calls of /readyz.

    By heads: 32 If-None-Match of 380 KB, one multipart boundary of 390 KB, 32 queries of 64 KB, and 150 heads that do
    not end, of which 4,300 come at once and stay. By files and batches: every five seconds a batch of 64 lines of 1 MB
    that are too long, and one whose file has 200 MiB of blank lines; two cancels of batches of 5,000 lines, of which 40
    come at once; two calls for the results of six lines of 8 MB with an emoji; four downloads that read 512 bytes a
    second, of which 64 come at once and stay; and every two seconds a retry of a batch of 8 MB, which is cancelled. In
    the other arm as many harmless requests take the place of each.

    The last line is name=value pairs: p95_ratio, the good apps' 95th percentile from submit to answer beside a hostile
    neighbour, by that beside a harmless one; good_refused, good requests beside the hostile one that were not answered;
    webhook_p95_ratio, the same from a job's end to its webhook, where neither counts as less than 10 ms;
    batch_p95_ratio, the same of batches. The status is 1 when one of the goals is missed: 1.3, 0, 1.5, 1.5.

    \b
    bin/headrace python benchmarks/bad_neighbour.py
    bin/headrace python benchmarks/bad_neighbour.py --only long_texts --off encoding
    bin/headrace python benchmarks/bad_neighbour.py --only dripping_receivers --off receivers
    bin/headrace python benchmarks/bad_neighbour.py --only abandoned_waits --off waits
    bin/headrace python benchmarks/bad_neighbour.py --only schemas --off judge
    bin/headrace python benchmarks/bad_neighbour.py --only silent_logins --off process
    bin/headrace python benchmarks/bad_neighbour.py --only login_floods --off logins --off process
    bin/headrace python benchmarks/bad_neighbour.py --only wrong_bodies --off calls
    bin/headrace python benchmarks/bad_neighbour.py --off checking
    bin/headrace python benchmarks/bad_neighbour.py --only readiness --off readiness
    bin/headrace python benchmarks/bad_neighbour.py --only conditions --off heads
    bin/headrace python benchmarks/bad_neighbour.py --only boundaries --off heads
    bin/headrace python benchmarks/bad_neighbour.py --only long_queries --off heads
    bin/headrace python benchmarks/bad_neighbour.py --only half_requests --off idle
    bin/headrace python benchmarks/bad_neighbour.py --only slow_readers --off downloads
    bin/headrace python benchmarks/bad_neighbour.py --only dear_lines --only cancels --only blank_lines --off turns
    bin/headrace python benchmarks/bad_neighbour.py --only retries --off requests
    bin/headrace python benchmarks/bad_neighbour.py --only fat_results --off pages
    """
    arms = run(seconds, off, {name: rate if not only or name in only else 0.0 for name, rate in RATES.items()})
    show(arms)
    found = figures(arms)
    if file is not None:
        everything = {**found, "off": off, "rates": RATES, **{name: asdict(arm) for name, arm in arms.items()}}
        file.write_text(json.dumps(everything, indent=2, default=str) + "\n")
    print(line_of(found))
    sys.exit(0 if all(found[name] <= most for name, most in GOALS.items()) else 1)


if __name__ == "__main__":
    main()
