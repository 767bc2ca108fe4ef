"""Types of fields that several requests share, each with its limits and its error message.

vLLM's extra sampling parameters have vLLM's names. Source of their limits: `SamplingParams` and
`v1/worker/gpu/sample/logit_bias.py` of vLLM 0.32.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

import jsonschema_rs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from headrace.domain.answers import MOST_CHOICES
from headrace.domain.fleet import NO_WORKER_REASON, Vacancy
from headrace.domain.jobs import CacheUse
from headrace.domain.prompts import NEUTRAL_EXTRA, CacheChoice, Message, Quality
from headrace.domain.prompts.compression import CompressPart
from headrace.domain.prompts.embeddings import MOST_INPUTS, text_input, token_input

#: The largest whole number of the columns that hold token counts.
INT4_MAX = 2**31 - 1
#: Bytes of a webhook's host with its port. A host name has at most 253 characters. A far longer one does not fit the
#: outbox's index, and its job could not end.
HOST_BYTES_LIMIT = 1000
#: Items whose types an error names.
MOST_KINDS = 8
#: Parameters whose empty object switches something on, with its defaults.
ASKS_EMPTY = frozenset({"web_search_options"})
#: Seconds: a day. A job that may wait longer belongs in a batch system.
MAX_WAIT_LIMIT_S = 86_400


class Request(BaseModel):
    """A request's object: nothing is converted, and nothing unknown is let pass.

    Attributes:
        UNSUPPORTED: OpenAI's fields that Headrace does not support, with what to do instead.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    UNSUPPORTED: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_idle(cls, values: Any) -> Any:
        """Drop fields that ask for nothing: unknown ones that are null, and unsupported ones that are empty.

        An empty list or object, false and 0 are empty, except an empty object for a field of `ASKS_EMPTY`.
        Raises: PydanticCustomError: an unsupported field asks for something.
        """
        if not isinstance(values, dict) or not (cls.UNSUPPORTED or None in values.values()):
            return values
        for name, remedy in cls.UNSUPPORTED.items():
            if values.get(name) not in (None, [], {}, False) or (name in ASKS_EMPTY and values.get(name) == {}):
                raise unsupported(name, remedy, _kinds(values[name]))
        known = names_of(cls)
        return {
            name: value
            for name, value in values.items()
            if name in known or (value is not None and name not in cls.UNSUPPORTED)
        }


@cache
def names_of(schema: type[BaseModel]) -> frozenset[str]:
    """The names of a schema's fields, as a caller spells them."""
    return frozenset(field.alias or name for name, field in schema.model_fields.items())


class Answer(BaseModel):
    """An answer's object."""

    model_config = ConfigDict(frozen=True)


class Page(Answer):
    """One page of a list. A subclass says what is listed."""

    object: Literal["list"] = "list"
    data: list[Any]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, found: Sequence[Any], limit: int) -> Self:
        """A page of the first `limit` of these objects. Another page follows if there are more."""
        data = list(found[:limit])
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first, last_id=last, has_more=len(found) > limit)


#: Why a job may wait for long.
Unserved = Annotated[
    Literal["no_worker"] | None,
    Field(description="no_worker: no worker serves the queue now, so its jobs wait, and may expire; else null."),
]
WorkerIn = Annotated[
    float | None,
    Field(description="Seconds until the host on order is likely ready, where none serves; null without one."),
]


def unserved(vacancy: Vacancy | None) -> dict[str, Any]:
    """The values of the fields `reason` and `worker_in_s`."""
    if vacancy is None:
        return {"reason": None, "worker_in_s": None}
    return {"reason": NO_WORKER_REASON, "worker_in_s": vacancy.worker_in_s}


def refusal(message: str, code: str = "invalid_value", param: str | None = None) -> PydanticCustomError:
    """A validator's error. `param` names the field if the validator checks a whole object."""
    # pydantic takes a message for a template, in which braces are placeholders.
    return PydanticCustomError(code, "{message}", {"message": message, "param": param})


def unsupported(name: str, remedy: str, kinds: str = "") -> PydanticCustomError:
    """The refusal of an OpenAI parameter that Headrace does not support. Args: kinds: the types of its items."""
    return refusal(f"Unsupported parameter: '{name}'{kinds}. {remedy}", "unsupported_parameter", name)


