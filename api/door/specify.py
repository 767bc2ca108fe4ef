"""Turns a draft into a job's specification: looks up its model, counts its tokens, and checks what depends on both."""

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from api.door.catalogue import Catalogue, Model
from api.door.drafts import Draft
from headrace.config import Settings
from headrace.config.rules import RuleSettings
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.jobs import Idempotency, JobSpec
from headrace.domain.prompts import Message, ReasoningEffort, Sampling, extra_of_own_engines, template_variables
from headrace.domain.prompts.compression import Compression
from headrace.domain.prompts.embeddings import MOST_TOKENS
from headrace.domain.queues import Lane, Overflow
from headrace.errors import ContextLengthExceeded, InvalidRequest, PermissionDenied
from headrace.policies.compression import chosen
from headrace.policies.routing import is_sampled
from headrace.policies.tokens import LONG_CHARS, InputTokenizer

#: Log probabilities of one answer, alternatives included: about 40 MB of JSON, which Postgres stores within seconds.
MOST_LOGPROBS_IN_ALL = 500_000
#: Above this many characters, a cheap lower bound of a prompt's tokens is checked before they are counted.
LONG_PROMPT_CHARS = 16_384
#: Below it vLLM takes the likeliest token each time. Source: `SamplingParams` of vLLM 0.32.
GREEDY_BELOW = 1e-5
TOOLS_NOT_SUPPORTED = "tools_not_supported"
#: How far ahead a job may start.
LATEST_START = timedelta(days=30)
#: Names that are reserved for one machine or one network. Source: RFC 6761, RFC 6762, ICANN's resolution of 2024-07-29.
PRIVATE_SUFFIXES = (".localhost", ".local", ".internal")


def specify(
    draft: Draft, app: App, catalogue: Catalogue, settings: Settings, idempotency: Idempotency | None = None
) -> JobSpec:
    """Look up the model, count the prompt, and fill in the defaults.

    Raises: PermissionDenied. ModelNotFound. ContextLengthExceeded. InvalidRequest. StoreUnavailable.
    """
    check_lane(draft.lane, app, draft.spelling.lane)
    _check_times(draft)
    check_webhook(draft.webhook_url, f"{draft.spelling.own_prefix}webhook", settings)
    model = catalogue.find(draft.model, is_embedding=draft.is_embedding)
    _check_model(draft, model)
    prompt_tokens, max_tokens = _measure(draft, model, app, catalogue, settings)
    start = _start(draft)
    job_id = draft.job_id or new_id()
    return JobSpec(
        id=job_id,
        app_id=app.id,
        model=model.name,
        adapter=model.adapter,
        pool=model.pool,
        lane=draft.lane,
        messages=draft.messages,
        sampling=_sampling(draft, max_tokens, _compression(draft, model, settings)),
        prompt_tokens=prompt_tokens,
        max_wait_s=draft.max_wait_s or _default_max_wait_s(draft, model.pool, settings),
        deadline=draft.deadline,
        not_before=start,
        start_after=start,
        overflow=_overflow(draft, model.pool, settings),
        max_cost_usd=draft.max_cost_usd,
        metadata=draft.metadata,
        webhook_url=draft.webhook_url,
        end_user=draft.end_user,
        background=draft.background,
        stream=draft.stream,
        is_stored=draft.is_stored,
        idempotency=idempotency,
        rule=draft.rule,
        is_shadowed=_is_shadowed(draft, job_id, settings.rules.get(draft.rule or "")),
        notes=draft.notes,
    )


