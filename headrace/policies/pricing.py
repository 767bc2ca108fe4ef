"""The cost of tokens, and of own hosts. Pure: `headrace.toml` and `headrace.store.money` have the prices."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal, localcontext
from typing import Self, get_args

from headrace.config import CostSettings, Price, Settings
from headrace.domain.attempts import ApiTier, Usage
from headrace.domain.limits import Cost
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Route
from headrace.errors import UnknownPrice

PER_MTOK = Decimal(1_000_000)
#: Tokens that a provider adds per message, and once per prompt. OpenAI's models add 3 each; 8 leaves a margin.
#: Source: OpenAI's cookbook, "How to count tokens with tiktoken".
MESSAGE_TOKENS = 8
#: Tokens that a chat template's own system prompt may add, as with the models of many servers.
TEMPLATE_TOKENS = 128
#: Tokens that a chat template may add to say how tools are called.
TOOLS_TOKENS = 1024


def cost(price: Price, usage: Usage, tier: str | None = None) -> Cost:
    """Price one generation: exact, unrounded, >= 0.

    Args:
        tier: the provider's service tier that answered; a tier missing from `price.tiers` costs the base price.
        usage: tokens as the engine counted them; cached tokens are part of the prompt's and are not charged twice.
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


def ceiling(price: Price, messages: Sequence[Message], sampling: Sampling, tier: str | None = None) -> Cost:
    """The maximum cost of one call, for any tokenizer, in this tier; without one, in any tier that has a price.

    A prompt has at most one token per byte.
    """
    words = [message.content for message in messages]
    words += [message.name for message in messages if message.name is not None]
    words += [json.dumps(call.to_fields()) for message in messages for call in message.tool_calls]
    words += [message.tool_call_id for message in messages if message.tool_call_id is not None]
    if sampling.response_format is not None:
        words.append(json.dumps(sampling.response_format))
    prompt_tokens = TEMPLATE_TOKENS
    if sampling.tools is not None:
        # Indented, as the widest templates write them.
        words += [json.dumps(spec, indent=4) for spec in (*sampling.tools.specs, sampling.tools.spelled_choice)]
        prompt_tokens += TOOLS_TOKENS
    prompt_tokens += sum(len(word.encode()) for word in words) + MESSAGE_TOKENS * (len(words) + 1)
    usage = Usage(prompt_tokens, sampling.most_tokens)
    tiers = (None, *price.tiers) if tier is None else (tier,)
    return max((cost(price, usage, each) for each in tiers), key=lambda each: each.usd)


def no_price(model: str) -> str:
    """What an operator reads of a paid model without a price."""
    return (
        f"No price is listed for '{model}': add [prices.\"{model}\"] to headrace.toml, or take its list price with "
        f"'headrace prices take {model}'."
    )


@dataclass(frozen=True, slots=True)
class DatedPrice:
    """A price that is in force since a time."""

    price: Price
    since: datetime


@dataclass(frozen=True, slots=True)
class Tariff:
    """The prices of each route.

    Attributes:
        own: by pool, the price of the tokens that the pool itself generates.
        api: by paid model, its price: the operator's, or else the provider's list price.
        api_models: by model, the paid model that answers its spilled jobs; `api_default` for all others.
        served: models that new jobs can ask for and the paid API can answer.
        measured: pools whose own price is that of a saturated host.
        embedding: models that make embeddings, which the paid API does not.
    """

    own: dict[str, Price]
    api: dict[str, Price]
    api_models: dict[str, str]
    api_default: str
    served: frozenset[str]
    measured: frozenset[str] = frozenset()
    embedding: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The tariff in `headrace.toml`. `store.money.tariffs` adds the prices in Postgres."""
        own = {name: pool.price for name, pool in settings.pools.items()}
        embedding = frozenset(pool.model for pool in settings.pools.values() if pool.is_embedding)
        served = (
            frozenset(name for pool in settings.pools.values() for name in (pool.model, *pool.adapters)) - embedding
        )
        models = settings.overflow.models, settings.overflow.model
        return cls(own, settings.prices, *models, served, embedding=embedding)

    def with_own(self, prices: Mapping[str, Price]) -> Self:
        """This tariff with measured prices of own tokens in place of the settings'. Args: prices: by pool."""
        return replace(self, own={**self.own, **prices}, measured=frozenset(prices))

    def with_list(self, prices: Mapping[str, Price]) -> Self:
        """This tariff with list prices for the models that it has no price for. Args: prices: by paid model."""
        return replace(self, api={**prices, **self.api})

    @property
    def all_api_models(self) -> frozenset[str]:
        """Every paid model that may answer a job."""
        return frozenset({self.api_default, *self.api_models.values()})

    @property
    def api_models_in_use(self) -> frozenset[str]:
        """The paid models that can answer a new job. The default is not one if every served model maps to another."""
        return frozenset(map(self.api_model, self.served))

    @property
    def unpriced(self) -> tuple[str, ...]:
        """The paid models in use that have no price, and so are never called."""
        return tuple(sorted(self.api_models_in_use - self.api.keys()))

    def api_model(self, model: str) -> str:
        """The paid model that answers a job of `model`."""
        return self.api_models.get(model, self.api_default)

    def api_price(self, model: str) -> Price:
        """The price of a job of `model` at the paid API. Raises: UnknownPrice: none is listed, and none is guessed."""
        if model in self.embedding:
            raise UnknownPrice(f"The paid API makes no embeddings in place of '{model}'.")
        name = self.api_model(model)
        if name not in self.api:
            raise UnknownPrice(no_price(name))
        return self.api[name]

    def ceiling_usd(
        self, model: str, messages: Sequence[Message], sampling: Sampling, tier: str | None = None
    ) -> Decimal:
        """The maximum cost of a job of `model` at the paid API. Args: tier: as in `ceiling`. Raises: UnknownPrice."""
        return ceiling(self.api_price(model), messages, sampling, tier).usd

    def api_tier(self, model: str, *, has_time: bool) -> ApiTier | None:
        """The provider's service tier for a job of `model`; None if the price has no tiers. Raises: UnknownPrice."""
        tiers = self.api_price(model).tiers.keys() & get_args(ApiTier)
        if not tiers:
            return None
        return "flex" if has_time and "flex" in tiers else "default"

    def price(self, route: Route, pool: str, model: str) -> Price:
        """The price of a job on this route. Raises: UnknownPrice."""
        if route is Route.OVERFLOW:
            return self.api_price(model)
        if pool not in self.own:
            raise UnknownPrice(f"No price is known for pool '{pool}': it is not in headrace.toml any more.")
        return self.own[pool]

    def api_is_cheaper(self, pool: str, model: str, usage: Usage) -> bool:
        """Whether a job costs less at the paid API than on one more host of its pool, saturated as that would be.

        False while either price is unknown: a placeholder says nothing of hosts.
        """
        api_usd = self.api_usd(model, usage)
        return api_usd is not None and pool in self.measured and api_usd < cost(self.own[pool], usage).usd

    def api_usd(self, model: str, usage: Usage) -> Decimal | None:
        """What the paid API would have charged for these tokens; None when it has no price."""
        try:
            return cost(self.api_price(model), usage).usd
        except UnknownPrice:
            return None


