"""`headrace prices`, for operators: what tokens cost on own hosts and at the paid API."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click
from rich.markup import escape

from headrace.cli.database import database, operating, operator_settings
from headrace.cli.money import price_library
from headrace.cli.money.price_library import FoundPrice, NoListPrice
from headrace.cli.output import json_option, out, print_json, table
from headrace.config import Price, Settings
from headrace.policies.pricing import DatedPrice, Tariff, no_price
from headrace.store import actions, clock
from headrace.store.money import tariffs
from headrace.store.money.tariffs import ListPrice

_AMOUNTS = ("input", "cached", "output")


@dataclass(frozen=True, slots=True)
class _Listed:
    """A price, and whether it holds.

    Attributes:
        kind: `own` tokens, or those of the paid `api`.
        origin: `measured` or `placeholder` for own tokens; `override` or `list` for the paid API.
        since: None for a price in the settings, which hold since the processes read them.
    """

    kind: str
    name: str
    origin: str
    price: Price
    is_in_force: bool = True
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Change:
    """What a model's list price is, and what the library has instead.

    Attributes:
        before: the one in force when the library was asked; None for none.
        after: the library's; None if it is refused.
        notes: why it is refused, or what was left out of it.
        is_overridden: `headrace.toml` has a price of its own, which wins.
    """

    model: str
    before: Price | None
    after: ListPrice | None
    notes: tuple[str, ...]
    is_overridden: bool

    @classmethod
    def of(cls, settings: Settings, before: Mapping[str, Price], found: FoundPrice | NoListPrice) -> "_Change":
        if isinstance(found, NoListPrice):
            return cls(found.model, before.get(found.model), None, (found.reason,), found.model in settings.prices)
        model = found.price.model
        return cls(model, before.get(model), found.price, found.notes, model in settings.prices)

    @property
    def action(self) -> str:
        """What taking it does."""
        if self.after is None:
            return "refused"
        if self.before is None:
            return "new"
        return "unchanged" if self.after.costs_like(self.before) else "changed"


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@click.pass_context
def prices(context: click.Context, as_json: bool) -> None:
    """Show the prices of tokens, in USD per million, which of them are in force, and since when.

    \b
    measured     what a saturated host costs, [hosts.TYPE].usd_per_hour, over what it serves
    placeholder  [pools.NAME.price], until the pool has a host type with a price and a known rate
    override     [prices."MODEL"] in headrace.toml
    list         the provider's list price, which 'headrace prices take' stored; an override wins

    A model of the paid API without a price is never called.
    """
    if context.invoked_subcommand is not None:
        return
    settings = operator_settings()
    with database(settings) as db:
        own, listed = tariffs.own_in_force(db, settings), tariffs.list_in_force(db)
    found = [*_own(settings, own), *_api(settings, listed)]
    tariff = Tariff.of(settings).with_list({model: dated.price for model, dated in listed.items()})
    if as_json:
        print_json({"prices": [_json(each) for each in found], "missing": list(tariff.unpriced)})
        return
    rows = table("of", "name", "price", numbers=_AMOUNTS)
    rows.add_column("in force", no_wrap=True)
    rows.add_column("from", overflow="fold")
    for each in found:
        kind = "own tokens" if each.kind == "own" else "paid API"
        rows.add_row(
            kind, escape(each.name), each.origin, *_amounts(each.price), _held(each), escape(_from(each.price))
        )
    out.print(rows)
    for model in tariff.unpriced:
        out.print(escape(f"'{model}' is never called. {no_price(model)}"), soft_wrap=True, highlight=False)


_models = click.argument("models", nargs=-1, metavar="[MODEL]...")
_provider = click.option("--provider", metavar="ID", help="The library's name of the provider, behind a gateway.")


@prices.command()
@_models
@_provider
@json_option
def diff(models: Sequence[str], provider: str | None, as_json: bool) -> None:
    """Show what 'take' would change: the list prices of the installed library against those in force.

    Without MODEL, all models of [overflow] are compared. Asks no network: a newer list comes with a newer release of
    the package genai-prices.
    """
    settings = operator_settings()
    with database(settings) as db:
        before = tariffs.current_list(db)
        looked_up = _look_up(settings, models, provider, clock.now(db))
    _show_changes([_Change.of(settings, before, each) for each in looked_up], as_json)


@prices.command()
@_models
@_provider
@json_option
def take(models: Sequence[str], provider: str | None, as_json: bool) -> None:
    """Put the library's list prices in force from now on.

    Running processes follow within seconds. A call keeps the price at which its money was reserved. An earlier price
    stays in list_prices, with the time at which it ended.
    """
    settings = operator_settings()
    with operating(settings) as audit:
        looked_up = _look_up(settings, models, provider, clock.now(audit.db))
        before = actions.take_prices(audit, [each.price for each in looked_up if isinstance(each, FoundPrice)])
    _show_changes([_Change.of(settings, before, each) for each in looked_up], as_json)
    if all(isinstance(each, NoListPrice) for each in looked_up):
        raise click.exceptions.Exit(1)


def _look_up(
    settings: Settings, models: Sequence[str], provider: str | None, now: datetime
) -> list[FoundPrice | NoListPrice]:
    wanted = models or sorted(Tariff.of(settings).all_api_models)
    return [price_library.look_up(model, settings.openai_base_url, provider, now) for model in dict.fromkeys(wanted)]


def _own(settings: Settings, measured: dict[str, DatedPrice]) -> Iterator[_Listed]:
    for pool in settings.own_pools:
        if pool in measured:
            yield _Listed("own", pool, "measured", measured[pool].price, since=measured[pool].since)
        else:
            yield _Listed("own", pool, "placeholder", settings.pools[pool].price)


def _api(settings: Settings, listed: dict[str, DatedPrice]) -> Iterator[_Listed]:
    for model in sorted({*settings.prices, *listed}):
        if override := settings.prices.get(model):
            yield _Listed("api", model, "override", override)
        if dated := listed.get(model):
            yield _Listed("api", model, "list", dated.price, is_in_force=override is None, since=dated.since)


def _held(each: _Listed) -> str:
    if not each.is_in_force:
        return "no: overridden"
    return "yes" if each.since is None else f"since {each.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _from(price: Price | ListPrice) -> str:
    tiers = (f"{tier} x {factor.normalize():f}" for tier, factor in price.tiers.items())
    return "; ".join([price.source, *tiers])


def _amounts(price: Price | ListPrice) -> tuple[str, ...]:
    cached = price.input_usd_per_mtok if price.cached_input_usd_per_mtok is None else price.cached_input_usd_per_mtok
    return tuple(f"{usd:,.4f}" for usd in (price.input_usd_per_mtok, cached, price.output_usd_per_mtok))


def _show_changes(changes: Sequence[_Change], as_json: bool) -> None:
    if as_json:
        print_json({"models": [_change_json(each) for each in changes]})
        return
    rows = table("model", "list price", numbers=_AMOUNTS)
    rows.add_column("from", overflow="fold")
    for each in changes:
        if each.before is not None and each.action in ("changed", "refused"):
            rows.add_row(escape(each.model), "before", *_amounts(each.before), escape(_from(each.before)))
        if each.after is not None:
            rows.add_row(escape(each.model), each.action, *_amounts(each.after), escape(_from(each.after)))
    if rows.row_count:
        out.print(rows)
    for each in changes:
        for note in each.notes:
            said = "refused: " if each.after is None else ""
            out.print(escape(f"{each.model}: {said}{note}"), soft_wrap=True, highlight=False)
        if each.is_overridden:
            what = f'{each.model}: [prices."{each.model}"] in headrace.toml overrides the list price.'
            out.print(escape(what), soft_wrap=True, highlight=False)


def _change_json(each: _Change) -> dict[str, Any]:
    about = {"model": each.model, "action": each.action, "notes": list(each.notes), "overridden": each.is_overridden}
    return {**about, "before": _price_json(each.before), "after": _price_json(each.after)}


def _price_json(price: Price | ListPrice | None) -> dict[str, Any] | None:
    if price is None:
        return None
    names = ("input_usd_per_mtok", "cached_input_usd_per_mtok", "output_usd_per_mtok")
    amounts = {name: None if getattr(price, name) is None else f"{getattr(price, name):f}" for name in names}
    return {**amounts, "tiers": {tier: f"{factor:f}" for tier, factor in price.tiers.items()}, "source": price.source}


def _json(each: _Listed) -> dict[str, Any]:
    since = None if each.since is None else each.since.astimezone(UTC).isoformat()
    about = {"kind": each.kind, "name": each.name, "origin": each.origin, "in_force": each.is_in_force, "since": since}
    return {**about, **each.price.model_dump(mode="json")}
