"""The model `auto`: which pools are tried, in which order, and what the job's row says of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import pytest
from pydantic import SecretStr

from api.door.catalogue import Catalogue
from api.door.choices import Chooser
from api.door.confinement import Poison
from api.door.drafts import Draft, Spelling
from api.door.submit import Submitter
from headrace.broker.admission import Admission
from headrace.broker.forecast import Forecast
from headrace.config import PoolSettings, Price, Settings
from headrace.config.rules import RuleSettings
from headrace.domain.apps import App
from headrace.domain.fleet import Fleet
from headrace.domain.limits import NO_RATES
from headrace.domain.places import Load, Place, Refusal
from headrace.domain.prompts import Message, Sampling, prompt_digest
from headrace.domain.prompts.embeddings import text_input
from headrace.domain.queues import Overflow
from headrace.errors import ContextLengthExceeded, InvalidRequest, ModelNotFound, PoisonPrompt, QueueFull
from headrace.policies.pricing import Tariff

DRAFT = Draft(Spelling("prompt"), (Message("user", "Why is the sky blue?"),), model="auto", max_tokens=20)
FULL = Refusal("depth", 500, 150_000, 150_000, NO_RATES, cap_jobs=500)


def price(usd_per_mtok: str) -> Price:
    usd = Decimal(usd_per_mtok)
    return Price(input_usd_per_mtok=usd, output_usd_per_mtok=usd, source="test", version="v1")


def pool(model: str, usd_per_mtok: str, **changes: Any) -> PoolSettings:
    return PoolSettings(model=model, engine="simulator", price=price(usd_per_mtok), **changes)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Two own pools, the second one cheaper, and one of the paid API's, between them."""
    pools = {
        "chat": pool("large", "9", max_model_tokens=2048),
        "fast": pool("small", "1", max_model_tokens=64),
        "paid": PoolSettings(model="gpt-4o-mini", engine="openai"),
    }
    rules = {
        "short": RuleSettings(pools=("chat", "fast"), tasks=frozenset({"classify"})),
        "json": RuleSettings(pools=("paid", "chat"), wants_json=True),
    }
    changes = {"pools": pools, "rules": rules, "pool": "chat", "prices": {"gpt-4o-mini": price("5")}}
    overflow = settings.overflow.model_copy(update={"models": {"gpt-4o-mini": "gpt-4o-mini"}})
    return settings.model_copy(update={**changes, "overflow": overflow})


@pytest.fixture
def chooser(door: Any, catalogue: Catalogue, settings: Settings) -> Chooser:
    return Chooser(settings, Forecast(cast(Admission, door), catalogue.read_fleets, settings), Tariff.of(settings))


def models(choices: tuple[Draft, ...]) -> list[str | None]:
    return [choice.model for choice in choices]


CLASSIFY = replace(DRAFT, metadata={"task": "classify"})
AS_JSON = replace(DRAFT, response_format={"type": "json_object"})


def test_a_model_that_the_caller_names_is_the_only_choice(chooser: Chooser, settings: Settings) -> None:
    for model in ("small", None, "unknown"):
        asked = replace(CLASSIFY, model=model)
        assert chooser.choices(asked, "shop") == (asked,)
    without = replace(chooser, settings=settings.model_copy(update={"rules": {}}))
    assert without.choices(DRAFT, "shop") == (DRAFT,)


def test_the_pools_of_the_rule_are_tried_by_price(chooser: Chooser) -> None:
    choices = chooser.choices(CLASSIFY, "shop")

    assert models(choices) == ["small", "large"]
    assert [choice.choice_reason for choice in choices] == [
        "rule 'short': fast costs least",
        "rule 'short': chat, after fast had no place",
    ]
    assert models(chooser.choices(AS_JSON, "shop")) == ["gpt-4o-mini", "large"]


def test_own_slots_that_are_free_come_before_any_price(chooser: Chooser, door: Any, fleet: dict[str, Fleet]) -> None:
    fleet["chat"] = Fleet("chat", 1, 1, 8, 5, None, None)
    fleet["fast"] = Fleet("fast", 1, 1, 8, 8, None, None)
    assert models(chooser.choices(CLASSIFY, "shop")) == ["large", "small"]
    assert chooser.choices(AS_JSON, "shop")[0].choice_reason == "rule 'json': chat has free slots"


def test_slots_that_the_waiting_jobs_will_take_are_not_free(
    chooser: Chooser, door: Any, fleet: dict[str, Fleet]
) -> None:
    fleet["chat"] = Fleet("chat", 1, 1, 8, 5, None, None)
    door.backlog["chat.normal"] = Load(3, 300, 1, 300)
    assert models(chooser.choices(CLASSIFY, "shop")) == ["small", "large"]


