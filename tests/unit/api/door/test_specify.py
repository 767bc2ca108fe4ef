"""What a draft becomes: defaults filled in, and a prompt that does not fit refused with the numbers."""

import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import pytest

from api.door.catalogue import Catalogue
from api.door.drafts import Draft, Spelling
from api.door.specify import MOST_LOGPROBS_IN_ALL, specify
from headrace.config import LaneSettings, OverflowSettings, PoolSettings, Settings, WebhookSettings
from headrace.config.rules import RuleSettings
from headrace.config.sections import PoolLaneSettings
from headrace.domain.apps import App
from headrace.domain.fleet import Fleet
from headrace.domain.ids import new_id
from headrace.domain.prompts import Message, ReasoningEffort, plain_text
from headrace.domain.prompts.compression import CompressChoice
from headrace.domain.prompts.tools import ToolCall, Tools
from headrace.domain.queues import Lane, Overflow
from headrace.errors import ContextLengthExceeded, InvalidRequest, PermissionDenied
from headrace.policies.tokens import LONG_CHARS, EstimatingTokenizer, PromptTokenizer
from headrace.policies.tokens.chat_template import Kwargs
from headrace.store import Store
from tests.unit.api.conftest import FakeStore

LIMIT = 2048
APP = App(new_id(), "test", "whsec_test")


def draft(prompt_tokens: int, **changes: object) -> Draft:
    """A draft whose prompt has that many tokens by the estimate of four bytes each."""
    text = "x" * (4 * prompt_tokens - len("user: "))
    return replace(Draft(Spelling("prompt"), (Message("user", text),)), **changes)


def test_max_tokens_left_out_is_1024(catalogue: Catalogue, settings: Settings) -> None:
    spec = specify(draft(10), APP, catalogue, settings)
    assert (spec.prompt_tokens, spec.sampling.max_tokens) == (10, 1024)


@pytest.mark.usefixtures("fleet")
def test_max_tokens_left_out_is_the_pool_s(settings: Settings) -> None:
    pool = settings.pools["chat"].model_copy(update={"default_max_tokens": 77})
    assert specify(draft(10), APP, of_model(EstimatingTokenizer(), pool), settings).sampling.max_tokens == 77


@pytest.mark.parametrize(("prompt_tokens", "most"), [(10, 16), (LIMIT - 17, 16), (LIMIT - 5, 5)])
def test_max_tokens_left_out_is_its_own_api_s_before_the_pool_s(
    catalogue: Catalogue, settings: Settings, prompt_tokens: int, most: int
) -> None:
    asked = draft(prompt_tokens, default_max_tokens=16)
    assert specify(asked, APP, catalogue, settings).sampling.max_tokens == most
    with pytest.raises(InvalidRequest):
        specify(replace(asked, max_tokens=LIMIT - prompt_tokens + 1), APP, catalogue, settings)


@pytest.mark.parametrize(("prompt_tokens", "room"), [(LIMIT - 1025, 1024), (LIMIT - 1023, 1023), (LIMIT - 1, 1)])
def test_max_tokens_left_out_is_at_most_what_the_prompt_leaves_of_the_window(
    catalogue: Catalogue, settings: Settings, prompt_tokens: int, room: int
) -> None:
    assert specify(draft(prompt_tokens), APP, catalogue, settings).sampling.max_tokens == room


@pytest.mark.parametrize("prompt_tokens", [LIMIT, LIMIT + 1, 100 * LIMIT])
def test_a_prompt_that_leaves_no_room_is_refused_with_the_numbers(
    catalogue: Catalogue, settings: Settings, prompt_tokens: int
) -> None:
    with pytest.raises(ContextLengthExceeded) as raised:
        specify(draft(prompt_tokens), APP, catalogue, settings)
    assert raised.value.param == "prompt"
    assert str(prompt_tokens) in str(raised.value)
    assert str(raised.value).startswith(f"This model's maximum context length is {LIMIT} tokens")


def test_max_tokens_may_fill_the_context_and_no_more(catalogue: Catalogue, settings: Settings) -> None:
    assert specify(draft(48, max_tokens=2000), APP, catalogue, settings).kv_tokens == LIMIT
    with pytest.raises(ContextLengthExceeded, match=r"maximum context length is 2048 tokens.*at most 2000") as raised:
        specify(draft(48, max_tokens=2001), APP, catalogue, settings)
    assert raised.value.param == "max_tokens"


