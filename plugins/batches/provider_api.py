"""The paid API's files and batches, through the official SDK. Knows nothing of budgets, prices or Postgres."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any, Literal
from uuid import UUID

import httpx2
import openai
from openai.types import Batch, BatchUsage

from headrace.config import Settings
from headrace.domain.attempts import Claim, Usage
from headrace.domain.ids import parse_id, show_id
from headrace.errors import ConfigError, EngineBusy, EngineError, EngineFault, NotFound, PromptRejected
from headrace.http import lines_of
from plugins.batches.provider_lines import BATCH_TIER
from workers.engines.base import Generation, GenerationRequest
from workers.engines.openai.engine import from_failure, from_status, request_body
from workers.engines.openai.stream import ChatCall, billed, usage_of

#: All that a file's upload may take, in seconds, with 200 MB on a line of 3 Mbit/s.
UPLOAD_S = 600.0
#: How many of the account's files and batches are looked through for one of ours, newest first.
LOOK_THROUGH = 1000
ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
#: The key of a batch's metadata by which it is found again.
NAME = "headrace"
#: The provider's last words about a batch.
LAST_STATES = frozenset({"completed", "failed", "expired", "cancelled"})
#: The status of an API that takes no calls just now.
OVERLOADED = 503
#: Its words about a batch that answers no line any more.
VOID_STATES = frozenset({"failed", "cancelling", "cancelled"})


@dataclass(frozen=True, slots=True)
class Told:
    """What the provider says of a batch.

    Attributes:
        file_ids: of its results, those that it has, answers first.
        usage: all that it bills; None if it does not say.
        error: what is wrong with it as a whole; None: nothing.
    """

    provider_id: str
    status: str
    file_ids: tuple[str, ...] = ()
    usage: Usage | None = None
    error: str | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in LAST_STATES


@dataclass(frozen=True, slots=True)
class ProviderResult:
    """One line of a file of results. Attributes: job_id: the line's; None: the line is none that was sent."""

    job_id: UUID | None
    line: dict[str, Any]

    @property
    def usage(self) -> Usage:
        """The tokens that it says were used; none if it says nothing that can be read."""
        try:
            return usage_of(self.line["response"]["body"]["usage"])
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            return Usage()


