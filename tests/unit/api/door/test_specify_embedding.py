"""Embedding jobs at the door: their inputs are counted one by one, and each kind of job goes to its kind of pool."""

from dataclasses import replace
from typing import Any, cast

import pytest

from api.door.catalogue import Catalogue
from api.door.drafts import Draft, Spelling
from api.door.specify import specify
from headrace.config import OverflowSettings, PoolSettings, Settings
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.prompts import Message
from headrace.domain.prompts.embeddings import MOST_TOKENS, text_input, token_input
from headrace.domain.queues import Overflow
from headrace.errors import ContextLengthExceeded, InvalidRequest, ModelNotFound
from headrace.policies.tokens import EstimatingTokenizer, InputTokenizer, PromptTokenizer
from headrace.store import Store
from tests.unit.api.conftest import FakeStore

APP = App(new_id(), "test", "whsec_test")
LIMIT = 100
POOLS = {
    "chat": PoolSettings(model="talks", engine="simulator"),
    "embed": PoolSettings(model="embeds", engine="simulator", serves="embeddings", max_model_tokens=LIMIT),
}


def catalogue_of(pools: dict[str, PoolSettings], *, is_matryoshka: bool = True) -> Catalogue:
    def load(pool: PoolSettings) -> PromptTokenizer | InputTokenizer:
        return InputTokenizer(is_matryoshka=is_matryoshka) if pool.is_embedding else EstimatingTokenizer()

    return Catalogue(pools, OverflowSettings(), cast(Store, FakeStore()), load)


@pytest.fixture
def both(fleet: dict[str, Any]) -> Catalogue:
    """A catalogue with a pool of each kind."""
    return catalogue_of(POOLS)


def embedding(*messages: Message, **changes: Any) -> Draft:
    inputs = Draft(Spelling("input", own_prefix="job."), messages or (text_input("hi"),), is_embedding=True)
    return replace(inputs, **changes)


PROMPT = Draft(Spelling("messages"), (Message("user", "hi"),))


def test_an_embedding_job_takes_the_tokens_of_its_inputs_and_makes_none(both: Catalogue, settings: Settings) -> None:
    spec = specify(embedding(text_input("x" * 40), token_input([1, 2, 3]), dimensions=8), APP, both, settings)
    assert (spec.pool, spec.model) == ("embed", "embeds")
    assert (spec.prompt_tokens, spec.sampling.max_tokens, spec.kv_tokens) == (13, 0, 13)
    assert spec.sampling.dimensions == 8
    assert spec.overflow is Overflow.NEVER


def test_without_a_model_each_kind_of_job_has_the_first_pool_of_its_kind(both: Catalogue, settings: Settings) -> None:
    assert specify(embedding(), APP, both, settings).pool == "embed"
    assert specify(PROMPT, APP, both, settings).pool == "chat"
    turned = catalogue_of(dict(reversed(POOLS.items())))
    assert specify(PROMPT, APP, turned, settings).pool == "chat"


@pytest.mark.parametrize("kind", ["chat", "embed"])
def test_without_a_pool_of_its_kind_a_job_without_a_model_is_refused(fleet: Any, settings: Settings, kind: str) -> None:
    only = catalogue_of({kind: POOLS[kind]})
    with pytest.raises(ModelNotFound, match="embeddings" if kind == "chat" else "prompts"):
        specify(embedding() if kind == "chat" else PROMPT, APP, only, settings)


def test_a_job_for_a_model_of_the_other_kind_is_refused_by_its_field(both: Catalogue, settings: Settings) -> None:
    with pytest.raises(InvalidRequest, match="answers no prompts") as raised:
        specify(replace(PROMPT, model="embeds"), APP, both, settings)
    assert raised.value.param == "messages"
    with pytest.raises(InvalidRequest, match="makes no embeddings") as raised:
        specify(embedding(model="talks"), APP, both, settings)
    assert raised.value.param == "input"


def test_only_the_own_pools_embed(both: Catalogue, settings: Settings) -> None:
    with pytest.raises(InvalidRequest) as raised:
        specify(embedding(overflow=Overflow.ONLY), APP, both, settings)
    assert raised.value.param == "job.overflow"


def test_dimensions_are_refused_where_the_model_is_not_trained_for_them(fleet: Any, settings: Settings) -> None:
    plain = catalogue_of(POOLS, is_matryoshka=False)
    with pytest.raises(InvalidRequest, match="leave 'dimensions' out") as raised:
        specify(embedding(dimensions=8), APP, plain, settings)
    assert raised.value.param == "dimensions"
    assert specify(embedding(), APP, plain, settings).sampling.dimensions is None


def test_an_input_that_is_too_long_is_named(both: Catalogue, settings: Settings) -> None:
    fits, too_long = text_input("x" * 4 * LIMIT), text_input("x" * (4 * LIMIT + 1))
    assert specify(embedding(fits, fits), APP, both, settings).prompt_tokens == 2 * LIMIT
    with pytest.raises(ContextLengthExceeded, match="length is 100 tokens, and this input has 101") as raised:
        specify(embedding(fits, too_long), APP, both, settings)
    assert raised.value.param == "input.1"
    with pytest.raises(ContextLengthExceeded) as raised:
        specify(embedding(too_long), APP, both, settings)
    assert raised.value.param == "input"


def test_all_inputs_together_fit_into_an_empty_engine(both: Catalogue, settings: Settings) -> None:
    whole = [text_input("x" * 4 * LIMIT)] * (MOST_TOKENS // LIMIT)
    assert specify(embedding(*whole), APP, both, settings).prompt_tokens == MOST_TOKENS
    with pytest.raises(ContextLengthExceeded, match=str(MOST_TOKENS)) as raised:
        specify(embedding(*whole, text_input("x")), APP, both, settings)
    assert raised.value.param == "input"