def test_the_limit_that_live_workers_publish_holds_where_it_is_lower(
    catalogue: Catalogue, settings: Settings, fleet: dict[str, Fleet]
) -> None:
    fleet["chat"] = Fleet("chat", workers=1, hosts=1, slots=8, running=0, max_model_tokens=2048, kv_tokens=1024)
    with pytest.raises(ContextLengthExceeded, match="1024"):
        specify(draft(1024), APP, catalogue, settings)


def test_no_more_alternatives_are_asked_for_than_the_engine_gives(catalogue: Catalogue, settings: Settings) -> None:
    assert specify(draft(10, top_logprobs=20), APP, catalogue, settings).sampling.top_logprobs == 20
    few = settings.pools["chat"].model_copy(update={"engine_options": {"max_logprobs": 5}})
    catalogue = Catalogue({"chat": few}, settings.overflow, cast(Store, FakeStore()), lambda _: EstimatingTokenizer())
    assert specify(draft(10, top_logprobs=5), APP, catalogue, settings).sampling.top_logprobs == 5
    with pytest.raises(InvalidRequest, match="at most 5") as raised:
        specify(draft(10, top_logprobs=6), APP, catalogue, settings)
    assert raised.value.param == "top_logprobs"


@pytest.mark.usefixtures("fleet")
def test_an_answer_has_no_more_log_probabilities_than_can_be_stored(settings: Settings) -> None:
    large = settings.pools["chat"].model_copy(update={"max_model_tokens": 100_000})
    catalogue = Catalogue({"chat": large}, settings.overflow, cast(Store, FakeStore()), lambda _: EstimatingTokenizer())
    most = MOST_LOGPROBS_IN_ALL // 21
    assert specify(draft(10, top_logprobs=20, max_tokens=most), APP, catalogue, settings).sampling.max_tokens == most
    assert specify(draft(10, top_logprobs=0, max_tokens=90_000), APP, catalogue, settings)
    with pytest.raises(InvalidRequest, match="lower max_tokens") as raised:
        specify(draft(10, top_logprobs=20, max_tokens=most + 1), APP, catalogue, settings)
    assert raised.value.param == "top_logprobs"


def test_all_answers_must_fit_a_worker_at_once(
    catalogue: Catalogue, settings: Settings, fleet: dict[str, Fleet]
) -> None:
    fleet["chat"] = Fleet("chat", workers=1, hosts=1, slots=8, running=0, max_model_tokens=2048, kv_tokens=4096)
    spec = specify(draft(96, max_tokens=1000, n=4), APP, catalogue, settings)
    assert (spec.sampling.n, spec.sampling.max_tokens, spec.kv_tokens) == (4, 1000, 4096)
    with pytest.raises(InvalidRequest, match="take 4097 tokens, and a worker holds 4096") as raised:
        specify(draft(97, max_tokens=1000, n=4), APP, catalogue, settings)
    assert raised.value.param == "n"


@pytest.mark.usefixtures("fleet")
def test_several_answers_are_sampled(catalogue: Catalogue, settings: Settings) -> None:
    assert specify(draft(10, n=2, temperature=0.1), APP, catalogue, settings).sampling.n == 2
    assert specify(draft(10, n=1, temperature=0.0), APP, catalogue, settings)
    with pytest.raises(InvalidRequest, match="all 2 answers are the same") as raised:
        specify(draft(10, n=2, temperature=0.0), APP, catalogue, settings)
    assert raised.value.param == "n"


@pytest.mark.usefixtures("fleet")
def test_the_log_probabilities_of_all_answers_are_bounded(settings: Settings) -> None:
    large = settings.pools["chat"].model_copy(update={"max_model_tokens": 100_000})
    catalogue = Catalogue({"chat": large}, settings.overflow, cast(Store, FakeStore()), lambda _: EstimatingTokenizer())
    half = MOST_LOGPROBS_IN_ALL // 42
    assert specify(draft(10, top_logprobs=20, max_tokens=half, n=2), APP, catalogue, settings)
    with pytest.raises(InvalidRequest, match="lower max_tokens"):
        specify(draft(10, top_logprobs=20, max_tokens=half + 1, n=2), APP, catalogue, settings)


class PlainTokenizer(EstimatingTokenizer):
    """Of a model whose template does not ask how much is to be thought."""

    reads_effort = False