def test_a_job_that_no_rule_matches_goes_to_the_first_pool(chooser: Chooser) -> None:
    [choice] = chooser.choices(DRAFT, "shop")
    assert (choice.model, choice.choice_reason) == ("large", "no rule matches: chat")


def cascade(chooser: Chooser, settings: Settings, *pools: str) -> Chooser:
    rule = RuleSettings(pools=pools, cascade=True)
    return replace(chooser, settings=settings.model_copy(update={"rules": {"all": rule}}))


def test_a_cascade_is_tried_in_the_order_of_its_rule(chooser: Chooser, settings: Settings) -> None:
    choices = cascade(chooser, settings, "chat", "fast", "paid").choices(DRAFT, "shop")

    assert models(choices) == ["large", "small", "gpt-4o-mini"]
    assert [choice.rule for choice in choices] == ["all"] * 3
    assert [choice.choice_reason for choice in choices] == [
        "rule 'all': chat answers first",
        "rule 'all': fast, after chat had no place",
        "rule 'all': paid, after chat, fast had no place",
    ]


def test_a_stream_of_a_cascade_goes_to_the_best_pool_at_once(chooser: Chooser, settings: Settings) -> None:
    streamed = replace(DRAFT, stream=True)
    [choice] = cascade(chooser, settings, "fast", "chat", "paid").choices(streamed, "shop")
    assert (choice.model, choice.choice_reason) == (
        "gpt-4o-mini",
        "rule 'all': paid, for a stream",
    )
    [choice] = cascade(chooser, settings, "fast", "chat", "paid").choices(
        replace(streamed, overflow=Overflow.NEVER), "shop"
    )
    assert choice.model == "large", "the best that it may go to"
    assert models(chooser.choices(replace(CLASSIFY, stream=True), "shop")) == ["small", "large"], "no cascade"


def test_several_answers_of_a_cascade_come_from_the_best_pool(chooser: Chooser, settings: Settings) -> None:
    several = replace(DRAFT, n=2)
    [choice] = cascade(chooser, settings, "fast", "chat").choices(several, "shop")
    assert (choice.model, choice.choice_reason) == ("large", "rule 'all': chat, for several answers")
    assert models(chooser.choices(replace(CLASSIFY, n=2), "shop")) == ["small", "large"], "no cascade"


def test_a_job_of_high_quality_goes_to_the_last_pool_of_its_rule_alone(chooser: Chooser, settings: Settings) -> None:
    best = replace(CLASSIFY, quality="high")
    [choice] = chooser.choices(best, "shop")
    assert (choice.model, choice.choice_reason) == ("small", "rule 'short': fast, for quality 'high'")
    [choice] = cascade(chooser, settings, "fast", "chat").choices(best, "shop")
    assert choice.model == "large"


def test_a_quality_is_for_the_model_auto(submitter: Submitter, app: App) -> None:
    with pytest.raises(InvalidRequest, match="give the model 'auto'") as raised:
        submitter.submit(replace(DRAFT, model="small", quality="high"), app)
    assert raised.value.param == "quality"


def test_the_row_has_the_rule_of_a_job_and_none_of_one_that_names_its_model(
    submitter: Submitter, door: Any, app: App
) -> None:
    for draft in (CLASSIFY, replace(CLASSIFY, model="small"), DRAFT):
        submitter.submit(draft, app)
    assert [spec.rule for spec, _ in door.inserted] == ["short", None, None]


def test_a_job_that_must_not_leave_is_not_sent_to_a_paid_pool(chooser: Chooser, settings: Settings) -> None:
    never = replace(AS_JSON, overflow=Overflow.NEVER)
    assert models(chooser.choices(never, "shop")) == ["large"]
    only_paid = {"json": RuleSettings(pools=("paid",))}
    chooser = replace(chooser, settings=settings.model_copy(update={"rules": only_paid}))
    assert models(chooser.choices(never, "shop")) == ["gpt-4o-mini"], "refused with what to do"


def test_the_row_says_the_rule_and_the_route(submitter: Submitter, door: Any, app: App) -> None:
    accepted = submitter.submit(CLASSIFY, app)

    assert accepted.queue == "fast.normal"
    [(spec, candidate)] = door.inserted
    assert (spec.model, spec.pool) == ("small", "fast")
    assert candidate.reason == "rule 'short': fast costs least; own pool"


