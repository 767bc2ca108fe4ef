"""`headrace submit`, which uses HTTP like any other client.

Answers go to standard output and everything else to standard error, so that a pipe gets only the answer.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import click

from headrace.cli.api import POLL_S, Api, open_api
from headrace.cli.client import facts_of
from headrace.cli.output import json_option, notes, out, print_json
from headrace.cli.submit.file import Files, submit_file
from headrace.cli.submit.stream import stream
from headrace.domain.prompts import ReasoningEffort
from headrace.domain.queues import Lane
from headrace.domain.states import TERMINAL, JobState

#: Jobs of a file under way at once, by default.
AT_ONCE = 64


@click.command()
@click.argument("prompt", required=False)
@click.option("--lane", type=click.Choice([str(lane) for lane in Lane]), help="Default: normal.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Bound of the answer.")
@click.option("--temperature", type=float, help="0 for the likeliest answer, up to 2.")
@click.option(
    "--reasoning-effort", type=click.Choice(get_args(ReasoningEffort)), help="How long the model thinks first."
)
@click.option("--model", help="A model of GET /v1/models; the first one by default.")
@click.option("--max-wait", type=float, help="Seconds within which it must start, or it expires unpaid.")
@click.option("--wait", "is_awaited", is_flag=True, help="Stay until the answer is there, and print it.")
@click.option("--stream", "is_streamed", is_flag=True, help="Print the answer while it is made.")
@click.option(
    "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="In place of PROMPT: one JSON object a line, as for POST /v1/jobs, or one text.",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="With --file: where results go, one JSON object a line. Default: standard output.",
)  # fmt: skip
@click.option(
    "--at-once", type=click.IntRange(1, 1000), metavar="N",
    help=f"With --file: jobs under way at once. Default: {AT_ONCE}.",
)  # fmt: skip
@json_option
def submit(prompt: str | None, is_awaited: bool, is_streamed: bool, as_json: bool, **options: Any) -> None:
    """Submit PROMPT as a job and print its id and its place in the queue. PROMPT - reads standard input.

    \b
    headrace submit "Why is the sky blue?" --lane high --wait
    headrace submit "Write a poem." --stream
    git diff | headrace submit - --lane low
    headrace submit --file prompts.jsonl --output results.jsonl --lane batch

    A line of FILE is an object such as {"prompt": "Hi", "max_tokens": 20, "metadata": {"row": "17"}}, with any field of
    POST /v1/jobs, or a text in quotes. Options hold for the lines that do not say otherwise. Each line of the results
    is the job as 'headrace get --json' prints it, with the number of its line, in the order in which the jobs end.

    Ctrl-C, a crash or a lost connection loses nothing: the same command with the same --output goes on. It leaves out
    the lines that have an answer, finds the jobs that are under way, for a day, and tries the others again. A full
    queue is waited for. The exit status is 1 while a line has no answer, and 130 after Ctrl-C.
    """
    file, output, at_once = (options.pop(name) for name in ("file", "output", "at_once"))
    fields = {name: value for name, value in options.items() if value is not None}
    if file is not None:
        if prompt is not None or is_awaited or is_streamed:
            raise click.UsageError("--file takes the place of PROMPT, --wait and --stream: leave them out.")
        submit_file(open_api(), Files(file, output), fields, at_once or AT_ONCE, as_json)
        return
    if prompt is None:
        raise click.UsageError("Give a PROMPT, or --file FILE.")
    if output is not None or at_once is not None:
        raise click.UsageError("--output and --at-once need --file.")
    if is_awaited and is_streamed:
        raise click.UsageError("Give --wait or --stream, not both.")
    text, api = _read_stdin() if prompt == "-" else prompt, open_api()
    if is_streamed:
        stream(api, text, fields, as_json)
    else:
        _submit(api, {"prompt": text, **fields}, is_awaited, as_json)


def _submit(api: Api, body: Mapping[str, Any], is_awaited: bool, as_json: bool) -> None:
    accepted = api.call("POST", "/v1/jobs", json=body)
    if as_json:
        print_json(_wait_for(api, accepted["id"]) if is_awaited else accepted)
        return
    (notes if is_awaited else out).print(_accept_line(accepted), soft_wrap=True)
    if is_awaited:
        _finish(_wait_for(api, accepted["id"]))


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise click.ClickException(f"Standard input is not UTF-8 text: byte {error.start} is not.") from error


def _accept_line(accepted: dict[str, Any]) -> str:
    wait_s = accepted["expected_wait_s"]
    expected = "no worker is alive" if wait_s is None else f"expected wait {wait_s:.1f} s"
    place = f"position {accepted['position']} of {accepted['depth']}"
    return f"{accepted['id']}  {accepted['queue']}  {place}  {expected}"


def _wait_for(api: Api, job_id: str) -> dict[str, Any]:
    """Return the job once it has ended. If the caller stops waiting, the job goes on."""
    try:
        with notes.status(f"{job_id} queued") as status:
            while True:
                job = api.call("GET", f"/v1/jobs/{job_id}", params={"wait": 1 if notes.is_terminal else POLL_S})
                if job["status"] in TERMINAL:
                    return job
                status.update(f"{job_id} {job['status']}")
    except KeyboardInterrupt:
        message = f"Stopped waiting. The job goes on: 'headrace get {job_id}' shows it."
        raise click.ClickException(message) from None


def _finish(job: dict[str, Any]) -> None:
    """Print the answer, or fail with the reason."""
    if job["status"] != JobState.SUCCEEDED:
        reason = job["error"]["message"] if job["error"] else "It has no answer."
        raise click.ClickException(f"{job['id']} {job['status']}: {reason}")
    click.echo(job["text"])
    notes.print(facts_of(job), style="dim", soft_wrap=True)