class ThoughtfulTokenizer(EstimatingTokenizer):
    """Of a model whose template says with three tokens that nothing is to be thought, and does not know `max`."""

    def count(
        self, messages: Sequence[Message], effort: ReasoningEffort | None = None, kwargs: Kwargs | None = None
    ) -> int:
        if effort == "max":
            raise InvalidRequest("It refuses the effort.", param="reasoning_effort")
        if kwargs == {"deep": 1}:
            raise InvalidRequest("It refuses the variables.", param="chat_template_kwargs")
        return super().count(messages) + (3 if effort == "none" else 0) + len(kwargs or ())


def of_model(tokenizer: PromptTokenizer, pool: PoolSettings, overflow: OverflowSettings | None = None) -> Catalogue:
    return Catalogue({"chat": pool}, overflow or OverflowSettings(), cast(Store, FakeStore()), lambda _: tokenizer)


@pytest.mark.usefixtures("fleet")
def test_a_model_that_cannot_be_told_how_much_to_think_is_not(settings: Settings) -> None:
    pool, asked = settings.pools["chat"], draft(10, reasoning_effort="low", spelling=Spelling("input", effort="r.e"))
    plain = of_model(PlainTokenizer(), pool)

    with pytest.raises(InvalidRequest, match=r"leave 'r\.e' out") as raised:
        specify(asked, APP, plain, settings)

    assert raised.value.param == "r.e"
    assert specify(draft(10), APP, plain, settings).sampling.reasoning_effort is None


@pytest.mark.usefixtures("fleet")
def test_the_paid_api_s_models_are_told_it_if_the_operator_says_that_they_can_be(settings: Settings) -> None:
    own, paid = settings.pools["chat"], PoolSettings(engine="openai")
    asked = draft(10, reasoning_effort="low")
    only = replace(asked, overflow=Overflow.ONLY)
    able = OverflowSettings(effort_models={"gpt-4o-mini"})

    for job, pool in ((asked, paid), (only, own)):
        spec = specify(job, APP, of_model(PlainTokenizer(), pool, able), settings)
        assert spec.sampling.reasoning_effort == "low"
        with pytest.raises(InvalidRequest, match="cannot be told how much to think"):
            specify(job, APP, of_model(EstimatingTokenizer(), pool), settings)


@pytest.mark.usefixtures("fleet")
def test_a_prompt_is_counted_with_what_it_says_of_the_effort(settings: Settings) -> None:
    thoughtful = of_model(ThoughtfulTokenizer(), settings.pools["chat"])
    for effort, tokens in ((None, 10), ("low", 10), ("none", 13)):
        spec = specify(draft(10, reasoning_effort=effort), APP, thoughtful, settings)
        assert (spec.prompt_tokens, spec.sampling.reasoning_effort) == (tokens, effort)
    asked = draft(10, reasoning_effort="max", spelling=Spelling("input", effort="reasoning.effort"))
    with pytest.raises(InvalidRequest, match="refuses the effort") as raised:
        specify(asked, APP, thoughtful, settings)
    assert raised.value.param == "reasoning.effort"


def test_the_lane_gives_the_wait_unless_the_caller_does(catalogue: Catalogue, settings: Settings) -> None:
    assert specify(draft(10, lane=Lane.LOW), APP, catalogue, settings).max_wait_s == 4 * 3600
    assert specify(draft(10, lane=Lane.LOW, max_wait_s=7.5), APP, catalogue, settings).max_wait_s == 7.5


@pytest.mark.parametrize(
    ("lane", "interactive_s", "background_s"),
    [(Lane.HIGH, 30, 600), (Lane.NORMAL, 30, 600), (Lane.LOW, 4 * 3600, 4 * 3600), (Lane.BATCH, 86_400, 86_400)],
)
def test_max_wait_left_out_is_short_where_the_caller_waits_or_streams_and_long_in_the_background(
    catalogue: Catalogue, settings: Settings, lane: Lane, interactive_s: float, background_s: float
) -> None:
    def chosen_s(**how: bool) -> float:
        return specify(draft(10, lane=lane, **how), APP, catalogue, settings).max_wait_s

    assert chosen_s(background=True) == background_s
    assert chosen_s(background=False) == interactive_s
    assert chosen_s(background=True, stream=True) == interactive_s