def test_a_full_pool_passes_the_job_on_and_its_refusal_is_not_counted(
    submitter: Submitter, door: Any, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reserve(asks: Any) -> list[Place | Refusal]:
        first = [ask.candidates[0] for ask in asks]
        return [FULL if each.queue == "fast.normal" else Place(each, 1, 1, 0, NO_RATES) for each in first]

    monkeypatch.setattr(door, "reserve", reserve)

    accepted = submitter.submit(CLASSIFY, app)

    assert accepted.queue == "chat.normal"
    assert door.inserted[0][1].reason == "rule 'short': chat, after fast had no place; own pool"
    assert (door.refused, door.knocks) == ([], [])


def test_a_prompt_that_the_cheapest_pool_cannot_hold_goes_to_the_next(
    submitter: Submitter, door: Any, app: App
) -> None:
    assert submitter.submit(replace(CLASSIFY, max_tokens=500), app).queue == "chat.normal"
    with pytest.raises(ContextLengthExceeded, match="2048"):
        submitter.submit(replace(CLASSIFY, max_tokens=5000), app)


def test_where_every_pool_is_full_the_last_one_s_refusal_is_told_and_counted(
    submitter: Submitter, door: Any, app: App
) -> None:
    door.refusal = FULL
    with pytest.raises(QueueFull) as raised:
        submitter.submit(CLASSIFY, app)

    assert raised.value.queue == "chat.normal"
    assert [(queue, reason) for _, queue, reason, _, _ in door.refused] == [("chat.normal", "depth")]
    assert [queue for _, queue, _ in door.knocks] == ["chat.normal"]


def test_without_rules_there_is_no_model_auto(submitter: Submitter, settings: Settings, app: App) -> None:
    with pytest.raises(ModelNotFound, match="'auto' does not exist"):
        replace(submitter, settings=settings.model_copy(update={"rules": {}})).submit(DRAFT, app)


def test_a_job_with_parameters_that_the_paid_api_lacks_goes_to_an_own_pool(chooser: Chooser) -> None:
    wants_json = replace(DRAFT, response_format={"type": "json_object"})
    plain = [choice.model for choice in chooser.choices(wants_json, "app")]
    kept = [choice.model for choice in chooser.choices(replace(wants_json, extra_sampling={"top_k": 5}), "app")]
    assert (set(plain), kept) == ({"gpt-4o-mini", "large"}, ["large"])


@pytest.fixture
def chat_is_full(door: Any, fleet: dict[str, Fleet], monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool `chat` is tried first, for its free slots, and has no place left."""
    fleet["chat"] = Fleet("chat", 1, 1, 8, 5, None, None)

    def reserve(asks: Any) -> list[Place | Refusal]:
        first = [ask.candidates[0] for ask in asks]
        return [FULL if each.queue == "chat.normal" else Place(each, 1, 1, 0, NO_RATES) for each in first]

    monkeypatch.setattr(door, "reserve", reserve)


@pytest.mark.usefixtures("chat_is_full")
def test_a_full_pool_s_refusal_is_told_where_no_other_pool_could_ever_answer(
    submitter: Submitter, door: Any, app: App
) -> None:
    assert submitter.submit(CLASSIFY, app).queue == "fast.normal"
    with pytest.raises(QueueFull) as raised:
        submitter.submit(replace(CLASSIFY, max_tokens=500), app)

    assert raised.value.queue == "chat.normal"
    assert [(queue, reason) for _, queue, reason, _, _ in door.refused] == [("chat.normal", "depth")]


def test_a_pool_that_would_cost_too_much_passes_the_job_on(
    submitter: Submitter, settings: Settings, fleet: dict[str, Fleet], app: App, door: Any
) -> None:
    fleet["overflow"] = Fleet("overflow", 1, 1, 8, 0, None, None)
    submitter = replace(submitter, settings=settings.model_copy(update={"openai_api_key": SecretStr("sk-test")}))
    assert submitter.submit(AS_JSON, app).queue == "overflow.normal"
    assert submitter.submit(replace(AS_JSON, max_cost_usd=Decimal("0.000000001")), app).queue == "chat.normal"
    assert door.refused == []


def test_a_prompt_that_has_killed_an_engine_is_not_passed_on_to_another(
    submitter: Submitter, door: Any, app: App
) -> None:
    small = prompt_digest("small", CLASSIFY.messages, Sampling(20))
    poison = Poison(lambda: {small: datetime.now(UTC) + timedelta(hours=1)})
    with pytest.raises(PoisonPrompt):
        replace(submitter, poison=poison).submit(CLASSIFY, app)
    assert door.inserted == []


def test_a_job_that_no_rule_matches_goes_to_the_first_pool_of_its_kind(chooser: Chooser, settings: Settings) -> None:
    pools = {"embed": pool("embeds", "1", serves="embeddings"), **settings.pools}
    chooser = replace(chooser, settings=settings.model_copy(update={"pools": pools}))
    assert chooser.choices(DRAFT, "shop")[0].model == "large"
    inputs = replace(DRAFT, messages=(text_input("A text"),), is_embedding=True)
    assert chooser.choices(inputs, "shop")[0].model == "embeds"
