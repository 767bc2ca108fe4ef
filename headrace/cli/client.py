"""`headrace get` and `headrace cancel`, for clients of the API."""

from typing import Any

import click

from headrace.cli.api import open_api
from headrace.cli.output import json_option, notes, out, print_json
from headrace.domain.ids import parse_id
from headrace.domain.states import JobState


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print the API's own answer.")
def get(job_id: str, as_json: bool) -> None:
    """Show the job ID: its status, its answer and its cost."""
    job = open_api().call("GET", _job_path(job_id))
    if as_json:
        print_json(job)
        return
    notes.print(f"{job['id']}  {job['status']}  {facts_of(job)}", soft_wrap=True)
    if job["error"]:
        notes.print(job["error"]["message"], markup=False, soft_wrap=True)
    if job["text"] is not None:
        click.echo(job["text"])


@click.command()
@click.argument("job_id", metavar="ID")
@json_option
def cancel(job_id: str, as_json: bool) -> None:
    """Cancel the job ID. An ended job stays as it is. A running job stops within a second or two."""
    job = open_api().call("POST", f"{_job_path(job_id)}/cancel")
    if as_json:
        print_json(job)
        return
    is_stopping = job["status"] == JobState.RUNNING
    out.print(f"{job['id']}  {'running, will be stopped' if is_stopping else job['status']}")


def _job_path(job_id: str) -> str:
    """The job's path. Raises: NotFound for a malformed id, which could lead to another path."""
    parse_id(job_id)
    return f"/v1/jobs/{job_id}"


def facts_of(job: dict[str, Any]) -> str:
    """The job's queue, engine, times, tokens and cost, as far as they are known."""
    facts = [job["queue"], job["engine"] or ""]
    facts += [f"{word} {job[name]:.2f} s" for word, name in (("waited", "wait_s"), ("ran", "run_s")) if job[name]]
    if usage := job["usage"]:
        facts += [f"{usage['prompt_tokens']} + {usage['output_tokens']} tokens", f"{job['cost']['usd']} USD"]
    return "  ".join(fact for fact in facts if fact)