def test_the_lane_of_the_model_s_pool_gives_the_wait(settings: Settings, catalogue: Catalogue) -> None:
    changes = {"latency_goal_s": 4.0, "lanes": {Lane.LOW: PoolLaneSettings(max_wait_s=50)}}
    changed = settings.model_copy(update={"pools": {"chat": settings.pools["chat"].model_copy(update=changes)}})

    def chosen_s(lane: Lane, background: bool) -> float:
        return specify(draft(10, lane=lane, background=background), APP, catalogue, changed).max_wait_s

    assert [chosen_s(Lane.LOW, background) for background in (True, False)] == [50, 4]
    assert [chosen_s(Lane.HIGH, background) for background in (True, False)] == [600, 4]


def test_a_shorter_wait_of_the_lane_holds_for_callers_who_wait_too(catalogue: Catalogue, settings: Settings) -> None:
    changed = settings.model_copy(update={"lanes": {Lane.HIGH: LaneSettings(max_wait_s=9, interactive_max_wait_s=30)}})
    for background in (True, False):
        asked = draft(10, lane=Lane.HIGH, background=background)
        assert specify(asked, APP, catalogue, changed).max_wait_s == 9


def test_a_plain_prompt_is_not_compressed(catalogue: Catalogue, settings: Settings) -> None:
    """Nothing of it could go: what is continued is all of it."""
    pools = {"chat": settings.pools["chat"].model_copy(update={"compress": "plain"})}
    compressing = settings.model_copy(update={"pools": pools})
    plain = replace(
        draft(10), messages=(plain_text("The sky is"),), is_plain=True, spelling=Spelling("prompt", own_prefix="job.")
    )
    assert specify(draft(10), APP, catalogue, compressing).sampling.compression is not None
    assert specify(plain, APP, catalogue, compressing).sampling.compression is None
    assert specify(replace(plain, compress=CompressChoice("off")), APP, catalogue, settings)
    with pytest.raises(InvalidRequest, match="continued as it is: leave it out") as raised:
        specify(replace(plain, compress=CompressChoice("plain")), APP, catalogue, settings)
    assert raised.value.param == "job.compress"


def test_a_lane_that_is_not_open_to_the_app_is_refused_under_the_callers_own_name(
    catalogue: Catalogue, settings: Settings
) -> None:
    bound = replace(APP, lanes=frozenset({Lane.LOW, Lane.BATCH}))
    asked = draft(10, spelling=Spelling("input", own_prefix="job.", lane="service_tier"))

    with pytest.raises(PermissionDenied, match="'low', 'batch'") as raised:
        specify(asked, bound, catalogue, settings)

    assert (raised.value.code, raised.value.param) == ("tier_not_allowed", "service_tier")
    assert specify(replace(asked, lane=Lane.LOW), bound, catalogue, settings).lane is Lane.LOW


PRIVATE = [
    "http://example.com/h",
    "https://localhost/h",
    "https://10.0.0.1/h",
    "https://[::1]/h",
    "https://a.localhost",
    "https://localhost./h",
    "https://redis/h",
    "https://127.1/h",
    "https://2130706433/h",
    "https://0x7f.1/h",
    "https://10.0.0.1./h",
    "https://\uff11\uff12\uff17.0.0.1/h",
    "https://metadata.google.internal/h",
]


@pytest.mark.parametrize(
    "url", ["https://example.com/h", "HTTPS://Example.com.:8443", "https://8.8.8.8/", "https://\u4f8b\u3048.jp/"]
)
def test_a_webhook_of_a_public_host_is_taken_as_it_is(catalogue: Catalogue, settings: Settings, url: str) -> None:
    assert specify(draft(10, webhook_url=url), APP, catalogue, settings).webhook_url == url


