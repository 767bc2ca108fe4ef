"""The API in the terminal: its requests, each error as one line, and the commands `headrace get` and `cancel`."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

import click
import httpx2

from headrace.cli.output import json_option, notes, out, print_json, say
from headrace.config import Settings
from headrace.domain.ids import parse_id
from headrace.domain.states import TERMINAL, JobState
from headrace.http import lines_of
from headrace.stack.state_folder import StackReport, no_stack

#: Seconds that one poll may last; must be below the server's limit.
POLL_S = 20
#: Seconds for the server to answer, beyond the length of a poll.
TIMEOUT_S = 30
#: The status of a request that is refused for now.
TOO_MANY = 429
#: How long one request is tried again while the API is away, in seconds.
PATIENCE_S = 600.0
#: Between such tries, in seconds.
AWAY_S = 2.0
#: What a server in trouble, or a proxy before it, answers.
AWAY = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
#: What the lines of an event begin with.
DATA = b"data:"


class ApiRefused(click.ClickException):
    """The API refuses a request.

    Attributes:
        status: the HTTP status.
        code: the error's code; None in an answer that is not the API's.
    """

    def __init__(self, message: str, status: int, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class TryLater(ApiRefused):
    """The API refuses a request for now. Attributes: after_s: when the same request may succeed."""

    def __init__(self, message: str, after_s: float, status: int = TOO_MANY, code: str | None = None) -> None:
        super().__init__(message, status, code)
        self.after_s = after_s


class NoAnswer(click.ClickException):
    """The API cannot be reached, or the connection was lost."""


def open_api() -> "Api":
    """The API of the settings, until the command ends. Raises: ConfigError. ClickException."""
    return click.get_current_context().with_resource(closing(Api(Settings.load())))


class Api:
    """The HTTP API for the commands. Its methods may be called by several threads at once."""

    def __init__(self, settings: Settings) -> None:
        self._url, key = _address(settings)
        if not (key.isascii() and key.isprintable()):
            raise click.ClickException(
                "HEADRACE_API_KEY is not an API key of Headrace: it has characters that no key has."
            )
        headers = {"Authorization": f"Bearer {key}"}
        try:
            # The callers bound the connections, by their number of threads.
            self._http = httpx2.Client(
                base_url=self._url, headers=headers, timeout=POLL_S + TIMEOUT_S, limits=httpx2.Limits()
            )
        except httpx2.InvalidURL as error:
            raise click.ClickException(f"HEADRACE_URL '{self._url}' is not a URL: {error}.") from error

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and return the answer. Raises: ApiRefused. TryLater. NoAnswer. click.ClickException."""
        request = self._request(method, path, **arguments)
        with self._one_line_errors():
            response = self._http.send(request)
            if response.is_error:
                self._refuse(response)
            answered: dict[str, Any] = response.json()
        return answered

    def events(self, method: str, path: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Send one request, and yield the events of the stream that answers it. Raises: as `call`."""
        with self._streamed(method, path, **arguments) as response:
            for line in lines_of(response.iter_bytes()):
                if line.startswith(DATA):
                    yield json.loads(line.removeprefix(DATA))

    def lines(self, path: str, **arguments: Any) -> Iterator[bytes]:
        """Read a file of lines, and yield each with its end. Raises: as `call`. NoAnswer, also for a part of a line."""
        with self._streamed("GET", path, **arguments) as response:
            for line in lines_of(response.iter_bytes()):
                if not line.endswith(b"\n"):
                    raise NoAnswer(f"The answer of {self._url} was cut off.")
                yield line

    @contextmanager
    def _streamed(self, method: str, path: str, **arguments: Any) -> Iterator[httpx2.Response]:
        request = self._request(method, path, **arguments)
        with self._one_line_errors():
            response = self._http.send(request, stream=True)
            try:
                if response.is_error:
                    response.read()
                    self._refuse(response)
                yield response
            finally:
                response.close()

    def _request(self, method: str, path: str, **arguments: Any) -> httpx2.Request:
        try:
            return self._http.build_request(method, path, **arguments)
        except ValueError as error:
            raise click.ClickException(f"This cannot be sent as JSON: {error}.") from error

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx2.UnsupportedProtocol as error:
            raise click.ClickException(
                f"HEADRACE_URL must begin with http:// or https://, and is '{self._url}'."
            ) from error
        except httpx2.TransportError as error:
            reason = f"{type(error).__name__}: {error}"
            raise NoAnswer(
                f"No answer from {self._url} ({reason}). Is it running? HEADRACE_URL says where it is."
            ) from error
        except (httpx2.InvalidURL, ValueError) as error:
            raise click.ClickException(f"{self._url} does not answer as Headrace does: {error}.") from error

    def _refuse(self, response: httpx2.Response) -> NoReturn:
        """Raise the error that an answer is. A proxy's error page has no code."""
        status, known = response.status_code, _error_of(response)
        message = str(known.get("message") or f"{self._url} answered {status}.")
        if (after := response.headers.get("retry-after", "")).isdigit():
            raise TryLater(message, float(after), status, known.get("code"))
        raise ApiRefused(message, status, known.get("code"))


Answer = TypeVar("Answer")


def patiently(ask: Callable[[], Answer], tell: Callable[[str], None]) -> Answer:
    """What `ask` returns. It is asked again while the API is away, or says when to come back.

    Args: tell: gets each reason, and how long the pause is.
    Raises: as `ask`, for good, or `PATIENCE_S` after the first failure.
    """
    give_up_at: float | None = None
    while True:
        try:
            return ask()
        except (ApiRefused, NoAnswer) as error:
            pause_s, now = _pause_s(error), time.monotonic()
            give_up_at = give_up_at or now + PATIENCE_S
            if pause_s is None or now + pause_s > give_up_at:
                raise
            tell(f"{error.message} Trying again in {pause_s:.0f} s.")
        time.sleep(pause_s)


def _pause_s(error: ApiRefused | NoAnswer) -> float | None:
    """When the same request may succeed; None if it never will."""
    if isinstance(error, TryLater):
        return error.after_s
    return AWAY_S if isinstance(error, NoAnswer) or error.status in AWAY else None


def wait_for_end(
    api: Api, job_id: str, poll_s: float = POLL_S, note: Callable[[str], object] = lambda status: None
) -> dict[str, Any]:
    """The job once it has ended. Args: note: gets its status while it has not. Raises: as `Api.call`."""
    while True:
        job = api.call("GET", f"/v1/jobs/{job_id}", params={"wait": poll_s})
        if job["status"] in TERMINAL:
            return job
        note(job["status"])


def _error_of(response: httpx2.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def _address(settings: Settings) -> tuple[str, str]:
    """The API's URL and key: both from the settings, or the stack that runs on this machine, with a key of its own.

    A key alone goes to no address that was only assumed: another system may answer there.
    """
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    if "url" in settings.model_fields_set:
        if key is None:
            raise click.ClickException("HEADRACE_URL is set without HEADRACE_API_KEY: set both, or neither.")
        # OpenAI's SDK wants the path as well.
        return settings.url.rstrip("/").removesuffix("/v1"), key
    try:
        stack = StackReport.read(settings.state_dir / "stack.json")
    except OSError:
        missing = "no API key is set" if key is None else "HEADRACE_API_KEY is set without HEADRACE_URL"
        raise click.ClickException(
            f"{no_stack(settings)}, and {missing}: start one with 'headrace up', or set HEADRACE_URL and "
            "HEADRACE_API_KEY ('headrace keys create APP' makes a key)."
        ) from None
    return stack.url, key or stack.api_key


def watch_to_end(api: Api, job_id: str) -> dict[str, Any]:
    """The job once it has ended; a terminal shows its status. If the caller stops waiting, the job goes on."""
    try:
        with notes.status(job_id) as line:
            poll_s = 1 if notes.is_terminal else POLL_S
            return wait_for_end(api, job_id, poll_s, lambda status: line.update(f"{job_id} {status}"))
    except KeyboardInterrupt:
        message = f"Stopped waiting. The job goes on: 'headrace get {job_id} --wait' waits for it again."
        raise click.ClickException(message) from None


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--wait", "is_awaited", is_flag=True, help="Stay until it has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print the API's own answer.")
def get(job_id: str, is_awaited: bool, as_json: bool) -> None:
    """Show the job ID: its status, its answer and its cost."""
    api, path = open_api(), _job_path(job_id)
    job = watch_to_end(api, job_id) if is_awaited else api.call("GET", path)
    if as_json:
        print_json(job)
        return
    notes.print(f"{job['id']}  {job['status']}  {facts_of(job)}", soft_wrap=True)
    if job["error"]:
        notes.print(job["error"]["message"], markup=False, soft_wrap=True)
    if job["text"] is not None:
        say(job["text"])


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
