"""`headrace prices`, for operators: what tokens cost on own hosts and at the paid API."""

from typing import Any

import click
from rich.markup import escape

from headrace.cli.client import json_option, out, print_json
from headrace.cli.database import database, operator_settings
from headrace.cli.table import table
from headrace.config import Price
from headrace.policies.pricing import Tariff
from headrace.store.money import own_prices


@click.command()
@json_option
def prices(as_json: bool) -> None:
    """Show the prices of tokens, in USD per million, and where each comes from.

    A pool's own tokens cost what a saturated host costs, [hosts.TYPE].usd_per_hour, over what it serves. Until the pool
    has a host type with a price, and its rate was measured or is set, [pools.NAME.price] counts. The paid API's prices
    are [prices."MODEL"]. A model without one is never called.
    """
    settings = operator_settings()
    with database(settings) as db:
        tariff = Tariff.of(settings).with_own(own_prices.current(db, settings))
    listed = [("own", pool, tariff.own[pool]) for pool in settings.own_pools]
    listed += [("api", model, price) for model, price in sorted(tariff.api.items())]
    missing = sorted(tariff.api_models_in_use - tariff.api.keys())
    if as_json:
        print_json({"prices": [_json(*each) for each in listed], "missing": missing})
        return
    rows = table("of", "name")
    for heading in ("input", "cached", "output"):
        rows.add_column(heading, justify="right", no_wrap=True)
    rows.add_column("from", overflow="fold")
    for kind, name, price in listed:
        rows.add_row(
            "own tokens" if kind == "own" else "paid API", escape(name), *_amounts(price), escape(price.source)
        )
    out.print(rows)
    for model in missing:
        out.print(escape(f"'{model}' has no price, so it is never called: add [prices.\"{model}\"] to headrace.toml."))


def _amounts(price: Price) -> tuple[str, ...]:
    cached = price.input_usd_per_mtok if price.cached_input_usd_per_mtok is None else price.cached_input_usd_per_mtok
    return tuple(f"{usd:,.4f}" for usd in (price.input_usd_per_mtok, cached, price.output_usd_per_mtok))


def _json(kind: str, name: str, price: Price) -> dict[str, Any]:
    return {"kind": kind, "name": name, **price.model_dump(mode="json")}
