"""The client commands submit, get, cancel and queues, which use HTTP like any other client.

Answers go to standard output and everything else to standard error, so that a pipe gets only the answer.
"""

import json
import sys
from typing import Any, get_args

import click
import httpx2
from rich.console import Console

from headrace.cli.table import table
from headrace.config import Settings
from headrace.domain.ids import parse_id
from headrace.domain.prompts import ReasoningEffort
from headrace.domain.queues import Lane
from headrace.domain.states import TERMINAL, JobState
from headrace.stack.report import Report

#: Seconds that one poll may last; must be below the server's limit.
POLL_S = 20
#: Seconds for the server to answer, beyond the length of a poll.
TIMEOUT_S = 30
#: The status of a request that is refused for now.
TOO_MANY = 429

#: The option of every command that has a result.
json_option = click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")

out = Console(highlight=False)
notes = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Print a result for a program, on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


class TryLater(click.ClickException):
    """The API refuses a request for now. Attributes: after_s: when the same request may succeed."""

    def __init__(self, message: str, after_s: float) -> None:
        super().__init__(message)
        self.after_s = after_s


class Api:
    """The HTTP API for the commands. Every error is one line."""

    def __init__(self, settings: Settings) -> None:
        self._url, key = _address(settings)
        if not (key.isascii() and key.isprintable()):
            raise click.ClickException("HEADRACE_API_KEY is not a key of ours: it has characters that no key has.")
        headers = {"Authorization": f"Bearer {key}"}
        try:
            self._http = httpx2.Client(base_url=self._url, headers=headers, timeout=POLL_S + TIMEOUT_S)
        except httpx2.InvalidURL as error:
            raise click.ClickException(f"HEADRACE_URL '{self._url}' is not a URL: {error}.") from error

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and return the answer. Raises: click.ClickException. TryLater."""
        try:
            request = self._http.build_request(method, path, **arguments)
        except ValueError as error:
            raise click.ClickException(f"This cannot be sent as JSON: {error}.") from error
        try:
            response = self._http.send(request)
            body = response.json()
        except httpx2.UnsupportedProtocol as error:
            raise click.ClickException(
                f"HEADRACE_URL must begin with http:// or https://, and is '{self._url}'."
            ) from error
        except httpx2.TransportError as error:
            reason = f"{type(error).__name__}: {error}"
            raise click.ClickException(
                f"No answer from {self._url} ({reason}). Is it running? HEADRACE_URL says where it is."
            ) from error
        except (httpx2.InvalidURL, ValueError) as error:
            raise click.ClickException(f"{self._url} does not answer as Headrace does: {error}.") from error
        if response.status_code == TOO_MANY and (after := response.headers.get("retry-after", "")).isdigit():
            raise TryLater(_problem(body) or f"{self._url} answered {TOO_MANY}.", float(after))
        if response.is_error:
            raise click.ClickException(_problem(body) or f"{self._url} answered {response.status_code}.")
        answered: dict[str, Any] = body
        return answered


def _address(settings: Settings) -> tuple[str, str]:
    """The API's URL and key: both from the settings, or else both from the stack that runs on this machine."""
    if settings.api_key is None and "url" in settings.model_fields_set:
        raise click.ClickException("HEADRACE_URL is set without HEADRACE_API_KEY: set both, or neither.")
    if settings.api_key is not None:
        return settings.url, settings.api_key.get_secret_value()
    try:
        stack = Report.read(settings.state_dir / "stack.json")
    except OSError:
        raise click.ClickException(
            "No API key: set HEADRACE_URL and HEADRACE_API_KEY ('headrace keys create APP' makes a key), "
            "or start a stack on this machine with 'headrace up'."
        ) from None
    return stack.url, stack.api_key


def _problem(body: Any) -> str | None:
    match body:
        case {"error": {"message": str(message)}}:
            return message
    return None