def _kinds(given: Any) -> str:
    """The types of a list's first items, such as those of `tools`, for a message; empty where they have none."""
    items = given[:MOST_KINDS] if isinstance(given, list) else []
    kinds = {str(each["type"])[:80]: None for each in items if isinstance(each, dict) and "type" in each}
    return f" of type {', '.join(repr(kind) for kind in kinds)}" if kinds else ""


def _usd(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise refusal("Input should be an amount in USD, as a number or a string")
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise refusal("Input should be an amount in USD, as a number or a string") from None
    # A zero may have more decimal places than the column's nine.
    return amount or Decimal(0)


#: How many answers to make.
Choices = Annotated[int, Field(ge=1, le=MOST_CHOICES)]


def _deadline(value: Any) -> Any:
    if isinstance(value, str):
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            raise refusal("Input should be unix seconds or an ISO 8601 time with its zone") from None
        if at.tzinfo is None:
            raise refusal("The time needs a zone, e.g. a final Z for UTC")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise refusal("Input should be unix seconds or an ISO 8601 time with its zone")
    else:
        at = _from_unix(value)
    try:
        return at.astimezone(UTC)
    except OverflowError:
        # Postgres would store it, but Python could not read the row: its years end with 9999.
        raise refusal("The time is out of range") from None


def _from_unix(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise refusal("The time is out of range") from None


def _webhook_url(url: str) -> str:
    if " " in url or not url.isprintable():
        raise refusal("The webhook URL must not contain spaces or control characters.", "webhook_url_not_allowed")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")  # As a client does to connect: it refuses empty and overlong labels.
    except ValueError:
        raise refusal("Input should be an http(s) URL", "webhook_url_not_allowed") from None
    if parts.scheme not in ("http", "https") or not host:
        raise refusal("The webhook must be an http(s) URL with a host.", "webhook_url_not_allowed")
    if parts.username is not None or parts.password is not None:
        raise refusal("The webhook URL must not carry a user name or password.", "webhook_url_not_allowed")
    if len(parts.netloc.encode()) > HOST_BYTES_LIMIT:
        raise refusal("The webhook's host is too long: no name is.", "webhook_url_not_allowed")
    return url


#: What a schema is checked by: the drafts that differ in what they refuse. None of them asks a server for a part.
_DRAFTS: Sequence[jsonschema_rs.Validator] = (
    jsonschema_rs.Draft202012Validator({"$ref": "https://json-schema.org/draft/2020-12/schema"}, offline=True),
    jsonschema_rs.Draft7Validator({"$ref": "http://json-schema.org/draft-07/schema#"}, offline=True),
    jsonschema_rs.Draft4Validator({"$ref": "http://json-schema.org/draft-04/schema#"}, offline=True),
)


def _json_schema(value: dict[str, Any], param: str | None = None) -> dict[str, Any]:
    """The schema, if it is one by any draft. Whether a grammar can be made of it, its engine says."""
    if not any(draft.is_valid(value) for draft in _DRAFTS):
        fault = next(_DRAFTS[0].iter_errors(value))
        pointer = "".join(f"/{part}" for part in fault.instance_path)
        # The types are alternatives, of which the message would say no more than this.
        is_no_type = fault.instance_path[-1:] == ["type"]
        what = f"{json.dumps(fault.instance)[:80]} is no type" if is_no_type else fault.message[:200]
        raise refusal(f"it is no JSON schema: at {pointer[:160]}, {what}", param=param)
    return value


def _response_format(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Chat completions' spelling: `{"type": "json_schema", "json_schema": {"name", "schema", "strict"}}`."""
    kind = value.get("type")
    allowed = {"type", "json_schema"} if kind == "json_schema" else {"type"}
    if kind not in ("text", "json_object", "json_schema"):
        raise refusal("'type' should be 'text', 'json_object' or 'json_schema'")
    # Some clients send every field that they know.
    value = {name: each for name, each in value.items() if each is not None}
    if unknown := set(value) - allowed:
        raise refusal(f"it has an unknown field: {min(unknown)[:80]}")
    schema = value.get("json_schema")
    if kind == "json_schema" and not (isinstance(schema, dict) and isinstance(schema.get("schema"), dict)):
        raise refusal("'json_schema' should be an object with a 'schema' object")
    if isinstance(schema, dict) and isinstance(schema.get("schema"), dict):
        _json_schema(schema["schema"], "json_schema.schema")
    if isinstance(schema, dict) and (unknown := set(schema) - {"name", "description", "schema", "strict"}):
        raise refusal(f"'json_schema' has an unknown field: {min(unknown)[:80]}")
    return value


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _inputs(value: Any) -> tuple[Message, ...]:
    """A text, token ids, or a list of either: each is an input."""
    if not value or not isinstance(value, str | list):
        raise refusal("it should be a text, token ids, or a list of either, and not empty")
    each = value if isinstance(value, list) and not _is_id(value[0]) else [value]
    if len(each) > MOST_INPUTS:
        raise refusal(f"it may have at most {MOST_INPUTS} inputs")
    return tuple(_input(one, None if len(each) == 1 else str(number)) for number, one in enumerate(each))


def _input(value: Any, param: str | None) -> Message:
    """Args: param: the place in the list, if there is more than one."""
    if not value or not isinstance(value, str | list):
        raise refusal("an input should be a text or token ids, and not empty", param=param)
    if isinstance(value, str):
        return text_input(value)
    if not all(_is_id(one) and 0 <= one <= INT4_MAX for one in value):
        raise refusal("token ids should be whole numbers, at least 0", param=param)
    return token_input(value)


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _digits(value: Any) -> Any:
    """A query's text for an integer: pydantic alone would read "0.0" and "1_0" as integers, too."""
    if isinstance(value, str) and not (value.isascii() and value.removeprefix("-").isdecimal()):
        raise refusal("it should be a whole number")
    return value


def _plain(usd: Decimal) -> str:
    return format(usd, "f")


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


Usd = Annotated[
    Decimal,
    BeforeValidator(_usd, json_schema_input_type=float | str),
    Field(ge=0, max_digits=18, decimal_places=9, allow_inf_nan=False),
]
QueryInt = Annotated[int, BeforeValidator(_digits), Field(strict=False)]
Deadline = Annotated[datetime, BeforeValidator(_deadline, json_schema_input_type=float | str)]
WebhookUrl = Annotated[str, Field(max_length=2048), AfterValidator(_webhook_url)]
MaxTokens = Annotated[int, Field(ge=1, le=INT4_MAX)]
MaxWait = Annotated[float, Field(gt=0, le=MAX_WAIT_LIMIT_S)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Stop = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)]],
    Field(max_length=4, fail_fast=True),
    BeforeValidator(_one_or_more, json_schema_input_type=str | list[str]),
]
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]
EndUser = Annotated[str, Field(min_length=1, max_length=128)]
Speaker = Annotated[str, Field(max_length=64)]
JsonSchema = Annotated[dict[str, Any], AfterValidator(_json_schema)]
ResponseFormat = Annotated[dict[str, Any], AfterValidator(_response_format)]
CacheField = Annotated[
    CacheChoice | None,
    Field(
        description="Where there is a cache: never: neither use nor fill it; exact: an identical job's answer will do, "
        "however it was sampled; semantic: so will the answer to the same question in other words. By default as the "
        "pool says, and only with temperature 0 or a seed."
    ),
]
Compress = Annotated[
    Literal["off", "plain"] | None,
    Field(
        description="Shortens the prompt before a model gets it. plain: drops repetitions and white space. By default "
        "as the pool says."
    ),
]
CompressAlso = Annotated[
    list[CompressPart] | None,
    Field(
        max_length=2,
        description="Compresses these parts too: system, the system prompt; last_turn, the user's last message.",
    ),
]
QualityField = Annotated[
    Quality | None,
    Field(
        description="For the model `auto`: `high` sends the job to the best pool of its rule at once, and to no other."
    ),
]
Inputs = Annotated[
    tuple[Message, ...],
    PlainValidator(_inputs, json_schema_input_type=str | list[str] | list[int] | list[list[int]]),
]
Dimensions = Annotated[int, Field(ge=1, le=65_536)]

