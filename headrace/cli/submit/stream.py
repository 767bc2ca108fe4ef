"""An answer in the terminal while it is made."""

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import click

from headrace.cli.api import Api, NoAnswer
from headrace.cli.client import facts_of
from headrace.cli.output import notes, print_json_line

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
        _finish(api, str(watched.response_id))


def request(prompt: str, options: dict[str, Any]) -> dict[str, Any]:
    """The body of `POST /v1/responses` for the options of `POST /v1/jobs`."""
    left = dict(options)
    job = {name: left.pop(name) for name in ("lane", "max_wait") if name in left}
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
            click.echo(text, nl=False)
        case {"type": "response.reasoning_text.delta", "delta": str(text)}:
            notes.print(text, end="", style="dim", markup=False, soft_wrap=True)
        case {"type": "response.reasoning_text.done"}:
            notes.print()
        case {"type": "error", "code": "stream_restarted"}:
            click.echo()
            notes.print("The answer begins anew: what came before is void.", style="yellow")


def _finish(api: Api, response_id: str) -> None:
    """End the answer's line, and print what it took, or fail with the reason."""
    job = api.call("GET", f"/v1/jobs/{response_id}")
    if job["text"]:
        click.echo()
    if job["error"] or job["text"] is None:
        reason = job["error"]["message"] if job["error"] else "It has no answer."
        raise click.ClickException(f"{job['id']} {job['status']}: {reason}")
    notes.print(facts_of(job), style="dim", soft_wrap=True)