def _measure(draft: Draft, model: Model, app: App, catalogue: Catalogue, settings: Settings) -> tuple[int, int]:
    """The tokens of the prompt and the most of one answer, once both are known to fit."""
    # Only a few long prompts are counted at once, apps in turn. A short prompt does not wait for them.
    with catalogue.long_counts.hold(app.id) if draft.templated_chars > LONG_CHARS else nullcontext():
        prompt_tokens = _count(draft, model)
    max_tokens = 0 if draft.is_embedding else _max_tokens(draft, model, prompt_tokens)
    _check_min_tokens(draft, max_tokens)
    _check_logprobs(draft, model, draft.n * max_tokens)
    if draft.n > 1:
        is_paid, kv_tokens = settings.pools[model.pool].is_paid, catalogue.fleet(model.pool).kv_tokens
        _check_choices(draft, prompt_tokens, max_tokens, kv_tokens=kv_tokens, is_paid=is_paid)
    return prompt_tokens, max_tokens


def _is_shadowed(draft: Draft, job_id: UUID, rule: RuleSettings | None) -> bool:
    # A shadow copies the texts, and of an unstored job nothing may be kept. One text is compared: no calls of tools.
    may_be = draft.is_stored and draft.tools is None and draft.n == 1
    return rule is not None and may_be and is_sampled(job_id, rule.shadow_share)


def _default_max_wait_s(draft: Draft, pool: str, settings: Settings) -> float:
    return settings.lane(draft.lane, pool).default_max_wait_s(is_interactive=draft.stream or not draft.background)


def _compression(draft: Draft, model: Model, settings: Settings) -> Compression | None:
    is_as_sent = draft.is_embedding or draft.is_plain
    if is_as_sent and draft.compress.method in (None, "off"):
        return None
    try:
        if is_as_sent:
            what = "An 'input' is embedded" if draft.is_embedding else "A plain prompt is continued"
            raise InvalidRequest(f"{what} as it is: leave it out.", param="compress")
        return chosen(draft.compress, settings.pools[model.pool])
    except InvalidRequest as error:
        raise InvalidRequest(str(error), param=f"{draft.spelling.own_prefix}{error.param}") from error


def _sampling(draft: Draft, max_tokens: int, compression: Compression | None) -> Sampling:
    return Sampling(
        max_tokens=max_tokens,
        temperature=draft.temperature,
        top_p=draft.top_p,
        stop=draft.stop,
        seed=draft.seed,
        response_format=draft.response_format,
        top_logprobs=draft.top_logprobs,
        reasoning_effort=draft.reasoning_effort,
        dimensions=draft.dimensions,
        extra=draft.extra_sampling,
        tools=draft.tools,
        compression=compression,
        n=draft.n,
    )


def must_stay(draft: Draft, *, names_paid_tokens: bool) -> str | None:
    """The field for which the paid API has no word; None if it may answer. Args: as of `extra_of_own_engines`."""
    if draft.is_plain:
        return draft.spelling.prompt
    return next(iter(extra_of_own_engines(draft.extra_sampling, names_paid_tokens=names_paid_tokens)), None)


def _overflow(draft: Draft, pool: str, settings: Settings) -> Overflow:
    """Whether the paid API may answer: never, if the draft asks for what it has no word for.

    Raises: InvalidRequest that names the field for which it has no word, if the paid API would have to answer.
    """
    if draft.is_embedding:
        return Overflow.NEVER  # The paid API gets prompts alone.
    is_paid = settings.pools[pool].is_paid
    field = must_stay(draft, names_paid_tokens=is_paid)
    if field is not None and (is_paid or draft.overflow is Overflow.ONLY):
        if draft.is_plain:
            message = "The paid API, which would answer, continues no plain text: send it to POST /v1/chat/completions."
            raise InvalidRequest(message, code="unsupported_parameter", param=field)
        message = f"Unsupported parameter: '{field}'. The paid API, which would answer, has no such parameter."
        raise InvalidRequest(f"{message} Leave it out.", code="unsupported_parameter", param=field)
    return draft.overflow if field is None else Overflow.NEVER


def check_lane(lane: Lane, app: App, param: str) -> None:
    """Args: param: the field that names the lane. Raises: PermissionDenied."""
    if app.lanes is None or lane in app.lanes:
        return
    open_to_it = ", ".join(f"'{lane}'" for lane in Lane if lane in app.lanes) or "none"
    raise PermissionDenied(
        f"This app may not use the lane '{lane}'. Open to it: {open_to_it}.",
        code="tier_not_allowed",
        param=param,
    )