# The cost of own hosts: a request's price, and its share of the hours that were paid for and not used.
#
# Standard costing with an idle variance: a request's price does not depend on who else was served in that hour, and the
# rest of the hosts' bill is shared by work. OpenCost allocates idle machines the same way.

#: Decimals of the ledger's amounts, and of the rates. Rates have more, so that no request's share is rounded up.
USD_DIGITS = Decimal(1).scaleb(-9)
RATE_DIGITS = Decimal(1).scaleb(-18)
#: A new price that differs by less from the present one is not worth a row.
CHANGE = Decimal("0.05")
#: Digits that any bill, divided by any amount of work, needs.
PRECISION = 60


@dataclass(frozen=True, slots=True)
class HourRates:
    """How the bill of one pool's hosts for one hour is shared by the requests that ended in it.

    Attributes:
        factor: the part of each request's price that the bill covers. Below 1 only where the prices add up to more
            than the bill: then nothing was idle, and each request costs less than its price.
        idle_usd_per_work: for each unit of work, the share of the part of the bill that no price covers.
    """

    factor: Decimal
    idle_usd_per_work: Decimal

    @classmethod
    def of(cls, bill_usd: Decimal, priced_usd: Decimal, work: Decimal) -> "HourRates":
        """The rates of an hour.

        Both are rounded down, so that the shares never exceed the bill. What is left is the platform's.

        Args: priced_usd: the prices of the hour's requests, and of the attempts that were wasted.
        """
        with localcontext(prec=PRECISION, rounding=ROUND_DOWN):
            if priced_usd > bill_usd:
                return cls((bill_usd / priced_usd).quantize(RATE_DIGITS), Decimal(0))
            idle = ((bill_usd - priced_usd) / work).quantize(RATE_DIGITS) if work > 0 else Decimal(0)
            return cls(Decimal(1), idle)

    def share(self, usd: Decimal, work: Decimal = Decimal(0)) -> Decimal:
        """What a request of this price and this work costs in full. Postgres's `full_usd` computes the same."""
        with localcontext(prec=PRECISION, rounding=ROUND_DOWN):
            return (usd * self.factor).quantize(USD_DIGITS) + (work * self.idle_usd_per_work).quantize(USD_DIGITS)


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """What tokens cost on a saturated host, in USD per million: the marginal cost of a request."""

    input_usd_per_mtok: Decimal
    cached_input_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal

    @classmethod
    def of(cls, usd_per_hour: Decimal, work_per_s: float, costs: CostSettings) -> "TokenPrices":
        """The prices at which the requests of a saturated host pay for exactly the host.

        Args: work_per_s: of one host; see `CostSettings` for what work is. Above 0.
        """
        with localcontext(prec=PRECISION, rounding=ROUND_HALF_UP):
            unit = usd_per_hour / 3600 / Decimal(work_per_s) * 1_000_000
            return cls(
                input_usd_per_mtok=unit.quantize(USD_DIGITS),
                cached_input_usd_per_mtok=(costs.cached_weight * unit).quantize(USD_DIGITS),
                output_usd_per_mtok=(costs.output_weight * unit).quantize(USD_DIGITS),
            )

    def differ_from(self, other: Price) -> bool:
        """Whether any of these differs by more than `CHANGE` of the other's."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        return any(abs(mine - theirs) > CHANGE * theirs for mine, theirs in pairs)