@pytest.mark.parametrize("url", PRIVATE)
def test_a_webhook_into_a_private_network_is_refused(catalogue: Catalogue, settings: Settings, url: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        specify(draft(10, webhook_url=url), APP, catalogue, settings)
    assert (raised.value.code, raised.value.param) == ("webhook_url_not_allowed", "webhook")
    assert "HEADRACE_WEBHOOKS__ALLOW_PRIVATE=true" in str(raised.value), "the remedy in development"


@pytest.mark.parametrize("url", PRIVATE)
def test_a_webhook_into_a_private_network_is_for_development(
    catalogue: Catalogue, settings: Settings, url: str
) -> None:
    settings = settings.model_copy(update={"webhooks": WebhookSettings(allow_private=True)})
    assert specify(draft(10, webhook_url=url), APP, catalogue, settings).webhook_url == url


class SlowTokenizer(EstimatingTokenizer):
    """Counts a long prompt when it is told to. Attributes: counting: prompts that are being counted."""

    def __init__(self) -> None:
        self.counting = self.most = 0
        self.may_end = threading.Event()
        self._lock = threading.Lock()

    def count(
        self, messages: Sequence[Message], effort: ReasoningEffort | None = None, kwargs: Kwargs | None = None
    ) -> int:
        if len(messages[0].content) > LONG_CHARS:
            with self._lock:
                self.counting += 1
                self.most = max(self.most, self.counting)
            assert self.may_end.wait(20)
            with self._lock:
                self.counting -= 1
        return super().count(messages)


@pytest.mark.usefixtures("fleet")
def test_long_prompts_are_counted_a_few_at_once_and_short_ones_wait_for_none(settings: Settings) -> None:
    tokenizer = SlowTokenizer()
    catalogue = of_model(tokenizer, settings.pools["chat"])
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(3 * cores) as threads:
        long = [threads.submit(specify, draft(1000), APP, catalogue, settings) for _ in range(3 * cores)]
        try:
            assert specify(draft(10), APP, catalogue, settings).prompt_tokens == 10
            assert not any(each.done() for each in long)
        finally:
            tokenizer.may_end.set()
        assert {each.result(20).prompt_tokens for each in long} == {1000}
    assert tokenizer.most <= max(1, cores // 2)


@pytest.mark.usefixtures("fleet")
def test_a_prompt_is_counted_with_the_variables_of_its_template(settings: Settings) -> None:
    model = of_model(ThoughtfulTokenizer(), settings.pools["chat"])

    def asked(**kwargs: object) -> Draft:
        return draft(10, extra_sampling={"chat_template_kwargs": kwargs})

    spec = specify(asked(a=1, b=2), APP, model, settings)
    assert (spec.prompt_tokens, spec.sampling.template_kwargs) == (12, {"a": 1, "b": 2})
    with pytest.raises(InvalidRequest, match="refuses the variables") as raised:
        specify(asked(deep=1), APP, model, settings)
    assert raised.value.param == "chat_template_kwargs"


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"top_k": 5}, Overflow.NEVER),
        ({"logit_bias": {"1": 2.0}}, Overflow.NEVER),
        ({"chat_template_kwargs": {"a": 1}}, Overflow.NEVER),
        ({"presence_penalty": 1.0, "frequency_penalty": 1.0}, Overflow.ALLOW),
        ({"top_k": -1, "repetition_penalty": 1.0, "logit_bias": {}, "skip_special_tokens": True}, Overflow.ALLOW),
    ],
)
def test_a_job_with_parameters_that_the_paid_api_lacks_cannot_spill(
    catalogue: Catalogue, settings: Settings, extra: dict[str, object], expected: Overflow
) -> None:
    spec = specify(draft(10, extra_sampling=extra), APP, catalogue, settings)
    assert (spec.overflow, spec.sampling.extra) == (expected, extra)

    only = draft(10, extra_sampling=extra, overflow=Overflow.ONLY)
    if expected is Overflow.ALLOW:
        assert specify(only, APP, catalogue, settings).overflow is Overflow.ONLY
    else:
        with pytest.raises(InvalidRequest, match="The paid API") as raised:
            specify(only, APP, catalogue, settings)
        assert (raised.value.code, raised.value.param) == ("unsupported_parameter", next(iter(extra)))


@pytest.mark.usefixtures("fleet")
def test_a_model_of_the_paid_api_is_given_what_it_has_words_for(settings: Settings) -> None:
    pool = PoolSettings(engine="openai")
    settings = settings.model_copy(update={"pools": {"chat": pool}})
    model = of_model(EstimatingTokenizer(), pool)
    assert specify(draft(10, extra_sampling={"logit_bias": {"1": 2}}), APP, model, settings).overflow is Overflow.ALLOW
    with pytest.raises(InvalidRequest) as raised:
        specify(draft(10, extra_sampling={"min_p": 0.5, "top_k": 0}), APP, model, settings)
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "min_p")


def test_an_answer_need_not_be_longer_than_it_may_be(catalogue: Catalogue, settings: Settings) -> None:
    assert specify(draft(10, max_tokens=5, extra_sampling={"min_tokens": 5}), APP, catalogue, settings)
    with pytest.raises(InvalidRequest, match="6 is more than the answer may have, 5") as raised:
        specify(draft(10, max_tokens=5, extra_sampling={"min_tokens": 6}), APP, catalogue, settings)
    assert raised.value.param == "min_tokens"