class BatchApi:
    """The provider's files and batches. Every method raises EngineError: what the provider answered, or did not."""

    def __init__(self, settings: Settings) -> None:
        """Send nothing. Raises: ConfigError without a key."""
        if settings.openai_api_key is None:
            raise ConfigError("The paid API needs a key: set OPENAI_API_KEY.", param="OPENAI_API_KEY")
        self._overflow = settings.overflow
        self._client = openai.OpenAI(
            api_key=settings.openai_api_key.get_secret_value(),
            base_url=settings.openai_base_url,
            timeout=settings.overflow.timeout_s,
            max_retries=0,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def line(self, claim: Claim) -> bytes:
        """The line of a job in the file."""
        request = GenerationRequest(claim.request_id, claim.messages, claim.sampling, model=claim.model)
        body = request_body(self._overflow, self._client.base_url.host, request)
        line = {"custom_id": show_id(claim.job_id), "method": "POST", "url": ENDPOINT, "body": body}
        return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    def find_file(self, name: str) -> str | None:
        """The id of the newest file of this name."""
        with _translated():
            for no, file in enumerate(self._client.files.list(purpose="batch", order="desc")):
                if file.filename == name:
                    return file.id
                if no >= LOOK_THROUGH:
                    return None
        return None

    def upload(self, name: str, content: IO[bytes]) -> str:
        """Send a file. Returns: its id."""
        with _translated():
            sent = self._client.files.create(file=(name, content), purpose="batch", timeout=UPLOAD_S)
        return sent.id

    def find_batches(self, name: str) -> list[Told]:
        """The batches that were made under this name, newest first."""
        with _translated():
            newest = islice(self._client.batches.list(limit=100), LOOK_THROUGH)
            return [_told(batch) for batch in newest if (batch.metadata or {}).get(NAME) == name]

    def create(self, name: str, file_id: str) -> Told:
        """Make the batch of a file. It may be made although this raises: then the error's `may_be_billed` is set."""
        given: dict[str, Any] = {"completion_window": "24h", "metadata": {NAME: name}}
        try:
            with _translated():
                return _told(self._client.batches.create(input_file_id=file_id, endpoint=ENDPOINT, **given))
        except EngineFault as error:
            # An API that fails may fail after it has made the batch; one that is overloaded has not begun.
            cause = error.__cause__
            error.may_be_billed |= isinstance(cause, openai.InternalServerError) and cause.status_code != OVERLOADED
            raise

    def read(self, provider_id: str) -> Told:
        """What the provider says of a batch now."""
        with _translated():
            return _told(self._client.batches.retrieve(provider_id))

    def cancel(self, provider_id: str) -> Told:
        """Ask for the end of a batch."""
        with _translated():
            return _told(self._client.batches.cancel(provider_id))

    def results(self, file_id: str) -> Iterator[ProviderResult]:
        """The lines of a file of results. What is no JSON is a line that was not sent."""
        with _translated(), self._client.files.with_streaming_response.content(file_id) as response:
            for line in lines_of(response.iter_bytes()):
                if line.strip():
                    yield _result(str(line, "utf-8", "replace"))

    def delete(self, file_id: str) -> None:
        """Delete a file. Safe to repeat."""
        with _translated():
            try:
                self._client.files.delete(file_id)
            except openai.NotFoundError:
                return


def answer_of(claim: Claim, line: dict[str, Any]) -> Generation | EngineError:
    """What a line of results says of its job: the answer, or why there is none."""
    response = line.get("response") or {}
    if (status := response.get("status_code")) is None:
        code = str((line.get("error") or {}).get("code") or "unknown")
        return EngineBusy(f"The paid API's batch did not run this line ({code[:80]}).")
    if status != 200:
        return _refusal(status, response.get("body"))
    call = ChatCall(GenerationRequest(claim.request_id, claim.messages, claim.sampling, model=claim.model), None)
    try:
        call.add_whole(response["body"])
        call.tier, call.first_token_s = BATCH_TIER, None
        return call.generation()
    except EngineError as error:
        error.billed_tier = BATCH_TIER
        return error
    except Exception:  # A line may hold anything.
        return billed(EngineFault("The paid API's answer is malformed."))


def _refusal(status: Any, body: Any) -> EngineError:
    said = body.get("error") if isinstance(body, dict) else None
    message = str(said.get("message"))[:1000] if isinstance(said, dict) else ""
    if status in (400, 413, 422):
        return PromptRejected(f"The paid API rejected the request: {message}")
    return EngineBusy(f"The paid API's batch answered {str(status)[:20]}.")


def _result(text: str) -> ProviderResult:
    try:
        line = json.loads(text)
        if not isinstance(line, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError):
        return ProviderResult(None, {})
    try:
        return ProviderResult(parse_id(str(line.get("custom_id"))), line)
    except NotFound:
        return ProviderResult(None, line)


def _told(batch: Batch) -> Told:
    errors = (batch.errors.data if batch.errors else None) or []
    said = "; ".join(f"{each.code}: {each.message}" for each in errors[:3])
    files = tuple(each for each in (batch.output_file_id, batch.error_file_id) if each)
    return Told(batch.id, str(batch.status), files, _usage(batch.usage), said[:1000] or None)


def _usage(said: BatchUsage | None) -> Usage | None:
    if said is None:
        return None
    prompt, output = max(0, said.input_tokens or 0), max(0, said.output_tokens or 0)
    cached = said.input_tokens_details.cached_tokens if said.input_tokens_details else 0
    return Usage(prompt, output, min(max(0, cached or 0), prompt))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except openai.APIStatusError as error:
        raise from_status(error) from error
    except EngineError:
        raise
    except (openai.OpenAIError, httpx2.HTTPError, OSError) as error:
        raise from_failure(error) from error
