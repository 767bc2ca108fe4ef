"""The HTTP API, as the commands of the terminal call it. Every error is one line."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, NoReturn

import click
import httpx2

from headrace.config import Settings
from headrace.stack.report import Report

#: Seconds that one poll may last; must be below the server's limit.
POLL_S = 20
#: Seconds for the server to answer, beyond the length of a poll.
TIMEOUT_S = 30
#: The status of a request that is refused for now.
TOO_MANY = 429
#: What the lines of an event begin with.
DATA = "data:"


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
        """Close its connections."""
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
        request = self._request(method, path, **arguments)
        with self._one_line_errors():
            response = self._http.send(request, stream=True)
            try:
                if response.is_error:
                    response.read()
                    self._refuse(response)
                for line in response.iter_lines():
                    if line.startswith(DATA):
                        yield json.loads(line.removeprefix(DATA))
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


def _error_of(response: httpx2.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


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
