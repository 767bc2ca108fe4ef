"""`headrace submit`, which uses HTTP like any other client.

Answers go to standard output and everything else to standard error, so that a pipe gets only the answer.
"""

import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import click

from headrace.cli.client import Api, NoAnswer, facts_of, open_api, watch_to_end
from headrace.cli.output import json_option, notes, out, print_json, print_json_line, say
from headrace.cli.submit.submit_file import Files, submit_file
from headrace.domain.fleet import NO_WORKER_REASON
from headrace.domain.prompts import ReasoningEffort
from headrace.domain.queues import Lane
from headrace.domain.states import JobState

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
@click.option("--not-before", metavar="TIME", help="It starts no earlier, such as 2026-12-01T22:00:00Z.")
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
    headrace submit "Sum up the day." --not-before 2026-12-01T22:00:00Z
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
        print_json(watch_to_end(api, accepted["id"]) if is_awaited else accepted)
        return
    (notes if is_awaited else out).print(_accept_line(accepted), soft_wrap=True)
    if is_awaited:
        _finish(watch_to_end(api, accepted["id"]))


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise click.ClickException(f"Standard input is not UTF-8 text: byte {error.start} is not.") from error


def _accept_line(accepted: dict[str, Any]) -> str:
    if accepted["position"] is None:
        return f"{accepted['id']}  {accepted['queue']}  {accepted['status']}, to start by {accepted['start_by']}"
    wait_s, worker_in_s = accepted["expected_wait_s"], accepted["worker_in_s"]
    expected = "expected wait unknown" if wait_s is None else f"expected wait {wait_s:.1f} s"
    if accepted["reason"] == NO_WORKER_REASON:
        expected = "no worker serves its pool"
        expected += "" if worker_in_s is None else f", a host is ready in about {worker_in_s:.0f} s"
    place = f"position {accepted['position']} of {accepted['depth']}"
    return f"{accepted['id']}  {accepted['queue']}  {place}  {expected}"


def _finish(job: dict[str, Any]) -> None:
    """Print the answer, or fail with the reason."""
    if job["status"] != JobState.SUCCEEDED:
        reason = job["error"]["message"] if job["error"] else "It has no answer."
        raise click.ClickException(f"{job['id']} {job['status']}: {reason}")
    say(job["text"])
    notes.print(facts_of(job), style="dim", soft_wrap=True)


#: How often a stream that breaks off is taken up again.
RESUMES = 10
#: Between such tries, in seconds.
PAUSE_S = 1.0
#: The events that end a stream.
ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})


def stream(api: Api, prompt: str, options: dict[str, Any], as_json: bool) -> None:
    """Submit a prompt, and print its answer as it comes. Args: options: of `POST /v1/jobs`. Raises: ClickException."""
    watched = WatchedStream(api, request(prompt, options))
    try:
        for event in watched.events():
            if as_json:
                print_json_line(event)
            else:
                _show(event)
    except KeyboardInterrupt:
        if watched.response_id is None:
            raise
        job_id = watched.response_id
        message = f"Stopped reading. The job goes on: 'headrace get {job_id}' shows it, 'headrace cancel' stops it."
        raise click.ClickException(message) from None
    if not as_json:
        _end_stream(api, str(watched.response_id))


def request(prompt: str, options: dict[str, Any]) -> dict[str, Any]:
    """The body of `POST /v1/responses` for the options of `POST /v1/jobs`."""
    left = dict(options)
    job = {name: left.pop(name) for name in ("lane", "max_wait", "not_before") if name in left}
    body: dict[str, Any] = {"input": prompt, "stream": True, "background": True, "job": job}
    if "max_tokens" in left:
        body["max_output_tokens"] = left.pop("max_tokens")
    if "reasoning_effort" in left:
        body["reasoning"] = {"effort": left.pop("reasoning_effort")}
    return body | left


class WatchedStream:
    """A stream that is taken up again where it broke off. Attributes: response_id: None before the first event."""

    def __init__(self, api: Api, body: dict[str, Any]) -> None:
        self._api, self._body = api, body
        self.response_id: str | None = None
        self._last = -1

    def events(self) -> Iterator[dict[str, Any]]:
        """Each event once, to the end. Raises: click.ClickException."""
        found = self._api.events(
            "POST", "/v1/responses", json=self._body, headers={"Idempotency-Key": str(uuid.uuid4())}
        )
        for left in range(RESUMES, -1, -1):
            try:
                for event in found:
                    if event.get("code") == "stream_interrupted":
                        break
                    self._last = event["sequence_number"]
                    self.response_id = self.response_id or event.get("response", {}).get("id")
                    yield event
                    if event["type"] in ENDS:
                        return
            except NoAnswer:
                if self.response_id is None or not left:
                    raise
            threading.Event().wait(PAUSE_S)
            after = {"stream": "true", "starting_after": self._last}
            found = self._api.events("GET", f"/v1/responses/{self.response_id}", params=after)
        raise click.ClickException(
            f"The stream breaks off again and again: 'headrace get {self.response_id}' shows it."
        )


def _show(event: dict[str, Any]) -> None:
    match event:
        case {"type": "response.output_text.delta", "delta": str(text)}:
            say(text, nl=False)
        case {"type": "response.reasoning_text.delta", "delta": str(text)}:
            notes.print(text, end="", style="dim", markup=False, soft_wrap=True)
        case {"type": "response.reasoning_text.done"}:
            notes.print()
        case {"type": "error", "code": "stream_restarted"}:
            click.echo()
            notes.print("The answer begins anew: what came before is void.", style="yellow")


def _end_stream(api: Api, response_id: str) -> None:
    """End the answer's line, and print what it took, or fail with the reason."""
    job = api.call("GET", f"/v1/jobs/{response_id}")
    if job["text"]:
        click.echo()
    if job["error"] or job["text"] is None:
        reason = job["error"]["message"] if job["error"] else "It has no answer."
        raise click.ClickException(f"{job['id']} {job['status']}: {reason}")
    notes.print(facts_of(job), style="dim", soft_wrap=True)
