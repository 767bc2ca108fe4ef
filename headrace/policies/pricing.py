"""What tokens cost. Pure: prices come from `headrace.toml`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Self

from headrace.config import Price, Settings
from headrace.domain.attempts import ApiTier, Usage
from headrace.domain.budgets import Cost
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Route
from headrace.errors import UnknownPrice

PER_MTOK = Decimal(1_000_000)
#: What a provider adds to a prompt, for each message and once: more than the 3 and 3 that OpenAI's models take.
#: Source: OpenAI's cookbook, "How to count tokens with tiktoken".
MESSAGE_TOKENS = 8
#: Likewise what a chat template may add that has a system prompt of its own, as many servers' models have.
TEMPLATE_TOKENS = 128


def cost(price: Price, usage: Usage, tier: str | None = None) -> Cost:
    """Price one generation: exact, unrounded, >= 0.

    Args:
        tier: of the provider's service that answered; one that the price does not name costs as it says.
        usage: tokens as the engine counted them; cached tokens are part of the prompt's and not charged twice.
    """
    cached_rate = price.cached_input_usd_per_mtok
    if cached_rate is None:
        cached_rate = price.input_usd_per_mtok
    usd = (
        (usage.prompt_tokens - usage.cached_tokens) * price.input_usd_per_mtok
        + usage.cached_tokens * cached_rate
        + usage.output_tokens * price.output_usd_per_mtok
    ) / PER_MTOK
    if tier not in price.tiers:
        return Cost(usd, price.version)
    return Cost(usd * price.tiers[tier], f"{price.version}/{tier}")


def ceiling(price: Price, messages: Sequence[Message], sampling: Sampling) -> Cost:
    """The most that one call can cost, whatever tokenizer counts it, and whichever tier that has a price answers.

    A token stands for at least one byte.
    """
    words = [message.content for message in messages]
    if sampling.response_format is not None:
        words.append(json.dumps(sampling.response_format))
    prompt_tokens = sum(len(word.encode()) for word in words) + MESSAGE_TOKENS * (len(words) + 1) + TEMPLATE_TOKENS
    usage = Usage(prompt_tokens, sampling.max_tokens)
    return max((cost(price, usage, tier) for tier in (None, *price.tiers)), key=lambda each: each.usd)


@dataclass(frozen=True, slots=True)
class Tariff:
    """Which price holds for which route.

    Attributes:
        own: price of each pool's own tokens.
        api: listed prices of paid models.
        api_models: what a model is answered by when it spills over; `api_default` where it is not named.
        served: models that new jobs can be for.
    """

    own: dict[str, Price]
    api: dict[str, Price]
    api_models: dict[str, str]
    api_default: str
    served: frozenset[str]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The tariff that `headrace.toml` sets."""
        own = {name: pool.price for name, pool in settings.pools.items()}
        served = frozenset(name for pool in settings.pools.values() for name in (pool.model, *pool.adapters))
        return cls(own, settings.prices, settings.overflow.models, settings.overflow.model, served)

    @property
    def all_api_models(self) -> frozenset[str]:
        """The paid models that answer any job."""
        return frozenset({self.api_default, *self.api_models.values()})

    @property
    def api_models_in_use(self) -> frozenset[str]:
        """Those of them that can answer a new job: the default is none where each model served is mapped to another."""
        return frozenset(map(self.api_model, self.served))

    def api_model(self, model: str) -> str:
        """The paid model that answers a job of `model`."""
        return self.api_models.get(model, self.api_default)

    def api_price(self, model: str) -> Price:
        """What a job of `model` costs at the paid API. Raises: UnknownPrice: none is listed. We never guess one."""
        name = self.api_model(model)
        if name not in self.api:
            raise UnknownPrice(f"No price is listed for '{name}': add [prices.\"{name}\"] to headrace.toml.")
        return self.api[name]

    def ceiling_usd(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Decimal:
        """The most that a job of `model` can cost at the paid API. Raises: UnknownPrice."""
        return ceiling(self.api_price(model), messages, sampling).usd

    def api_tier(self, model: str, *, has_time: bool) -> ApiTier | None:
        """The provider's service tier for a job of `model`; None where it has only one. Raises: UnknownPrice."""
        tiers = self.api_price(model).tiers
        if not tiers:
            return None
        return "flex" if has_time and "flex" in tiers else "default"

    def price(self, route: Route, pool: str, model: str) -> Price:
        """The price of a job that goes this way. Raises: UnknownPrice."""
        if route is Route.OVERFLOW:
            return self.api_price(model)
        if pool not in self.own:
            raise UnknownPrice(f"No price is known for pool '{pool}': it is not in headrace.toml any more.")
        return self.own[pool]

    def api_usd(self, model: str, usage: Usage) -> Decimal | None:
        """What the paid API would have charged for these tokens; None when it has no price."""
        try:
            return cost(self.api_price(model), usage).usd
        except UnknownPrice:
            return None
