"""The catalogue: the models that can be asked for, with their pools, limits and tokenizers."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from api.cached import Cached
from headrace.config import PoolSettings
from headrace.errors import ModelNotFound
from headrace.store import Store, workers
from headrace.store.workers import Fleet
from headrace.tokens import PromptTokenizer

#: How old the workers' own figures may be. They change when workers come and go.
FLEETS_TTL_S = 3.0


@dataclass(frozen=True, slots=True)
class Model:
    """A model as it is served now.

    Attributes:
        max_model_tokens: prompt and answer together, what each live worker can hold; None where nobody says.
    """

    name: str
    pool: str
    max_model_tokens: int | None
    tokenizer: PromptTokenizer


class Catalogue:
    """Finds models. A tokenizer is read when it is first needed, once."""

    def __init__(
        self, pools: dict[str, PoolSettings], store: Store, load_tokenizer: Callable[[PoolSettings], PromptTokenizer]
    ) -> None:
        self._pools = pools
        self._store = store
        self._load = load_tokenizer
        self._tokenizers: dict[str, PromptTokenizer] = {}
        self._loading = threading.Lock()
        self._fleets = Cached(self._read_fleets, FLEETS_TTL_S)

    def names(self) -> list[str]:
        """Every model, the default one first."""
        return list(dict.fromkeys(pool.model for pool in self._pools.values()))

    def find(self, name: str | None) -> Model:
        """A model by name; the first pool's for None. Raises: ModelNotFound. StoreUnavailable. ConfigError."""
        for pool_name, pool in self._pools.items():
            if name is None or pool.model == name:
                return Model(pool.model, pool_name, self._limit(pool_name, pool), self._tokenizer(pool_name, pool))
        raise ModelNotFound(
            f"The model '{(name or '')[:80]}' does not exist here. GET /v1/models lists what does.", param="model"
        )

    def load(self) -> None:
        """Read every tokenizer. Raises: ConfigError."""
        for name, pool in self._pools.items():
            self._tokenizer(name, pool)

    def fleet(self, pool: str) -> Fleet:
        """The pool's live workers, as they said lately; all zeros without any. Raises: StoreUnavailable."""
        return self._fleets.get().get(pool) or Fleet(pool, 0, 0, 0, 0, None, None)

    def _limit(self, name: str, pool: PoolSettings) -> int | None:
        fleet = self.fleet(name)
        limits = (pool.max_model_tokens, fleet.max_model_tokens, fleet.kv_tokens)
        return min((limit for limit in limits if limit is not None), default=None)

    def _tokenizer(self, name: str, pool: PoolSettings) -> PromptTokenizer:
        with self._loading:
            if name not in self._tokenizers:
                self._tokenizers[name] = self._load(pool)
            return self._tokenizers[name]

    def _read_fleets(self) -> dict[str, Fleet]:
        with self._store.begin() as db:
            return workers.fleets(db)