#: Money is sent as a string, so that a client's JSON parser does not turn it into a float.
UsdOut = Annotated[Decimal, PlainSerializer(_plain, return_type=str)]
TimeOut = Annotated[datetime, PlainSerializer(_iso, return_type=str)]
#: What the cache had for a job, in an answer about it.
Cache = Annotated[
    CacheUse | None,
    Field(
        description="hit: it was given the answer of an identical job; shared: that of one under way; semantic: that "
        "to the same question in other words; miss: there was none; null: not searched."
    ),
]
ServedBy = Annotated[
    str | None, Field(description="The job whose answer it was given, or waits for; null: its answer is its own.")
]
OriginalTokens = Annotated[
    int | None, Field(description="The prompt's tokens before it was compressed; null: it was not.")
]
Attempts = Annotated[int, Field(description="Starts so far. Above 1, an engine failed or a worker died in between.")]
WaitS = Annotated[
    float | None,
    Field(description="Seconds from acceptance, or from not_before, to the first start, or to the end without one."),
]
RunS = Annotated[
    float | None, Field(description="Seconds from the first start to the end, with the pauses between attempts.")
]


#: A core of vLLM dies of more than 1,024 biases, and of more than 128 tokens that end an answer, the model's own
#: included.
MOST_BIASES = 1_000
MOST_STOP_TOKENS = 64
#: Characters of the JSON of `chat_template_kwargs`.
KWARGS_CHARS_LIMIT = 16_384
#: Arguments that Headrace itself gives the chat template.
RESERVED = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "chat_template", "tokenize"}
)

