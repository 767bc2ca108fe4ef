"""The catalogue: the models that a request can name, with their pools, limits and tokenizers."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from api.slots import FairSemaphore
from headrace.cached_value import CachedValue
from headrace.config import OverflowSettings, PoolSettings
from headrace.config.rules import AUTO
from headrace.domain.fleet import Fleet, fleet_of
from headrace.errors import ConfigError, ModelNotFound
from headrace.policies.tokens import InputTokenizer, PromptTokenizer
from headrace.store import Store
from headrace.store.fleet import workers

#: How old the workers' figures may be, in seconds. They change when workers start or stop.
FLEETS_TTL_S = 3.0


@dataclass(frozen=True, slots=True)
class Model:
    """A model as it is served now.

    Attributes:
        max_model_tokens: prompt and answer together, or one input of an embedding, as much as every live worker can
            hold; None where it is unknown.
        tokenizer: an InputTokenizer for a model that makes embeddings.
        default_max_tokens: the limit of a job that gives no `max_tokens`; see `PoolSettings`.
        most_logprobs: alternatives to a token that it can return at most.
        has_effort, paid_has_effort: whether the model, and its substitute at the paid API, accept a reasoning effort.
        adapter: the LoRA adapter's name; None for the pool's model itself.
        has_tool_template: whether its chat template has tools; True where what answers applies its own.
        has_tool_parser: whether its calls of tools are read.
    """

    name: str
    pool: str
    max_model_tokens: int | None
    tokenizer: PromptTokenizer | InputTokenizer
    default_max_tokens: int
    most_logprobs: int
    has_effort: bool
    paid_has_effort: bool
    adapter: str | None = None
    has_tool_template: bool = True
    has_tool_parser: bool = True


def no_such_model(name: str) -> ModelNotFound:
    """The error for an unknown model name."""
    return ModelNotFound(f"The model '{name[:80]}' does not exist here. GET /v1/models lists what does.", param="model")


class Catalogue:
    """Finds models. Loads each tokenizer once, on first use."""

    def __init__(
        self,
        pools: dict[str, PoolSettings],
        overflow: OverflowSettings,
        store: Store,
        load_tokenizer: Callable[[PoolSettings], PromptTokenizer | InputTokenizer],
    ) -> None:
        """Load nothing yet. Raises: ConfigError: a name stands for two models."""
        self._pools, self._overflow = pools, overflow
        self._store = store
        # A tokenizer that failed to load is loaded again on the next use.
        self._tokenizers = {name: CachedValue(partial(load_tokenizer, pool), math.inf) for name, pool in pools.items()}
        self._models: dict[tuple[str, str | None], Model] = {}
        self._aliases = _aliases(pools)
        self._fleets = CachedValue(self.read_fleets, FLEETS_TTL_S)
        #: Held while a long prompt is counted. Half of the CPUs stay free for everything else.
        self.long_counts = FairSemaphore(max(1, len(os.sched_getaffinity(0)) // 2))

    def names(self) -> list[str]:
        """Every model and adapter, and the operator's other names for a model; the default model first."""
        return list(dict.fromkeys(name for pool in self._pools.values() for name in _names(pool)))

    def has(self, name: str) -> bool:
        """True if a request can name a model so."""
        return name in self._aliases or name in self.names()

    def find(self, name: str | None, *, is_embedding: bool = False) -> Model:
        """A model or an adapter by name; for None, the model of the first pool that serves jobs of this kind.

        Raises: ModelNotFound. StoreUnavailable. ConfigError.
        """
        pool_name, name = self._named(name, is_embedding=is_embedding)
        pool = self._pools[pool_name]
        return self._model(pool_name, pool, name if name in pool.adapters else None)

    def pool_of(self, name: str | None, *, is_embedding: bool = False) -> str:
        """The pool of what `find` finds; it loads no tokenizer and asks no server. Raises: ModelNotFound."""
        return self._named(name, is_embedding=is_embedding)[0]

    def _named(self, name: str | None, *, is_embedding: bool) -> tuple[str, str | None]:
        """The pool, and the name of the model or adapter without an alias. Raises: ModelNotFound."""
        for pool_name, pool in self._pools.items():
            is_default = name is None and pool.is_embedding == is_embedding
            if is_default or pool.model == name or name in pool.adapters:
                return pool_name, name
        if name in self._aliases:
            return self._named(self._aliases[name], is_embedding=is_embedding)
        if name is None:
            kind = "embeddings" if is_embedding else "prompts"
            raise ModelNotFound(f"No model here serves {kind}. GET /v1/models lists what there is.", param="model")
        raise no_such_model(name)

    def _model(self, pool_name: str, pool: PoolSettings, adapter: str | None) -> Model:
        limit = self._limit(pool_name, pool)
        # The limit alone changes while the process runs, and seldom.
        if (known := self._models.get((pool_name, adapter))) and known.max_model_tokens == limit:
            return known
        name, tokenizer = adapter or pool.model, self._tokenizers[pool_name].get()
        paid_has_effort = self._overflow.has_effort(name)
        made = self._models[pool_name, adapter] = Model(
            name,
            pool_name,
            limit,
            tokenizer,
            pool.default_max_tokens,
            pool.most_logprobs,
            paid_has_effort if pool.is_paid else tokenizer.reads_effort,
            paid_has_effort,
            adapter,
            has_tool_template=pool.is_paid or tokenizer.reads_tools,
            has_tool_parser=pool.engine != "vllm" or pool.tool_parser is not None,
        )
        return made

    def load(self) -> None:
        """Load every tokenizer. Raises: ConfigError."""
        for tokenizer in self._tokenizers.values():
            tokenizer.get()

    def fleet(self, pool: str) -> Fleet:
        """The pool's live workers, from the cache; all zeros without any. Raises: StoreUnavailable."""
        return fleet_of(pool, self._fleets.get())

    def unserved(self, fleets: Mapping[str, Fleet]) -> list[str]:
        """The pools that need workers of their own, and that none of these serves; by name."""
        own = (name for name, pool in self._pools.items() if not pool.is_paid)
        return sorted(pool for pool in own if not fleet_of(pool, fleets).slots)

    def _limit(self, name: str, pool: PoolSettings) -> int | None:
        fleet = self.fleet(name)
        limits = (pool.max_model_tokens, fleet.max_model_tokens, fleet.kv_tokens)
        return min((limit for limit in limits if limit is not None), default=None)

    def read_fleets(self) -> dict[str, Fleet]:
        """The live fleet of each pool, read from Postgres now. Raises: StoreUnavailable."""
        with self._store.begin() as db:
            return workers.fleets(db)


def _names(pool: PoolSettings) -> tuple[str, ...]:
    return (pool.model, *pool.served_names, *pool.adapters)


def _aliases(pools: Mapping[str, PoolSettings]) -> dict[str, str]:
    """The models by their other names: those in the settings, and the ends of ids with a slash where they are clear."""
    own = {name for pool in pools.values() for name in (pool.model, *pool.adapters)}
    given: dict[str, str] = {}
    for pool_name, pool in pools.items():
        for name in pool.served_names:
            if name == AUTO or name in own or given.get(name, pool.model) != pool.model:
                param = f"pools.{pool_name}.served_names"
                raise ConfigError(f"{param}: '{name}' stands for another model already.", param=param)
            given[name] = pool.model
    ends: dict[str, set[str]] = {}
    for pool in pools.values():
        ends.setdefault(pool.model.rpartition("/")[2], set()).add(pool.model)
    taken = {*own, *given, AUTO, ""}
    return {end: models.pop() for end, models in ends.items() if len(models) == 1 and end not in taken} | given