def _check_times(draft: Draft) -> None:
    """Checked here, not when the body is parsed: a replay after the deadline must still find its job.

    Raises: InvalidRequest: a deadline in the past, or a delayed start that makes no sense.
    """
    if draft.deadline and draft.deadline <= datetime.now(UTC):
        param = f"{draft.spelling.own_prefix}deadline"
        raise InvalidRequest("The deadline is in the past.", code="deadline_in_past", param=param)
    if (start := _start(draft)) is None:
        return
    param = f"{draft.spelling.own_prefix}not_before"
    if draft.stream or not draft.background:
        message = "Only a job in the background can start later: no caller waits that long."
        raise InvalidRequest(f"{message} Send it to POST /v1/jobs, or in the background.", param=param)
    if start > datetime.now(UTC) + LATEST_START:
        raise InvalidRequest(f"A job may start at most {LATEST_START.days} days from now.", param=param)
    if draft.deadline and draft.deadline <= start:
        raise InvalidRequest("The deadline passes before the job may start.", param=param)


def _start(draft: Draft) -> datetime | None:
    """When a delayed start is; None if the job may start at once."""
    return draft.not_before if draft.not_before and draft.not_before > datetime.now(UTC) else None


def check_webhook(url: str | None, param: str, settings: Settings) -> None:
    """Args: param: the field that names the URL. Raises: InvalidRequest."""
    if url and not settings.webhooks.allow_private and not _is_public_https(url):
        raise InvalidRequest(
            "The webhook must be an https URL of a public host. For development, the operator of this API can allow "
            "others: HEADRACE_WEBHOOKS__ALLOW_PRIVATE=true.",
            code="webhook_url_not_allowed",
            param=param,
        )


def _check_model(draft: Draft, model: Model) -> None:
    """Check that the model can do what is asked. Raises: InvalidRequest that names the field."""
    _check_kind(draft, model)
    _check_tools(draft, model)
    _check_effort(draft, model)


def _check_effort(draft: Draft, model: Model) -> None:
    is_paid = draft.overflow is Overflow.ONLY
    if draft.reasoning_effort is not None and not (model.paid_has_effort if is_paid else model.has_effort):
        who = f"What answers for '{model.name}' at the paid API" if is_paid else f"The model '{model.name}'"
        raise InvalidRequest(
            f"{who} cannot be told how much to think: leave '{draft.spelling.effort}' out.", param=draft.spelling.effort
        )


def _check_kind(draft: Draft, model: Model) -> None:
    """Refuse a prompt for a model that makes embeddings, and inputs for a model that answers prompts.

    Raises: InvalidRequest that names the field.
    """
    tokenizer, param = model.tokenizer, draft.spelling.prompt
    if not draft.is_embedding:
        if isinstance(tokenizer, InputTokenizer):
            message = f"The model '{model.name}' makes embeddings, and answers no prompts: name another model."
            raise InvalidRequest(message, param=param)
        return
    if not isinstance(tokenizer, InputTokenizer):
        message = f"The model '{model.name}' answers prompts, and makes no embeddings: name another model."
        raise InvalidRequest(message, param=param)
    if draft.overflow is Overflow.ONLY:
        message = "No paid API makes embeddings here: leave 'overflow' out."
        raise InvalidRequest(message, param=f"{draft.spelling.own_prefix}overflow")
    if draft.dimensions is not None and not tokenizer.is_matryoshka:
        message = f"The vectors of '{model.name}' have one length, which is lost by cutting: leave 'dimensions' out."
        raise InvalidRequest(message, param="dimensions")