def test_a_plain_prompt_is_continued_by_own_models_alone(catalogue: Catalogue, settings: Settings) -> None:
    plain = replace(draft(10), messages=(plain_text("x" * 40),), is_plain=True)
    spec = specify(plain, APP, catalogue, settings)
    assert (spec.prompt_tokens, spec.overflow) == (10, Overflow.NEVER)
    with pytest.raises(InvalidRequest, match="continues no plain text") as raised:
        specify(replace(plain, overflow=Overflow.ONLY), APP, catalogue, settings)
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "prompt")


TOOLS = Tools(({"name": "weather", "parameters": {"type": "object"}},))
CALLED = (Message("user", "Hi"), Message("assistant", "", tool_calls=(ToolCall("c", "weather", "{}"),)))


class ToollessTokenizer(EstimatingTokenizer):
    """Of a model whose template has no word for tools."""

    reads_tools = False


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"tools": TOOLS}, "tools"),
        ({"tools": replace(TOOLS, choice="none")}, "tools"),
        ({"messages": CALLED}, "prompt"),
    ],
)
def test_a_model_whose_template_has_no_tools_says_so(settings: Settings, changes: dict[str, Any], param: str) -> None:
    pool = settings.pools["chat"]
    with pytest.raises(InvalidRequest, match="its chat template has no word for them") as raised:
        specify(draft(10, **changes), APP, of_model(ToollessTokenizer(), pool), settings)
    assert (raised.value.code, raised.value.param) == ("tools_not_supported", param)
    assert specify(draft(10), APP, of_model(ToollessTokenizer(), pool), settings).sampling.tools is None


@pytest.mark.usefixtures("fleet")
def test_a_vllm_pool_without_a_parser_reads_no_calls(settings: Settings) -> None:
    pool = settings.pools["chat"].model_copy(update={"engine": "vllm"})
    with pytest.raises(InvalidRequest, match="no 'tool_parser'") as raised:
        specify(draft(10, tools=TOOLS), APP, of_model(EstimatingTokenizer(), pool), settings)
    assert raised.value.param == "tools"
    for asked, of in (
        (replace(TOOLS, choice="none"), pool),
        (TOOLS, pool.model_copy(update={"tool_parser": "hermes"})),
        (TOOLS, pool.model_copy(update={"engine": "openai"})),
    ):
        assert (
            specify(draft(10, tools=asked), APP, of_model(EstimatingTokenizer(), of), settings).sampling.tools == asked
        )


def test_tools_and_calls_are_part_of_the_prompt(catalogue: Catalogue, settings: Settings) -> None:
    plain, offered = (specify(draft(10, tools=tools), APP, catalogue, settings) for tools in (None, TOOLS))
    assert offered.prompt_tokens >= plain.prompt_tokens + len(json.dumps(TOOLS.specs)) // 5
    assert offered.kv_tokens - plain.kv_tokens == offered.prompt_tokens - plain.prompt_tokens
    long = replace(TOOLS, functions=({"name": "f", "description": "x" * 4 * LIMIT},))
    with pytest.raises(ContextLengthExceeded, match="offer fewer tools") as raised:
        specify(draft(10, tools=long), APP, catalogue, settings)
    assert raised.value.param == "tools"
    with pytest.raises(ContextLengthExceeded, match="shorten the prompt") as raised:
        specify(draft(LIMIT, tools=long), APP, catalogue, settings)
    assert raised.value.param == "prompt"
    longer = replace(long, functions=({"name": "f", "description": "x" * 400 * LIMIT},))
    with pytest.raises(ContextLengthExceeded, match=r"at least .* offer fewer tools"):
        specify(draft(10, tools=longer), APP, catalogue, settings)
    called, silent = (replace(draft(1), messages=(*CALLED[:1], each)) for each in (CALLED[1], Message("assistant", "")))
    counts = [specify(each, APP, catalogue, settings).prompt_tokens for each in (silent, called)]
    assert counts[1] > counts[0] + 10


def test_a_job_with_tools_is_not_shadowed(catalogue: Catalogue, settings: Settings) -> None:
    rule = RuleSettings(pools=("chat", "other"), shadow_share=1.0)
    settings = settings.model_copy(update={"rules": {"r": rule}})
    jobs = [specify(draft(10, rule="r", tools=tools), APP, catalogue, settings) for tools in (None, TOOLS)]
    assert [job.is_shadowed for job in jobs] == [True, False]
