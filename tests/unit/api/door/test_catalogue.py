"""The models and their limits: the lowest of the setting and what live workers report."""

from typing import Any, cast

import pytest

from api.door.catalogue import Catalogue
from headrace.config import OverflowSettings, PoolSettings
from headrace.domain.fleet import Fleet
from headrace.errors import ConfigError, ModelNotFound
from headrace.policies.tokens import EstimatingTokenizer
from headrace.store import Store

POOLS = {
    "first": PoolSettings(model="a", engine="simulator", max_model_tokens=2048),
    "second": PoolSettings(model="b", engine="simulator", max_model_tokens=None, adapters={"b-sql": "folder"}),
    "third": PoolSettings(model="a", engine="simulator"),
}


class FakeStore:
    """Counts how often it was asked."""

    asked = 0

    def begin(self) -> Any:
        self.asked += 1
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def loaded() -> list[str]:
    """The models whose tokenizers were read."""
    return []


@pytest.fixture
def models(store: FakeStore, fleet: dict[str, Fleet], loaded: list[str]) -> Catalogue:
    def load(pool: PoolSettings) -> EstimatingTokenizer:
        loaded.append(pool.model)
        return EstimatingTokenizer()

    return Catalogue(POOLS, OverflowSettings(), cast(Store, store), load)


def test_each_model_is_listed_once_the_default_first(models: Catalogue) -> None:
    assert models.names() == ["a", "b", "b-sql"]


@pytest.mark.parametrize(("name", "pool"), [(None, "first"), ("a", "first"), ("b", "second")])
def test_a_model_is_found_in_the_first_pool_that_serves_it(models: Catalogue, name: str | None, pool: str) -> None:
    found = models.find(name)
    assert (found.name, found.pool, found.adapter) == (name or "a", pool, None)


def test_an_adapter_is_asked_for_as_a_model_is(models: Catalogue) -> None:
    adapter, model = models.find("b-sql"), models.find("b")
    assert (adapter.name, adapter.adapter, adapter.pool) == ("b-sql", "b-sql", "second")
    assert (adapter.tokenizer, adapter.max_model_tokens) == (model.tokenizer, model.max_model_tokens)


def test_an_unknown_model_is_named_in_short(models: Catalogue) -> None:
    with pytest.raises(ModelNotFound, match="GET /v1/models") as raised:
        models.find("x" * 10_000)
    assert raised.value.param == "model"
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    ("name", "max_model_tokens", "kv_tokens", "limit"),
    [("a", None, None, 2048), ("a", 1024, 65_536, 1024), ("a", 4096, 512, 512), ("b", None, None, None)],
)
def test_the_least_that_is_known_bounds_a_model(
    models: Catalogue,
    fleet: dict[str, Fleet],
    name: str,
    max_model_tokens: int | None,
    kv_tokens: int | None,
    limit: int | None,
) -> None:
    fleet["first"] = Fleet("first", 1, 1, 8, 0, max_model_tokens, kv_tokens)
    assert models.find(name).max_model_tokens == limit


def test_a_tokenizer_is_read_when_it_is_first_needed_and_once(models: Catalogue, loaded: list[str]) -> None:
    assert models.find("b").tokenizer is models.find("b").tokenizer
    assert loaded == ["b"]
    models.load()
    assert loaded == ["b", "a", "a"], "one for each pool"


def test_the_workers_are_asked_about_once_for_all_that_come_in_a_while(models: Catalogue, store: FakeStore) -> None:
    for _ in range(5):
        models.find("a")
        models.fleet("second")
    assert store.asked == 1


def test_a_pool_without_workers_is_all_zeros(models: Catalogue) -> None:
    none = models.fleet("nowhere")
    assert (none.workers, none.slots, none.running) == (0, 0, 0)


def named(store: FakeStore, **pools: PoolSettings) -> Catalogue:
    return Catalogue(pools, OverflowSettings(), cast(Store, store), lambda _: EstimatingTokenizer())


def of(model: str, *served_names: str) -> PoolSettings:
    return PoolSettings(model=model, engine="simulator", served_names=served_names)


@pytest.mark.usefixtures("fleet")
def test_a_model_is_found_by_its_other_names_and_goes_by_its_own(store: FakeStore) -> None:
    models = named(store, first=of("org/a", "gpt-4o"), second=of("org/b"), third=of("other/b"))
    assert models.names() == ["org/a", "gpt-4o", "org/b", "other/b"]
    assert [models.find(name).name for name in ("gpt-4o", "a", "org/a")] == ["org/a"] * 3
    assert (models.has("a"), models.has("b")) == (True, False)
    with pytest.raises(ModelNotFound):
        models.find("b")  # Two models end so.


@pytest.mark.parametrize(
    "pools",
    [
        {"first": of("org/a", "x"), "second": of("org/b", "x")},
        {"first": of("org/a", "org/b"), "second": of("org/b")},
        {"first": of("org/a", "auto")},
    ],
)
def test_a_name_that_stands_for_two_models_is_refused_at_the_start(
    store: FakeStore, pools: dict[str, PoolSettings]
) -> None:
    with pytest.raises(ConfigError, match="stands for another model") as raised:
        named(store, **pools)
    assert str(raised.value.param).endswith(".served_names")