def _check_tools(draft: Draft, model: Model) -> None:
    """Without this, a template without tools would silently leave them out of the prompt.

    Raises: InvalidRequest that names the field: the model cannot use the tools, or read the calls of earlier turns.
    """
    if draft.tools is None and not any(message.tool_calls for message in draft.messages):
        return
    param = "tools" if draft.tools is not None else draft.spelling.prompt
    if not model.has_tool_template:
        message = (
            f"The model '{model.name}' calls no tools: its chat template has no word for them. Leave out 'tools' and "
            "turns with calls, or name another model. The operator can set the pool's 'chat_template'."
        )
        raise InvalidRequest(message, code=TOOLS_NOT_SUPPORTED, param=param)
    if draft.tools is not None and draft.tools.choice != "none" and not model.has_tool_parser:
        message = (
            f"The calls of the model '{model.name}' are not read: its pool has no 'tool_parser'. Leave 'tools' out, or "
            "name another model."
        )
        raise InvalidRequest(message, code=TOOLS_NOT_SUPPORTED, param=param)


def _check_choices(draft: Draft, prompt_tokens: int, max_tokens: int, *, kv_tokens: int | None, is_paid: bool) -> None:
    """Check that all of several answers can be made, and held at once.

    Args:
        kv_tokens: the KV cache of the pool's workers; None while it is unknown, or the paid API answers.
        is_paid: the paid API alone answers for the model.
    Raises: InvalidRequest.
    """
    if not is_paid and draft.temperature is not None and draft.temperature < GREEDY_BELOW:
        message = f"With temperature 0 all {draft.n} answers are the same: leave 'n' out, or give a temperature."
        raise InvalidRequest(f"Invalid 'n': {message}", param="n")
    if kv_tokens is not None and (needed := prompt_tokens + draft.n * max_tokens) > kv_tokens:
        raise InvalidRequest(
            f"Invalid 'n': {draft.n} answers of {max_tokens} tokens and a prompt of {prompt_tokens} take {needed} "
            f"tokens, and a worker holds {kv_tokens} at once: ask for fewer answers, or lower "
            f"{draft.spelling.max_tokens}.",
            param="n",
        )


def _check_min_tokens(draft: Draft, max_tokens: int) -> None:
    """Raises: InvalidRequest: the answer would have to be longer than it may be."""
    least = (draft.extra_sampling or {}).get("min_tokens", 0)
    if least > max_tokens:
        message = f"Invalid 'min_tokens': {least} is more than the answer may have, {max_tokens}."
        raise InvalidRequest(message, param="min_tokens")


def _check_logprobs(draft: Draft, model: Model, max_tokens: int) -> None:
    if draft.top_logprobs is None:
        return
    if draft.top_logprobs > model.most_logprobs:
        raise InvalidRequest(
            f"The model '{model.name}' gives at most {model.most_logprobs} alternatives to a token.",
            param="top_logprobs",
        )
    if (asked := max_tokens * (1 + draft.top_logprobs)) > MOST_LOGPROBS_IN_ALL:
        raise InvalidRequest(
            f"An answer of {max_tokens} tokens with {draft.top_logprobs} alternatives to each has {asked} log "
            f"probabilities, and may have {MOST_LOGPROBS_IN_ALL}: ask for fewer, or lower {draft.spelling.max_tokens}.",
            param="top_logprobs",
        )


def _is_public_https(url: str) -> bool:
    """As far as it can be checked without a resolver. The sender checks the resolved address at every attempt."""
    parts = urlsplit(url)
    host = (parts.hostname or "").encode("idna").decode().removesuffix(".")
    # Names without a dot, and names with these suffixes, are never in the public DNS.
    if parts.scheme != "https" or host.endswith(PRIVATE_SUFFIXES):
        return False
    try:
        return ipaddress.ip_address(_without_shorthand(host)).is_global
    except ValueError:
        return "." in host


