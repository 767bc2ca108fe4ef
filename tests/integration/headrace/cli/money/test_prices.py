"""`headrace prices` on a real Postgres."""

import json
from collections.abc import Callable
from decimal import Decimal

import pytest
import sqlalchemy as sa
from click.testing import Result

from headrace.store import Store
from headrace.tables import own_prices

Run = Callable[..., Result]
HOSTS = {"HEADRACE_HOSTS": '{"a100": {"usd_per_hour": "4.10"}}', "HEADRACE_SCALING__HOST_TYPE": "a100"}


@pytest.fixture
def measured(store: Store) -> None:
    """A price of the tokens of the pool `chat`."""
    amounts = {"input_usd_per_mtok": "0.5", "cached_input_usd_per_mtok": "0.05", "output_usd_per_mtok": "2"}
    host = {"pool": "chat", "instance_type": "a100", "usd_per_hour": "4.10", "tokens_per_s": 900, "work_per_token": 2}
    with store.begin() as db:
        db.execute(sa.insert(own_prices).values({**host, **{name: Decimal(usd) for name, usd in amounts.items()}}))


@pytest.mark.usefixtures("measured")
def test_own_tokens_have_the_measured_price_and_the_paid_api_its_list(run: Run) -> None:
    result = run("prices", **HOSTS)

    assert result.exit_code == 0, result.output
    lines = [line.split(maxsplit=6) for line in result.stdout.splitlines()[1:]]
    assert lines[0] == ["own", "tokens", "chat", "0.5000", "0.0500", "2.0000", "4.1 USD/h of a100 over 900 tokens/s"]
    assert lines[1][:6] == ["paid", "API", "gpt-4o-mini", "0.1500", "0.0750", "0.6000"]


@pytest.mark.usefixtures("measured")
def test_without_a_host_type_the_settings_price_counts(run: Run) -> None:
    [own, paid] = json.loads(run("prices", "--json").stdout)["prices"]

    assert (own["kind"], own["name"], own["input_usd_per_mtok"]) == ("own", "chat", "0.05")
    assert (paid["kind"], paid["version"]) == ("api", "openai-2026-11")


def test_a_paid_model_without_a_price_is_named(run: Run) -> None:
    result = run("prices", HEADRACE_OVERFLOW__MODEL="gpt-9")

    assert "'gpt-9' has no price, so it is never called" in result.stdout