_NAMES = frozenset(NEUTRAL_EXTRA)


def _template_kwargs(given: dict[str, Any]) -> dict[str, Any]:
    if reserved := RESERVED.intersection(given):
        raise refusal(f"'{min(reserved)}' cannot be set")
    if len(json.dumps(given)) > KWARGS_CHARS_LIMIT:
        raise refusal(f"it may have at most {KWARGS_CHARS_LIMIT} characters of JSON")
    return given


Penalty = Annotated[float, Field(ge=-2, le=2)]
TemplateKwargs = Annotated[dict[str, Any], AfterValidator(_template_kwargs)]
TokenId = Annotated[int, Field(ge=0, le=INT4_MAX)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class ExtraSamplingRequest(Request):
    """The part of a request that says how an open model samples."""

    top_k: Annotated[int, Field(ge=-1, le=INT4_MAX)] | None = Field(
        None, description="Only the k likeliest tokens; -1 or 0: all. This and the next ten are for own models."
    )
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Only tokens at least so likely, as a share of the likeliest one's probability."
    )
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = Field(
        None, description="Above 1: avoid tokens of the prompt and of the answer so far."
    )
    presence_penalty: Penalty | None = Field(None, description="Above 0: avoid tokens of the answer so far.")
    frequency_penalty: Penalty | None = Field(None, description="The same, in proportion to how often they came.")
    logit_bias: dict[Annotated[str, Field(pattern="^[0-9]{1,10}$")], Bias] | None = Field(
        None, max_length=MOST_BIASES, description="Added to the logits of tokens, by the model's own token ids."
    )
    min_tokens: Annotated[int, Field(ge=0, le=INT4_MAX)] | None = Field(
        None, description="The answer has at least this number of tokens."
    )
    stop_token_ids: list[TokenId] | None = Field(
        None, max_length=MOST_STOP_TOKENS, description="Tokens that end the answer, by the model's own ids."
    )
    ignore_eos: bool | None = Field(None, description="Go on to max_tokens, past the token that ends an answer.")
    skip_special_tokens: bool | None = Field(None, description="False: special tokens are part of the text.")
    chat_template_kwargs: TemplateKwargs | None = Field(
        None, description='Variables of the model\'s chat template, such as `{"enable_thinking": false}`.'
    )

    @property
    def extra_sampling(self) -> dict[str, Any] | None:
        """The given parameters, by name; None where none is."""
        given = self.model_fields_set & _NAMES
        return {name: value for name in sorted(given) if (value := getattr(self, name)) is not None} or None