@click.command()
@click.argument("prompt")
@click.option("--lane", type=click.Choice([str(lane) for lane in Lane]), default="normal", show_default=True)
@click.option("--max-tokens", type=click.IntRange(min=1), help="Bound of the answer.")
@click.option("--temperature", type=float, help="0 for the likeliest answer, up to 2.")
@click.option(
    "--reasoning-effort", type=click.Choice(get_args(ReasoningEffort)), help="How long the model thinks first."
)
@click.option("--model", help="A model of GET /v1/models; the first one by default.")
@click.option("--max-wait", type=float, help="Seconds within which it must start, or it expires unpaid.")
@click.option("--wait", is_flag=True, help="Stay until the answer is there, and print it.")
@json_option
def submit(prompt: str, wait: bool, as_json: bool, **options: Any) -> None:
    """Submit PROMPT as a job and print its id and its place in the queue. PROMPT - reads standard input.

    \b
    headrace submit "Why is the sky blue?" --lane high --wait
    git diff | headrace submit - --lane low
    """
    text = _read_stdin() if prompt == "-" else prompt
    body = {"prompt": text, **{name: value for name, value in options.items() if value is not None}}
    api = Api(Settings.load())
    accepted = api.call("POST", "/v1/jobs", json=body)
    if as_json:
        print_json(_wait_for(api, accepted["id"]) if wait else accepted)
        return
    (notes if wait else out).print(_accept_line(accepted), soft_wrap=True)
    if wait:
        _finish(_wait_for(api, accepted["id"]))


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print the API's own answer.")
def get(job_id: str, as_json: bool) -> None:
    """Show the job ID: its status, its answer and its cost."""
    job = Api(Settings.load()).call("GET", _job_path(job_id))
    if as_json:
        print_json(job)
        return
    notes.print(f"{job['id']}  {job['status']}  {_facts(job)}", soft_wrap=True)
    if job["error"]:
        notes.print(job["error"]["message"], markup=False, soft_wrap=True)
    if job["text"] is not None:
        click.echo(job["text"])


@click.command()
@click.argument("job_id", metavar="ID")
@json_option
def cancel(job_id: str, as_json: bool) -> None:
    """Cancel the job ID. An ended job stays as it is. A running job stops within a second or two."""
    job = Api(Settings.load()).call("POST", f"{_job_path(job_id)}/cancel")
    if as_json:
        print_json(job)
        return
    is_stopping = job["status"] == JobState.RUNNING
    out.print(f"{job['id']}  {'running, will be stopped' if is_stopping else job['status']}")


@click.command()
@json_option
def queues(as_json: bool) -> None:
    """Show how full each queue is, how fast its pool drains it, and how many workers the pool has.

    \b
    depth     waiting jobs
    cap       the most jobs that may wait; one more is refused
    apps      apps with waiting jobs
    tokens    prompt tokens and maximum output tokens of all waiting jobs
    tokens/s  the whole pool's rate while it has work
    wait      expected wait of a job that is submitted now
    workers   live workers of the whole pool
    running   running jobs of the whole pool
    slots     jobs that the whole pool can run at once

    '-' means unknown: no worker is alive, or nothing was measured yet.
    """
    found = Api(Settings.load()).call("GET", "/v1/queues")["data"]
    if as_json:
        print_json(found)
        return
    figures = table("queue")
    for heading in ("depth", "cap", "apps", "tokens", "tokens/s", "wait", "workers", "running", "slots"):
        figures.add_column(heading, justify="right", no_wrap=True)
    for queue in found:
        rate, wait_s = queue["drain_tokens_per_s"], queue["expected_wait_s"]
        figures.add_row(
            queue["queue"],
            *(str(queue[name]) for name in ("depth", "depth_cap", "apps", "backlog_tokens")),
            "-" if rate is None else f"{rate:.0f}",
            "-" if wait_s is None else f"{wait_s:.1f} s",
            *(str(queue[name]) for name in ("workers", "running", "slots")),
        )
    out.print(figures)


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise click.ClickException(f"Standard input is not UTF-8 text: byte {error.start} is not.") from error


def _job_path(job_id: str) -> str:
    """The job's path. Raises: NotFound for a malformed id, which could lead to another path."""
    parse_id(job_id)
    return f"/v1/jobs/{job_id}"


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
    notes.print(_facts(job), style="dim", soft_wrap=True)


def _facts(job: dict[str, Any]) -> str:
    """The job's queue, engine, times, tokens and cost, as far as they are known."""
    facts = [job["queue"], job["engine"] or ""]
    facts += [f"{word} {job[name]:.2f} s" for word, name in (("waited", "wait_s"), ("ran", "run_s")) if job[name]]
    if usage := job["usage"]:
        facts += [f"{usage['prompt_tokens']} + {usage['output_tokens']} tokens", f"{job['cost']['usd']} USD"]
    return "  ".join(fact for fact in facts if fact)