def _without_shorthand(host: str) -> str:
    """An IPv4 address as four numbers: resolvers also accept `127.1`, `2130706433` and `0x7f.1` for 127.0.0.1."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host


def _count(draft: Draft, model: Model) -> int:
    """The prompt's tokens. Refuses a prompt that leaves no room for an answer, by its lower bound or its count."""
    tokenizer, limit = model.tokenizer, model.max_model_tokens
    asked = draft.messages, draft.reasoning_effort, template_variables(draft.extra_sampling, draft.tools)
    if isinstance(tokenizer, InputTokenizer):
        return _count_inputs(draft, tokenizer, limit)
    try:
        if (
            limit is not None
            and draft.templated_chars > LONG_PROMPT_CHARS
            and (least := tokenizer.least(*asked)) >= limit
        ):
            is_fault_of_tools = draft.tools is not None and tokenizer.least(*_without_tools(draft)) < limit
            raise _too_long(draft, f"at least {least} prompt tokens", limit, is_fault_of_tools=is_fault_of_tools)
        counted = tokenizer.count(*asked)
    except ContextLengthExceeded:
        raise
    except InvalidRequest as error:
        names = {"reasoning_effort": draft.spelling.effort}
        names |= {name: name for name in ("chat_template_kwargs", "tools")}
        raise InvalidRequest(str(error), param=names.get(error.param or "") or draft.spelling.prompt) from error
    if limit is not None and counted >= limit:
        is_fault_of_tools = draft.tools is not None and tokenizer.count(*_without_tools(draft)) < limit
        raise _too_long(draft, f"{counted} prompt tokens", limit, is_fault_of_tools=is_fault_of_tools)
    return counted


def _count_inputs(draft: Draft, tokenizer: InputTokenizer, limit: int | None) -> int:
    """The tokens of all inputs together.

    Args: limit: of one input; None where it is unknown, so that the engine decides.
    Raises: ContextLengthExceeded for an input that is too long, and for too many tokens in all.
    """
    param, counts = draft.spelling.prompt, tokenizer.count_each(draft.messages)
    for number, count in enumerate(counts):
        if limit is not None and count > limit:
            where = f"{param}.{number}" if len(counts) > 1 else param
            raise ContextLengthExceeded.beyond(limit, f", and this input has {count}: shorten it.", where)
    if (total := sum(counts)) > MOST_TOKENS:
        message = f"All inputs together have {total} tokens, and may have {MOST_TOKENS}: send several requests."
        raise ContextLengthExceeded(message, param=param)
    return total


def _without_tools(draft: Draft) -> tuple[Sequence[Message], ReasoningEffort | None, Mapping[str, Any]]:
    """What a tokenizer counts of the prompt besides its tools."""
    return draft.messages, draft.reasoning_effort, template_variables(draft.extra_sampling, None)


def _too_long(draft: Draft, prompt: str, limit: int, *, is_fault_of_tools: bool) -> ContextLengthExceeded:
    """Args: is_fault_of_tools: the prompt fits without them."""
    asked = f", and asks for {draft.max_tokens} more" if draft.max_tokens else ""
    remedy = "offer fewer tools, or describe them in fewer words" if is_fault_of_tools else "shorten the prompt"
    rest = f", prompt and answer together. This request has {prompt}{asked}: {remedy}."
    return ContextLengthExceeded.beyond(limit, rest, "tools" if is_fault_of_tools else draft.spelling.prompt)


def _max_tokens(draft: Draft, model: Model, prompt_tokens: int) -> int:
    limit = model.max_model_tokens
    if draft.max_tokens is None:
        most = draft.default_max_tokens or model.default_max_tokens
        return most if limit is None else min(most, limit - prompt_tokens)
    if limit is not None and prompt_tokens + draft.max_tokens > limit:
        rest = (
            f", prompt and answer together. This request has {prompt_tokens} prompt tokens, and "
            f"{draft.spelling.max_tokens} {draft.max_tokens}: ask for at most {limit - prompt_tokens}."
        )
        raise ContextLengthExceeded.beyond(limit, rest, draft.spelling.max_tokens)
    return draft.max_tokens
